"""THE ONE DOOR. Everything that happens to a run comes through `submit` as one `Input`: load, fold, decide, append,
react.

    submit ──► mailbox ──► decide ──► commit queue ──► append ──► settle ──► perform
                  ▲  ▲                                                          │
                load └──────────────── results of local attempts ───────────────┘

One run is decided by one process, its owner, and never twice at once: while its commit is under way, inputs wait in
its mailbox and travel together in the next. Hot runs stay in memory (`engine.hot_runs`) and are checked by version at
append; a cold one is claimed, loaded and folded first (`engine.loading`). The commit queue appends one batch after the
other, each of whatever has gathered meanwhile (`engine.committer`); what could not be appended is decided again or
settled otherwise (`engine.setbacks`). Nothing here knows the bus, HTTP or SQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from contracts.run_events import RunEvent
from engine import snapshots
from engine.accounts import Accounts
from engine.answers import Answer, Done, Ignored, Refused
from engine.between_runs import RUNS
from engine.clock import Clock
from engine.committer import Committer, Prepared
from engine.counting import Tally
from engine.endless import Endless
from engine.guards.breaches import breach_of
from engine.guards.quotas import BREACHED, BUDGETS, bounded
from engine.hot_runs import HOT_RUNS, WAITING_RUNS, Hot, HotRuns
from engine.interrupt import DECIDE_SECONDS, Interrupter
from engine.loading import Loader
from engine.metrics import Metrics
from engine.plan import Plan
from engine.recording import Caps, record
from engine.run.inputs import Admitted, Begin, CancelAsked, Input, TerminateAsked
from engine.run.limits import Breach
from engine.run.react import Perform
from engine.run.state import RunState
from engine.setbacks import Setbacks
from engine.store import (
    Appended,
    Arrival,
    Await,
    Commit,
    Duplicate,
    Fenced,
    InputRow,
    Limited,
    NewInput,
    Stale,
    Start,
    Store,
)
from engine.store.keys import Erased, SubjectKeys, TenantKeys, Vault
from engine.store.mapper import Mapper
from engine.tracing import RunTracing
from engine.triggers import Plans

MAILBOX_DRAIN: Final = 100
"""Inputs of one run that may travel in one commit."""
COMMITS_PER_BATCH: Final = 250
DECISIONS_PER_TURN: Final = 64
"""After so many decisions the loop gets a turn for deliveries and timers."""

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
        limits: Callable[[str], Mapping[str, int] | None] = lambda tenant: None,
        paused: Callable[[str, str], bool] = lambda tenant, workflow: False,
        accounts: Accounts | None = None,
        tracing: RunTracing | None = None,
        batch: int = COMMITS_PER_BATCH,
        appends_at_once: int = 1,
        hot_runs: int = HOT_RUNS,
        waiting_runs: int = WAITING_RUNS,
        snapshot_every: int = snapshots.SNAPSHOT_EVERY,
        decide_seconds: float = DECIDE_SECONDS,
    ) -> None:
        self._mapper = mapper
        self.epoch = 0
        self.interrupter = Interrupter(decide_seconds)
        self.perform: Callable[[RunState, Plan, Perform], None] = lambda state, plan, attempt: None
        self.matched: Callable[[Sequence[InputRow]], None] = lambda rows: None
        self.wrote_outbox: Callable[[], None] = lambda: None
        self.wrote_inputs: Callable[[], None] = lambda: None
        self.freed_slot: Callable[[], None] = lambda: None
        self.run_queued: Callable[[], None] = lambda: None
        self.suspect: Callable[[], None] = lambda: None
        self.breached: Callable[[str, Breach], None] = lambda tenant, breach: None
        self.spent: Callable[[str, str, Limited], None] = lambda tenant, workflow, limited: None
        self.caps = caps
        self._limits = limits
        self._platforms = plans.platforms
        self._paused = paused
        self._accounts = accounts or Accounts()
        self._tracing = tracing
        self._appends_at_once = appends_at_once
        self._snapshot_every = snapshot_every
        self._turn_due: asyncio.Handle | None = None
        self._to_load: list[Hot] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._work = Endless()
        self.runs = HotRuns(hot_runs, waiting=waiting_runs, on_ready=self._take_turn_soon, on_idle=self._tell_idle)
        self._setbacks = Setbacks(self.runs, self.record, metrics)
        self._loader = Loader(
            store,
            vault,
            mapper,
            plans,
            clock,
            self.runs,
            epoch=lambda: self.epoch,
            ignore=self._ignore,
            void=self._void,
            perform=self._perform,
            on_loaded=self._tell_idle,
        )
        self._committer = Committer(
            store,
            clock,
            metrics,
            epoch=lambda: self.epoch,
            batch=batch,
            active=lambda: self.active,
            settle=self._settle,
            on_settled=self._settled,
        )

    # ------------------------------------------------------------------------------------------------------------
    # -- life

    async def start(self, epoch: int) -> None:
        """Begins appending as process `epoch`."""
        self.epoch = epoch
        for number in range(self._appends_at_once):
            self._work.begin(f"appends-{number}", self._until_it_fails(self._committer.append_forever()))
        self._work.begin("settles", self._until_it_fails(self._committer.settle_forever()))

    async def drain(self) -> None:
        """Waits until nothing is queued, being appended or being performed."""
        while (self.runs.active or not self._committer.idle or self._loader.tasks) and self.failed() is None:
            self._idle.clear()
            await self._idle.wait()

    async def stop(self) -> None:
        """Stops appending; twice is fine. What was not appended was never acknowledged and comes again."""
        loading = list(self._loader.tasks)
        for task in loading:
            task.cancel()
        await self._work.end()
        await asyncio.gather(*loading, return_exceptions=True)

    def failed(self) -> BaseException | None:
        """Why the committer has died, if it has; the assembly ends the process then."""
        return self._work.failed()

    async def _until_it_fails(self, work: Awaitable[None]) -> None:
        try:
            await work
        finally:
            self._idle.set()  # whoever drains must not wait for a committer that has died

    def _settled(self) -> None:
        if self._turn_due is not None:
            self._turn()  # what was settled is decided on at once, not in the loop's next round
        self._tell_idle()

    def _tell_idle(self) -> None:
        if not self.runs.active and self._committer.idle:
            self._idle.set()

    # ------------------------------------------------------------------------------------------------------------
    # -- the door

    @property
    def active(self) -> int:
        """Runs in decision: being loaded, decided, appended or performed. Bounding it bounds latency; prefetch is the
        back-pressure.
        """
        return len(self.runs.active)

    def has_room(self, tenant: str, limit: int) -> bool:
        """Whether a run of this tenant may begin where `limit` shall be in decision; a tenant that has less than its
        share of them has room beyond the limit.
        """
        return self.runs.has_room(tenant, limit)

    def awaited(self, tenant: str, command: str | None, kind: str) -> tuple[UUID, Await] | None:
        """The run in memory here that waits for such an answer to this command, and as what. None says nothing: the
        store knows all of them.
        """
        hot = self.runs.asking.get((tenant, command or ""))
        if hot is None or command is None:
            return None
        found = hot.asked[command]
        return (hot.run_id, found) if kind in found.types else None

    def submit(
        self, tenant: str, run_id: UUID, given: Input, done: Done | None = None, *, arrival: Arrival | None = None
    ) -> None:
        """Hands one input to a run. `done` hears what became of it, after the commit. An `arrival` is the message that
        it came in, not yet kept: the commit that answers the input keeps it. It does so for no other answer than
        `Appended` and `Duplicate`.
        """
        hot = self.runs.by_id.get(run_id)
        if hot is None:
            hot = self.runs.by_id[run_id] = Hot(tenant, run_id)
        if arrival is not None:
            hot.brought[given.dedup] = arrival
        hot.mailbox.append((given, done))
        self.runs.make_ready(hot)

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
        commit. What bounds it from now on is in its trigger (`engine.run.limits`).
        """
        limits = self._limits(given.tenant)
        if limits and plan.name not in self._platforms:
            given = replace(given, trigger={**given.trigger, "limits": limits})
        hot = self.runs.by_id[given.run_id] = Hot(
            given.tenant, given.run_id, RunState(given.run_id, given.tenant), plan, keys, subject
        )
        hot.start, hot.arrival, hot.bare = start, arrival, True
        hot.mailbox.append((given, done))
        self.runs.make_ready(hot)

    def record(self, commit: Commit, done: Done | None = None) -> None:
        """Puts a commit without a run (an arrival, settled inputs) into the next batch."""
        self._committer.put(Prepared(commit, None, None, [], [], done=done))

    def performed(self, run_id: UUID) -> None:
        """A local attempt of the run is over; its result has been submitted."""
        hot = self.runs.by_id.get(run_id)
        if hot is not None:
            hot.performing = max(0, hot.performing - 1)
            self.runs.rest(hot)

    def owns(self, run_id: UUID) -> bool:
        return run_id in self.runs.by_id

    def resume(self, tenant: str, run_ids: Iterable[UUID]) -> None:
        """Loads runs just taken over and performs their open local attempts again, under the same keys."""
        for run_id in run_ids:
            known = self.runs.by_id.get(run_id)
            if known is not None:
                known.taken_meanwhile = known.busy
            else:
                hot = self.runs.by_id[run_id] = Hot(tenant, run_id, claimed=True)
                self.runs.make_ready(hot)

    def reload(self, tenant: str, run_id: UUID) -> None:
        """The same for a run that this process owns and has nothing in hand of, whatever it remembers of it."""
        hot = self.runs.by_id.get(run_id)
        if hot is not None:
            self.runs.forget(hot)
        self.resume(tenant, [run_id])

    # ------------------------------------------------------------------------------------------------------------
    # -- decide

    def _take_turn_soon(self) -> None:
        if self._turn_due is None:
            self._turn_due = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        if self._turn_due is not None:
            self._turn_due.cancel()
            self._turn_due = None
        self.interrupter.begin()
        for _ in range(min(DECISIONS_PER_TURN, len(self.runs.ready))):
            hot = self.runs.ready.popleft()
            hot.ready = False
            if hot.state is None:
                hot.busy = True
                self._to_load.append(hot)
            else:
                began = self._accounts.begin()
                self._decide(hot)
                if began is not None:
                    self._accounts.decided(hot.tenant, began)
        self.interrupter.end()
        if self._to_load:
            loading, self._to_load = self._to_load, []
            self._loader.begin(loading)
        if self.runs.ready:
            self._take_turn_soon()

    def _decide(self, hot: Hot) -> None:
        """Drains the mailbox into one commit."""
        before, plan = hot.state, hot.plan
        assert before is not None
        assert plan is not None
        assert hot.keys is not None
        state = before
        events: list[RunEvent] = []
        breaches: tuple[Breach, ...] = ()
        answered: list[tuple[Input, Done | None]] = []
        paused = self._paused(hot.tenant, plan.name)
        arrival = hot.arrival
        for _ in range(1 if hot.one_by_one else MAILBOX_DRAIN):
            if not hot.mailbox:
                break
            given, done = hot.mailbox[0]
            brought = hot.brought.get(given.dedup) if hot.brought else None
            if brought is not None and arrival is not None:
                break  # a commit keeps one message
            hot.mailbox.popleft()
            if (paused or hot.hold) and isinstance(given, Begin | Admitted):
                if isinstance(given, Admitted):
                    self._ignore(hot, given, done, "the tenant is paused" if paused else "the run is being held")
                    continue
                given = replace(given, queued=True)
            decision = self.interrupter.ask(state, given, plan, hold=hot.hold or paused)
            if decision.events:
                state = decision.state
                events.extend(decision.events)
                breaches += decision.breaches
                answered.append((given, done))
                arrival = brought or arrival
            else:
                self._ignore(hot, given, done, decision.ignored or "")
        if not events:
            self.runs.rest(hot)
            return
        caps = self.caps(hot.tenant, state.workflow)
        start = hot.start
        if start is not None and state.cause is None:
            # What a run starts was let in with it, and what the platform does to a tenant is none of its own.
            trigger = state.trigger or {}
            own = "depth" in trigger or state.workflow in self._platforms
            counted = not own and trigger.get("type") != BREACHED
            slots = caps if not state.queued else Caps()
            start = replace(start, workflow_cap=slots.workflow, tenant_cap=slots.tenant, counted=counted)
        commit, perform = record(
            before,
            events,
            state,
            plan,
            self._mapper,
            hot.keys,
            hot.subject,
            lambda: caps,
            input_keys=tuple(given.dedup for given, _ in answered if given.dedup is not None),
            settled=tuple(row for given, _ in answered for row in given.settles),
            start=start,
            arrival=arrival,
            bare=hot.bare,
            bounded=caps.budget and bounded(state, self._platforms),
            tracing=self._tracing,
        )
        if snapshots.is_due(before, state, self._snapshot_every) and not isinstance(hot.subject, Erased):
            commit = replace(commit, snapshot=snapshots.seal(hot.keys, hot.subject, state))
        if commit.timers or commit.subscriptions or commit.awaits or commit.input_keys or commit.snapshot:
            hot.bare = False
        hot.busy = True
        self._committer.put(Prepared(commit, hot, state, perform, answered, tuple(events), breaches))

    def _ignore(self, hot: Hot, given: Input, done: Done | None, reason: str) -> None:
        """A late or void input is settled with its reason; it never stays pending. What another run wants of one that
        has gone on as a third is that one's to hear.
        """
        hot.brought.pop(given.dedup, None)
        if given.settles and isinstance(given, CancelAsked | TerminateAsked) and given.by == RUNS:
            self._loader.pass_on(hot, given, done, reason)
        elif given.settles:
            self._void(hot.tenant, given, done, reason)
        elif done is not None:
            done(Ignored(reason))

    def _void(self, tenant: str, given: Input, done: Done | None, reason: str, told: tuple[NewInput, ...] = ()) -> None:
        """Settles an input that changes nothing here; `told` is what another run hears instead."""
        self.record(
            Commit(tenant=tenant, stream=None, settled=given.settles, inputs=told),
            None if done is None else lambda _: done(Ignored(reason)),
        )

    # ------------------------------------------------------------------------------------------------------------
    # -- settle

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
                self._setbacks.stale(hot, prepared)
            case Limited():
                start = prepared.commit.start
                assert hot.state is not None
                if start is not None or (outcome.quota in BUDGETS and not hot.state.queued):
                    self.breached(hot.tenant, breach_of(outcome, prepared.workflow))
                self.spent(hot.tenant, prepared.workflow, outcome)
                refuse = start is not None and start.counted and self.caps(hot.tenant, start.workflow).refuse
                self._setbacks.limited(hot, prepared, outcome, refuse=refuse)
            case Duplicate():
                self._setbacks.duplicate(hot, prepared, outcome)
            case Fenced():
                self._setbacks.lost(hot, prepared.answered)
                self.suspect()
            case Refused():
                self._setbacks.refused(hot, prepared, outcome)

    def _appended(self, hot: Hot, prepared: Prepared, outcome: Appended, tally: Tally) -> None:
        before = hot.state
        hot.state = prepared.after
        assert hot.state is not None
        assert before is not None
        hot.start = hot.arrival = None
        hot.hold = hot.one_by_one = False
        commit = prepared.commit
        if hot.brought:
            for given, _ in prepared.answered:
                hot.brought.pop(given.dedup, None)
        if commit.awaits or commit.awaits_dropped:
            self.runs.appended(hot, commit)
        tally.events(prepared.events, hot.state)
        if self._tracing is not None:
            inputs = [given for given, _ in prepared.answered]
            self._tracing.committed(before, prepared.events, hot.state, inputs)
        for breach in prepared.breaches:
            self.breached(hot.tenant, breach)
        self._accounts.appended(hot.tenant, len(prepared.events), len(commit.outbox), len(prepared.perform))
        if commit.outbox:
            self.wrote_outbox()
        if commit.inputs:
            self.wrote_inputs()
        if commit.open_run is not None and before.holds_slot and not hot.state.holds_slot:
            self.freed_slot()
        if hot.state.queued:
            self.run_queued()
        if hot.state.ended is not None:
            self.runs.forget(hot)
            for given, done in hot.mailbox:
                self._ignore(hot, given, done, f"the run has ended ({hot.state.ended})")
            hot.mailbox.clear()
        else:
            for attempt in prepared.perform:
                self._perform(hot, attempt)
            if hot.mailbox:
                self.runs.make_ready(hot)
            else:
                self.runs.rest(hot)
        for _, done in prepared.answered:
            if done is not None:
                done(outcome)

    def _perform(self, hot: Hot, attempt: Perform) -> None:
        assert hot.state is not None
        assert hot.plan is not None
        hot.performing += 1
        self.runs.active.add(hot.run_id)
        self.perform(hot.state, hot.plan, attempt)

    def fenced(self) -> None:
        """This process was declared dead: whatever it thinks it knows about runs is void. What waited here hears
        `Fenced`; unacknowledged deliveries and leased rows are taken again under the next epoch, or elsewhere.
        """
        queued = self._committer.take_back()
        self.runs.ready.clear()
        for prepared in queued:
            if prepared.hot is not None:
                self._setbacks.lost(prepared.hot, prepared.answered)
            elif prepared.done is not None:
                prepared.done(Fenced())
        for hot in list(self.runs.by_id.values()):
            if not hot.busy:  # the one whose append is under way hears from it
                self._setbacks.lost(hot, [])
