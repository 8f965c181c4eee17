"""Events of a tenant's own stream: what happened to a tenant outside any run. Facts like those of a run, recorded for
the audit; no state is folded from them.

`LOG_EVENTS` is the closed table of everything a log may hold, for whoever reads all of its streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar, Final, Literal
from uuid import UUID, uuid5

from contracts.codec import Codec
from contracts.run_events import Json, RunEvent, all_run_events
from contracts.values import value

PLATFORM: Final = "platform"
"""Under this name stands what was done to the platform as a whole; no tenant can be registered by it."""

_STREAMS: Final = UUID("7d0d7f0b-5f2b-4a57-9a43-4f0c2c1f6a55")


@value(kw_only=True)
class SignatureRefused(RunEvent):
    """Somebody knocked at a webhook endpoint with a wrong signature or token, `count` times since the last such event
    of this endpoint, at most a minute before. Nothing else is recorded of the requests.
    """

    TOPIC: ClassVar[str] = "signature.refused"

    endpoint: str
    count: int


@value(kw_only=True)
class HookAdded(RunEvent):
    """The tenant has a webhook endpoint of this name that starts this workflow."""

    TOPIC: ClassVar[str] = "hook.added"

    endpoint: str
    workflow: str
    scheme: str
    by: str


@value(kw_only=True)
class HookRotated(RunEvent):
    """The endpoint has a new secret; the one before is taken until that moment, and no older one."""

    TOPIC: ClassVar[str] = "hook.rotated"

    endpoint: str
    until: datetime
    by: str


@value(kw_only=True)
class HookRemoved(RunEvent):
    TOPIC: ClassVar[str] = "hook.removed"

    endpoint: str
    by: str


@value(kw_only=True)
class OutletAdded(RunEvent):
    """Notices of the tenant are delivered to an outlet of this name; in the platform's stream: those of all tenants.
    Of its address, the host.
    """

    TOPIC: ClassVar[str] = "outlet.added"

    outlet: str
    host: str
    types: tuple[str, ...]
    by: str


@value(kw_only=True)
class OutletRotated(RunEvent):
    """The outlet has a new secret; the one before signs, too, until that moment."""

    TOPIC: ClassVar[str] = "outlet.rotated"

    outlet: str
    until: datetime
    by: str


@value(kw_only=True)
class OutletEnabled(RunEvent):
    TOPIC: ClassVar[str] = "outlet.enabled"

    outlet: str
    by: str


@value(kw_only=True)
class OutletDisabled(RunEvent):
    """Nothing more is delivered there. `by` is `engine` where it has taken nothing for too long, or has said that it is
    gone for good.
    """

    TOPIC: ClassVar[str] = "outlet.disabled"

    outlet: str
    reason: str
    by: str


@value(kw_only=True)
class NoticesRedelivered(RunEvent):
    """Somebody had the outlet sent again a notice, or all made since then that it had not taken."""

    TOPIC: ClassVar[str] = "outlet.redelivered"

    outlet: str
    message_id: str | None
    since: datetime | None
    by: str


@value(kw_only=True)
class OutletRemoved(RunEvent):
    TOPIC: ClassVar[str] = "outlet.removed"

    outlet: str
    by: str


@value(kw_only=True)
class TenantPaused(RunEvent):
    """The tenant's runs begin no new step from now on; in the platform's stream: everybody's."""

    TOPIC: ClassVar[str] = "tenant.paused"

    by: str
    reason: str


@value(kw_only=True)
class TenantResumed(RunEvent):
    TOPIC: ClassVar[str] = "tenant.resumed"

    by: str


@value(kw_only=True)
class MaintenanceBegun(RunEvent):
    """The engine takes nothing and the API takes no orders; in the platform's stream only."""

    TOPIC: ClassVar[str] = "maintenance.begun"

    by: str
    reason: str


@value(kw_only=True)
class MaintenanceEnded(RunEvent):
    TOPIC: ClassVar[str] = "maintenance.ended"

    by: str


@value(kw_only=True)
class SubjectErased(RunEvent):
    """The keys of one data subject were dropped: what they sealed is gone for good. `scope` is a keyed hash of the
    subject, 32 hex digits, and names nobody; `runs` is how many runs knew it.
    """

    TOPIC: ClassVar[str] = "subject.erased"

    scope: str
    runs: int
    by: str
    reason: str


