"""The event store as protocols: what the coordinator, the consumers and the projections ask of it, whichever database
it is.

    arrivals   what arrived        inbox       dedup of arrivals       starts      dedup of starts, for ever
    log        what happened       outbox      what must be sent       inputs      what must still be given to a run
    timers · subscriptions · awaits · open_runs   the recorded reasons to wake
    checkpoints   how far a projection has read      archive   ended runs, by month

Two drivers, `postgres` (asyncpg) and `sqlite` (the `eventsourcing` SQLite recorder, subclassed), pass one conformance
suite. Bodies come in sealed and go out sealed: the store never sees a payload (`engine.store.mapper` seals).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import unquote
from uuid import UUID

from engine.store.people import PeopleRows
from engine.store.shadows import Comparison, Difference, Shadow
from engine.store.shapes import (
    ARRIVALS_AT_ONCE,
    READ_BYTES,
    RECOUNTED_AT_ONCE,
    Account,
    Appended,
    ArchivedMonth,
    ArchivedRun,
    Arrival,
    Await,
    Census,
    Change,
    Changed,
    ChangedSetting,
    Closed,
    Commit,
    Cost,
    CountedStarts,
    DeadLetter,
    DueTimer,
    Duplicate,
    Fenced,
    Guard,
    Hook,
    HookScheme,
    InputRow,
    Journaled,
    Limited,
    NewInput,
    Notification,
    Opened,
    OpenRun,
    OutboxMessage,
    OutboxRow,
    Outcome,
    Outlet,
    OutletDelivery,
    OutletQueue,
    OutletState,
    PastArrival,
    Pending,
    Position,
    PresentedToken,
    Process,
    Recorded,
    SealedSecret,
    SecretNote,
    Stale,
    Start,
    StartsCounted,
    StartsRead,
    Stored,
    StreamKind,
    Subscription,
    Timer,
    Token,
    WorkflowUse,
    WrappedKey,
)

if TYPE_CHECKING:
    from engine.store.migrate import Missing

__all__ = [
    "ARRIVALS_AT_ONCE",
    "READ_BYTES",
    "RECOUNTED_AT_ONCE",
    "Account",
    "Appended",
    "Archive",
    "ArchivedMonth",
    "ArchivedRun",
    "Arrival",
    "Await",
    "Catalog",
    "Census",
    "Change",
    "Changed",
    "ChangedSetting",
    "Closed",
    "Commit",
    "Comparison",
    "Cost",
    "CountedStarts",
    "DeadLetter",
    "Difference",
    "DueTimer",
    "Duplicate",
    "Fenced",
    "Guard",
    "Hook",
    "HookScheme",
    "InputRow",
    "Journal",
    "Journaled",
    "Limited",
    "Log",
    "NewInput",
    "Notification",
    "OpenRun",
    "Opened",
    "OutboxMessage",
    "OutboxRow",
    "Outcome",
    "Outlet",
    "OutletDelivery",
    "OutletQueue",
    "OutletRows",
    "OutletState",
    "PastArrival",
    "Pending",
    "PeopleRows",
    "Position",
    "PresentedToken",
    "Process",
    "QuotaRows",
    "ReadModels",
    "Recorded",
    "SealedSecret",
    "SecretNote",
    "SecretRows",
    "Shadow",
    "Stale",
    "Start",
    "StartsCounted",
    "StartsRead",
    "Store",
    "Stored",
    "StreamKind",
    "Subscription",
    "Timer",
    "Token",
    "Work",
    "WorkflowUse",
    "WrappedKey",
    "open_store",
]


class Log(Protocol):
    """Append and read streams. `now` None means the database clock; only a virtual clock passes it."""

    async def append(self, commits: Sequence[Commit], *, epoch: int, now: datetime | None = None) -> list[Outcome]:
        """One transaction under the lane lock; an outcome per commit, in order. At most one commit per stream and
        batch. Raises `Unavailable` when the database does not answer (the fate is then unknown and the same call may
        be made again), `CommitRefused` naming the guilty ordinal for a poison commit."""

    async def append_for(
        self, tenant: str, commits: Sequence[Commit], *, epoch: int, now: datetime | None = None
    ) -> list[Outcome]:
        """`append` under the web's role, bound to one tenant: arrivals, inputs, messages and events only; anything
        else raises `TenantRefused`."""

    async def load(self, tenant: str, stream: UUID, *, after: int = 0) -> list[Stored]: ...

    async def load_many(self, streams: Sequence[tuple[str, UUID]]) -> dict[UUID, list[Stored]]: ...

    async def snapshot(self, tenant: str, stream: UUID) -> tuple[int, bytes] | None: ...

    async def snapshots_of(self, streams: Sequence[tuple[str, UUID]]) -> dict[UUID, tuple[int, bytes]]:
        """The snapshots of those (tenant, stream) that have one: version and sealed body."""

    async def read(self, lane: int, *, after: int, limit: int) -> list[Notification]:
        """The next events of a lane, up to `limit`; fewer when their bodies pass `READ_BYTES`, never none while there
        are some."""

    async def head(self, lane: int) -> int: ...

    async def wait_for_append(self, lane: int, after: int, timeout_seconds: float) -> bool:
        """True as soon as the lane's head may be past `after` (notification or poll), False at the timeout."""

    async def wait_for_inputs(self, timeout_seconds: float) -> bool:
        """True as soon as inputs may wait to be claimed (left by another process's append, or new), False at the
        timeout. One waiter per store."""


