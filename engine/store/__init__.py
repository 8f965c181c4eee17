"""The event store as protocols: what the coordinator, the consumers and the projections ask of it, whichever database it is.

    arrivals   what arrived        inbox       dedup of arrivals       starts      dedup of starts, for ever
    log        what happened       outbox      what must be sent       inputs      what must still be given to a run
    timers · subscriptions · awaits · open_runs   the recorded reasons to wake
    checkpoints   how far a projection has read

Two drivers, `postgres` (asyncpg) and `sqlite` (the `eventsourcing` SQLite recorder, subclassed), pass one conformance suite. Bodies come in sealed and
go out sealed: the store never sees a payload (`engine.store.mapper` seals).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import unquote
from uuid import UUID

StreamKind = Literal["run", "workflow", "tenant", "schedule"]


# ---------------------------------------------------------------------------------------------------------------------- what is written


@dataclass(frozen=True, slots=True)
class Recorded:
    """One event ready for the log: its fixed topic and its sealed body."""

    topic: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One accepted envelope for the journal. Unique on (tenant, source, event_id); the same id with another `body_hash` is a mismatch."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Reserves `key` for the run of this commit, for ever. `workflow_cap` / `tenant_cap` bound slot holders; None is unbounded."""

    key: str
    workflow: str
    workflow_version: int
    workflow_cap: int | None = None
    tenant_cap: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInput:
    """Something a run must still be given. `kind` start: begin `workflow` from the arrival; fact: a wait named `name` matched; reply: an outcome of step `name`;
    note: any other durable input, its sealed body inline."""

    kind: Literal["start", "fact", "reply", "note"]
    run_id: UUID | None = None
    workflow: str | None = None
    name: str | None = None
    visit: int = 1
    arrival: tuple[str, str] | None = None
    """(source, event_id) of the journal row that holds the body."""
    body: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxMessage:
    """A message to send after the commit. `message_id` is derived from the log, so a rebuilt outbox says the same. `body` is sealed."""

    message_id: str
    exchange: str
    routing_key: str
    body: bytes
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    """Wakes the run at `due` with `key` (such as `sleep/nap/1`, `retry/billing/1/2`, `deadline/billing/1/1`). One per (run, key)."""

    key: str
    due: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A wait for a fact. Matches arrivals of `type` whose key `key_name` has `key_hash`, received at or after `look_back`."""

    name: str
    visit: int
    type: str
    key_name: str
    key_hash: bytes
    look_back: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Await:
    """An expected outcome: an arrival caused by `command_id` whose type is one of `types` is the reply to (step, visit)."""

    command_id: str
    step: str
    visit: int
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The run's row in open_runs is inserted, owned by the appending process. `slot` counts it against caps; a run queued for a slot has none."""

    status: str
    slot: bool
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The run's row in open_runs is updated. `takes_slot` asks for a slot under the caps given (else the commit is Limited)."""

    status: str
    slot: bool
    deadline: datetime | None = None
    takes_slot: bool = False
    workflow_cap: int | None = None
    tenant_cap: int | None = None


@dataclass(frozen=True, slots=True)
class Closed:
    """The run's row leaves open_runs, and with it its timers, subscriptions, awaits, input keys and pending inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
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
    """Dedup keys of the inputs this commit answers (`reply/<event id>`, `fact/<wait>/<visit>`, ...); a known one makes the commit Duplicate."""
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


# ---------------------------------------------------------------------------------------------------------------------- what append answers


@dataclass(frozen=True, slots=True)
class Appended:
    """It is in the log. `position` is the last event's (0 without events); `matched` are input rows that this commit's insertions brought about."""

    position: int
    matched: tuple[InputRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The start key, an input key or the arrival was known. `run_id` is the original run; `mismatch`: same event id, another body."""

    run_id: UUID | None = None
    mismatch: bool = False


@dataclass(frozen=True, slots=True)
class Stale:
    """The stream has moved on: load, decide again."""

    actual: int