@value(kw_only=True)
class SubjectExported(RunEvent):
    """Somebody was given everything that `runs` runs hold of one data subject."""

    TOPIC: ClassVar[str] = "subject.exported"

    scope: str
    runs: int
    by: str
    reason: str


@value(kw_only=True)
class WorkflowBackfilled(RunEvent):
    """Events that the journal has of [since, until) were given to a workflow that they start: `runs` of them began one,
    `known` had done so before.
    """

    TOPIC: ClassVar[str] = "workflow.backfilled"

    workflow: str
    since: datetime
    until: datetime
    runs: int
    known: int
    by: str


BulkWord = Literal["cancel", "terminate", "abandon", "retry", "rerun", "redrive"]
"""What many runs, or many dead letters, can be told at once."""


@value(kw_only=True)
class BulkBegun(RunEvent):
    """One word is about to be told to `found` runs, or dead letters: those that fitted the filter when they were
    counted. `bulk` is the id by which the bulk's other entries name it. In the platform's stream when all tenants were
    looked through.
    """

    TOPIC: ClassVar[str] = "bulk.begun"

    bulk: str
    word: BulkWord
    filter: Mapping[str, Json]
    found: int
    step: str | None
    """The only step that is retried, or the first that a rerun does again."""
    by: str
    reason: str


@value(kw_only=True)
class BulkAddressed(RunEvent):
    """The runs of this tenant, or its dead letters, that the word of a bulk goes to next, recorded before the first of
    them is told. What came of each stands in the run's own entries.
    """

    TOPIC: ClassVar[str] = "bulk.addressed"

    bulk: str
    word: BulkWord
    ids: tuple[str, ...]
    by: str


@value(kw_only=True)
class BulkEnded(RunEvent):
    """What a bulk did, as whoever told the word counted it: of `found` that fitted the filter, so many were `told`, so
    many had been told before (`known`), `refused`, or could not be asked (`failed`). It `finished`, was `cancelled`
    part-way by who began it, or `failed`: then the rest was not told. One without this entry broke off.
    """

    TOPIC: ClassVar[str] = "bulk.ended"

    bulk: str
    word: BulkWord
    filter: Mapping[str, Json]
    found: int
    told: int
    known: int
    refused: int
    failed: int
    how: Literal["finished", "cancelled", "failed"]
    by: str


@value(kw_only=True)
class RunsRepaired(RunEvent):
    """The janitor found runs of the tenant without a recorded reason to wake and loaded them again, so that what their
    log asks for is performed and awaited. `run_ids` names the first hundred.
    """

    TOPIC: ClassVar[str] = "runs.repaired"

    runs: int
    run_ids: tuple[str, ...]


@value(kw_only=True)
class RunReplayed(RunEvent):
    """Somebody had the run decided again from its events; `same`: today's code decides as it was recorded. Nothing was
    performed.
    """

    TOPIC: ClassVar[str] = "run.replayed"

    run_id: str
    same: bool
    by: str


@value(kw_only=True)
class RunsArchived(RunEvent):
    """These ended runs of the tenant left the log for the archive of the month they ended in (`YYYY-MM`): lists show
    them no longer.
    """

    TOPIC: ClassVar[str] = "runs.archived"

    month: str
    runs: int
    events: int
    archived: tuple[str, ...]
    by: str


@value(kw_only=True)
class ArchiveDropped(RunEvent):
    """A month of the archive was deleted for good; in the platform's stream only."""

    TOPIC: ClassVar[str] = "archive.dropped"

    month: str
    runs: int
    events: int
    by: str
    reason: str


@value(kw_only=True)
class TenantOffboarded(RunEvent):
    """What the engine knew of a tenant was made unreadable for good; in the platform's stream only. `runs` is how many
    ended runs it still had outside the archive.
    """

    TOPIC: ClassVar[str] = "tenant.offboarded"

    tenant: str
    runs: int
    by: str
    reason: str


@value(kw_only=True)
class SecretStored(RunEvent):
    """A secret of the tenant was set: `version` 1 is its first, a later one replaced what was there. Its value stands
    nowhere but in the sealed row.
    """

    TOPIC: ClassVar[str] = "secret.stored"

    name: str
    kind: str
    version: int
    by: str


@value(kw_only=True)
class SecretRotated(RunEvent):
    """The value of a secret was replaced by one of the same kind. `by` is `engine` where a server handed out a new
    refresh token.
    """

    TOPIC: ClassVar[str] = "secret.rotated"

    name: str
    kind: str
    version: int
    by: str


