"""Brings cold runs into memory: claimed, read, folded, and what their dead owner had begun performed again. What is not
ours goes back to whoever handed it in. The coordinator asks for it, a turn's runs at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from contracts.problems import EventNewer, Unavailable
from engine import between_runs, notes, snapshots
from engine.answers import Done, NotOurs
from engine.clock import Clock
from engine.hot_runs import Hot, HotRuns
from engine.logs import logger
from engine.run.inputs import CancelAsked, Input, PlanStuck, TerminateAsked
from engine.run.react import Perform
from engine.store import NewInput, Store
from engine.store.keys import Erased, Vault
from engine.store.mapper import Mapper
from engine.triggers import Plans

ERASED: Final = "what it knew of its data subject was erased; terminate the run, or abandon it to have it undone"


HELD: Final = timedelta(minutes=10)
"""So long a stop waits for the start of the run that it is about."""


class Loader:
    """`ignore` settles an input that came too late, `void` does it without its run, `perform` makes an attempt;
    `on_loaded` hears that a load is over.
    """

    def __init__(
        self,
        store: Store,
        vault: Vault,
        mapper: Mapper,
        plans: Plans,
        clock: Clock,
        runs: HotRuns,
        *,
        epoch: Callable[[], int],
        ignore: Callable[[Hot, Input, Done | None, str], None],
        void: Callable[[str, Input, Done | None, str, tuple[NewInput, ...]], None],
        perform: Callable[[Hot, Perform], None],
        on_loaded: Callable[[], None],
    ) -> None:
        self._store, self._vault, self._mapper, self._plans, self._clock = store, vault, mapper, plans, clock
        self._runs = runs
        self._epoch = epoch
        self._ignore = ignore
        self._void = void
        self._perform = perform
        self._on_loaded = on_loaded
        self._log = logger("loading")
        self.tasks: set[asyncio.Task[None]] = set()

    def begin(self, loading: list[Hot]) -> None:
        self._spawn(self._load(loading), "load-runs")

    def pass_on(self, hot: Hot, given: CancelAsked | TerminateAsked, done: Done | None, reason: str) -> None:
        """A run that is told by another to stop, and has nothing to stop: it has gone on as a third, which is told
        instead; or its start is still on its way, and the input waits for it. Else it is ignored for `reason`.
        """
        self._spawn(self._pass_on(hot.tenant, hot.run_id, given, done, reason), "pass-on-stop")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._loaded)

    def _loaded(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._on_loaded()  # whoever drains has seen this load under way

    async def _pass_on(
        self, tenant: str, run_id: UUID, given: CancelAsked | TerminateAsked, done: Done | None, reason: str
    ) -> None:
        told: tuple[NewInput, ...] = ()
        try:
            following = await self._store.started(tenant, notes.continued_key(run_id))
            if following is not None:
                told = (between_runs.stop(following, given, await self._vault.keys_for(tenant)),)
            young = self._clock.now() - given.at < HELD
            waits = following is None and young and not await self._store.load(tenant, run_id)
        except Unavailable:
            waits = True
        if not waits:
            self._void(tenant, given, done, reason, told)
        elif done is not None:
            done(NotOurs())

    async def _load(self, loading: list[Hot]) -> None:
        """Claims, loads and folds cold runs; what is not ours goes back to whoever handed it in."""
        try:
            ours: list[Hot] = []
            theirs: list[Hot] = []
            named = [(hot.tenant, hot.run_id) for hot in loading if not hot.claimed]
            taken = {run.run_id for run in await self._store.claim_named(self._epoch(), named)} if named else set()
            for hot in loading:
                if hot.claimed or hot.run_id in taken:
                    hot.claimed = False
                    ours.append(hot)
                else:
                    theirs.append(hot)
            if theirs:
                # What they were loaded for was leased here: their owners need not wait for the end of that.
                runs = [hot.run_id for hot in theirs]
                await self._store.hand_over(self._epoch(), runs, now=self._clock.database_now())
            for hot in theirs:
                await self._not_ours(hot)
            tails = await snapshots.read_tails(self._store, [(hot.tenant, hot.run_id) for hot in ours])
            for hot in ours:
                try:
                    await self._open(hot, tails[hot.run_id])
                except Unavailable:
                    raise
                except Exception as unreadable:  # one run that cannot be read must not hold up the others
                    await self._unreadable(hot, unreadable)
        except Unavailable:
            for hot in loading:
                if hot.state is None and hot.run_id in self._runs.by_id:
                    self._runs.forget(hot)
                    _hand_back(hot)

    async def _open(self, hot: Hot, tail: snapshots.Tail) -> None:
        hot.keys, state, stored = await snapshots.fold_up(
            self._store, self._vault, self._mapper, hot.tenant, hot.run_id, tail
        )
        hot.plan = self._plans.get(state.workflow, state.workflow_version)
        if hot.plan is None or state.ended is not None:
            await self._store.release_runs(self._epoch(), [hot.run_id])
            await self._not_ours(hot)
            return
        hot.subject = await self._vault.keys_of_run(hot.tenant, state.subject, (one.body for one in stored))
        if isinstance(hot.subject, Erased) and state.cause is None and not state.incidents:
            self._log.warning(
                "subject_erased",
                tenant_id=hot.tenant,
                run_id=hot.run_id,
                correlation_id=state.correlation_id,
            )
            hot.mailbox.appendleft((PlanStuck(at=self._clock.now(), reason="subject_erased", detail=ERASED), None))
        hot.state = state
        hot.bare = False
        hot.busy = False
        self._perform_again(hot)
        if hot.mailbox:
            self._runs.make_ready(hot)
        else:
            self._runs.rest(hot)

    async def _unreadable(self, hot: Hot, why: Exception) -> None:
        """Its log cannot be opened or folded here. It stays ours, so that it is counted as stuck and not handed round;
        only what a newer process wrote is left to that one.
        """
        self._log.error("run_unreadable", tenant_id=hot.tenant, run_id=hot.run_id, code=getattr(why, "code", None))
        self._runs.forget(hot)
        if isinstance(why, EventNewer):
            await self._store.release_runs(self._epoch(), [hot.run_id])
        _hand_back(hot)

    async def _not_ours(self, hot: Hot) -> None:
        """Another live process owns it: leave its inputs to that one. Closed: settle them as ignored, they came too
        late.
        """
        self._runs.lost(hot)
        closed = await self._store.open_run(hot.tenant, hot.run_id) is None
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


def _hand_back(hot: Hot) -> None:
    for _, done in hot.mailbox:
        if done is not None:
            done(NotOurs())
