"""Each driver against a store of dictionaries: whatever is appended, claimed, let go and declared dead in whatever
order, the same answers and the same rows. Hypothesis makes the order, and shrinks one that tells the two apart.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from engine.store import (
    Appended,
    Arrival,
    Await,
    Changed,
    Closed,
    Commit,
    Duplicate,
    Fenced,
    InputRow,
    Limited,
    NewInput,
    Opened,
    OutboxMessage,
    Stale,
    Start,
    Store,
    Subscription,
    Timer,
    open_store,
)
from scripts.simulation.store import Open, SimDatabase, SimStore
from tests.conformance.store import write_views
from tests.conformance.store_making import NOW, events
from tests.conformance.store_postgres_database import SharedDatabase
from tests.models.store_model import LEASE, Claimable, StoreModel

T = TypeVar("T")

TENANTS = ("acme", "globex")
WORKFLOWS = (("order", 1), ("order", 2), ("notice", 1))
SOURCE = "/modules/billing"
TYPES = ("billing.PaidV1", "billing.RefusedV1")
HASHES = (b"k1", b"k2")
MANY = 1_000
MET: Counter[str] = Counter()
"""How often each outcome was given and each claim brought something, so that a machine that meets none is noticed."""


def _spans(draw: Any, now: datetime) -> datetime:
    return now + timedelta(seconds=draw(st.sampled_from((-5, 0, 5, 60))))


class StoreMachine(RuleBasedStateMachine):
    """One database, several processes, virtual time."""

    opens: ClassVar[Callable[[], tuple[Store, Callable[[], None]]]]
    on: ClassVar[asyncio.AbstractEventLoop]

    def __init__(self) -> None:
        super().__init__()
        self.store, self.close = type(self).opens()
        self.model = StoreModel()
        self.now = NOW
        self.epochs: list[int] = []
        self.known: list[UUID] = []
        self.numbers = iter(range(1, 1_000_000))
        self.last: list[Commit] = []
        self.caps: tuple[int | None, int | None] = (None, None)
        self.read_to = 0

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return type(self).on.run_until_complete(work)

    def teardown(self) -> None:
        try:
            self.all_rows_are_the_same()
        finally:
            self.close()

    # ------------------------------------------------------------------------------------------------------- processes

    @initialize(caps=st.sampled_from(((None, None), (1, None), (None, 2), (2, 3))))
    def begin(self, caps: tuple[int | None, int | None]) -> None:
        self.caps = caps
        self.register()

    @rule()
    def register(self) -> None:
        if len(self.epochs) < 12:
            epoch = self.do(self.store.register("test", ["all"], now=self.now))
            assert epoch > max(self.epochs, default=0)
            self.epochs.append(epoch)
            self.model.seen[epoch] = self.now

    @rule(seconds=st.sampled_from((1, 10, 31, 3600)))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(data=st.data())
    def one_beats(self, data: st.DataObject) -> None:
        epoch = self.some_process(data)
        assert self.do(self.store.heartbeat(epoch, now=self.now)) is self.model.alive(epoch)
        if self.model.alive(epoch):
            self.model.seen[epoch] = self.now

    @rule(seconds=st.sampled_from((5, 30)))
    def the_silent_are_declared_dead(self, seconds: int) -> None:
        found = self.do(self.store.declare_dead(silent_seconds=seconds, now=self.now))
        assert found == self.model.declare_dead(timedelta(seconds=seconds), self.now)

    @rule(data=st.data(), seldom=st.integers(0, 3))
    def one_says_goodbye(self, data: st.DataObject, seldom: int) -> None:
        epoch = self.some_process(data)
        if seldom == 0:
            self.do(self.store.retire(epoch))
            self.model.retire(epoch)

    def some_process(self, data: st.DataObject) -> int:
        """Mostly one that lives."""
        draw: Any = data.draw
        if not any(map(self.model.alive, self.epochs)) and draw(st.booleans()):
            self.register()
        living = [epoch for epoch in self.epochs if self.model.alive(epoch)]
        among = living if living and draw(st.integers(0, 4)) else self.epochs
        epoch: int = draw(st.sampled_from(among), label="process")
        return epoch

    # ---------------------------------------------------------------------------------------------------------- append

    @rule(data=st.data(), size=st.integers(1, 3))
    def a_mixed_batch_is_appended(self, data: st.DataObject, size: int) -> None:
        self.batch(data, size, ("start", "fact", "input", "go on", "end", "late"))

    @rule(data=st.data(), size=st.integers(1, 3))
    def runs_begin(self, data: st.DataObject, size: int) -> None:
        self.batch(data, size, ("start",))

    @rule(data=st.data(), size=st.integers(1, 3))
    def runs_go_on_while_facts_arrive(self, data: st.DataObject, size: int) -> None:
        self.batch(data, size, ("go on", "fact"))

    def batch(self, data: st.DataObject, size: int, kinds: tuple[str, ...]) -> None:
        taken, commits = set[UUID](), []
        for _ in range(size):
            commit = self.commit(data.draw, data.draw(st.sampled_from(kinds)), taken)
            if commit.stream is not None:
                taken.add(commit.stream)
            commits.append(commit)
        self.append(commits, self.some_process(data))

    @rule(data=st.data())
    def the_last_batch_is_sent_again(self, data: st.DataObject) -> None:
        if self.last:
            self.append(self.last, self.some_process(data))

    def append(self, commits: list[Commit], epoch: int) -> None:
        self.last = commits
        told = self.do(self.store.append(commits, epoch=epoch, now=self.now))
        expected = self.model.append(commits, epoch, self.now)
        for answer, (wanted, matched) in zip(told, expected, strict=True):
            MET[type(answer).__name__] += 1
            if isinstance(answer, Appended) and isinstance(wanted, Appended):
                assert answer.position == wanted.position
                assert Counter(content(row) for row in answer.matched) == matched
                MET["matched"] += len(answer.matched)
                self.learn(answer.matched)
            elif isinstance(answer, Limited) and len(commits) > 1:
                # Which of two caps is named when a batch passes both is the driver's own.
                assert isinstance(wanted, Limited)
            else:
                assert answer == wanted, (answer, wanted)

    def learn(self, rows: Sequence[InputRow]) -> list[Claimable]:
        """Finds the model's rows of these, by id where it is known, else by content."""
        found = []
        for row in rows:
            known = self.model.ids.get(row.id)
            if known is None:
                taken = {id(one) for one in self.model.ids.values()}
                same = (one for one in self.model.inputs if one.what == content(row) and id(one) not in taken)
                known = self.model.ids[row.id] = next(same)
            assert known.what == content(row)
            found.append(known)
        return found

    def commit(self, draw: Any, kind: str, taken: set[UUID]) -> Commit:
        """One of this kind, or where no run is there for it a start."""
        open_runs = [run for run in self.model.runs if run not in taken]
        ended = [run for run in self.known if run not in taken and run not in self.model.runs]
        if kind == "fact":
            return Commit(tenant=draw(st.sampled_from(TENANTS)), stream=None, arrival=self.arrival(draw))
        if kind == "input":
            return self.an_input(draw)
        if kind == "go on" and open_runs:
            return self.a_change(draw, draw(st.sampled_from(open_runs)))
        if kind == "end" and open_runs:
            return self.an_end(draw, draw(st.sampled_from(open_runs)))
        if kind == "late" and ended:
            run = draw(st.sampled_from(ended))
            version = max(0, len(self.model.streams[run]) - draw(st.sampled_from((0, 1))))
            return Commit(tenant=self.model.tenant_of[run], stream=run, expected=version, events=events("late"))
        return self.a_start(draw)

    def a_start(self, draw: Any) -> Commit:
        run, tenant = UUID(int=next(self.numbers)), draw(st.sampled_from(TENANTS))
        self.known.append(run)
        self.model.streams.setdefault(run, [])
        self.model.tenant_of[run] = tenant
        workflow, version = draw(st.sampled_from(WORKFLOWS))
        key = draw(st.sampled_from((f"own/{run}", f"own/{run}", f"own/{run}", "event/1", "event/2")))
        queued = draw(st.booleans())
        return Commit(
            tenant=tenant,
            stream=run,
            events=events("run.started"),
            start=Start(
                key=key, workflow=workflow, workflow_version=version, workflow_cap=self.caps[0], tenant_cap=self.caps[1]
            ),
            open_run=Opened(status="queued" if queued else "running", slot=not queued, deadline=self.deadline(draw)),
            arrival=self.arrival(draw) if draw(st.integers(0, 3)) == 0 else None,
            **self.reasons(draw, run, tenant),
        )

    def a_change(self, draw: Any, run: UUID) -> Commit:
        row = self.model.runs[run]
        version = len(self.model.streams[run]) - draw(st.sampled_from((0, 0, 0, 1)))
        status = draw(st.sampled_from(("running", "waiting", "queued", "parked")))
        change = Changed(
            status=status,
            slot=status == "running",
            deadline=row.deadline if draw(st.booleans()) else self.deadline(draw),
            takes_slot=status == "running",
            workflow_cap=self.caps[0],
            tenant_cap=self.caps[1],
        )
        keys = st.lists(st.sampled_from(("reply/1", "fact/2")), max_size=2)
        mine = [number for number, one in self.model.ids.items() if one.run == run]
        subscribed = [(one.name, one.visit) for _, owner, one in self.model.subscriptions if owner == run]
        awaited = [command for (_, command), (owner, _) in self.model.awaits.items() if owner == run]
        return Commit(
            tenant=row.tenant,
            stream=run,
            expected=version,
            events=events(*(["a"] * draw(st.integers(1, 2)))),
            input_keys=tuple(draw(keys)),
            open_run=change if draw(st.integers(0, 3)) else None,
            settled=tuple(mine[:1]) if draw(st.booleans()) else (),
            timers_cleared=("nap",) if draw(st.booleans()) else (),
            subscriptions_dropped=tuple(subscribed[:1]) if draw(st.booleans()) else (),
            awaits_dropped=tuple(awaited[:1]) if draw(st.booleans()) else (),
            snapshot=b"folded" if draw(st.booleans()) else None,
            **self.reasons(draw, run, row.tenant),
        )

    def an_end(self, draw: Any, run: UUID) -> Commit:
        row, wakes = self.model.runs[run], self.model.wakes(run)
        held = any(wakes[name] for name in ("timers", "subscriptions", "awaits")) or run in self.model.snapshots
        bare = not held and not any(key[0] == run for key in self.model.input_keys)
        version = len(self.model.streams[run]) - draw(st.sampled_from((0, 0, 0, 1)))
        return Commit(
            tenant=row.tenant,
            stream=run,
            expected=version,
            events=events("run.ended"),
            open_run=Closed(bare=bare and draw(st.booleans())),
        )

    def an_input(self, draw: Any) -> Commit:
        """A note for a run, or a start, with a body of its own or an arrival's; or an input is settled alone."""
        tenant = draw(st.sampled_from(TENANTS))
        shown = [number for number, one in self.model.ids.items() if any(one is row for row in self.model.inputs)]
        if shown and draw(st.integers(0, 2)) == 0:
            return Commit(tenant=tenant, stream=None, settled=(draw(st.sampled_from(shown)),))
        runs = [run for run, of in self.model.tenant_of.items() if of == tenant]
        known = [(key[1], key[2]) for key in self.model.journal if key[0] == tenant]
        arrival = draw(st.sampled_from([None, *known]))
        name, visit = "note", next(self.numbers)
        if runs and draw(st.booleans()):
            new = NewInput(
                kind="note", run_id=draw(st.sampled_from(runs)), name=name, visit=visit, arrival=arrival, body=b"it"
            )
        else:
            new = NewInput(kind="start", workflow="order", visit=visit, arrival=arrival, body=b"it")
        return Commit(tenant=tenant, stream=None, inputs=(new,))

    def arrival(self, draw: Any) -> Arrival:
        number = draw(st.integers(1, 6))
        return Arrival(
            source=SOURCE,
            event_id=f"e{number}",
            type=draw(st.sampled_from(TYPES)),
            body_hash=draw(st.sampled_from((b"one", b"one", b"one", b"another"))),
            body=b"an envelope",
            received_at=_spans(draw, self.now),
            keys=tuple(("order", hashed) for hashed in draw(st.lists(st.sampled_from(HASHES), max_size=2))),
            causation_id=draw(st.sampled_from((None, *self.commands()))),
        )

    def commands(self) -> list[str]:
        return [f"{run.int}/{step}" for run in self.known[-3:] for step in ("charge",)]

    def deadline(self, draw: Any) -> datetime | None:
        deadline: datetime | None = draw(st.sampled_from((None, self.now + timedelta(seconds=20))))
        return deadline

    def reasons(self, draw: Any, run: UUID, tenant: str) -> dict[str, Any]:
        """What a commit of a run brings along."""
        found: dict[str, Any] = {}
        if draw(st.integers(0, 2)) == 0:
            found["timers"] = (Timer(key="nap", due=_spans(draw, self.now)),)
        if draw(st.integers(0, 1)) == 0:
            found["subscriptions"] = (
                Subscription(
                    name="paid", visit=next(self.numbers), type=draw(st.sampled_from(TYPES)), key_name="order",
                    key_hash=draw(st.sampled_from(HASHES)), look_back=_spans(draw, self.now - timedelta(seconds=30)),
                ),
            )  # fmt: skip
        if draw(st.integers(0, 2)) == 0:
            types = draw(st.sampled_from((TYPES[:1], TYPES)))
            found["awaits"] = (
                Await(command_id=f"{run.int}/charge", step="charge", visit=next(self.numbers), types=types),
            )
        if draw(st.integers(0, 2)) == 0:
            found["outbox"] = (
                OutboxMessage(
                    message_id=f"m{next(self.numbers)}", exchange="x", routing_key="y", body=b"sealed",
                    not_before=draw(st.sampled_from((None, self.now + timedelta(seconds=10)))),
                ),
            )  # fmt: skip
        return found

    # ---------------------------------------------------------------------------------------------------------- claims

    @rule(data=st.data(), limit=st.sampled_from((1, MANY)))
    def runs_are_claimed(self, data: st.DataObject, limit: int) -> None:
        epoch = self.some_process(data)
        plans = data.draw(st.sampled_from((WORKFLOWS, WORKFLOWS[:1])))
        told = self.do(self.store.claim_runs(epoch, plans=plans, limit=limit))
        candidates = self.model.claimable_runs(plans) if self.model.alive(epoch) else []
        assert len(told) == min(limit, len(candidates))
        oldest = sorted(run.started_at for run in candidates)[: len(told)]
        assert [run.started_at for run in told] == oldest
        for run in told:
            [row] = [one for one in candidates if one.run_id == run.run_id]
            self.model.claim(row, epoch)
            assert run == row.shown()
        MET["runs claimed"] += len(told)

    @rule(data=st.data())
    def runs_are_claimed_by_name(self, data: st.DataObject) -> None:
        epoch = self.some_process(data)
        named = [(self.model.tenant_of[run], run) for run in self.known[-3:]]
        told = self.do(self.store.claim_named(epoch, named))
        expected = [
            self.model.runs[run]
            for _, run in named
            if self.model.alive(epoch) and run in self.model.runs and not self.model.elsewhere(run, epoch)
        ]
        for run in expected:
            self.model.claim(run, epoch)
        assert by_id(told) == by_id([run.shown() for run in expected])

    @rule(data=st.data())
    def runs_are_released(self, data: st.DataObject) -> None:
        epoch = self.some_process(data)
        self.do(self.store.release_runs(epoch, self.known[-2:]))
        self.model.release(epoch, self.known[-2:])

    @rule(data=st.data(), limit=st.sampled_from((1, MANY)))
    def the_queue_is_fair(self, data: st.DataObject, limit: int) -> None:
        epoch = self.some_process(data)
        passed = [(tenant, workflow) for tenant in TENANTS for workflow in (None, *dict(WORKFLOWS))]
        but = data.draw(st.sets(st.sampled_from(passed), max_size=2))
        told = self.do(self.store.queued_runs(epoch, limit=limit, but=but))
        assert told == [run.shown() for run in self.model.queued(epoch, but)[:limit]]
        tenants = sorted({run.tenant for run in told})
        assert self.do(self.store.slots_held(tenants)) == self.model.slots(tenants)

    @rule(data=st.data(), limit=st.sampled_from((1, MANY)))
    def inputs_are_claimed(self, data: st.DataObject, limit: int) -> None:
        epoch = self.some_process(data)
        told = self.do(self.store.claim_inputs(epoch, limit=limit, now=self.now))
        claimed = self.learn(told)
        self.leased(claimed, self.model.due(self.model.inputs, epoch, self.now, owned=True), epoch, limit)
        MET["inputs claimed"] += len(told)

    @rule(data=st.data(), limit=st.sampled_from((1, MANY)))
    def messages_are_claimed_and_settled(self, data: st.DataObject, limit: int) -> None:
        epoch = self.some_process(data)
        told = self.do(self.store.claim_outbox(epoch, limit=limit, now=self.now))
        claimed = [self.model.outbox[row.message_id] for row in told]
        due = self.model.due(self.model.outbox.values(), epoch, self.now, owned=False)
        self.leased(claimed, due, epoch, limit)
        MET["messages claimed"] += len(told)
        fates = [data.draw(st.sampled_from(("sent", "returned", "lost"))) for _ in told]
        retry_at = self.now + timedelta(seconds=5)
        of = {fate: [row for row, one in zip(told, fates, strict=True) if one == fate] for fate in ("sent", "returned")}
        sent, returned = [row.id for row in of["sent"]], [row.id for row in of["returned"]]
        self.do(self.store.settle_outbox(sent, returned=returned, retry_at=retry_at))
        for row in of["sent"]:
            del self.model.outbox[row.message_id]
        for row in of["returned"]:
            message = self.model.outbox[row.message_id]
            message.available, message.owner = retry_at, None

    @rule(data=st.data(), limit=st.sampled_from((2, MANY)))
    def timers_are_claimed(self, data: st.DataObject, limit: int) -> None:
        epoch = self.some_process(data)
        told = self.do(self.store.due_timers(epoch, limit=limit, now=self.now))
        alive = self.model.alive(epoch)
        late = {run.run_id: run for run in self.model.late(epoch, self.now)} if alive else {}
        deadlines = [timer for timer in told if timer.key == "run/deadline"]
        assert len(deadlines) == min(limit, len(late))
        for timer in deadlines:
            assert timer.due == late[timer.run_id].deadline
            late[timer.run_id].deadline_lease = self.now + LEASE
        claimed = [self.model.timers[timer.run_id, timer.key] for timer in told if timer.key != "run/deadline"]
        self.leased(claimed, self.model.due(self.model.timers.values(), epoch, self.now, owned=True), epoch, limit)
        MET["timers claimed"] += len(told)

    def leased(self, claimed: list[Claimable], due: list[Claimable], epoch: int, limit: int) -> None:
        """As many as there are and may be, the longest available first, none that is not due."""
        if not self.model.alive(epoch):
            due = []
        assert len(claimed) == min(limit, len(due))
        assert {id(row) for row in claimed} <= {id(row) for row in due}
        assert sorted(row.available for row in claimed) == sorted(row.available for row in due)[: len(claimed)]
        for row in claimed:
            row.available, row.owner = self.now + LEASE, epoch

    # ------------------------------------------------------------------------------------------------- what can be seen

    @rule(seconds=st.sampled_from((0, 20)))
    def the_janitor_finds_what_nothing_moves(self, seconds: int) -> None:
        told = self.do(self.store.runs_without_wake(older_than_seconds=seconds, limit=MANY, now=self.now))
        assert {run.run_id for run in told} == self.model.without_wake(timedelta(seconds=seconds), self.now)

    @invariant()
    def the_log_and_the_open_runs_are_the_same(self) -> None:
        assert by_id(self.do(self.store.open_runs())) == by_id([run.shown() for run in self.model.runs.values()])
        news = self.do(self.store.read(0, after=self.read_to, limit=MANY))
        assert [one.position for one in news] == list(range(self.read_to + 1, self.model.position + 1))
        self.read_to = self.model.position

    def all_rows_are_the_same(self) -> None:
        for run in self.known:
            tenant = self.model.tenant_of[run]
            stored = self.do(self.store.load(tenant, run))
            assert [(one.version, one.topic, one.body) for one in stored] == [
                (version, *event) for version, event in enumerate(self.model.streams[run], 1)
            ]
            assert self.do(self.store.snapshot(tenant, run)) == self.model.snapshots.get(run)
            wakes = self.do(self.store.wakes(tenant, run))
            names = {
                "timers": ("key",), "subscriptions": ("name", "visit"), "awaits": ("command_id",),
                "inputs": ("kind", "name", "visit"), "outbox": ("message_id",),
            }  # fmt: skip
            shown = {
                reason: Counter(
                    row[fields[0]] if len(fields) == 1 else tuple(row[one] for one in fields) for row in wakes[reason]
                )
                for reason, fields in names.items()
            }
            assert shown == self.model.wakes(run)
        for (tenant, key), run in self.model.starts.items():
            assert self.do(self.store.started(tenant, key)) == run
        for (tenant, source, event), one in self.model.journal.items():
            assert sorted(self.do(self.store.outcomes(tenant, source, event))) == sorted(one.outcomes)