class Work(Protocol):
    """What processes claim, so that any of them can do it: leases by epoch, timers, outbox, inputs."""

    async def register(self, name: str, roles: Sequence[str], *, now: datetime | None = None) -> int:
        """A new process epoch, higher than all before."""

    async def heartbeat(self, epoch: int, *, now: datetime | None = None) -> bool:
        """False: this process was declared dead and must drop everything and register anew."""

    async def declare_dead(
        self, *, silent_seconds: float, but: int | None = None, now: datetime | None = None
    ) -> list[int]:
        """Marks silent processes dead (row lock FOR UPDATE, so that none of their appends is in flight) and answers
        their epochs. Never the epoch `but`, of whoever asks."""

    async def retire(self, epoch: int) -> None:
        """A clean goodbye: releases every run it owns."""

    async def restored(self) -> None:
        """The database was put back from a copy: every process it knows is dead, what they held is free, and new epochs
        are far above any that the original has given out since. Nobody is signed in: a session that was ended since
        the copy would live again."""

    async def processes(self) -> list[Process]:
        """Every process that ever registered, oldest first; the dead ones too."""

    async def claim_runs(
        self, epoch: int, *, plans: Sequence[tuple[str, int]], limit: int = 500, now: datetime | None = None
    ) -> list[OpenRun]:
        """Takes over unowned runs, or runs of dead processes, whose (workflow, version) this process knows; counts a
        takeover on each taken from a dead process. A commit with `Changed` sets the count back to 0."""

    async def release_runs(self, epoch: int, runs: Sequence[UUID]) -> None: ...

    async def hand_over(self, epoch: int, runs: Sequence[UUID], *, now: datetime | None = None) -> None:
        """Ends the leases of this process on inputs, timers and deadlines of those of the runs that another living
        process owns: it may claim them at once."""

    async def claim_named(self, epoch: int, runs: Sequence[tuple[str, UUID]]) -> list[OpenRun]:
        """Takes those of these (tenant, run) that are unowned, owned by a dead process, or ours already. What is
        missing from the answer another live process owns, or is closed."""

    async def open_run(self, tenant: str, run_id: UUID) -> OpenRun | None: ...

    async def open_runs(
        self, *, tenant: str | None = None, limit: int = 1000, after: UUID | None = None
    ) -> list[OpenRun]: ...

    async def queued_runs(
        self, epoch: int, *, limit: int, but: Collection[tuple[str, str | None]] = ()
    ) -> list[OpenRun]:
        """Own or unowned runs queued for a slot: in weighted fair order between tenants, one of each workflow in turn
        within a tenant, woken ones before new ones within a workflow. None of the workflows named in `but` as (tenant,
        workflow), or of the tenants named as (tenant, None)."""

    async def slots_held(self, tenants: Sequence[str]) -> dict[tuple[str, str], int]:
        """How many runs of these tenants hold a slot, by tenant and workflow; a pair without one is left out."""

    async def claim_inputs(
        self, epoch: int, *, limit: int, but: Sequence[str] = (), now: datetime | None = None
    ) -> list[InputRow]:
        """Pending inputs whose run this process owns, or that have no run yet, or whose run has no live owner, the
        oldest first; with a short lease on each row. None of the tenants `but`."""

    async def claim_outbox(self, epoch: int, *, limit: int, now: datetime | None = None) -> list[OutboxRow]: ...

    async def settle_outbox(
        self, sent: Sequence[int], *, returned: Sequence[int] = (), retry_at: datetime | None = None
    ) -> None:
        """Deletes sent rows; returns the others to be claimed again at `retry_at`."""

    async def due_timers(self, epoch: int, *, limit: int, now: datetime | None = None) -> list[DueTimer]:
        """Due timers and run deadlines (key `run/deadline`), at most `limit` of each, leased shortly; the commit that
        answers one clears it."""

    async def wakes(self, tenant: str, run_id: UUID) -> dict[str, list[dict[str, Any]]]:
        """Every recorded reason to wake of one run: timers, subscriptions, awaits, inputs, outbox messages."""

    async def runs_without_wake(
        self, *, older_than_seconds: float, limit: int, now: datetime | None = None
    ) -> list[OpenRun]:
        """Open runs with no live owner... or with an owner but no reason to wake: the janitor's list."""

    async def account(self, day: str, used: Sequence[Account]) -> None:
        """Adds to what the tenants used on that day (`YYYY-MM-DD`, UTC)."""

    async def accounts(self, tenant: str | None, *, first: str, last: str, limit: int = 10_000) -> list[Account]:
        """Newest day first; None: all tenants. Both days belong to the span."""

    async def recount_accounts(self, *, first: str, last: str, most: int = RECOUNTED_AT_ONCE) -> None:
        """Corrects `rows` of these days by what differs from the log: a process that died has not added its last
        seconds. The log is read `most` events at once, and said twice it corrects nothing more."""

    async def census(self, *, most: int = 100_000, now: datetime | None = None) -> Census:
        """What waits: open runs by status, messages, late timers and deadlines, dead letters, and who is there to work
        on it. `most` bounds every count but that of the runs."""