@dataclass(frozen=True, slots=True)
class Limited:
    """No slot is free under `scope`'s cap; append it as queued, or later."""

    scope: Literal["workflow", "tenant"]
    cap: int


@dataclass(frozen=True, slots=True)
class Fenced:
    """This process was declared dead, or another owns the run: forget its hot state."""


Outcome = Appended | Duplicate | Stale | Limited | Fenced


# ---------------------------------------------------------------------------------------------------------------------- what is read


@dataclass(frozen=True, slots=True)
class Stored:
    """One event of a stream as stored."""

    version: int
    topic: str
    body: bytes
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class OutboxRow:
    id: int
    tenant: str
    message_id: str
    exchange: str
    routing_key: str
    body: bytes
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DueTimer:
    tenant: str
    run_id: UUID
    key: str
    due: datetime


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message nobody could use, whole: `envelope` is the received bytes, sealed. `state` is dead, redriven or discarded."""

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


@dataclass(frozen=True, slots=True)
class Token:
    """An API token as stored: never the token itself, only SHA-256 of it. `tenant` None: a platform operator's."""

    prefix: str
    digest: bytes
    tenant: str | None
    name: str
    roles: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as stored: wrapped by the key ring's root key `root_id`. `scope` is `tenant`, `index` or `subject/<hash>`."""

    tenant: str
    scope: str
    key_id: int
    wrapped: bytes
    root_id: str


@dataclass(frozen=True, slots=True)
class Change:
    """Rows for one named statement of a read model (`projections/sql/<driver>/<view>.sql`), one execution per row, values in the statement's order."""

    statement: str
    rows: Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Process:
    epoch: int
    name: str
    roles: tuple[str, ...]
    started_at: datetime
    seen_at: datetime
    dead: bool = False


# ---------------------------------------------------------------------------------------------------------------------- the ports


class Log(Protocol):
    """Append and read streams. `now` None means the database clock; only a virtual clock passes it."""

    async def append(self, commits: Sequence[Commit], *, epoch: int, now: datetime | None = None) -> list[Outcome]:
        """One transaction under the lane lock; an outcome per commit, in order. At most one commit per stream and batch. Raises `Unavailable` when the database
        does not answer (the fate is then unknown and the same call may be made again), `CommitRefused` naming the guilty ordinal for a poison commit."""

    async def append_for(self, tenant: str, commits: Sequence[Commit], *, epoch: int, now: datetime | None = None) -> list[Outcome]:
        """`append` under the web's role, bound to one tenant: arrivals, inputs, messages and events only; anything else raises `TenantRefused`."""

    async def load(self, tenant: str, stream: UUID, *, after: int = 0) -> list[Stored]: ...

    async def load_many(self, streams: Sequence[tuple[str, UUID]]) -> dict[UUID, list[Stored]]: ...

    async def snapshot(self, tenant: str, stream: UUID) -> tuple[int, bytes] | None: ...

    async def read(self, lane: int, *, after: int, limit: int) -> list[Notification]: ...

    async def head(self, lane: int) -> int: ...

    async def wait_for_append(self, lane: int, after: int, timeout_seconds: float) -> bool:
        """True as soon as the lane's head may be past `after` (notification or poll), False at the timeout."""

    async def wait_for_inputs(self, timeout_seconds: float) -> bool:
        """True as soon as inputs may wait to be claimed (left by another process's append, or new), False at the timeout. One waiter per store."""