@value(kw_only=True)
class SecretRemoved(RunEvent):
    """A secret was deleted for good, with its data key."""

    TOPIC: ClassVar[str] = "secret.removed"

    name: str
    kind: str
    version: int
    by: str


@value(kw_only=True)
class RootKeyRotated(RunEvent):
    """The key file is about to get another current root key, `root_id`; `replaces` wraps what it wrapped until `keys
    rewrap`. An id is a digest and tells nothing of its key. In the platform's stream, as the next two.
    """

    TOPIC: ClassVar[str] = "root_key.rotated"

    root_id: str
    replaces: str
    by: str


@value(kw_only=True)
class DataKeysRewrapped(RunEvent):
    """Every data key is wrapped by this root key now; `keys` of them were wrapped by another one before."""

    TOPIC: ClassVar[str] = "data_keys.rewrapped"

    root_id: str
    keys: int
    by: str


@value(kw_only=True)
class RootKeyRetired(RunEvent):
    """A root key that wraps nothing any more is about to leave the key file."""

    TOPIC: ClassVar[str] = "root_key.retired"

    root_id: str
    by: str


@value(kw_only=True)
class TokenCreated(RunEvent):
    """An API token was made, or is about to be; in the platform's stream: one that reaches every tenant. `prefix` is
    its public part.
    """

    TOPIC: ClassVar[str] = "token.created"

    prefix: str
    name: str
    roles: tuple[str, ...]
    expires_at: datetime | None
    by: str


@value(kw_only=True)
class TokenRevoked(RunEvent):
    """The token is worthless from now on."""

    TOPIC: ClassVar[str] = "token.revoked"

    prefix: str
    name: str
    roles: tuple[str, ...]
    by: str


@value(kw_only=True)
class LetterRedriven(RunEvent):
    """A dead letter of the tenant is sent again, byte for byte, to where it was going."""

    TOPIC: ClassVar[str] = "letter.redriven"

    letter: str
    by: str


@value(kw_only=True)
class LetterDiscarded(RunEvent):
    """A dead letter of the tenant was given up."""

    TOPIC: ClassVar[str] = "letter.discarded"

    letter: str
    by: str


@value(kw_only=True)
class PolicyChanged(RunEvent):
    """What the tenant forbids itself from now on: whether somebody may decide on the approvals of a run of his own."""

    TOPIC: ClassVar[str] = "policy.changed"

    approvals_own: Literal["allow", "forbid"]
    by: str


@value(kw_only=True)
class EgressChanged(RunEvent):
    """What the tenant's outbound calls may do was changed: the private hosts and networks that are open to it alone,
    and its own rate, if any. In the platform's stream: that of all who have no rules of their own.
    """

    TOPIC: ClassVar[str] = "egress.changed"

    allow: tuple[str, ...]
    requests: int | None
    seconds: float | None
    by: str


@value(kw_only=True)
class QuotasChanged(RunEvent):
    """What the tenant's runs may use from now on; in the platform's stream: everybody's. `before` and `after` are
    whole documents (`contracts.quotas`), `before` null when there was none.
    """

    TOPIC: ClassVar[str] = "quotas.changed"

    before: Mapping[str, Json] | None
    after: Mapping[str, Json]
    by: str


@value(kw_only=True)
class QuotaBreached(RunEvent):
    """A quota was full, for the first time in this window (`contracts.notices.WorkflowQuotaBreachedV1`)."""

    TOPIC: ClassVar[str] = "quota.breached"

    cap: str
    value: int
    limit: int
    workflow: str | None
    window: str


@value(kw_only=True)
class UserInvited(RunEvent):
    """Somebody is invited into the tenant with these roles; in the platform's stream: into the platform. Whose address
    it was stands in the invitation alone.
    """

    TOPIC: ClassVar[str] = "user.invited"

    invitation: str
    roles: tuple[str, ...]
    expires_at: datetime
    by: str


@value(kw_only=True)
class InvitationAccepted(RunEvent):
    """The user has these roles from now on, beside those that he had here."""

    TOPIC: ClassVar[str] = "invitation.accepted"

    invitation: str
    user: str
    roles: tuple[str, ...]
    by: str


@value(kw_only=True)
class InvitationRevoked(RunEvent):
    TOPIC: ClassVar[str] = "invitation.revoked"

    invitation: str
    by: str


@value(kw_only=True)
class UserCreated(RunEvent):
    """A user was made without an invitation, by whoever works on the installation itself."""

    TOPIC: ClassVar[str] = "user.created"

    user: str
    roles: tuple[str, ...]
    by: str