class Journal(Protocol):
    """Arrivals, start keys, dead letters."""

    async def arrival(self, tenant: str, source: str, event_id: str) -> bytes | None: ...

    async def started(self, tenant: str, start_key: str) -> UUID | None: ...

    async def past_arrivals(
        self,
        tenant: str,
        types: Sequence[str],
        *,
        since: datetime,
        until: datetime,
        after: int = 0,
        limit: int = 500,
        most: int = ARRIVALS_AT_ONCE,
    ) -> list[PastArrival]:
        """Arrivals of these types received in [since, until), in the order of the journal, with ids above `after`. The
        journal is looked through `most` arrivals at once."""

    async def count_past_arrivals(
        self, tenant: str, types: Sequence[str], *, since: datetime, until: datetime, most: int = ARRIVALS_AT_ONCE
    ) -> int: ...

    async def record_outcome(self, tenant: str, source: str, event_id: str, outcome: str) -> None:
        """ignored: <reason>, refused: <reason>; what `explain` reads."""

    async def outcomes(self, tenant: str, source: str, event_id: str) -> list[str]:
        """What became of an arrival, oldest first."""

    async def journaled(self, tenant: str, source: str, event_id: str) -> Journaled | None:
        """An arrival with what became of it, while the journal keeps it."""

    async def prune_journal(self, *, before: datetime, limit: int = 1000) -> int:
        """Forgets a slice of arrivals received before that moment, with inbox rows and keys; answers how many. One
        that a pending input needs is kept."""

    async def forget_subject(self, tenant: str, frame: bytes, *, most: int = ARRIVALS_AT_ONCE) -> int:
        """Deletes the keys of every arrival whose body begins with `frame` (a data subject's: scheme and hashed
        subject), so that it can be found by none of them; answers how many such arrivals there are. The tenant's
        arrivals are looked at `most` at once; when it breaks off it may be said again."""

    async def bury(self, letter: DeadLetter) -> bool:
        """Keeps it; False when this id was kept before."""

    async def dead_letters(
        self, *, tenant: str | None, state: str | None = "dead", limit: int = 100, after: UUID | None = None
    ) -> list[DeadLetter]: ...

    async def dead_letter(self, tenant: str | None, letter_id: UUID) -> DeadLetter | None: ...

    async def dead_letters_of(self, tenant: str, event_id: str, *, limit: int = 10) -> list[DeadLetter]:
        """Dead letters that named this event id, in any state, oldest first."""

    async def settle_dead_letter(
        self, letter_id: UUID, *, state: Literal["redriven", "discarded"], by: str, now: datetime | None = None
    ) -> bool:
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

    async def guards(self) -> list[Guard]:
        """What the database refuses by itself, looked at now; for the doctor."""

    async def add_token(self, token: Token) -> None: ...

    async def token(self, prefix: str) -> Token | None: ...

    async def presented(self, prefix: str) -> PresentedToken | None:
        """The token with all that is asked of it at a request, in one look."""

    async def tokens(self, tenant: str | None) -> list[Token]: ...

    async def touch_token(self, prefix: str, *, now: datetime, before: datetime) -> bool:
        """Notes that the token was used; False, and nothing written, when that was noted after `before`."""

    async def revoke_token(self, prefix: str, *, now: datetime | None = None) -> bool: ...

    async def add_hook(self, hook: Hook) -> bool:
        """False, and nothing changed: the tenant has a hook of this name."""

    async def hook(self, tenant: str, name: str) -> Hook | None: ...

    async def hooks(self, tenant: str | None) -> list[Hook]: ...

    async def rotate_hook(self, hook: Hook, secret: bytes, *, old_until: datetime, now: datetime) -> bool:
        """`secret` for the next version; that of `hook` stays as the old one. False: it is gone, or at another."""

    async def remove_hook(self, tenant: str, name: str) -> bool: ...

    async def setting(self, tenant: str, name: str) -> Any: ...

    async def forget_tenant(self, tenant: str, *, most: int = ARRIVALS_AT_ONCE) -> dict[str, int]:
        """Deletes the tenant's keys, journal, dead letters, tokens, hooks, outlets, settings (but for its mark as
        offboarded), snapshots, memberships with the users who had no other, and what was still to be sent; answers
        `arrivals`, `letters`, `tokens`, `keys`. Log, archive and start keys stay. Arrivals go first, `most`
        at once; when it breaks off it may be said again. Raises `Conflict` while a run of it is open."""

    async def settings_named(self, name: str) -> dict[str, Any]:
        """This setting of every tenant that has one of its own, `*` among them."""

    async def settings_changed(self, names: Sequence[str], *, after: int) -> list[ChangedSetting]:
        """What these settings of any tenant say that were changed later than the change `after`; after -1, all of them.
        One that is taken away with its tenant is not among them."""

    async def egress_rules(self, tenant: str) -> Any:
        """The setting `egress` of the tenant, or everybody's; None: neither is set."""

    async def lease_egress(self, tenant: str, *, slot: int, width_ms: int, slots: int, most: int, wanted: int) -> int:
        """Up to `wanted` outbound requests of the slot, so that this one and the `slots - 1` before it hold at most
        `most`, over all processes. Slots of another width are forgotten."""

    async def put_setting(self, tenant: str, name: str, value: Any) -> None:
        """Caps and switches that change without restart (tenant `*` is the default for all)."""


