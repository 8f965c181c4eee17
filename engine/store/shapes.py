"""What goes into the store and what comes out, as frozen values: the parts of a commit, the answers of an append, the
rows that are read. No behaviour and no database here; import them from `engine.store`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from contracts.values import value

StreamKind = Literal["run", "workflow", "tenant", "schedule"]


# ------------------------------------------------------------------------------------------------------ what is written


@value()
class Recorded:
    """One event ready for the log: its fixed topic and its sealed body."""

    topic: str
    body: bytes


@value(kw_only=True)
class Arrival:
    """One accepted envelope for the journal. Unique on (tenant, source, event_id); the same id with another
    `body_hash` is a mismatch."""

    source: str
    event_id: str
    type: str
    body_hash: bytes
    body: bytes
    """The whole envelope as received, sealed."""
    received_at: datetime
    keys: tuple[tuple[str, bytes], ...] = ()
    """Declared correlation keys of this event, as (name, HMAC under the tenant's index key)."""
    causation_id: str | None = None


@value(kw_only=True)
class Start:
    """Reserves `key` for the run of this commit, for ever. `workflow_cap` / `tenant_cap` bound slot holders; None is
    unbounded. `counted`: the commit is Limited when a quota of starts is used up; other starts count and are never
    refused."""

    key: str
    workflow: str
    workflow_version: int
    workflow_cap: int | None = None
    tenant_cap: int | None = None
    counted: bool = False


@value(kw_only=True)
class NewInput:
    """Something a run must still be given. `kind` start: begin `workflow` from the arrival; fact: a wait named `name`
    matched; reply: an outcome of step `name`; note: any other durable input, its sealed body inline."""

    kind: Literal["start", "fact", "reply", "note"]
    run_id: UUID | None = None
    workflow: str | None = None
    name: str | None = None
    visit: int = 1
    arrival: tuple[str, str] | None = None
    """(source, event_id) of the journal row that holds the body."""
    body: bytes | None = None


@value(kw_only=True)
class OutboxMessage:
    """A message to send after the commit. `message_id` is derived from the log, so a rebuilt outbox says the same.
    `body` is sealed."""

    message_id: str
    exchange: str
    routing_key: str
    body: bytes
    not_before: datetime | None = None


@value(kw_only=True)
class Timer:
    """Wakes the run at `due` with `key` (such as `sleep/nap/1`, `retry/billing/1/2`, `deadline/billing/1/1`). One per
    (run, key)."""

    key: str
    due: datetime


@value(kw_only=True)
class Subscription:
    """A wait for a fact. Matches arrivals of `type` whose key `key_name` has `key_hash`, received at or after
    `look_back`."""

    name: str
    visit: int
    type: str
    key_name: str
    key_hash: bytes
    look_back: datetime


@value(kw_only=True)
class Await:
    """An expected outcome: an arrival caused by `command_id` whose type is one of `types` is the reply to (step,
    visit)."""

    command_id: str
    step: str
    visit: int
    types: tuple[str, ...]


@value(kw_only=True)
class Opened:
    """The run's row in open_runs is inserted, owned by the appending process. `slot` counts it against caps; a run
    queued for a slot has none."""

    status: str
    slot: bool
    deadline: datetime | None = None


@value(kw_only=True)
class Changed:
    """The run's row in open_runs is updated. `takes_slot` asks for a slot under the caps given (else the commit is
    Limited)."""

    status: str
    slot: bool
    deadline: datetime | None = None
    takes_slot: bool = False
    workflow_cap: int | None = None
    tenant_cap: int | None = None


@value()
class Closed:
    """The run's row leaves open_runs, and with it its timers, subscriptions, awaits, input keys, snapshot and pending
    inputs.
    """

    bare: bool = False
    """No commit of the run has brought any of these, so that only inputs, which others bring too, need be looked for.
    """


@value()
class Cost:
    """What a commit's steps have cost, in millionths of the platform's currency; and whether it begins something that a
    spent budget of the tenant forbids: the commit is then Limited.
    """

    workflow: str
    micros: int = 0
    begins: bool = False


@value(kw_only=True)
class Commit:
    """All or nothing, and it answers for itself: one run's new events and everything that must become true with them.

    `stream` None: only an arrival and its inputs. `expected` is the version before the first event; 0 is a new stream.
    """

    tenant: str
    stream: UUID | None
    kind: StreamKind = "run"
    expected: int = 0
    events: tuple[Recorded, ...] = ()
    start: Start | None = None
    input_keys: tuple[str, ...] = ()
    """Dedup keys of the inputs this commit answers (`reply/<event id>`, `fact/<wait>/<visit>`, ...); a known one makes
    the commit Duplicate."""
    arrival: Arrival | None = None
    inputs: tuple[NewInput, ...] = ()
    settled: tuple[int, ...] = ()
    """Ids of input rows that this commit settles; deleted with it."""
    outbox: tuple[OutboxMessage, ...] = ()
    timers: tuple[Timer, ...] = ()
    timers_cleared: tuple[str, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    subscriptions_dropped: tuple[tuple[str, int], ...] = ()
    awaits: tuple[Await, ...] = ()
    awaits_dropped: tuple[str, ...] = ()
    """Command ids."""
    open_run: Opened | Changed | Closed | None = None
    snapshot: bytes | None = None
    cost: Cost | None = None


# -------------------------------------------------------------------------------------------------- what append answers


@value()
class Appended:
    """It is in the log. `position` is the last event's (0 without events); `matched` are input rows that this commit's
    insertions brought about."""

    position: int
    matched: tuple[InputRow, ...] = ()


@value()
class Duplicate:
    """The start key, an input key or the arrival was known. `run_id` is the original run; `mismatch`: same event id,
    another body."""

    run_id: UUID | None = None
    mismatch: bool = False


@value()
class Stale:
    """The stream has moved on: load, decide again."""

    actual: int


@value()
class Limited:
    """No slot is free under `scope`'s cap: append it as queued, or later. Or another quota of starts is used up, or a
    budget is spent.
    """

    scope: Literal["workflow", "tenant"]
    cap: int
    quota: Literal["concurrent_runs", "open_runs", "daily_runs", "daily_cost_micros", "monthly_cost_micros"] = (
        "concurrent_runs"
    )


@value()
class Fenced:
    """This process was declared dead, or another owns the run: forget its hot state."""


Outcome = Appended | Duplicate | Stale | Limited | Fenced


# --------------------------------------------------------------------------------------------------------- what is read


@value()
class Stored:
    """One event of a stream as stored."""

    version: int
    topic: str
    body: bytes
    recorded_at: datetime


READ_BYTES: Final = 16 * 1024 * 1024
"""The bodies of one `Store.read`: the last of them begins within so many bytes."""
RECOUNTED_AT_ONCE: Final = 100_000
"""So many events of a lane are counted again by one statement: a second's work for a database that must read them from
its disk, and more than a lane takes in meanwhile."""
ARRIVALS_AT_ONCE: Final = 10_000
"""So many arrivals are looked at, or let go, by one statement."""


@value(kw_only=True)
class WorkflowUse:
    """What quotas count of one workflow of a tenant: now, on one day, and in its month."""

    workflow: str
    slots: int
    open_runs: int
    started: int
    day_micros: int
    month_micros: int


@value(kw_only=True)
class CountedStarts:
    """Of one tenant, as of one moment: how many runs are counted of a day; how many count as open (None: they were
    never counted), and how many are.
    """

    tenant: str
    counted: int
    opened: int | None
    open_runs: int | None


@value(kw_only=True)
class StartsCounted:
    """Of a portion of a lane: where it ends, and how many runs of each tenant began in it on a day. `counted`: of every
    tenant that has any, as of the moment of which the portion ends at the lane's head; None: it does not.
    """

    upto: int
    begun: Mapping[str, int]
    counted: Sequence[CountedStarts] | None


@value(kw_only=True)
class StartsRead:
    """Of a portion of a lane: where it ends, and the first events, by tenant and stream, of the runs that began in it
    on a day. `counted`: how many are counted of that day by tenant and workflow, as of the moment of which the portion
    ends at the lane's head; None: it does not.
    """

    upto: int
    starts: Sequence[tuple[str, UUID, Stored]]
    counted: Mapping[tuple[str, str], int] | None


@value()
class ChangedSetting:
    """One setting as it is now. `change` counts up over all settings, in the order in which changes can be seen."""

    tenant: str
    name: str
    value: Any
    change: int


@value()
class Notification:
    """One event in lane order, for projections. `position` counts up without ever showing a lower one later."""

    position: int
    tenant: str
    stream: UUID
    kind: str
    version: int
    topic: str
    body: bytes
    recorded_at: datetime


@value()
class ArchivedRun:
    """Where an ended run's log has gone: its month, and whether that was dropped since."""

    tenant: str
    month: str
    dropped: bool


@value()
class ArchivedMonth:
    """`dropped`: its events are gone for good."""

    month: str
    runs: int
    events: int
    dropped: bool


@value()
class InputRow:
    """A pending input. Settled (deleted) by the commit that answers it."""

    id: int
    tenant: str
    kind: str
    run_id: UUID | None
    workflow: str | None
    name: str | None
    visit: int
    arrival: tuple[str, str] | None
    body: bytes | None
    """Inline body, or the journal row's sealed envelope; its AAD tells which (see `engine.store.mapper`)."""


@value()
class OutboxRow:
    id: int
    tenant: str
    message_id: str
    exchange: str
    routing_key: str
    body: bytes
    created_at: datetime


@value()
class DueTimer:
    tenant: str
    run_id: UUID
    key: str
    due: datetime


@value()
class OpenRun:
    tenant: str
    run_id: UUID
    workflow: str
    workflow_version: int
    status: str
    slot: bool
    owner: int | None
    takeovers: int
    deadline: datetime | None
    started_at: datetime


@value()
class Pending:
    """What an arrival has still to bring about: the start of `workflow`, or something for a run."""

    kind: str
    run_id: UUID | None
    workflow: str | None
    name: str | None
    visit: int | None


@value(kw_only=True)
class Journaled:
    """An arrival and what has become of it so far. `outcomes`, oldest first: `matched: <run> <wait>/<visit>`,
    `ignored: ...`, `refused: ...`; of starts the start key tells.
    """

    type: str
    received_at: datetime
    causation_id: str | None
    body: bytes
    outcomes: tuple[str, ...]
    pending: tuple[Pending, ...]


@value()
class PastArrival:
    """An arrival by its place in the journal (`id`), without its body."""

    id: int
    source: str
    event_id: str
    type: str


@value()
class DeadLetter:
    """A message nobody could use, whole: `envelope` is the received bytes, sealed. `state` is dead, redriven or
    discarded."""

    id: UUID
    tenant: str
    reason: str
    detail: str
    source: str
    routing_key: str
    event_id: str | None
    type: str | None
    attempts: Sequence[Mapping[str, Any]]
    envelope: bytes
    headers: Mapping[str, Any]
    state: str
    created_at: datetime
    settled_at: datetime | None = None
    settled_by: str | None = None


@value()
class Guard:
    """What the database itself refuses, as it is now: whether it holds, and in words for an operator."""

    name: str
    holds: bool
    detail: str


@value()
class Token:
    """An API token as stored: never the token itself, only SHA-256 of it. `tenant` None: a platform operator's.
    `made_by` is who made it, by his name in the audit; `made_with` the prefix of the token that it was made with, None:
    with none; `maker` the user on whose rights it stands, who made it or whose token it was made with, None: on no
    user's. All are None where that was not noted.
    """

    prefix: str
    digest: bytes
    tenant: str | None
    name: str
    roles: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    made_by: str | None = None
    made_with: str | None = None
    maker: UUID | None = None


@value()
class PresentedToken:
    """A token with what is asked of it at each request. `state` is what tenancy said of its tenant last, None: nothing.
    `maker_roles` are those that its maker has now, in its tenant or in the platform: none when he is gone or disabled,
    None where it stands on no user's rights.
    """

    token: Token
    state: str | None = None
    maker_roles: tuple[str, ...] | None = None


HookScheme = Literal["standard", "github", "stripe"]


@value()
class Hook:
    """A webhook endpoint of a tenant, as stored. `secret` is sealed, bound to the endpoint and `version`; `old_secret`
    is that of the version before, taken until `old_until`. `fields` says what of a message becomes which field of the
    run's input, `id_pointer` where in it the sender's id stands.
    """

    tenant: str
    name: str
    workflow: str
    scheme: HookScheme
    fields: Mapping[str, Any]
    secret: bytes
    created_at: datetime
    created_by: str
    id_pointer: str | None = None
    version: int = 1
    old_secret: bytes | None = None
    old_until: datetime | None = None
    rotated_at: datetime | None = None


@value(kw_only=True)
class Outlet:
    """Where notices are delivered to, as stored. `types` are those it takes, none: all. `secret` is sealed, bound to
    the outlet and `version`; `old_secret` is that of the version before, which signs too until `old_until`.
    """

    tenant: str
    name: str
    url: str
    types: tuple[str, ...]
    secret: bytes
    created_at: datetime
    created_by: str
    enabled: bool = True
    version: int = 1
    old_secret: bytes | None = None
    old_until: datetime | None = None
    rotated_at: datetime | None = None
    failing_since: datetime | None = None
    """When the first delivery failed since the last that succeeded."""
    switched_at: datetime | None = None
    switched_why: str = ""


OutletState = Literal["waiting", "delivered", "failed"]


@value(kw_only=True)
class OutletDelivery:
    """One notice for one outlet. `about` is the tenant whose notice it is, under whose key `body` is sealed; `status`
    and `error` are those of the last attempt.
    """

    tenant: str
    outlet: str
    message_id: str
    about: str
    type: str
    body: bytes
    created_at: datetime
    due_at: datetime
    state: OutletState = "waiting"
    attempts: int = 0
    status: int | None = None
    error: str | None = None
    settled_at: datetime | None = None


@value(kw_only=True)
class OutletQueue:
    """What waits for one outlet; `oldest` is when the oldest of it was made, None: nothing waits."""

    tenant: str
    outlet: str
    enabled: bool
    switched_why: str
    failing_since: datetime | None
    waiting: int
    oldest: datetime | None


@value()
class WrappedKey:
    """A data key as stored: wrapped by the key ring's root key `root_id`. `scope` is `tenant`, `index`,
    `subject/<hash>` or `secret/<name>`."""

    tenant: str
    scope: str
    key_id: int
    wrapped: bytes
    root_id: str


@value(kw_only=True)
class SecretNote:
    """What may be known of a tenant's secret. `hosts` are the exact hosts, with a port or for every one, that it may be
    sent to.
    """

    tenant: str
    name: str
    kind: str
    version: int
    hosts: tuple[str, ...]
    created_at: datetime
    changed_at: datetime
    changed_by: str


@value(kw_only=True)
class SealedSecret:
    """The current version of a secret as stored: its value under a data key of its own."""

    tenant: str
    name: str
    kind: str
    version: int
    hosts: tuple[str, ...]
    sealed: bytes
    key: WrappedKey


@value()
class Change:
    """Rows for one named statement of a read model (`projections/sql/<driver>/<view>.sql`), values in the statement's
    order. On PostgreSQL the statement gets them as columns (`unnest`), in one execution; on SQLite row by row."""

    statement: str
    rows: Sequence[tuple[Any, ...]]


@value()
class Process:
    epoch: int
    name: str
    roles: tuple[str, ...]
    started_at: datetime
    seen_at: datetime
    dead: bool = False
    version: str = ""
    """Of the program; empty: not told."""


@value(kw_only=True)
class Account:
    """What one tenant used on one UTC day."""

    tenant: str
    day: str
    """`YYYY-MM-DD`"""
    decide_seconds: float = 0.0
    """CPU seconds of deciding and sealing, from samples."""
    project_seconds: float = 0.0
    """CPU seconds of writing read models, shared out by events."""
    rows: int = 0
    """Events of runs appended to the log."""
    sends: int = 0
    """Messages put into the outbox by runs."""
    actions: int = 0
    """Local attempts begun."""


@value(kw_only=True)
class Census:
    """What waits in the database at one moment. Messages, timers and dead letters are counted up to a limit."""

    runs: Mapping[str, int]
    """Open runs by status; a status without runs may be absent."""
    outbox_rows: int
    outbox_age_seconds: float
    timers_late: int
    timers_lateness_seconds: float
    dead_letters: int
    processes: int


@value()
class Position:
    """A place in one lane; outside the engine an opaque token."""

    lane: int
    n: int

    def __str__(self) -> str:
        return f"{self.lane}-{self.n}"
