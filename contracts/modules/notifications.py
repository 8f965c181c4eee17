"""Contract of the notifications module: mail, from templates it owns.

A mail cannot be unsent. Its Message-ID is derived from the command's idempotency key, so a mail that had to be sent
again after a crash is recognised by the receiving server as the same one.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from contracts.manifest import (
    AnswerModel,
    Command,
    CommandModel,
    Event,
    EventModel,
    FailureModel,
    Module,
    Personal,
    Query,
    QueryModel,
    personal,
)
from contracts.modules.faults import rehearsal, rehearsal_permission

Template = Literal["activation", "welcome", "suspended", "reinstated", "closed", "provisioning_failed"]

ABOUT_THE_TENANT: Final = frozenset({"suspended", "reinstated", "closed", "provisioning_failed"})
"""What the platform has to say about the tenant itself; sent whatever the tenant's standing is."""


class NotificationSentV1(EventModel):
    message_id: str
    template: Template
    to: Personal
    recipient_id: str | None = None


class SendingPausedV1(EventModel):
    tenant: str
    paused: bool


class NotificationRefusedV1(FailureModel):
    """No retry will help: the server refuses this address for good, a value the template needs is missing, or the
    tenant is suspended or closed (codes tenant_suspended, tenant_closed) and the mail is not about that.
    """


class NotificationDelayedV1(FailureModel):
    """The mail server could not take it now, or sending is paused; try again."""


class SendNotificationV1(CommandModel):
    template: Template
    to: Personal
    recipient_id: str | None = None
    """The user or customer the mail is for; its personal values are sealed under this person's key."""
    data: dict[str, str] = personal(default_factory=dict)


class PauseSendingV1(CommandModel):
    """Sends of this tenant wait (retryable failure) until it is lifted. A suspended tenant's are refused anyway."""

    paused: bool


class GetSentNotificationsV1(QueryModel):
    recipient_id: str


class SentNotificationsV1(AnswerModel):
    message_ids: list[str] = Field(default_factory=list)
    templates: list[str] = Field(default_factory=list)


SEND: Final = "notifications.send"
MANAGE: Final = "notifications.manage"
READ: Final = "notifications.read"

MODULE: Final = Module(
    name="notifications",
    version="1.0.0",
    events=(
        Event(
            NotificationSentV1, keys={"message": "/message_id", "recipient": "/recipient_id"}, subject="/recipient_id"
        ),
        Event(SendingPausedV1, keys={"tenant": "/tenant"}),
    ),
    commands=(
        Command(
            SendNotificationV1,
            success=NotificationSentV1,
            failures=(NotificationDelayedV1,),
            irrecoverable=(NotificationRefusedV1,),
            coverage="retriable",
            permission=SEND,
        ),
        Command(
            PauseSendingV1,
            success=SendingPausedV1,
            failures=(NotificationDelayedV1,),
            coverage="retriable",
            permission=MANAGE,
        ),
        rehearsal("notifications"),
    ),
    queries=(Query(GetSentNotificationsV1, answer=SentNotificationsV1, permission=READ),),
    permissions=(SEND, MANAGE, READ, rehearsal_permission("notifications")),
)
