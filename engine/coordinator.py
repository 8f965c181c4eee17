"""THE ONE DOOR. Everything that happens to a run comes through `submit` as one `Input`: load, fold, decide, append,
react.

    submit ──► mailbox ──► decide ──► commit queue ──► append (one at a time, whatever has gathered) ──► settle ──►
    perform
                  ▲                                                                                        │
                  └──────────────────────────── results of local attempts ─────────────────────────────────┘

One run is decided by one process, its owner, and never twice at once: while its commit is under way, inputs wait in
its mailbox and travel together in the
next. Hot runs stay in memory and are checked by version at append; a cold one is claimed, loaded and folded. Group
commit has no timer: what arrived
while the previous append was under way is the next batch. Nothing here knows the bus, HTTP or SQL.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from contracts.problems import EventNewer, Unavailable
from contracts.run_events import RunEvent
from engine import snapshots
from engine.clock import Clock
from engine.counting import Tally
from engine.interrupt import Interrupter, SagaStuck
from engine.logs import logger
from engine.metrics import Metrics
from engine.plan import Plan
from engine.recording import Caps, record
from engine.run.decide import Decision, decide
from engine.run.inputs import Admitted, Begin, Input, PlanStuck
from engine.run.react import Perform
from engine.run.state import RunState
from engine.store import (
    Appended,
    Arrival,
    Commit,
    Duplicate,
    Fenced,
    InputRow,
    Limited,
    Outcome,
    Stale,
    Start,
    Store,
)
from engine.store.errors import CommitRefused
from engine.store.keys import Erased, SubjectKeys, TenantKeys, Vault
from engine.store.mapper import Mapper
from engine.triggers import Plans

MAILBOX_DRAIN: Final = 100
"""Inputs of one run that may travel in one commit."""
COMMITS_PER_BATCH: Final = 250
DECISIONS_PER_TURN: Final = 64
"""After so many decisions the loop gets a turn for deliveries and timers."""
HOT_RUNS: Final = 10_000
ERASED: Final = "what it knew of its data subject was erased; terminate the run, or abandon it to have it undone"
YIELD_SECONDS: Final = 1.0
"""How long a saga's coroutine may run without yielding (see `engine.interrupt`)."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """The input changed nothing, and why; it is settled all the same."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotOurs:
    """Another live process owns the run, or it is closed; whoever owns it will find the input."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The database will never store this; `reason` says why. A run goes no further and is parked, a start or an arrival
    is for whoever handed it in to bury.
    """

    reason: str


Answer = Outcome | Refused
Result = Answer | Ignored | NotOurs
Done = Callable[[Result], None]


@dataclass(slots=True)
class Hot:
    """One run in memory. `busy`: being loaded, or a commit of it is under way. `performing` counts local attempts
    under way.
    """

    tenant: str
    run_id: UUID
    state: RunState | None = None
    plan: Plan | None = None
    keys: TenantKeys | None = None
    subject: SubjectKeys | Erased | None = None
    mailbox: deque[tuple[Input, Done | None]] = field(default_factory=deque)
    busy: bool = False
    ready: bool = False
    one_by_one: bool = False
    hold: bool = False
    performing: int = 0
    claimed: bool = False
    start: Start | None = None
    arrival: Arrival | None = None


@dataclass(slots=True)
class Prepared:
    """A commit in the queue, and what to do when it has been answered."""

    commit: Commit
    hot: Hot | None
    after: RunState | None
    perform: list[Perform]
    answered: list[tuple[Input, Done | None]]
    events: tuple[RunEvent, ...] = ()
    done: Done | None = None


_OUTCOME: Final = {
    Appended: "appended",
    Duplicate: "duplicate",
    Stale: "stale",
    Limited: "limited",
    Fenced: "fenced",
    Refused: "refused",
}


