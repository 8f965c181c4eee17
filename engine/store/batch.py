"""A batch of commits as columns, and the answers as outcomes. Pure: no database here; both drivers flatten with it,
call their `append`, and assemble with it. What repeats a key of an earlier commit of the same batch is kept out of the
call and takes that commit's answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from orjson import dumps

from engine.store import (
    Appended,
    Changed,
    Closed,
    Commit,
    Cost,
    Duplicate,
    Fenced,
    InputRow,
    Limited,
    Opened,
    Outcome,
    Stale,
)
from engine.store.errors import CommitRefused, ContentRefused

APPENDED, DUPLICATE, MISMATCH, STALE, LIMITED_WORKFLOW, LIMITED_TENANT, FENCED = range(7)
OVER_OPEN, OVER_DAILY, OVER_WORKFLOW = range(9, 12)
"""Of starts that quotas count."""
OVER_DAY, OVER_MONTH, OVER_WORKFLOW_DAY, OVER_WORKFLOW_MONTH = range(12, 16)
"""Of what begins something while a budget is spent."""

GROUPS: dict[str, tuple[str, ...]] = {
    "c": ("tenant", "stream", "kind", "expected"),
    "e": ("ord", "tenant", "stream", "kind", "version", "topic", "body"),
    "cl": ("ord", "run", "bare"),
    "s": ("ord", "tenant", "key", "run"),
    "k": ("ord", "run", "key"),
    "a": ("ord", "tenant", "source", "event_id", "type", "hash", "body", "received", "causation"),
    "h": ("ord", "arrival", "tenant", "type", "name", "hash", "received"),
    "i": ("ord", "tenant", "kind", "run", "workflow", "name", "visit", "source", "event_id", "body"),
    "x": ("ord", "id"),
    "o": ("ord", "tenant", "run", "message_id", "exchange", "routing_key", "body", "not_before"),
    "t": ("ord", "tenant", "run", "key", "due"),
    "tc": ("ord", "run", "key"),
    "u": ("ord", "tenant", "run", "name", "visit", "type", "key_name", "key_hash", "look_back"),
    "ud": ("ord", "run", "name", "visit"),
    "w": ("ord", "tenant", "run", "command", "step", "visit", "types"),
    "wd": ("ord", "tenant", "command"),
    "oo": ("ord", "tenant", "run", "workflow", "version", "status", "slot", "deadline"),
    "oc": ("ord", "run", "status", "slot", "deadline"),
    "q": ("ord", "tenant", "run", "workflow", "workflow_cap", "tenant_cap"),
    "n": ("ord", "tenant", "stream", "version", "body"),
}
"""The child tables of a batch: prefix and columns, in the order of the database type `batch`. Commits, events and the
runs that end are its own columns, the others those of its `rest`."""
ALWAYS = frozenset(("c", "e", "cl"))


Rows = dict[str, list[tuple[Any, ...]]]


class Batch:
    """Rows per group, each with the 1-based ordinal of its commit among those sent. `sent[n - 1]` is that commit's
    place in the caller's list. `costs` are no part of the database type, which never changes."""

    __slots__ = ("copies", "costs", "rows", "sent")

    def __init__(self) -> None:
        self.rows: Rows = {prefix: [] for prefix in GROUPS}
        self.sent: list[int] = []
        self.costs: list[tuple[int, str, Cost]] = []
        """Ordinal, tenant, and what the commit costs."""
        self.copies: dict[int, tuple[int, bool]] = {}
        """Place of a commit kept out -> (place of the commit it repeats, whether its body differs)."""


def _as_it_is(value: Any) -> Any:
    return value