class Work(Protocol):
    """What processes claim, so that any of them can do it: leases by epoch, timers, outbox, inputs."""

    async def register(self, name: str, roles: Sequence[str], *, now: datetime | None = None) -> int:
        """A new process epoch, higher than all before."""

    async def heartbeat(self, epoch: int, *, now: datetime | None = None) -> bool:
        """False: this process was declared dead and must drop everything and register anew."""

    async def declare_dead(self, *, silent_seconds: float, now: datetime | None = None) -> list[int]:
        """Marks silent processes dead (row lock FOR UPDATE, so that none of their appends is in flight) and answers their epochs."""

    async def retire(self, epoch: int) -> None:
        """A clean goodbye: releases every run it owns."""

    async def processes(self) -> list[Process]:
        """Every process that ever registered, oldest first; the dead ones too."""

    async def claim_runs(self, epoch: int, *, plans: Sequence[tuple[str, int]], limit: int = 500, now: datetime | None = None) -> list[OpenRun]:
        """Takes over unowned runs, or runs of dead processes, whose (workflow, version) this process knows; counts a takeover on each taken from a dead process. A commit with
        `Changed` sets the count back to 0."""

    async def release_runs(self, epoch: int, runs: Sequence[UUID]) -> None: ...

    async def claim_run(self, epoch: int, tenant: str, run_id: UUID) -> OpenRun | None:
        """Takes one run if it is unowned, owned by a dead process, or ours already; None when another live process owns it or it is closed."""

    async def open_run(self, tenant: str, run_id: UUID) -> OpenRun | None: ...

    async def open_runs(self, *, tenant: str | None = None, limit: int = 1000, after: UUID | None = None) -> list[OpenRun]: ...

    async def queued_runs(self, epoch: int, *, limit: int) -> list[OpenRun]:
        """Own or unowned runs queued for a slot, in weighted fair order between tenants, woken ones before new ones."""

    async def claim_inputs(self, epoch: int, *, limit: int, now: datetime | None = None) -> list[InputRow]:
        """Pending inputs whose run this process owns, or that have no run yet, or whose run has no live owner; with a short lease on each row."""

    async def claim_outbox(self, epoch: int, *, limit: int, now: datetime | None = None) -> list[OutboxRow]: ...

    async def settle_outbox(self, sent: Sequence[int], *, returned: Sequence[int] = (), retry_at: datetime | None = None) -> None:
        """Deletes sent rows; returns the others to be claimed again at `retry_at`."""

    async def due_timers(self, epoch: int, *, limit: int, now: datetime | None = None) -> list[DueTimer]:
        """Due timers and run deadlines (key `run/deadline`), leased shortly; the commit that answers one clears it."""

    async def wakes(self, tenant: str, run_id: UUID) -> dict[str, list[dict[str, Any]]]:
        """Every recorded reason to wake of one run: timers, subscriptions, awaits, inputs, outbox messages."""

    async def runs_without_wake(self, *, older_than_seconds: float, limit: int, now: datetime | None = None) -> list[OpenRun]:
        """Open runs with no live owner... or with an owner but no reason to wake: the janitor's list."""


class Journal(Protocol):
    """Arrivals, start keys, dead letters."""

    async def arrival(self, tenant: str, source: str, event_id: str) -> bytes | None: ...

    async def started(self, tenant: str, start_key: str) -> UUID | None: ...

    async def record_outcome(self, tenant: str, source: str, event_id: str, outcome: str) -> None:
        """started, matched, ignored: <reason>, refused: <reason>; what `explain` reads."""

    async def outcomes(self, tenant: str, source: str, event_id: str) -> list[str]:
        """What became of an arrival, oldest first."""

    async def prune_journal(self, *, before: datetime, limit: int = 1000) -> int:
        """Forgets a slice of arrivals received before that moment, with inbox rows and keys; answers how many. One that a pending input needs is kept."""

    async def bury(self, letter: DeadLetter) -> bool:
        """Keeps it; False when this id was kept before."""

    async def dead_letters(self, *, tenant: str | None, state: str | None = "dead", limit: int = 100, after: UUID | None = None) -> list[DeadLetter]: ...

    async def dead_letter(self, tenant: str | None, letter_id: UUID) -> DeadLetter | None: ...

    async def settle_dead_letter(self, letter_id: UUID, *, state: Literal["redriven", "discarded"], by: str, now: datetime | None = None) -> bool:
        """Atomically dead -> state; False when it was settled before (a second redrive is a no-op)."""