class QuotaRows(Protocol):
    """What quotas count, to be seen and to be counted again; `append` is what bounds."""

    async def quota_use(self, tenant: str, *, day: str) -> list[WorkflowUse]:
        """Of each workflow that has anything to be counted, on that day (`YYYY-MM-DD`, UTC) and in its month."""

    async def keys_answered(self, stream: UUID, keys: Sequence[str]) -> set[str]:
        """Which of these dedup keys the stream has answered."""

    async def egress_taken(self, tenant: str, *, slot: int, width_ms: int, slots: int) -> int:
        """How many outbound requests were leased of this slot and the `slots - 1` before it."""

    async def position_before(self, lane: int, at: datetime) -> int:
        """The last position of the lane that was recorded before that moment; 0: none."""

    async def starts_counted(self, lane: int, *, after: int, most: int, day: str) -> StartsCounted:
        """Of the next `most` events of the lane."""

    async def starts_of(
        self, tenants: Sequence[str], lane: int, *, after: int, most: int, day: str, most_bytes: int = READ_BYTES
    ) -> StartsRead:
        """Of the next `most` events of the lane, or fewer: the starts' bodies begin within `most_bytes`."""

    async def correct_counts(self, tenant: str, *, day: str, started: Mapping[str, int], opened: int = 0) -> None:
        """Adds what was missing (or takes what was too much) by workflow, so that what is counted meanwhile stays. Of
        a day that is over only what counts as open is corrected."""


