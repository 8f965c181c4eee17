"""Counts again what quotas count beside the rows: the runs of the day against the log, and what counts as open against
the open runs. There should be no difference; one is repaired, told in the tenant's audit, and logged. Called by the
janitor.

Each event is looked at once: what was counted of the day is remembered up to a position, and counting goes on from
there. Both sides are read as of one moment, and a repair adds the difference, so that nothing has to stand still.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Final

from contracts.problems import Problem, Unavailable
from contracts.run_events import RunStarted
from contracts.tenant_events import QuotaRecounted
from engine.clock import Clock
from engine.logs import logger
from engine.store import CountedStarts, Store
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from engine.tenant_log import TenantLog

WHOLE: Final = ""
"""What is counted as open stands with no workflow."""


class Recounting:
    """One per process that owns runs; one process of them uses it."""

    def __init__(self, store: Store, vault: Vault, mapper: Mapper, log: TenantLog, clock: Clock) -> None:
        self._store, self._vault, self._mapper, self._log, self._clock = store, vault, mapper, log, clock
        self._lines = logger("recounting")
        self._day = ""
        self._begun: dict[int, Counter[str]] = {}
        self._first: dict[int, int] = {}
        self._upto: dict[int, int] = {}

    async def recount(self) -> None:
        """Of every tenant, for the day under way (UTC). Raises `Unavailable`."""
        now = self._clock.now()
        day = f"{now:%Y-%m-%d}"
        if day != self._day:
            self._day = day
            self._begun, self._first, self._upto = {}, {}, {}
        for lane in await self._store.lanes():
            await self._lane(lane, day, now)

    async def _lane(self, lane: int, day: str, now: datetime) -> None:
        if lane not in self._upto:
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
            self._first[lane] = self._upto[lane] = await self._store.position_before(lane, midnight)
        begun = self._begun.setdefault(lane, Counter())
        found = await self._store.starts_counted(lane, after=self._upto[lane], day=day)
        begun.update({one.tenant: one.begun for one in found})
        self._upto[lane] = max((one.head for one in found), default=self._upto[lane])
        for one in found:
            try:
                if one.counted != begun[one.tenant]:
                    await self._starts(one.tenant, lane, day)
                await self._open(one, day)
            except Unavailable:
                raise
            except Problem as problem:  # a tenant that has left, or an event that cannot be opened: the others go on
                self._lines.warning("recount_given_up", tenant_id=one.tenant, code=problem.code)

    async def _starts(self, tenant: str, lane: int, day: str) -> None:
        """The tenant's total is wrong: of which workflow, only the events themselves say."""
        starts, counted = await self._store.starts_of(tenant, lane, after=self._first[lane], day=day)
        keys = await self._vault.ready(tenant, [stored.body for _, stored in starts])
        true: Counter[str] = Counter()
        for stream, stored in starts:
            event = self._mapper.decode(keys, stream, stored)
            assert isinstance(event, RunStarted)
            true[event.workflow] += 1
        wrong = {name: true[name] for name in {*true, *counted} if true[name] != counted.get(name, 0)}
        for workflow, after in sorted(wrong.items()):
            before = counted.get(workflow, 0)
            await self._store.correct_counts(tenant, day=day, started={workflow: after - before})
            await self._tell(tenant, "daily_runs", workflow, before, after)

    async def _open(self, one: CountedStarts, day: str) -> None:
        """More may count as open than is: an end is not counted. Fewer would let pass what the quota forbids."""
        if one.opened is None or one.open_runs is None or one.opened >= one.open_runs:
            return
        missing = one.open_runs - one.opened
        await self._store.correct_counts(one.tenant, day=day, started={WHOLE: 0}, opened=missing)
        await self._tell(one.tenant, "open_runs", None, one.opened, one.open_runs)

    async def _tell(self, tenant: str, cap: str, workflow: str | None, before: int, after: int) -> None:
        self._lines.warning(
            "quota_recounted", tenant_id=tenant, workflow=workflow, quota=cap, before=before, after=after
        )
        event = QuotaRecounted(at=self._clock.now(), cap=cap, workflow=workflow, before=before, after=after)
        await self._log.record(tenant, event)
