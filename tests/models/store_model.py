"""The store as dictionaries: what `engine.store` promises, said once more without SQL, so that a driver's answers can
be held against it (`test_store.py`). Slow, small, and for one lane.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from engine.store import (
    Appended,
    Arrival,
    Await,
    Changed,
    Closed,
    Commit,
    Duplicate,
    Fenced,
    Limited,
    Opened,
    OpenRun,
    Outcome,
    Stale,
    Subscription,
)

LEASE = timedelta(seconds=30)


@dataclass(slots=True)
class Journaled:
    """An arrival in the journal. `number` counts up."""

    number: int
    tenant: str
    arrival: Arrival
    outcomes: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Run:
    """A row of open_runs."""

    tenant: str
    run_id: UUID
    workflow: str
    version: int
    status: str
    slot: bool
    owner: int | None
    deadline: datetime | None
    started_at: datetime
    changed_at: datetime
    takeovers: int = 0
    woken: bool = False
    deadline_lease: datetime | None = None

    def shown(self) -> OpenRun:
        return OpenRun(
            self.tenant, self.run_id, self.workflow, self.version, self.status, self.slot, self.owner, self.takeovers,
            self.deadline, self.started_at,
        )  # fmt: skip


@dataclass(slots=True)
class Claimable:
    """What processes lease: an input, a message, a timer. `what` is told apart by its content alone."""

    what: tuple[Any, ...]
    run: UUID | None
    since: datetime
    available: datetime
    owner: int | None = None
    arrival: Journaled | None = None


class StoreModel:
    """Every table is a dict or a list. Times are told by the caller, as the drivers are told them."""

    def __init__(self) -> None:
        self.seen: dict[int, datetime] = {}
        self.dead: set[int] = set()
        self.streams: dict[UUID, list[tuple[str, bytes]]] = {}
        self.tenant_of: dict[UUID, str] = {}
        self.position = 0
        self.starts: dict[tuple[str, str], UUID] = {}
        self.input_keys: set[tuple[UUID, str]] = set()
        self.journal: dict[tuple[str, str, str], Journaled] = {}
        self.runs: dict[UUID, Run] = {}
        self.timers: dict[tuple[UUID, str], Claimable] = {}
        self.subscriptions: list[tuple[str, UUID, Subscription]] = []
        self.awaits: dict[tuple[str, str], tuple[UUID, Await]] = {}
        self.inputs: list[Claimable] = []
        self.ids: dict[int, Claimable] = {}
        """Inputs by the id under which the driver has shown them."""
        self.outbox: dict[str, Claimable] = {}
        self.snapshots: dict[UUID, tuple[int, bytes]] = {}

    # ------------------------------------------------------------------------------------------------------- processes

    def alive(self, epoch: int | None) -> bool:
        return epoch in self.seen and epoch not in self.dead

    def claimed(self) -> list[Claimable]:
        return [*self.inputs, *self.outbox.values(), *self.timers.values()]

    def declare_dead(self, silent: timedelta, now: datetime) -> list[int]:
        found = [epoch for epoch, seen in self.seen.items() if epoch not in self.dead and seen < now - silent]
        self.dead.update(found)
        for row in self.claimed():
            if row.owner in found:
                row.available, row.owner = (row.since if row.what[0] == "timer" else now), None
        for run in self.runs.values():
            if run.owner in found:
                run.deadline_lease = None
        return found

    def retire(self, epoch: int) -> None:
        self.dead.add(epoch)
        for row in self.claimed():
            if row.owner == epoch:
                row.available, row.owner = row.since, None
        self.release(epoch, list(self.runs))

    def release(self, epoch: int, runs: Iterable[UUID]) -> None:
        for run in runs:
            if run in self.runs and self.runs[run].owner == epoch:
                self.runs[run].owner = self.runs[run].deadline_lease = None

    # ---------------------------------------------------------------------------------------------------------- append

    def append(self, commits: Sequence[Commit], epoch: int, now: datetime) -> list[tuple[Outcome, Counter[Any]]]:
        """Each commit's outcome, and the contents of the inputs that it brought about for runs of this process."""
        answers: dict[int, Outcome] = {}
        copies: dict[int, tuple[int, bool]] = {}
        starts: dict[tuple[str, str], int] = {}
        arrivals: dict[tuple[str, str, str], int] = {}
        for place, commit in enumerate(commits):
            if commit.start is not None:
                first = starts.setdefault((commit.tenant, commit.start.key), place)
                if first != place:
                    copies[place] = (first, False)
                    continue
            if commit.arrival is not None:
                identity = (commit.tenant, commit.arrival.source, commit.arrival.event_id)
                first = arrivals.setdefault(identity, place)
                if first != place:
                    known = commits[first].arrival
                    assert known is not None
                    copies[place] = (first, known.body_hash != commit.arrival.body_hash)
        first_of = [place for place in range(len(commits)) if place not in copies]
        if not self.alive(epoch):
            return [(Fenced(), Counter()) for _ in commits]
        for place in first_of:
            refused = self._refused(commits[place], epoch)
            if refused is not None:
                answers[place] = refused
        self._limit(commits, [place for place in first_of if place not in answers], answers)
        taken = [place for place in first_of if place not in answers]
        new: list[tuple[int, Journaled]] = []
        for place in taken:
            answers[place] = Appended(self._write(commits[place], epoch, now))
        for place in taken:
            new += [(place, journaled) for journaled in self._arrive(commits[place])]
        for place in taken:
            self._open(commits[place], now)
        for place in taken:
            if isinstance(commits[place].open_run, Closed):
                self._close(commits[place])
        matched = self._match(commits, taken, new, epoch, now)
        for place, (first, differs) in copies.items():
            answers[place] = self._copied(commits, place, first, differs, answers[first])
        return [(answers[place], matched.get(place, Counter())) for place in range(len(commits))]

    @staticmethod
    def _copied(commits: Sequence[Commit], place: int, first: int, differs: bool, answer: Outcome) -> Outcome:
        if isinstance(answer, Appended):
            return Duplicate(commits[first].stream if commits[place].start is not None else None, mismatch=differs)
        if isinstance(answer, Duplicate) and differs:
            return Duplicate(answer.run_id, mismatch=True)
        return answer

    def _refused(self, commit: Commit, epoch: int) -> Outcome | None:
        """Another owner first, then another body under a known id, then known keys, then the version."""
        run = self.runs.get(commit.stream) if commit.stream is not None else None
        if run is not None and run.owner not in (None, epoch) and self.alive(run.owner):
            return Fenced()
        known = None
        if commit.arrival is not None:
            known = self.journal.get((commit.tenant, commit.arrival.source, commit.arrival.event_id))
            if known is not None and commit.arrival.body_hash != known.arrival.body_hash:
                return Duplicate(None, mismatch=True)
        if commit.start is not None and (commit.tenant, commit.start.key) in self.starts:
            return Duplicate(self.starts[commit.tenant, commit.start.key])
        if commit.stream is not None and any((commit.stream, key) in self.input_keys for key in commit.input_keys):
            return Duplicate(commit.stream)
        if known is not None:
            return Duplicate()
        if commit.stream is not None and len(self.streams.get(commit.stream, ())) != commit.expected:
            return Stale(len(self.streams.get(commit.stream, ())))
        return None

    def _limit(self, commits: Sequence[Commit], asking: Sequence[int], answers: dict[int, Outcome]) -> None:
        of_workflow = Counter((run.tenant, run.workflow) for run in self.runs.values() if run.slot)
        of_tenant = Counter(run.tenant for run in self.runs.values() if run.slot)
        for place in asking:
            commit, change = commits[place], commits[place].open_run
            if isinstance(change, Opened) and change.slot and commit.start is not None:
                workflow, caps = commit.start.workflow, (commit.start.workflow_cap, commit.start.tenant_cap)
            elif isinstance(change, Changed) and change.takes_slot and commit.stream in self.runs:
                if self.runs[commit.stream].slot:
                    continue
                workflow, caps = self.runs[commit.stream].workflow, (change.workflow_cap, change.tenant_cap)
            else:
                continue
            if caps[0] is not None and of_workflow[commit.tenant, workflow] >= caps[0]:
                answers[place] = Limited("workflow", caps[0])
            elif caps[1] is not None and of_tenant[commit.tenant] >= caps[1]:
                answers[place] = Limited("tenant", caps[1])
            else:
                of_workflow[commit.tenant, workflow] += 1
                of_tenant[commit.tenant] += 1

    def _write(self, commit: Commit, epoch: int, now: datetime) -> int:
        run, tenant = commit.stream, commit.tenant
        gone = {id(self.ids[number]) for number in commit.settled if number in self.ids}
        self.inputs = [one for one in self.inputs if id(one) not in gone]
        for message in commit.outbox:
            since = message.not_before or now
            self.outbox[message.message_id] = Claimable(("message", message.message_id), run, now, since)
        if run is None:
            return 0
        if commit.events:
            self.streams.setdefault(run, []).extend((event.topic, event.body) for event in commit.events)
            self.tenant_of[run] = tenant
            self.position += len(commit.events)
        if commit.start is not None:
            self.starts[tenant, commit.start.key] = run
        self.input_keys.update((run, key) for key in commit.input_keys)
        change = commit.open_run
        if isinstance(change, Opened):
            assert commit.start is not None
            plan = (commit.start.workflow, commit.start.workflow_version)
            self.runs[run] = Run(tenant, run, *plan, change.status, change.slot, epoch, change.deadline, now, now)
        elif isinstance(change, Changed) and run in self.runs:
            row = self.runs[run]
            if row.deadline != change.deadline:
                row.deadline, row.deadline_lease = change.deadline, None
            row.status, row.slot, row.owner, row.takeovers = change.status, change.slot, epoch, 0
            row.woken, row.changed_at = change.status == "queued", now
        if commit.snapshot is not None:
            self.snapshots[run] = (commit.expected + len(commit.events), commit.snapshot)
        return self.position if commit.events else 0

    def _arrive(self, commit: Commit) -> list[Journaled]:
        if commit.arrival is None:
            return []
        journaled = Journaled(len(self.journal) + 1, commit.tenant, commit.arrival)
        self.journal[commit.tenant, commit.arrival.source, commit.arrival.event_id] = journaled
        return [journaled]

    def _open(self, commit: Commit, now: datetime) -> None:
        """What is taken back first, then what is new."""
        run, tenant = commit.stream, commit.tenant
        for new in commit.inputs:
            arrival = None if new.arrival is None else self.journal.get((tenant, *new.arrival))
            what = (new.kind, new.run_id, new.workflow, new.name, new.visit, new.arrival)
            self.inputs.append(Claimable(what, new.run_id, now, now, arrival=arrival))
        if run is None:
            return
        for key in commit.timers_cleared:
            self.timers.pop((run, key), None)
        for timer in commit.timers:
            self.timers[run, timer.key] = Claimable(("timer", timer.key, timer.due), run, timer.due, timer.due)
        gone = set(commit.subscriptions_dropped)
        self.subscriptions = [
            one for one in self.subscriptions if not (one[1] == run and (one[2].name, one[2].visit) in gone)
        ]
        self.subscriptions += [(tenant, run, one) for one in commit.subscriptions]
        for command in commit.awaits_dropped:
            self.awaits.pop((tenant, command), None)
        for one in commit.awaits:
            known_as = (tenant, one.command_id)
            if known_as in self.awaits:
                owner, known = self.awaits[known_as]
                self.awaits[known_as] = (
                    owner,
                    Await(command_id=one.command_id, step=known.step, visit=known.visit, types=one.types),
                )
            else:
                self.awaits[known_as] = (run, one)

    def _close(self, commit: Commit) -> None:
        run = commit.stream
        assert run is not None
        self.runs.pop(run, None)
        self.snapshots.pop(run, None)
        self.timers = {key: timer for key, timer in self.timers.items() if key[0] != run}
        self.subscriptions = [one for one in self.subscriptions if one[1] != run]
        self.awaits = {key: one for key, one in self.awaits.items() if one[0] != run}
        self.input_keys = {one for one in self.input_keys if one[0] != run}
        for row in self.inputs:
            if row.run == run and row.arrival is not None:
                row.arrival.outcomes.add("ignored: the run had ended")
        self.inputs = [row for row in self.inputs if row.run != run]

    def _match(
        self,
        commits: Sequence[Commit],
        taken: Sequence[int],
        new: list[tuple[int, Journaled]],
        epoch: int,
        now: datetime,
    ) -> dict[int, Counter[Any]]:
        """On either insert: new arrivals with all that wait, then new waits with all arrivals of before."""
        pairs: list[tuple[int, str, UUID, str, int, Journaled]] = []
        met: set[tuple[UUID, str, int]] = set()
        for place, journaled in new:
            arrival = journaled.arrival
            for tenant, run, one in self.subscriptions:
                # A wait takes one fact, so one of a batch is enough: the first.
                if tenant == journaled.tenant and fits(one, arrival) and (run, one.name, one.visit) not in met:
                    met.add((run, one.name, one.visit))
                    pairs.append((place, "fact", run, one.name, one.visit, journaled))
            awaited = self.awaits.get((journaled.tenant, arrival.causation_id or ""))
            if awaited is not None and arrival.type in awaited[1].types:
                pairs.append((place, "reply", awaited[0], awaited[1].step, awaited[1].visit, journaled))
        fresh = {journaled.number for _, journaled in new}
        old = [one for one in self.journal.values() if one.number not in fresh]
        for place in taken:
            commit = commits[place]
            if commit.stream is None:
                continue
            for one in commit.subscriptions:
                fitting = [j for j in old if j.tenant == commit.tenant and fits(one, j.arrival)]
                if fitting:
                    first = min(fitting, key=lambda j: (j.arrival.received_at, j.number))
                    pairs.append((place, "fact", commit.stream, one.name, one.visit, first))
            for expected in commit.awaits:
                caused = [
                    j
                    for j in old
                    if j.tenant == commit.tenant
                    and j.arrival.causation_id == expected.command_id
                    and j.arrival.type in expected.types
                ]
                if caused:
                    first = min(caused, key=lambda j: j.number)
                    pairs.append((place, "reply", commit.stream, expected.step, expected.visit, first))
        matched: dict[int, Counter[Any]] = {}
        for place, kind, run, name, visit, journaled in pairs:
            owned = run in self.runs and self.runs[run].owner == epoch
            known = (journaled.arrival.source, journaled.arrival.event_id)
            what = (kind, run, None, name, visit, known)
            available, owner = (now + LEASE, epoch) if owned else (now, None)
            self.inputs.append(Claimable(what, run, now, available, owner, journaled))
            if kind == "fact":
                journaled.outcomes.add(f"matched: {run} {name}/{visit}")
            if owned:
                matched.setdefault(place, Counter())[what] += 1
        return matched

    # ---------------------------------------------------------------------------------------------------------- claims

    def claimable_runs(self, plans: Sequence[tuple[str, int]]) -> list[Run]:
        """In the order in which they are given."""
        found = [
            run
            for run in self.runs.values()
            if (run.workflow, run.version) in plans and (run.owner is None or run.owner in self.dead)
        ]
        return sorted(found, key=lambda run: run.started_at)

    def claim(self, run: Run, epoch: int) -> None:
        run.takeovers += run.owner is not None and run.owner != epoch
        run.owner = epoch

    def queued(self, epoch: int, but: set[tuple[str, str | None]]) -> list[Run]:
        """Fair between tenants of equal weight; within one its workflows in turn, woken runs first, then by age."""
        waiting = [
            run
            for run in self.runs.values()
            if run.status == "queued"
            and run.owner in (None, epoch)
            and not but & {(run.tenant, None), (run.tenant, run.workflow)}
        ]
        held = Counter(run.tenant for run in self.runs.values() if run.slot)
        turn: dict[UUID, int] = {}
        for tenant in {run.tenant for run in waiting}:
            mine = [run for run in waiting if run.tenant == tenant]
            mine.sort(key=lambda run: (not run.woken, run.started_at, run.run_id))
            before: Counter[str] = Counter()
            place: dict[UUID, int] = {}
            for run in mine:
                place[run.run_id] = before[run.workflow]
                before[run.workflow] += 1
            mine.sort(key=lambda run: place[run.run_id])
            turn |= {run.run_id: held[tenant] + place for place, run in enumerate(mine, 1)}
        return sorted(waiting, key=lambda run: (turn[run.run_id], run.started_at, run.run_id))

    def slots(self, tenants: Iterable[str]) -> dict[tuple[str, str], int]:
        return Counter((run.tenant, run.workflow) for run in self.runs.values() if run.slot and run.tenant in tenants)

    def elsewhere(self, run_id: UUID | None, epoch: int) -> bool:
        """Whether another living process owns the run."""
        run = self.runs.get(run_id) if run_id is not None else None
        return run is not None and run.owner not in (None, epoch) and self.alive(run.owner)

    def due(self, rows: Iterable[Claimable], epoch: int, now: datetime, *, owned: bool) -> list[Claimable]:
        return [row for row in rows if row.available <= now and not (owned and self.elsewhere(row.run, epoch))]

    def late(self, epoch: int, now: datetime) -> list[Run]:
        return [
            run
            for run in self.runs.values()
            if run.deadline is not None
            and run.deadline <= now
            and (run.deadline_lease is None or run.deadline_lease <= now)
            and not self.elsewhere(run.run_id, epoch)
        ]

    # ---------------------------------------------------------------------------------------------- what can be seen

    def wakes(self, run: UUID) -> dict[str, Counter[Any]]:
        return {
            "timers": Counter(row.what[1] for row in self.timers.values() if row.run == run),
            "subscriptions": Counter((one.name, one.visit) for _, owner, one in self.subscriptions if owner == run),
            "awaits": Counter(command for (_, command), (owner, _) in self.awaits.items() if owner == run),
            "inputs": Counter((row.what[0], row.what[3], row.what[4]) for row in self.inputs if row.run == run),
            "outbox": Counter(key for key, row in self.outbox.items() if row.run == run),
        }

    def without_wake(self, older: timedelta, now: datetime) -> set[UUID]:
        """Open runs that nobody living owns or nothing moves, but for those that wait for a slot or a person."""
        return {
            run.run_id
            for run in self.runs.values()
            if run.changed_at <= now - older
            and run.status not in ("queued", "parked")
            and (not self.alive(run.owner) or not any(self.wakes(run.run_id).values()))
        }


def fits(one: Subscription, arrival: Arrival) -> bool:
    return (
        one.type == arrival.type
        and (one.key_name, one.key_hash) in arrival.keys
        and one.look_back <= arrival.received_at
    )