class OutletRows(Protocol):
    """Where notices are delivered to, and what was, is or will be sent there."""

    async def add_outlet(self, outlet: Outlet) -> bool:
        """False, and nothing changed: the tenant has an outlet of this name."""

    async def outlet(self, tenant: str, name: str) -> Outlet | None: ...

    async def outlets(self, tenant: str | None) -> list[Outlet]: ...

    async def rotate_outlet(self, outlet: Outlet, secret: bytes, *, old_until: datetime, now: datetime) -> bool:
        """`secret` for the next version; that of `outlet` stays as the old one. False: it is gone, or at another."""

    async def switch_outlet(self, tenant: str, name: str, *, enabled: bool, why: str, now: datetime) -> bool:
        """False: it is gone, or was so already."""

    async def note_outlet(self, tenant: str, name: str, *, failed: bool, now: datetime) -> datetime | None:
        """How its last delivery went; answers since when they fail, None: they do not."""

    async def remove_outlet(self, tenant: str, name: str) -> bool:
        """With all of its deliveries."""

    async def add_delivery(self, delivery: OutletDelivery) -> bool:
        """Due at once. False: it is known, or the outlet is gone."""

    async def claim_deliveries(
        self, *, now: datetime, lease_until: datetime, busy: Sequence[str], each: int, limit: int
    ) -> list[OutletDelivery]:
        """Those due at outlets that are enabled, at most `each` of one outlet and none of those called `busy`
        (`tenant/outlet`). What is not settled before `lease_until` is due again."""

    async def settle_delivery(self, delivery: OutletDelivery) -> bool:
        """Keeps state, attempts, due time and result of a waiting one. False: it is none any more."""

    async def deliveries(
        self, tenant: str, outlet: str, *, state: OutletState | None = None, limit: int = 100
    ) -> list[OutletDelivery]:
        """Newest first."""

    async def delivery(self, tenant: str, outlet: str, message_id: str) -> OutletDelivery | None: ...

    async def resend_delivery(
        self, tenant: str, outlet: str, message_id: str, *, now: datetime, soon: datetime
    ) -> bool:
        """Due at once with all of its attempts, whatever became of it. False: it waits and is due by `soon`, or there
        is none."""

    async def resend_failed(
        self, tenant: str, outlet: str, *, since: datetime, now: datetime, soon: datetime, limit: int
    ) -> int:
        """The same for those made since then that have failed, or have failed so far and are not due by `soon`: the
        oldest of them. Answers how many."""

    async def outlet_queues(self, *, most: int = 100_000) -> list[OutletQueue]:
        """Of outlets that are disabled or have notices waiting. `most` notices are counted, those due first."""

    async def prune_deliveries(self, *, before: datetime, limit: int) -> int:
        """Forgets a slice of those settled before that moment, the oldest first; answers how many."""


class SecretRows(Protocol):
    """Secrets of tenants, the current version of each."""

    async def put_secret(self, secret: SealedSecret, *, by: str, now: datetime | None = None) -> bool:
        """Keeps it in the place of the version before, which goes with its data key. False, and nothing written, when
        `version` is not the next one."""

    async def secret(self, tenant: str, name: str) -> SealedSecret | None: ...

    async def secrets(self, tenant: str) -> list[SecretNote]:
        """By name."""

    async def remove_secret(self, tenant: str, name: str) -> bool:
        """Deletes it with its data key. False: there was none."""


