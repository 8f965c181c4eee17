"""Counts again what quotas count beside the rows: the runs of the day against the log, and what counts as open against
the open runs. There should be no difference; one is repaired, told in the tenant's audit, and logged. Called by the
janitor.

Each event is looked at once, in portions, since a day's log is more than one statement can read: what was counted of
the day is remembered up to a position, and counting goes on from there. Both sides are read as of one moment, by the
statement that reaches the lane's head, and a repair adds the difference, so that nothing has to stand still.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from contracts.problems import Problem, Unavailable
from contracts.run_events import RunStarted
from contracts.tenant_events import QuotaRecounted
from engine.clock import Clock
from engine.logs import logger
from engine.store import RECOUNTED_AT_ONCE, CountedStarts, Store, Stored
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from engine.tenant_log import TenantLog

OPENED_AT_ONCE: Final = 10_000
"""So many events of a lane are looked through at once for starts that are opened."""
WHOLE: Final = ""
"""What is counted as open stands with no workflow."""


class Recounting:
    """One per process that owns runs; one process of them uses it."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        mapper: Mapper,
        log: TenantLog,
        clock: Clock,
        *,
        counted_at_once: int = RECOUNTED_AT_ONCE,
        opened_at_once: int = OPENED_AT_ONCE,
    ) -> None:
        self._store, self._vault, self._mapper, self._log, self._clock = store, vault, mapper, log, clock
        self._counted_at_once, self._opened_at_once = counted_at_once, opened_at_once
        self._lines = logger("recounting")
        self._day = ""
        self._begun: dict[int, Counter[str]] = {}
        self._first: dict[int, int] = {}
        self._upto: dict[int, int] = {}

    async def recount(self) -> None:
        """Of every tenant, for the day under way (UTC); when it ends, so does this. Raises `Unavailable`, and then goes
        on next time from where it was.
        """
        now = self._clock.now()
        day = f"{now:%Y-%m-%d}"
        if day != self._day:
            self._day = day
            self._begun, self._first, self._upto = {}, {}, {}
        for lane in await self._store.lanes():
            await self._lane(lane, day, now)

    def _over(self, day: str) -> bool:
        return f"{self._clock.now():%Y-%m-%d}" != day

    async def _lane(self, lane: int, day: str, now: datetime) -> None:
        if lane not in self._upto:
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
            self._first[lane] = self._upto[lane] = await self._store.position_before(lane, midnight)
        begun = self._begun.setdefault(lane, Counter())
        while not self._over(day):
            found = await self._store.starts_counted(lane, after=self._upto[lane], most=self._counted_at_once, day=day)
            begun.update(found.begun)
            self._upto[lane] = found.upto
            if found.counted is not None:
                await self._compare(lane, begun, found.counted, day)
                return

    async def _compare(self, lane: int, begun: Counter[str], found: Sequence[CountedStarts], day: str) -> None:
        counted = {one.tenant: one.counted for one in found}
        wrong = {name: counted.get(name, 0) for name in {*begun, *counted} if begun[name] != counted.get(name, 0)}
        for one in found:
            try:
                await self._open(one, day)
            except Unavailable:
                raise
            except Problem as problem:
                self._give_up(one.tenant, problem)
        if wrong:
            await self._starts(lane, begun, wrong, day)

    def _give_up(self, tenant: str, problem: Problem) -> None:
        """A tenant that has left, or an event that cannot be opened: the others go on."""
        self._lines.warning("recount_given_up", tenant_id=tenant, code=problem.code)

    async def _starts(self, lane: int, begun: Counter[str], wrong: dict[str, int], day: str) -> None:
        """Of these tenants another total is counted than began: of which workflow, only the events themselves say."""
        true: Counter[tuple[str, str]] = Counter()
        after, counted = self._first[lane], None
        while counted is None and wrong and not self._over(day):
            found = await self._store.starts_of(sorted(wrong), lane, after=after, most=self._opened_at_once, day=day)
            after, counted = found.upto, found.counted
            starts: defaultdict[str, list[tuple[UUID, Stored]]] = defaultdict(list)
            for tenant, stream, stored in found.starts:
                starts[tenant].append((stream, stored))
            for tenant, own in starts.items():
                try:
                    true.update(await self._workflows(tenant, own))
                except Unavailable:
                    raise
                except Problem as problem:
                    del wrong[tenant]
                    self._give_up(tenant, problem)
        if counted is None or self._over(day):
            return
        differ = {
            (tenant, workflow): true[tenant, workflow] - counted.get((tenant, workflow), 0)
            for tenant, workflow in sorted({*true, *counted})
            if tenant in wrong and true[tenant, workflow] != counted.get((tenant, workflow), 0)
        }
        # What is remembered may be what is wrong, as where runs were archived meanwhile: it is put right as well.
        for tenant, was in wrong.items():
            begun[tenant] = was
        for (tenant, _), missing in differ.items():
            begun[tenant] += missing
        for (tenant, workflow), missing in differ.items():
            try:
                await self._store.correct_counts(tenant, day=day, started={workflow: missing})
                before = counted.get((tenant, workflow), 0)
                await self._tell(tenant, "daily_runs", workflow, before, before + missing)
            except Unavailable:
                raise
            except Problem as problem:
                self._give_up(tenant, problem)

    async def _workflows(self, tenant: str, starts: Sequence[tuple[UUID, Stored]]) -> Counter[tuple[str, str]]:
        keys = await self._vault.ready(tenant, [stored.body for _, stored in starts])
        found: Counter[tuple[str, str]] = Counter()
        for stream, stored in starts:
            event = self._mapper.decode(keys, stream, stored)
            assert isinstance(event, RunStarted)
            found[tenant, event.workflow] += 1
        return found

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