class Catalog(Protocol):
    """Tenants and their lanes, workflow switches and caps, API tokens, wrapped keys."""

    async def lane_of(self, tenant: str) -> int:
        """The tenant's lane; creates the tenant on first sight."""

    async def lanes(self) -> list[int]: ...

    async def keys(self, tenant: str, *, scopes: Sequence[str] | None = None) -> list[WrappedKey]:
        """The tenant's wrapped keys; `scopes` bounds them, since a tenant may have a key per data subject."""

    async def keys_not_under(self, root_id: str, *, limit: int) -> list[WrappedKey]:
        """Keys of any tenant wrapped by another root key than this one: what a root rotation still has to rewrap."""

    async def add_key(self, key: WrappedKey) -> WrappedKey:
        """Adds it, or answers the one that another process added first."""

    async def rewrap_key(self, key: WrappedKey) -> None: ...

    async def drop_key(self, tenant: str, scope: str) -> int: ...

    async def root_ids(self) -> dict[str, int]:
        """How many wrapped keys each root key still holds."""

    async def add_token(self, token: Token) -> None: ...

    async def token(self, prefix: str) -> Token | None: ...

    async def tokens(self, tenant: str | None) -> list[Token]: ...

    async def revoke_token(self, prefix: str, *, now: datetime | None = None) -> bool: ...

    async def setting(self, tenant: str, name: str) -> Any: ...

    async def put_setting(self, tenant: str, name: str, value: Any) -> None:
        """Caps and switches that change without restart (tenant `*` is the default for all)."""


class ReadModels(Protocol):
    """Where projections write and everyone reads. Statements are named SQL in `projections/sql/<driver>/*.sql`, loaded at start."""

    async def checkpoint(self, view: str, lane: int) -> int: ...

    async def apply(self, view: str, lane: int, *, expected: int, position: int, changes: Sequence[Change]) -> bool:
        """Rows and checkpoint in one transaction; False, and nothing written, when the checkpoint is not `expected`."""

    async def fetch(self, statement: str, *, tenant: str | None, **params: Any) -> list[dict[str, Any]]:
        """Runs a named SELECT. `tenant` is set for row-level security (PostgreSQL) and passed as :tenant; None is the platform's view over all tenants."""

    async def reset(self, view: str) -> None:
        """Empties the view's tables and its checkpoints (statement `<view>_reset`), for a rebuild."""


class Store(Log, Work, Journal, Catalog, ReadModels, Protocol):
    """All of it, with one life: `start` connects and checks the schema, `stop` twice is fine."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def migrate(self) -> list[str]:
        """Applies missing migrations under a lock; answers their names. Raises `SchemaNewer` when the database knows later ones."""

    async def ping(self) -> None:
        """Raises `Unavailable` when the database does not answer."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in one lane; outside the engine an opaque token."""

    lane: int
    n: int

    def __str__(self) -> str:
        return f"{self.lane}-{self.n}"


def open_store(url: str, *, views: Path | None = None, patience_seconds: float = 5.0) -> Store:
    """The driver for `postgresql://...` or `sqlite:///path`; `start` it before use. `views` is the folder of the read models' statements, by default the
    projections' for that driver. `patience_seconds` is how long a call is tried again before it raises `Unavailable`."""
    scheme = url.split(":", 1)[0]
    folder = Path(__file__).parents[2] / "projections" / "sql"
    if scheme in ("postgresql", "postgres"):
        from engine.store.postgres import PostgresStore

        return PostgresStore(url, views=views or folder / "postgres", patience_seconds=patience_seconds)
    if scheme == "sqlite":
        from engine.store.sqlite import SqliteStore

        path = Path("/" + unquote(url.removeprefix("sqlite:")).lstrip("/"))
        return SqliteStore(path, views=views or folder / "sqlite", patience_seconds=patience_seconds)
    raise ValueError(f"store url scheme {scheme!r} is unknown; use postgresql://user@host/database or sqlite:///path")

