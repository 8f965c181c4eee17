"""A mail server that keeps what it gets and delivers nothing: for `up` without a mail server, for demos and tests.

It counts every Message-ID, so that a mail sent twice is seen. It is no relay: it takes mails from this machine only.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import default as modern
from pathlib import Path
from typing import Any, cast

from aiosmtpd.smtp import SMTP

KEPT = 10_000
MAX_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Caught:
    """One mail as it came."""

    message_id: str
    to: tuple[str, ...]
    subject: str
    body: str
    tenant: str | None


class MailSink:
    """`folder`: also keep each mail there, one `.eml` file per Message-ID. `refusals`: answers to RCPT by address, such
    as `550 no such user`.
    """

    def __init__(self, *, folder: Path | None = None, refusals: Mapping[str, str] | None = None) -> None:
        self.mails: deque[Caught] = deque(maxlen=KEPT)
        self.count_by_id: Counter[str] = Counter()
        self.refusals: dict[str, str] = dict(refusals or {})
        self.port = 0
        self._folder = folder
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Condition()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listens and answers the port, a free one when none was asked for."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: SMTP(self, data_size_limit=MAX_BYTES, hostname="mail.sink", enable_SMTPUTF8=True), host, port
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await server.wait_closed()

    async def until(self, condition: Callable[[], bool], *, deadline_seconds: float) -> None:
        """Waits until the condition holds, looking again after each mail. Raises `TimeoutError`."""
        async with asyncio.timeout(deadline_seconds), self._changed:
            await self._changed.wait_for(condition)

    # Called by aiosmtpd, which finds its hooks by these names.
    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, rcpt_options: list[str]
    ) -> str:
        refusal = self.refusals.get(address)
        if refusal is not None:
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        content = cast(bytes, envelope.content)
        mail = message_from_bytes(content, policy=modern)
        identity = str(mail["Message-ID"] or "")
        part = mail.get_body(("plain",))
        caught = Caught(
            message_id=identity,
            to=tuple(envelope.rcpt_tos),
            subject=str(mail["Subject"] or ""),
            body=part.get_content() if part is not None else "",
            tenant=mail["X-Tenant"],
        )
        if self._folder is not None:
            await asyncio.to_thread(_keep, self._folder, identity, content)
        self.mails.append(caught)
        self.count_by_id[identity] += 1
        async with self._changed:
            self._changed.notify_all()
        return "250 OK"


def _keep(folder: Path, identity: str, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(letter for letter in identity.partition("@")[0] if letter.isalnum() or letter in "-_")
    (folder / f"{name or 'without-id'}.eml").write_bytes(content)
