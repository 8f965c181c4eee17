"""Proves continuously that no open run is stuck, and repairs what is: takeovers, admission, and the reasons to wake.

It declares silent processes dead, takes over their runs in slices, grants freed slots, counts what waits too long,
forgets arrivals that are older than the journal is to be, archives runs that ended long ago, and has counted again what
quotas count.
That this process itself lives is said by `consumers.heartbeat`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from consumers.admission import SLICE, Admission
from consumers.archiving import Archiver
from consumers.recounting import Recounting
from contracts.problems import Unavailable
from contracts.tenant_events import RunsRepaired
from engine.clock import Clock
from engine.coordinator import Coordinator
from engine.endless import Endless
from engine.logs import logger
from engine.metrics import OTHER, Metrics
from engine.run.inputs import PlanStuck
from engine.store import OpenRun, Store
from engine.tenant_log import TenantLog
from engine.triggers import Plans

OWNING: Final = frozenset({"intake", "worker", "timer", "janitor"})
"""A process in one of these roles owns runs, and has a janitor."""
STUCK_SECONDS: Final = 30.0
PAST_PEOPLE: Final = timedelta(days=7)
"""So long after it was over a session, or an invitation, is forgotten."""
FORGETS_EVERY_SECONDS: Final = 600.0
AGAIN_SECONDS: Final = 60.0
"""What could not be repaired, such as a run whose log cannot be read, is tried again so often."""
NAMED: Final = 100
TENANTS: Final = 100
"""So many tenants with stuck runs are counted by name."""
FRUITLESS_TAKEOVERS: Final = 3
"""A run taken over so often without an event in between is parked, if it may be what kills its owners."""


class Janitor:
    """One per process that owns runs."""

    def __init__(
        self,
        store: Store,
        coordinator: Coordinator,
        plans: Plans,
        clock: Clock,
        metrics: Metrics,
        *,
        heartbeat_seconds: float = 1.0,
        dead_seconds: float = 4.0,
        journal_days: int = 35,
        run_days: int = 0,
        archiver: Archiver | None = None,
        paused: Callable[[str, str], bool] = lambda tenant, workflow: False,
        spent: Callable[[str, str], bool] = lambda tenant, workflow: False,
        recounting: Recounting | None = None,
        log: TenantLog | None = None,
    ) -> None:
        """`log` is told of repairs. `run_days` 0: no run is archived. Runs of whoever is `paused`, or has `spent` its
        budget as far as is known, are offered no slot.
        """
        self._store, self._door, self._plans, self._clock, self._metrics = store, coordinator, plans, clock, metrics
        self._heartbeat, self._dead = heartbeat_seconds, dead_seconds
        self._journal = timedelta(days=journal_days)
        self._runs_kept = timedelta(days=run_days)
        self._archiver = archiver if run_days else None
        self._admission = Admission(store, coordinator, clock, paused=paused, spent=spent)
        self._recounting = recounting
        self._log = log
        self._lines = logger("janitor")
        self._tried: dict[UUID, float] = {}
        self._work = Endless()
        self._freed = asyncio.Event()
        self._looked: float | None = None
        self._judges_from = 0.0

    async def start(self) -> None:
        self._work.begin("takeover", self._every(self._heartbeat, self.take_over))
        self._work.begin("admission", self._admit_forever())
        self._work.begin("repair", self._every(5.0, self.repair))
        self._work.begin("forgetting", self._every(FORGETS_EVERY_SECONDS, self.forget_arrivals))
        self._work.begin("past people", self._every(FORGETS_EVERY_SECONDS, self.forget_past_people))
        if self._recounting is not None:
            self._work.begin("recounting", self._every(FORGETS_EVERY_SECONDS, self.recount))
        if self._archiver is not None:
            self._work.begin("archiving", self._every(FORGETS_EVERY_SECONDS, self.archive))

    async def stop(self) -> None:
        await self._work.end()

    def failed(self) -> BaseException | None:
        return self._work.failed()

    def slot_freed(self) -> None:
        """Somebody may be admitted, if anybody of ours is known to wait; the others are found by looking regularly."""
        if self._admission.waiting:
            self._freed.set()

    def run_queued(self) -> None:
        self._admission.waiting = True

    async def take_over(self) -> None:
        """Declares silent processes dead and takes over runs that nobody owns."""
        await self._claim()
        if self._may_judge() and await self._store.declare_dead(
            silent_seconds=self._dead, but=self._door.epoch, now=self._clock.database_now()
        ):
            await self._claim()

    def _may_judge(self) -> bool:
        """Whoever could not look for a while may not judge yet: when the database comes back everybody was silent, and
        the living say so first.
        """
        now = asyncio.get_running_loop().time()
        looked, self._looked = self._looked, now
        if looked is not None and now - looked > self._dead / 2:
            self._judges_from = now + self._dead
        return now >= self._judges_from

    async def _claim(self) -> None:
        while True:
            runs = await self._store.claim_runs(
                self._door.epoch, plans=self._plans.known, limit=SLICE, now=self._clock.database_now()
            )
            by_tenant: defaultdict[str, list[OpenRun]] = defaultdict(list)
            for run in runs:
                by_tenant[run.tenant].append(run)
                self._metrics.takeovers.inc()
                if run.takeovers >= FRUITLESS_TAKEOVERS and await self._may_be_to_blame(run):
                    detail = f"{run.takeovers} processes in a row took this run over without an event of it"
                    self._door.submit(
                        run.tenant, run.run_id, PlanStuck(at=self._clock.now(), reason="no_progress", detail=detail)
                    )
                self._admission.waiting = self._admission.waiting or run.status == "queued"
            for tenant, taken in by_tenant.items():
                self._door.resume(tenant, [run.run_id for run in taken])
            if len(runs) < SLICE:
                return

    async def _may_be_to_blame(self, run: OpenRun) -> bool:
        """Whether something of the run could be what ends its owners: an input or a timer that is due makes it be
        decided, an attempt of their own is under way. One that only waits for others asks nothing of who owns it, so
        that a process which keeps crashing does not park all that wait.
        """
        try:
            wakes = await self._store.wakes(run.tenant, run.run_id)
        except Unavailable:
            return False  # it is looked at again with the next takeover
        now = self._clock.now()
        due = any(datetime.fromisoformat(timer["due"]) <= now for timer in wakes["timers"])
        performed = run.status in ("running", "compensating") and not wakes["awaits"]
        return due or performed or bool(wakes["inputs"])

    async def admit(self) -> int:
        """Offers the slots that are free to queued runs; answers how many it were."""
        return await self._admission.offer()

    async def repair(self) -> None:
        """Gives this process's runs without a recorded reason to wake back to the door: loading one again performs and
        awaits what its log asks for. Those of another process that lives are its own to judge: what it performs has no
        row. Those that nobody owns are counted, and claimed by whoever knows their version.
        """
        try:
            found = await self._store.runs_without_wake(
                older_than_seconds=STUCK_SECONDS, limit=SLICE, now=self._clock.database_now()
            )
            living = {process.epoch for process in await self._store.processes() if not process.dead} if found else ()
        except Unavailable:
            self._metrics.stuck_runs.forget()  # nobody knows, which is not none
            self._metrics.tenant_stuck_runs.forget()
            raise
        ours = self._door.epoch
        stuck = [run for run in found if self._rests(run.run_id) and (run.owner == ours or run.owner not in living)]
        self._count(stuck)
        tried, now = self._tried, asyncio.get_running_loop().time()
        self._tried = {run.run_id: tried[run.run_id] for run in stuck if run.run_id in tried}
        by_tenant: defaultdict[str, list[UUID]] = defaultdict(list)
        for run in stuck:
            if run.owner == ours and now - tried.get(run.run_id, -AGAIN_SECONDS) >= AGAIN_SECONDS:
                by_tenant[run.tenant].append(run.run_id)
        for tenant, runs in by_tenant.items():
            new = [str(run_id) for run_id in runs if run_id not in tried]
            if new and self._log is not None:
                event = RunsRepaired(at=self._clock.now(), runs=len(new), run_ids=tuple(new[:NAMED]))
                await self._log.record(tenant, event)
            for run_id in runs:
                if run_id not in tried:
                    self._lines.warning("run_repaired", tenant_id=tenant, run_id=run_id)
                self._tried[run_id] = now
                if self._rests(run_id):
                    self._door.reload(tenant, run_id)
                    self._metrics.stuck_runs_repaired.inc()

    def _rests(self, run_id: UUID) -> bool:
        """Whether this process has nothing in hand of the run."""
        hot = self._door.runs.by_id.get(run_id)
        return hot is None or not (hot.busy or hot.ready or hot.mailbox or hot.performing)

    def _count(self, stuck: Sequence[OpenRun]) -> None:
        metrics = self._metrics
        metrics.runs_hot.set(len(self._door.runs.by_id))
        metrics.stuck_runs.set(len(stuck))
        metrics.tenant_stuck_runs.forget()
        tenants = Counter(run.tenant for run in stuck).most_common()
        for tenant, runs in tenants[:TENANTS]:
            metrics.tenant_stuck_runs.of(tenant).set(runs)
        if tenants[TENANTS:]:
            metrics.tenant_stuck_runs.of(OTHER).set(sum(runs for _, runs in tenants[TENANTS:]))

    async def forget_arrivals(self) -> None:
        """Forgets what arrived before the journal begins, the oldest first. What is pending keeps its arrival, and
        start keys are never forgotten: a duplicate of any age starts nothing.
        """
        before = self._clock.now() - self._journal
        while await self._store.prune_journal(before=before, limit=SLICE) == SLICE:
            pass

    async def forget_past_people(self) -> None:
        """Forgets sessions and invitations that have been over for a while."""
        await self._store.forget_past_people(before=self._clock.now() - PAST_PEOPLE)

    async def archive(self) -> None:
        """Archives the runs whose retention is over, in one process of those that live."""
        if self._archiver is not None and await self._oldest():
            await self._archiver.archive(self._clock.now() - self._runs_kept, by="retention")

    async def recount(self) -> None:
        """Counts again what quotas count, in one process of those that live."""
        if self._recounting is not None and await self._oldest():
            await self._recounting.recount()

    async def _oldest(self) -> bool:
        living = [one.epoch for one in await self._store.processes() if not one.dead and OWNING & {*one.roles}]
        return self._door.epoch == min(living, default=self._door.epoch)

    async def _admit_forever(self) -> None:
        while True:
            self._freed.clear()
            try:
                await self.admit()
            except Unavailable:
                pass
            try:
                async with asyncio.timeout(1.0):
                    await self._freed.wait()
            except TimeoutError:
                pass

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Unavailable:
                pass
            await asyncio.sleep(seconds)