class Coordinator:
    """One per process. `perform` carries out local attempts (`consumers.worker`), `matched` takes input rows that a
    commit brought about.
    """

    def __init__(
        self,
        store: Store,
        vault: Vault,
        mapper: Mapper,
        plans: Plans,
        clock: Clock,
        metrics: Metrics,
        *,
        caps: Callable[[str, str], Caps] = lambda tenant, workflow: Caps(),
        batch: int = COMMITS_PER_BATCH,
        appends_at_once: int = 1,
        snapshot_every: int = snapshots.SNAPSHOT_EVERY,
    ) -> None:
        self.store, self.vault, self.mapper, self.plans, self.clock, self.metrics = (
            store,
            vault,
            mapper,
            plans,
            clock,
            metrics,
        )
        self.epoch = 0
        self.interrupter = Interrupter(YIELD_SECONDS)
        self.perform: Callable[[RunState, Plan, Perform], None] = lambda state, plan, attempt: None
        self.matched: Callable[[Sequence[InputRow]], None] = lambda rows: None
        self.wrote_outbox: Callable[[], None] = lambda: None
        self.freed_slot: Callable[[], None] = lambda: None
        self._log = logger("coordinator")
        self._caps = caps
        self._batch = batch
        self._appends_at_once = appends_at_once
        self._snapshot_every = snapshot_every
        self._hot: OrderedDict[UUID, Hot] = OrderedDict()
        self._active: set[UUID] = set()
        self._ready: deque[Hot] = deque()
        self._turn_due = False
        self._to_load: list[Hot] = []
        self._queue: deque[Prepared] = deque()
        self._queued = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._loads: set[asyncio.Task[None]] = set()
        self._appending = 0
        self.on_room: Callable[[], None] = lambda: None
        self.suspect: Callable[[], None] = lambda: None

    # ------------------------------------------------------------------------------------------------------------
    # -- life

    async def start(self, epoch: int) -> None:
        """Begins appending as process `epoch`."""
        self.epoch = epoch
        self._tasks = [
            asyncio.create_task(self._commit_forever(), name=f"committer-{n}") for n in range(self._appends_at_once)
        ]

    async def drain(self) -> None:
        """Waits until nothing is queued, being appended or being performed."""
        while (self._active or self._queue or self._appending or self._loads) and self.failed() is None:
            self._idle.clear()
            await self._idle.wait()

    async def stop(self) -> None:
        """Stops appending; twice is fine. What was not appended was never acknowledged and comes again."""
        for task in (*self._tasks, *self._loads):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._loads, return_exceptions=True)
        self._tasks = []

    def failed(self) -> BaseException | None:
        """Why the committer has died, if it has; the assembly ends the process then."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None

    # ------------------------------------------------------------------------------------------------------------
    # -- the door

    @property
    def active(self) -> int:
        """Runs in decision: being loaded, decided, appended or performed. Bounding it bounds latency; prefetch is the
        back-pressure.
        """
        return len(self._active)

    def submit(self, tenant: str, run_id: UUID, given: Input, done: Done | None = None) -> None:
        """Hands one input to a run. `done` hears what became of it, after the commit."""
        hot = self._hot.get(run_id)
        if hot is None:
            hot = self._hot[run_id] = Hot(tenant, run_id)
        hot.mailbox.append((given, done))
        self._make_ready(hot)

    def begin(
        self,
        plan: Plan,
        given: Begin,
        start: Start,
        keys: TenantKeys,
        subject: SubjectKeys | None,
        *,
        arrival: Arrival | None = None,
        done: Done | None = None,
    ) -> None:
        """Starts a run: its first events, its start key and, if given, the arrival that caused it travel in one
        commit.
        """
        hot = self._hot[given.run_id] = Hot(
            given.tenant, given.run_id, RunState(given.run_id, given.tenant), plan, keys, subject
        )
        hot.start, hot.arrival = start, arrival
        hot.mailbox.append((given, done))
        self._make_ready(hot)

    def record(self, commit: Commit, done: Done | None = None) -> None:
        """Puts a commit without a run (an arrival, settled inputs) into the next batch."""
        self._enqueue(Prepared(commit, None, None, [], [], (), done))

    def performed(self, run_id: UUID) -> None:
        """A local attempt of the run is over; its result has been submitted."""
        hot = self._hot.get(run_id)
        if hot is not None:
            hot.performing = max(0, hot.performing - 1)
            self._rest(hot)

    def owns(self, run_id: UUID) -> bool:
        return run_id in self._hot

    def resume(self, tenant: str, run_ids: Iterable[UUID]) -> None:
        """Loads runs just taken over and performs their open local attempts again, under the same keys."""
        for run_id in run_ids:
            if run_id not in self._hot:
                hot = self._hot[run_id] = Hot(tenant, run_id, claimed=True)
                self._make_ready(hot)

    # ------------------------------------------------------------------------------------------------------------
    # -- decide

    def _make_ready(self, hot: Hot) -> None:
        self._active.add(hot.run_id)
        if hot.busy or hot.ready:
            return
        hot.ready = True
        self._ready.append(hot)
        self._take_turn_soon()

    def _take_turn_soon(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        self.interrupter.begin()
        for _ in range(min(DECISIONS_PER_TURN, len(self._ready))):
            hot = self._ready.popleft()
            hot.ready = False
            if hot.state is None:
                hot.busy = True
                self._to_load.append(hot)
            else:
                self._decide(hot)
        self.interrupter.end()
        if self._to_load:
            loading, self._to_load = self._to_load, []
            task = asyncio.create_task(self._load(loading), name="load-runs")
            self._loads.add(task)
            task.add_done_callback(self._loaded)
        if self._ready:
            self._take_turn_soon()

    def _decide(self, hot: Hot) -> None:
        """Drains the mailbox into one commit."""
        before, plan = hot.state, hot.plan
        assert before is not None
        assert plan is not None
        assert hot.keys is not None
        state = before
        events: list[RunEvent] = []
        answered: list[tuple[Input, Done | None]] = []
        for _ in range(1 if hot.one_by_one else MAILBOX_DRAIN):
            if not hot.mailbox:
                break
            given, done = hot.mailbox.popleft()
            decision = self._ask(state, given, plan, hot)
            if decision.events:
                state = decision.state
                events.extend(decision.events)
                answered.append((given, done))
            else:
                self._ignore(hot, given, done, decision.ignored or "")
        if not events:
            self._rest(hot)
            return
        caps = self._caps(hot.tenant, state.workflow)
        start = hot.start
        if start is not None and not state.queued and (caps.workflow is not None or caps.tenant is not None):
            start = replace(start, workflow_cap=caps.workflow, tenant_cap=caps.tenant)
        commit, perform = record(
            before,
            events,
            state,
            plan,
            self.mapper,
            hot.keys,
            hot.subject,
            caps,
            input_keys=tuple(given.dedup for given, _ in answered if given.dedup is not None),
            settled=tuple(row for given, _ in answered for row in given.settles),
            start=start,
            arrival=hot.arrival,
        )
        if snapshots.is_due(before, state, self._snapshot_every) and not isinstance(hot.subject, Erased):
            commit = replace(commit, snapshot=snapshots.seal(hot.keys, hot.subject, state))
        hot.busy = True
        self._enqueue(Prepared(commit, hot, state, perform, answered, tuple(events)))

    def _ask(self, state: RunState, given: Input, plan: Plan, hot: Hot) -> Decision:
        """One decision, with the saga's coroutine interrupted if it does not yield within its second."""
        try:
            with self.interrupter:
                return decide(state, given, plan, hold=hot.hold)
        except SagaStuck as stuck:
            # What happened is recorded all the same; only the saga is not asked what follows from it.
            plan.forget(state)
            return decide(state, given, plan, hold=hot.hold, stuck=str(stuck))

    def _ignore(self, hot: Hot, given: Input, done: Done | None, reason: str) -> None:
        """A late or void input is settled with its reason; it never stays pending."""
        if given.settles:
            result = Ignored(reason)
            self.record(
                Commit(tenant=hot.tenant, stream=None, settled=given.settles),
                None if done is None else lambda _: done(result),
            )
        elif done is not None:
            done(Ignored(reason))

    # ------------------------------------------------------------------------------------------------------------
    # -- load

    async def _load(self, loading: list[Hot]) -> None:
        """Claims, loads and folds cold runs; what is not ours goes back to whoever handed it in."""
        try:
            ours: list[Hot] = []
            for hot in loading:
                if hot.claimed or await self.store.claim_run(self.epoch, hot.tenant, hot.run_id) is not None:
                    hot.claimed = False
                    ours.append(hot)
                else:
                    await self._not_ours(hot)
            tails = await snapshots.read_tails(self.store, [(hot.tenant, hot.run_id) for hot in ours])
            for hot in ours:
                try:
                    await self._open(hot, tails[hot.run_id])
                except Unavailable:
                    raise
                except Exception as unreadable:  # one run that cannot be read must not hold up the others
                    await self._unreadable(hot, unreadable)
        except Unavailable:
            for hot in loading:
                if hot.state is None and hot.run_id in self._hot:
                    self._forget(hot)
                    for _, done in hot.mailbox:
                        if done is not None:
                            done(NotOurs())

    def _loaded(self, task: asyncio.Task[None]) -> None:
        self._loads.discard(task)
        self._tell_idle()  # whoever drains has seen this load under way

    async def _open(self, hot: Hot, tail: snapshots.Tail) -> None:
        hot.keys, state, stored = await snapshots.fold_up(
            self.store, self.vault, self.mapper, hot.tenant, hot.run_id, tail
        )
        hot.plan = self.plans.get(state.workflow, state.workflow_version)
        if hot.plan is None or state.ended is not None:
            await self.store.release_runs(self.epoch, [hot.run_id])
            await self._not_ours(hot)
            return
        if state.subject is not None:
            hot.subject = await self.vault.keys_of_run(hot.tenant, state.subject, (one.body for one in stored))
            if isinstance(hot.subject, Erased) and state.cause is None and not state.incidents:
                self._log.warning("subject_erased", run_id=str(hot.run_id), tenant_id=hot.tenant)
                hot.mailbox.appendleft((PlanStuck(at=self.clock.now(), reason="subject_erased", detail=ERASED), None))
        hot.state = state
        hot.busy = False
        self._perform_again(hot)
        if hot.mailbox:
            self._make_ready(hot)
        else:
            self._rest(hot)

    async def _unreadable(self, hot: Hot, why: Exception) -> None:
        """Its log cannot be opened or folded here. It stays ours, so that it is counted as stuck and not handed round;
        only what a newer process wrote is left to that one.
        """
        self._log.error("run_unreadable", run_id=str(hot.run_id), tenant_id=hot.tenant, code=getattr(why, "code", None))
        self._forget(hot)
        if isinstance(why, EventNewer):
            await self.store.release_runs(self.epoch, [hot.run_id])
        for _, done in hot.mailbox:
            if done is not None:
                done(NotOurs())

    async def _not_ours(self, hot: Hot) -> None:
        """Another live process owns it: leave its inputs to that one. Closed: settle them as ignored, they came too
        late.
        """
        self._forget(hot)
        closed = await self.store.open_run(hot.tenant, hot.run_id) is None
        while hot.mailbox:
            given, done = hot.mailbox.popleft()
            if closed:
                self._ignore(hot, given, done, "the run has ended")
            elif done is not None:
                done(NotOurs())

    def _perform_again(self, hot: Hot) -> None:
        """After a takeover: local attempts whose intent is recorded and whose outcome is not are made again, with the
        same key.
        """
        assert hot.state is not None
        for step in (hot.state.steps or {}).values():
            if step.status == "open" and (step.kind == "local" or step.doubt):
                self._perform(hot, Perform(step.name, step.visit, step.attempt, ask=bool(step.doubt)))
            if step.undo_status == "open" and step.undo is not None:
                assert hot.plan is not None
                spec = hot.plan.action(step.undo)
                # An undo that nobody brings any more is attempted too: the attempt says so and parks the run.
                if (spec.kind if spec is not None else step.kind) == "local":
                    self._perform(hot, Perform(step.name, step.visit, step.undo_attempt, undo=True))

    # ------------------------------------------------------------------------------------------------------------
    # -- append

    def _enqueue(self, prepared: Prepared) -> None:
        self._queue.append(prepared)
        self._queued.set()

    async def _commit_forever(self) -> None:
        try:
            await self._commit_batches()
        finally:
            self._idle.set()  # whoever drains must not wait for a committer that has died

    async def _commit_batches(self) -> None:
        while True:
            await self._queued.wait()
            if not self._queue:
                self._queued.clear()
                continue
            batch = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
            self._appending += 1
            try:
                outcomes = await self._append([prepared.commit for prepared in batch])
            finally:
                self._appending -= 1
            tally = Tally()
            for prepared, outcome in zip(batch, outcomes, strict=True):
                self._settle(prepared, outcome, tally)
            tally.flush(self.metrics)
            self._tell_idle()

    async def _append(self, commits: list[Commit]) -> list[Answer]:
        """Appends until the database has answered. A repeated call is safe: what had been committed answers for itself
        (`_was_ours`).
        """
        delay, repeated = 0.05, False
        while True:
            try:
                outcomes: list[Answer] = list(
                    await self.store.append(commits, epoch=self.epoch, now=self.clock.database_now())
                )
            except CommitRefused as poison:
                # The driver has halved the batch until the guilty stood alone; all others are answered.
                outcomes = [
                    answer if answer is not None else Refused(poison.causes[place])
                    for place, answer in enumerate(poison.outcomes)
                ]
            except Unavailable:
                self.metrics.appends.of("unknown").inc()
                repeated = True
                await asyncio.sleep(delay)
                delay = min(2.0, delay * 2)
                continue
            self.metrics.append_batch.observe(len(commits))
            self.metrics.appends.of("ok").inc()
            if not repeated:
                return outcomes
            return [await self._was_ours(commit, outcome) for commit, outcome in zip(commits, outcomes, strict=True)]

    async def _was_ours(self, commit: Commit, outcome: Answer) -> Answer:
        """After a lost answer: a stream that already holds exactly these sealed bodies was written by the first try."""
        if commit.stream is None or not isinstance(outcome, Stale | Duplicate):
            return outcome
        stored = await self.store.load(commit.tenant, commit.stream, after=commit.expected)
        if [one.body for one in stored[: len(commit.events)]] == [one.body for one in commit.events]:
            return Appended(0)
        return outcome

    def _settle(self, prepared: Prepared, outcome: Answer, tally: Tally) -> None:
        hot = prepared.hot
        tally.commit(_OUTCOME[type(outcome)])
        if isinstance(outcome, Appended) and outcome.matched:
            self.matched(outcome.matched)
        if hot is None:
            if prepared.done is not None:
                prepared.done(outcome)
            if isinstance(outcome, Fenced):
                self.suspect()
            return
        hot.busy = False
        match outcome:
            case Appended():
                self._appended(hot, prepared, outcome, tally)
            case Stale():
                self._again(hot, prepared, reload=True)
            case Limited():
                self._limited(hot, prepared)
            case Duplicate():
                self._duplicate(hot, prepared, outcome)
            case Fenced():
                self._lost(hot, prepared.answered)
                self.suspect()
            case Refused():
                self._refused(hot, prepared, outcome)

    def _appended(self, hot: Hot, prepared: Prepared, outcome: Appended, tally: Tally) -> None:
        before = hot.state
        hot.state = prepared.after
        assert hot.state is not None
        assert before is not None
        hot.start = hot.arrival = None
        hot.hold = hot.one_by_one = False
        commit = prepared.commit
        tally.events(prepared.events, hot.state)
        if commit.outbox:
            self.wrote_outbox()
        for _, done in prepared.answered:
            if done is not None:
                done(outcome)
        if before.holds_slot and not hot.state.holds_slot:
            self.freed_slot()
        if hot.state.ended is not None:
            self._forget(hot)
            for given, done in hot.mailbox:
                self._ignore(hot, given, done, f"the run has ended ({hot.state.ended})")
            hot.mailbox.clear()
            return
        for attempt in prepared.perform:
            self._perform(hot, attempt)
        if hot.mailbox:
            self._make_ready(hot)
        else:
            self._rest(hot)

    def _perform(self, hot: Hot, attempt: Perform) -> None:
        assert hot.state is not None
        assert hot.plan is not None
        hot.performing += 1
        self._active.add(hot.run_id)
        self.perform(hot.state, hot.plan, attempt)

    def _again(self, hot: Hot, prepared: Prepared, *, reload: bool) -> None:
        """Back to the mailbox, in order, to be decided on what is true now."""
        assert hot.plan is not None
        assert hot.state is not None
        hot.plan.forget(hot.state)
        hot.mailbox.extendleft(reversed(prepared.answered))
        if reload:
            hot.state = None
        self._make_ready(hot)

    def _refused(self, hot: Hot, prepared: Prepared, refused: Refused) -> None:
        """What follows from these inputs can never be recorded. They are settled, and an operator sees why."""
        assert hot.plan is not None
        assert hot.state is not None
        hot.plan.forget(hot.state)
        given = [one for one, _ in prepared.answered]
        begun = hot.start is None
        if not begun or any(isinstance(one, PlanStuck) for one in given):
            self._forget(hot)  # it never began; or not even its incident can be stored, and the janitor shows it stuck
        else:
            settles = tuple(row for one in given for row in one.settles)
            detail = f"what follows cannot be recorded: {refused.reason}"
            hot.mailbox.appendleft((PlanStuck(at=given[-1].at, settles=settles, reason="refused", detail=detail), None))
            self._make_ready(hot)
        for _, done in prepared.answered:
            if done is not None:
                done(refused)

    def _limited(self, hot: Hot, prepared: Prepared) -> None:
        """No slot is free. A start is recorded as queued; a woken run records what woke it and queues; an admission
        waits for the next slot.
        """
        assert hot.plan is not None
        assert hot.state is not None
        given = prepared.answered[0][0]
        if isinstance(given, Begin):
            prepared.answered[0] = (replace(given, queued=True), prepared.answered[0][1])
        elif hot.state.queued:
            for given, done in prepared.answered:
                if isinstance(given, Admitted) and done is not None:
                    done(Ignored("no slot is free yet"))
            # What came together with the admission has happened all the same.
            prepared.answered = [one for one in prepared.answered if not isinstance(one[0], Admitted)]
        else:
            hot.hold = True
        self._again(hot, prepared, reload=False)

    def _duplicate(self, hot: Hot, prepared: Prepared, outcome: Duplicate) -> None:
        """A start that was made before answers with the original run. Of several inputs only one may be the duplicate:
        decide them one by one.
        """
        assert hot.plan is not None
        assert hot.state is not None
        if len(prepared.answered) > 1:
            hot.one_by_one = True
            self._again(hot, prepared, reload=False)
            return
        hot.plan.forget(hot.state)
        given, done = prepared.answered[0]
        if hot.start is not None:
            self._forget(hot)
        if given.settles:
            self.record(
                Commit(tenant=hot.tenant, stream=None, settled=given.settles),
                None if done is None else lambda _: done(outcome),
            )
        elif done is not None:
            done(outcome)
        if hot.start is None:
            if hot.mailbox:
                self._make_ready(hot)
            else:
                self._rest(hot)

    def fenced(self) -> None:
        """This process was declared dead: whatever it thinks it knows about runs is void. What waited here hears
        `Fenced`; unacknowledged deliveries and leased rows are taken again under the next epoch, or elsewhere.
        """
        queued, self._queue = list(self._queue), deque()
        self._ready.clear()
        for prepared in queued:
            if prepared.hot is not None:
                self._lost(prepared.hot, prepared.answered)
            elif prepared.done is not None:
                prepared.done(Fenced())
        for hot in list(self._hot.values()):
            if not hot.busy:  # the one whose append is under way hears from it
                self._lost(hot, [])

    def _lost(self, hot: Hot, answered: Sequence[tuple[Input, Done | None]]) -> None:
        """The run belongs to another process now."""
        hot.ready = False
        self._forget(hot)
        waiting, hot.mailbox = list(hot.mailbox), deque()
        for _, done in (*answered, *waiting):
            if done is not None:
                done(Fenced())

    # ------------------------------------------------------------------------------------------------------------
    # -- memory

    def _rest(self, hot: Hot) -> None:
        """The run has nothing to do here for now; the least recently used ones leave memory."""
        if hot.busy or hot.ready or hot.mailbox or hot.performing:
            return
        self._active.discard(hot.run_id)
        if hot.run_id in self._hot:
            self._hot.move_to_end(hot.run_id)
            while len(self._hot) > HOT_RUNS:
                run_id, oldest = next(iter(self._hot.items()))
                if run_id in self._active:
                    break
                self._forget(oldest)
        self.on_room()
        self._tell_idle()

    def _forget(self, hot: Hot) -> None:
        self._hot.pop(hot.run_id, None)
        self._active.discard(hot.run_id)
        if hot.plan is not None and hot.state is not None:
            hot.plan.forget(hot.state)
        self.on_room()
        self._tell_idle()

    def _tell_idle(self) -> None:
        if not self._active and not self._queue and not self._appending:
            self._idle.set()