@value(kw_only=True)
class UserRolesChanged(RunEvent):
    """What a user may do here from now on; `after` is empty when he is a member no more, and then his sessions that
    acted here have ended.
    """

    TOPIC: ClassVar[str] = "user.roles_changed"

    user: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    by: str


@value(kw_only=True)
class UserDisabled(RunEvent):
    """The user may not act in the tenant from now on; in the platform's stream: nowhere. His sessions have ended."""

    TOPIC: ClassVar[str] = "user.disabled"

    user: str
    by: str


@value(kw_only=True)
class UserEnabled(RunEvent):
    TOPIC: ClassVar[str] = "user.enabled"

    user: str
    by: str


@value(kw_only=True)
class UserErased(RunEvent):
    """All that was kept of the user was deleted: his number names nobody any more. In the platform's stream only."""

    TOPIC: ClassVar[str] = "user.erased"

    user: str
    by: str


@value(kw_only=True)
class PasswordChanged(RunEvent):
    """The user's other sessions have ended with it."""

    TOPIC: ClassVar[str] = "user.password_changed"

    user: str
    by: str


@value(kw_only=True)
class SignedIn(RunEvent):
    """A user signed in and acts here; `how` is `password` or `oidc`."""

    TOPIC: ClassVar[str] = "user.signed_in"

    user: str
    how: str
    by: str


@value(kw_only=True)
class IdentityLinked(RunEvent):
    """An identity of this issuer is the user from now on; a password that he had is gone, and his sessions have ended.
    In the platform's stream only; which identity it is stands in the users' tables.
    """

    TOPIC: ClassVar[str] = "identity.linked"

    user: str
    issuer: str
    by: str


@value(kw_only=True)
class IdentitiesUnlinked(RunEvent):
    """`count` identities are the user no more. In the platform's stream only."""

    TOPIC: ClassVar[str] = "identities.unlinked"

    user: str
    count: int
    by: str


@value(kw_only=True)
class SessionsEnded(RunEvent):
    """`count` sessions of the user were ended before their time."""

    TOPIC: ClassVar[str] = "sessions.ended"

    user: str
    count: int
    by: str


@value(kw_only=True)
class SignInsRefused(RunEvent):
    """Somebody tried to sign in and was refused, `count` times since the last such event, at most a minute before. In
    the platform's stream only; nothing else is recorded of the requests.
    """

    TOPIC: ClassVar[str] = "sign_ins.refused"

    count: int


@value(kw_only=True)
class QuotaRecounted(RunEvent):
    """The janitor found that what a quota counts differed from what is in the log or open, and corrected it: `before`
    was counted, `after` is true. `workflow` null: of the whole tenant.
    """

    TOPIC: ClassVar[str] = "quota.recounted"

    cap: str
    workflow: str | None
    before: int
    after: int


TENANT_EVENTS: Final[tuple[type[RunEvent], ...]] = (
    SignatureRefused,
    HookAdded,
    HookRotated,
    HookRemoved,
    OutletAdded,
    OutletRotated,
    OutletEnabled,
    OutletDisabled,
    NoticesRedelivered,
    OutletRemoved,
    TenantPaused,
    TenantResumed,
    MaintenanceBegun,
    MaintenanceEnded,
    SubjectErased,
    SubjectExported,
    WorkflowBackfilled,
    BulkBegun,
    BulkAddressed,
    BulkEnded,
    RunsRepaired,
    RunReplayed,
    RunsArchived,
    ArchiveDropped,
    TenantOffboarded,
    SecretStored,
    SecretRotated,
    SecretRemoved,
    RootKeyRotated,
    DataKeysRewrapped,
    RootKeyRetired,
    TokenCreated,
    TokenRevoked,
    LetterRedriven,
    LetterDiscarded,
    PolicyChanged,
    EgressChanged,
    QuotasChanged,
    QuotaBreached,
    UserInvited,
    InvitationAccepted,
    InvitationRevoked,
    UserCreated,
    UserRolesChanged,
    UserDisabled,
    UserEnabled,
    UserErased,
    PasswordChanged,
    SignedIn,
    IdentityLinked,
    IdentitiesUnlinked,
    SessionsEnded,
    SignInsRefused,
    QuotaRecounted,
)
LOG_EVENTS: Final = Codec((*all_run_events(), *TENANT_EVENTS))


def tenant_stream(tenant: str) -> UUID:
    """The one stream of this tenant."""
    return uuid5(_STREAMS, tenant)
