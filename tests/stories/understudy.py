"""Plays modules that are not running: answers their commands over the bus when, how and in which order a story says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from contracts.envelope import Envelope
from tests.stories.house import House, until_now

Data = dict[str, Any]


def _subscription(command: Envelope) -> Data:
    return {"subscription_id": f"sub_{command.tenantid}", "edition": command.data["edition"], "status": "trial"}


def _entitlements(command: Envelope) -> Data:
    return {"tenant": command.tenantid, "edition": command.data["edition"], "entitlements": {"users": 3}, "flags": {}}


def _invited(command: Envelope) -> Data:
    given = command.data
    return {"user_id": given["user_id"] or "usr_1", "email": given["email"], "name": given["name"], "role": "owner"}


def _sent(command: Envelope) -> Data:
    given = command.data
    return {
        "message_id": f"<{command.id}@understudy>",
        "template": given["template"],
        "to": given["to"],
        "recipient_id": given["recipient_id"],
    }


def _disabled(command: Envelope) -> Data:
    receipt = command.data["receipt"]
    return {"user_id": None if receipt is None else receipt["user_id"]}


PARTS: Final[Mapping[str, tuple[str, Callable[[Envelope], Data]]]] = {
    "billing.CreateSubscriptionV1": ("billing.SubscriptionActivatedV1", _subscription),
    "configuration.ApplyEntitlementsV1": ("configuration.EntitlementsAppliedV1", _entitlements),
    "identity.InviteUserV1": ("identity.UserInvitedV1", _invited),
    "identity.DisableUserV1": ("identity.UserDisabledV1", _disabled),
    "notifications.SendNotificationV1": ("notifications.NotificationSentV1", _sent),
}


async def asked(house: House, command: str, tenant: str, *, count: int = 1) -> Envelope:
    """The command as soon as the engine has sent it for the `count`-th time."""
    heard = await until_now(lambda: house.ear.commands(command, tenant=tenant), lambda found: len(found) >= count)
    return heard[count - 1]


async def play(house: House, command: str, tenant: str) -> Envelope:
    """Waits for the command and answers it with success."""
    given = await asked(house, command, tenant)
    await house.ear.send(success(given))
    return given


def success(command: Envelope) -> Envelope:
    kind, data = PARTS[command.type]
    return reply(command, kind, data(command))


def reply(command: Envelope, kind: str, data: Data, **more: Any) -> Envelope:
    """An outcome as the command's module would send it."""
    return Envelope(
        id=more.get("id") or str(uuid4()),
        source=f"/modules/{command.module}",
        type=kind,
        tenantid=more.get("tenant", command.tenantid),
        time=datetime.now(UTC),
        data=data,
        correlationid=command.correlationid,
        causationid=more.get("causationid", command.id),
    )


def fact(kind: str, data: Data, *, tenant: str, **more: Any) -> Envelope:
    """A fact as its module would publish it."""
    return Envelope(
        id=more.get("id") or str(uuid4()),
        source=more.get("source") or f"/modules/{kind.partition('.')[0]}",
        type=kind,
        tenantid=tenant,
        time=datetime.now(UTC),
        data=data,
    )
