"""The notifications module: mail over SMTP, through the egress guard, with a Message-ID that never changes.

It goes by the outbound rules of the tenant it is sent for and counts as one of its requests: over the tenant's rate it
is put off, and comes again as often as it takes. A mail is outside every transaction: it is sent at least once. A
second sending of the same command carries the same Message-ID and the same bytes, so that the receiving server or the
reader's program shows one mail.
"""

from __future__ import annotations

import logging
from email.message import EmailMessage
from email.utils import format_datetime
from uuid import NAMESPACE_URL, uuid5

import aiosmtplib

from consumers.modules.rehearsal import SQL as REHEARSAL
from consumers.modules.rehearsal import Rehearsal
from consumers.modules.settings import MailServer, ModuleSettings
from consumers.modules.standing import SQL as STANDING
from consumers.modules.standing import Standing
from consumers.modules.templates import MAILS, ValueMissing
from contracts.modules import notifications as contract
from contracts.problems import Problem, Unavailable
from contracts.sdk import Call, PutOff, Question, Refused, Retryable, Service, Transport, Tx
from contracts.sdk.statements import statements
from engine.guards.egress import Egress, EgressFailed, EgressLimited, EgressTimeout

log = logging.getLogger("unwind.module")

SQL = statements("notifications.sql", "consumers.modules")

SMTP_SECONDS = 10.0
TURN_SECONDS = 0.3
"""How long a mail waits in hand for its tenant's turn: others wait behind it."""
AGAIN_SECONDS = 5.0
"""When a mail is sent again whose tenant's rules could not be read."""


def make(transport: Transport, settings: ModuleSettings) -> Service:
    service = Service(
        contract.MODULE,
        transport=transport,
        database=settings.database("notifications"),
        schemas=(SQL["schema"], STANDING["schema"], REHEARSAL["schema"]),
        max_attempts=settings.max_attempts,
        drain_seconds=settings.drain_seconds,
        relay_lease_seconds=settings.relay_lease_seconds,
    )
    Rehearsal(service, allowed=settings.rehearsals)
    _Notifications(service, settings)
    return service


def message_id(tenant: str, key: str, sender: str) -> str:
    """The same for every delivery and every process: it names the order, not the attempt."""
    return f"<{uuid5(NAMESPACE_URL, f'{tenant}/{key}')}@{sender.rpartition('@')[2] or 'localhost'}>"


class _Notifications:
    def __init__(self, service: Service, settings: ModuleSettings) -> None:
        self._database = service.database
        self._mail: MailServer = settings.mail
        self._link_base = settings.link_base.rstrip("/")
        # The operator configured this one server, so it may be local; no tenant can point it elsewhere.
        self._egress = Egress(sandbox=(f"{self._mail.host}:{self._mail.port}",), outbound=settings.outbound)
        self._standing = Standing(service)
        service.performs(contract.SendNotificationV1)(self.send)
        service.handles(contract.PauseSendingV1)(self.pause)
        service.answers(contract.GetSentNotificationsV1)(self.sent)

    async def send(self, command: contract.SendNotificationV1, call: Call) -> contract.NotificationSentV1:
        async with self._database.transaction() as tx:
            if command.template not in contract.ABOUT_THE_TENANT:
                await self._standing.require(call.tenant, tx)
            if await tx.row(SQL["paused"], call.tenant) is not None:
                raise Retryable("sending_paused", "the tenant's sending is paused; it is tried again")
        identity = message_id(call.tenant, call.key, self._mail.sender)
        await self._deliver(self._compose(command, call, identity), call.tenant)
        async with self._database.transaction() as tx:
            await tx.run(SQL["note"], call.tenant, identity, command.template, command.recipient_id, call.at)
        return contract.NotificationSentV1(
            message_id=identity, template=command.template, to=command.to, recipient_id=command.recipient_id
        )

    async def pause(self, command: contract.PauseSendingV1, call: Call, tx: Tx) -> contract.SendingPausedV1:
        if command.paused:
            await tx.run(SQL["pause"], call.tenant, call.at)
        else:
            await tx.run(SQL["resume"], call.tenant)
        return contract.SendingPausedV1(tenant=call.tenant, paused=command.paused)

    async def sent(
        self, query: contract.GetSentNotificationsV1, question: Question, tx: Tx
    ) -> contract.SentNotificationsV1:
        rows = await tx.rows(SQL["sent"], question.tenant, query.recipient_id)
        return contract.SentNotificationsV1(
            message_ids=[row["message_id"] for row in rows], templates=[row["template"] for row in rows]
        )

    def _compose(self, command: contract.SendNotificationV1, call: Call, identity: str) -> EmailMessage:
        values = dict(command.data)
        if values.get("link", "").startswith("/"):
            # A workflow knows the page; only the operator knows where it is served.
            values["link"] = self._link_base + values["link"]
        try:
            filled = MAILS[command.template].fill(values)
            mail = EmailMessage()
            mail["From"] = self._mail.sender
            mail["To"] = command.to
            mail["Subject"] = filled.subject
        except ValueMissing as missing:
            raise Refused("value_missing", f"template {command.template}: {missing}") from None
        except ValueError:
            # A line break in an address would be a header of the sender's choosing.
            raise Refused("address_invalid", "the address cannot stand in a mail header") from None
        if len(mail["To"].addresses) != 1:
            # A comma would add recipients of the sender's choosing.
            raise Refused("address_invalid", "name one address, and nothing else")
        mail["Message-ID"] = identity
        mail["Date"] = format_datetime(call.at)
        mail["X-Tenant"] = call.tenant
        mail.set_content(filled.body)
        return mail

    async def _deliver(self, mail: EmailMessage, tenant: str) -> None:
        server = self._mail
        try:
            sock = await self._egress.dial(
                server.host, server.port, seconds=SMTP_SECONDS, tenant=tenant, turn_seconds=TURN_SECONDS
            )
        except EgressLimited as error:
            raise PutOff(error.code, error.detail, seconds=error.seconds) from error
        except (EgressTimeout, EgressFailed) as error:
            raise Retryable(error.code, error.detail) from error
        except Unavailable as error:
            raise PutOff(error.code, "the tenant's outbound rules could not be read", seconds=AGAIN_SECONDS) from error
        except Problem as error:
            raise Refused(error.code, error.detail) from error
        client = aiosmtplib.SMTP(
            hostname=server.host,
            sock=sock,
            use_tls=server.tls == "tls",
            start_tls=server.tls == "starttls",
            username=server.username,
            password=server.password,
            timeout=SMTP_SECONDS,
        )
        try:
            async with client:
                await client.send_message(mail)
        except aiosmtplib.SMTPRecipientsRefused as error:
            # Every recipient's answer; there is one recipient.
            raise _by_code(error.recipients[0].code if error.recipients else 450) from error
        except aiosmtplib.SMTPResponseException as error:
            raise _by_code(error.code) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            raise Retryable("mail_server_unreachable", f"{type(error).__name__}; it is tried again") from error
        finally:
            sock.close()


def _by_code(code: int) -> Retryable | Refused:
    """RFC 5321 section 4.2.1: 5yz is for good, 4yz is for now. Its own words stay out: they may name a person."""
    if 500 <= code < 600:
        return Refused("mail_refused", f"the mail server refuses it for good ({code})")
    return Retryable("mail_delayed", f"the mail server cannot take it now ({code}); it is tried again")