def flatten(
    commits: Sequence[Commit],
    *,
    strict: bool = False,
    uuids: Callable[[UUID], Any] = _as_it_is,
    instants: Callable[[datetime], Any] = _as_it_is,
) -> Batch:
    """The batch of these commits; `uuids` and `instants` turn values into what the database keeps. Two commits of one
    stream are a caller's error, except in strict mode, where the database refuses the batch.
    """
    batch = Batch()
    rows = batch.rows
    sent = batch.sent
    add_commit = rows["c"].append
    add_event = rows["e"].append
    streams: set[Any] = set()
    starts: dict[tuple[str, str], int] = {}
    arrivals: dict[tuple[str, str, str], tuple[int, bytes]] = {}
    for place, commit in enumerate(commits):
        tenant = commit.tenant
        stream: Any = commit.stream
        start = commit.start
        arrival = commit.arrival
        if stream is not None:
            stream = uuids(stream)
            if stream in streams and not strict:
                raise ValueError(
                    f"stream {commit.stream} occurs twice in one batch; let its mailbox join the two commits"
                )
            streams.add(stream)
        if start is not None:
            first = starts.setdefault((tenant, start.key), place)
            if first != place:
                batch.copies[place] = (first, False)
                continue
        if arrival is not None:
            known = arrivals.setdefault((tenant, arrival.source, arrival.event_id), (place, arrival.body_hash))
            if known[0] != place:
                batch.copies[place] = (known[0], known[1] != arrival.body_hash)
                continue
        sent.append(place)
        n = len(sent)
        kind = commit.kind
        version = commit.expected
        add_commit((tenant, stream, kind, version))
        for event in commit.events:
            version += 1
            add_event((n, tenant, stream, kind, version, event.topic, event.body))
        if start is not None:
            rows["s"].append((n, tenant, start.key, stream))
        if arrival is not None:
            _arrival(rows, n, commit, instants)
        if commit.input_keys:
            rows["k"].extend((n, stream, key) for key in dict.fromkeys(commit.input_keys))
        if commit.settled:
            rows["x"].extend((n, row) for row in commit.settled)
        if commit.outbox:
            rows["o"].extend(
                (
                    *(n, tenant, stream, m.message_id, m.exchange, m.routing_key, m.body),
                    None if m.not_before is None else instants(m.not_before),
                )
                for m in commit.outbox
            )
        if commit.open_run is not None:
            _open_run(rows, n, commit, stream, instants)
        if commit.snapshot is not None:
            rows["n"].append((n, tenant, stream, version, commit.snapshot))
        if commit.cost is not None:
            batch.costs.append((n, tenant, commit.cost))
        if commit.inputs:
            for new in commit.inputs:
                source, event_id = new.arrival if new.arrival is not None else (None, None)
                run = None if new.run_id is None else uuids(new.run_id)
                rows["i"].append(
                    (n, tenant, new.kind, run, new.workflow, new.name, new.visit, source, event_id, new.body)
                )
        if commit.timers or commit.subscriptions or commit.awaits:
            _reasons(rows, n, commit, stream, instants)
        if commit.timers_cleared:
            rows["tc"].extend((n, stream, key) for key in commit.timers_cleared)
        if commit.subscriptions_dropped:
            rows["ud"].extend((n, stream, name, visit) for name, visit in commit.subscriptions_dropped)
        if commit.awaits_dropped:
            rows["wd"].extend((n, tenant, command) for command in commit.awaits_dropped)
    return batch


def _reasons(rows: Rows, n: int, commit: Commit, stream: Any, instants: Callable[[datetime], Any]) -> None:
    tenant = commit.tenant
    last = {timer.key: timer for timer in commit.timers}
    rows["t"].extend((n, tenant, stream, timer.key, instants(timer.due)) for timer in last.values())
    rows["u"].extend(
        (n, tenant, stream, s.name, s.visit, s.type, s.key_name, s.key_hash, instants(s.look_back))
        for s in commit.subscriptions
    )
    rows["w"].extend((n, tenant, stream, w.command_id, w.step, w.visit, " ".join(w.types)) for w in commit.awaits)


def _arrival(rows: Rows, n: int, commit: Commit, instants: Callable[[datetime], Any]) -> None:
    arrival = commit.arrival
    assert arrival is not None
    tenant, kind, received = commit.tenant, arrival.type, instants(arrival.received_at)
    identity = (n, tenant, arrival.source, arrival.event_id, kind)
    rows["a"].append((*identity, arrival.body_hash, arrival.body, received, arrival.causation_id))
    if arrival.keys:
        place = len(rows["a"])
        rows["h"].extend(
            (n, place, tenant, kind, name, hashed, received) for name, hashed in dict.fromkeys(arrival.keys)
        )


def _open_run(rows: Rows, n: int, commit: Commit, run: Any, instants: Callable[[datetime], Any]) -> None:
    change, start, tenant = commit.open_run, commit.start, commit.tenant
    if isinstance(change, Opened):
        if start is None:
            raise ContentRefused(f"run {commit.stream} is opened without a start; give the commit its start key")
        deadline = None if change.deadline is None else instants(change.deadline)
        plan = (start.workflow, start.workflow_version)
        rows["oo"].append((n, tenant, run, *plan, change.status, change.slot, deadline))
        caps = (start.workflow_cap, start.tenant_cap) if change.slot else (None, None)
        if start.counted or caps != (None, None):
            rows["q"].append((n, tenant, run, start.workflow, *caps))
    elif isinstance(change, Changed):
        deadline = None if change.deadline is None else instants(change.deadline)
        rows["oc"].append((n, run, change.status, change.slot, deadline))
        if change.takes_slot and (change.workflow_cap is not None or change.tenant_cap is not None):
            rows["q"].append((n, tenant, run, None, change.workflow_cap, change.tenant_cap))
    elif isinstance(change, Closed):
        if start is not None:
            # It begins and ends at once: it is a run of the day like any other.
            rows["oo"].append((n, tenant, run, start.workflow, start.workflow_version, "running", False, None))
            if start.counted:
                rows["q"].append((n, tenant, run, start.workflow, None, None))
        rows["cl"].append((n, run, change.bare))