class Archive(Protocol):
    """Ended runs that have aged out of the log, by the month they ended in (`YYYY-MM`, UTC). `load`, `load_many` and
    `read` read them as if they had never moved, until their month is dropped."""

    async def archive_runs(self, tenant: str, runs: Sequence[UUID], *, month: str) -> dict[UUID, int]:
        """Moves the logs of those that are closed, whole, in one transaction, with their snapshots and input keys let
        go; answers which of the given runs are in the archive then, and their events. Said twice, it moves nothing
        more."""

    async def archived_run(self, tenant: str | None, run_id: UUID) -> ArchivedRun | None: ...

    async def dropped_runs(self, runs: Sequence[UUID]) -> set[UUID]:
        """Those of these runs whose month was dropped."""

    async def archive_months(self) -> list[ArchivedMonth]:
        """Oldest first."""

    async def read_archive(self, month: str, *, after: int, limit: int) -> list[Notification]:
        """Events of a month of the archive behind a position, of all lanes: `limit` at most, and with the last one
        those of other lanes at its position."""

    async def drop_month(self, month: str) -> tuple[int, int]:
        """Deletes a month for good; answers how many runs and events there were. Raises `Forbidden` on PostgreSQL when
        this database user may not act as the owner."""


class ReadModels(Protocol):
    """Where projections write and everyone reads. Statements are named SQL in `projections/sql/<driver>/*.sql`, loaded
    at start."""

    async def checkpoint(self, view: str, lane: int) -> int: ...

    async def apply(self, view: str, lane: int, *, expected: int, position: int, changes: Sequence[Change]) -> bool:
        """Rows and checkpoint in one transaction; False, and nothing written, when the checkpoint is not `expected`."""

    async def fetch(self, statement: str, *, tenant: str | None, **params: Any) -> list[dict[str, Any]]:
        """Runs a named SELECT. `tenant` is set for row-level security (PostgreSQL) and passed as :tenant; None is the
        platform's view over all tenants."""

    async def reset(self, view: str) -> None:
        """Empties the view's tables and its checkpoints (statement `<view>_reset`): whoever follows writes it anew."""

    def shadow(self, view: str) -> AbstractAsyncContextManager[Shadow]:
        """An empty shadow of the view, dropped at the end unless it was switched to. Raises `Conflict` while another
        process holds one of the same view."""

    async def drop_shadows(self) -> list[str]:
        """Drops what dead processes left of shadows; answers the views' names."""

    async def view_rows(self, view: str) -> dict[str, int]:
        """Rows of each table of the view; from the server's statistics where it has many."""


class Store(Log, Work, Journal, Catalog, QuotaRows, OutletRows, SecretRows, PeopleRows, Archive, ReadModels, Protocol):
    """All of it, with one life: `start` connects and checks the schema, `stop` twice is fine."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def migrate(self) -> list[str]:
        """Applies missing migrations under a lock; answers their names. Raises `SchemaNewer` when the database knows
        later ones."""

    async def pending(self) -> Missing:
        """What `migrate` would apply; changes nothing, and what an older schema already has may be asked afterwards.
        Raises `SchemaNewer` or `SchemaChanged`."""

    async def table_rows(self) -> dict[str, int]:
        """About how many rows each of the store's tables holds, from the server's statistics; empty on SQLite, where
        whoever writes holds the whole file anyway."""

    async def time(self) -> datetime:
        """What the database's clock says."""

    async def ping(self) -> None:
        """Raises `Unavailable` when the database does not answer."""


def open_store(
    url: str,
    *,
    views: Path | None = None,
    patience_seconds: float = 5.0,
    pool_size: int = 4,
    role: Literal["engine", "mail"] = "engine",
) -> Store:
    """The driver for `postgresql://...` or `sqlite:///path`; `start` it before use. `views` is the folder of the read
    models' statements, by default the projections' for that driver. `patience_seconds` is how long a call is tried
    again before it raises `Unavailable`. `pool_size` is how many connections a role of PostgreSQL may have; `role` is
    the one that calls are made under: `mail` may ask `egress_rules`, `lease_egress`, `time` and `ping`, and no more."""
    scheme = url.split(":", 1)[0]
    folder = Path(__file__).parents[2] / "projections" / "sql"
    if scheme in ("postgresql", "postgres"):
        from engine.store.postgres import PostgresStore

        return PostgresStore(
            url, views=views or folder / "postgres", patience_seconds=patience_seconds, pool_size=pool_size, role=role
        )
    if scheme == "sqlite":
        from engine.store.sqlite import SqliteStore

        path = Path("/" + unquote(url.removeprefix("sqlite:")).lstrip("/"))
        return SqliteStore(path, views=views or folder / "sqlite", patience_seconds=patience_seconds)
    raise ValueError(f"store url scheme {scheme!r} is unknown; use postgresql://user@host/database or sqlite:///path")