def content(row: InputRow) -> tuple[Any, ...]:
    return (row.kind, row.run_id, row.workflow, row.name, row.visit, row.arrival)


def by_id(rows: Sequence[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: row.run_id)


OUTCOMES = [kind.__name__ for kind in (Appended, Duplicate, Stale, Limited, Fenced)]


def play(machine: type[StoreMachine], examples: int, steps: int) -> None:
    MET.clear()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert MET["Appended"] > examples


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.mark.timeout(600)
def test_the_statements_of_the_embedded_driver_are_the_dictionaries(
    tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    """Its verbs and statements on a database in memory, as the simulation has them."""
    views = write_views(tmp_path / "views", "sqlite")

    class Machine(StoreMachine):
        on = loop

        @staticmethod
        def opens() -> tuple[Store, Callable[[], None]]:
            database = SimDatabase(views)
            return SimStore(database, Open()), database.close

    play(Machine, examples=70, steps=40)
    claims = ("matched", "runs claimed", "inputs claimed", "messages claimed", "timers claimed")
    assert not [one for one in (*OUTCOMES, *claims) if not MET[one]], MET


@pytest.mark.embedded
@pytest.mark.timeout(600)
def test_the_embedded_driver_is_the_dictionaries(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    """The whole of it, with its writer thread and its file."""
    views, numbers = write_views(tmp_path / "views", "sqlite"), iter(range(1_000))

    class Machine(StoreMachine):
        on = loop

        @staticmethod
        def opens() -> tuple[Store, Callable[[], None]]:
            store = open_store(f"sqlite://{tmp_path / f'{next(numbers)}.db'}", views=views)
            loop.run_until_complete(store.migrate())
            loop.run_until_complete(store.start())
            return store, lambda: loop.run_until_complete(store.stop())

    play(Machine, examples=15, steps=40)


@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_the_postgresql_driver_is_the_dictionaries(
    postgres_server_url: str, tmp_path: Path, loop: asyncio.AbstractEventLoop
) -> None:
    shared = SharedDatabase(postgres_server_url, write_views(tmp_path / "views", "postgres"))
    loop.run_until_complete(shared.create())
    store = open_store(shared.url, views=shared.views)
    loop.run_until_complete(store.start())

    class Machine(StoreMachine):
        on = loop

        @staticmethod
        def opens() -> tuple[Store, Callable[[], None]]:
            loop.run_until_complete(shared.wipe())
            return store, lambda: None

    try:
        play(Machine, examples=20, steps=40)
    finally:
        loop.run_until_complete(store.stop())
        loop.run_until_complete(shared.drop())