def assemble(
    batch: Batch,
    commits: Sequence[Commit],
    first_position: int,
    codes: Sequence[int] | None,
    nums: Sequence[int] | None,
    runs: Sequence[UUID | None] | None,
    matched: dict[int, list[InputRow]],
) -> list[Outcome]:
    """An outcome per commit of the caller, in order. `matched` is by ordinal."""
    outcomes: list[Outcome | None] = [None] * len(commits)
    position = first_position - 1
    for ordinal, place in enumerate(batch.sent, 1):
        code = codes[ordinal - 1] if codes is not None else APPENDED
        if code == APPENDED:
            events = len(commits[place].events)
            position += events
            rows = matched.get(ordinal)
            outcomes[place] = Appended(position if events else 0, tuple(rows) if rows else ())
        else:
            assert nums is not None
            assert runs is not None
            outcomes[place] = refusal(code, nums[ordinal - 1], runs[ordinal - 1])
    for place, (first, differs) in batch.copies.items():
        answer = outcomes[first]
        if isinstance(answer, Appended):
            answer = Duplicate(commits[first].stream if commits[place].start is not None else None, mismatch=differs)
        elif isinstance(answer, Duplicate) and differs:
            answer = Duplicate(answer.run_id, mismatch=True)
        outcomes[place] = answer
    return [outcome for outcome in outcomes if outcome is not None]


def refusal(code: int, num: int, run: UUID | None) -> Outcome:
    """The outcome of a code that is not `APPENDED`."""
    if code in (DUPLICATE, MISMATCH):
        return Duplicate(run, mismatch=code == MISMATCH)
    if code == STALE:
        return Stale(num)
    if code == LIMITED_WORKFLOW:
        return Limited("workflow", num)
    if code == LIMITED_TENANT:
        return Limited("tenant", num)
    if code == OVER_OPEN:
        return Limited("tenant", num, "open_runs")
    if code in (OVER_DAILY, OVER_WORKFLOW):
        return Limited("tenant" if code == OVER_DAILY else "workflow", num, "daily_runs")
    if code in (OVER_DAY, OVER_WORKFLOW_DAY):
        return Limited("tenant" if code == OVER_DAY else "workflow", num, "daily_cost_micros")
    if code in (OVER_MONTH, OVER_WORKFLOW_MONTH):
        return Limited("tenant" if code == OVER_MONTH else "workflow", num, "monthly_cost_micros")
    return Fenced()


def costs_of(batch: Batch) -> str | None:
    """What the batch costs, as the JSON that the database function takes; None: nothing, and no budget is asked."""
    if not batch.costs:
        return None
    return dumps(
        [
            {"ord": n, "tenant": tenant, "workflow": cost.workflow, "micros": cost.micros, "begins": cost.begins}
            for n, tenant, cost in batch.costs
        ]
    ).decode()


async def send_bisecting(
    commits: Sequence[Commit], send: Callable[[Sequence[Commit]], Awaitable[list[Outcome]]]
) -> list[Outcome]:
    """Sends the batch; on poison sends its halves, so that only the guilty commits fail. Raises `CommitRefused` with
    the others' outcomes."""
    try:
        return await send(commits)
    except ContentRefused as poison:
        cause = str(poison)
    outcomes: list[Outcome | None] = [None] * len(commits)
    causes: dict[int, str] = {}

    async def halve(low: int, high: int, cause: str) -> None:
        if high - low == 1:
            causes[low] = cause
            return
        middle = (low + high) // 2
        for start, stop in ((low, middle), (middle, high)):
            try:
                outcomes[start:stop] = await send(commits[start:stop])
            except ContentRefused as poison:
                await halve(start, stop, str(poison))

    await halve(0, len(commits), cause)
    if causes:
        raise CommitRefused(causes, outcomes)
    return [outcome for outcome in outcomes if outcome is not None]
