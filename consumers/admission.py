"""Offers the slots that are free to the runs that wait for one, in fair order; the append grants each or says Limited.

Whoever cannot be let in now keeps nobody waiting, however many they are: a look that finds runs of a paused tenant, of
one at its cap, or of one whose budget is spent, looks again past all runs that are held for the same reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from engine.clock import Clock
from engine.coordinator import Coordinator
from engine.run.inputs import Admitted
from engine.store import OpenRun, Store

SLICE: Final = 500
"""Runs seen at once."""
LOOKS: Final = 4
"""So often a look goes on past those that are held; the next one begins where it stopped."""

Held = tuple[str, str | None]
"""A tenant and its workflow, or None for all of the tenant's."""


class Admission:
    """One per process that owns runs."""

    def __init__(
        self,
        store: Store,
        door: Coordinator,
        clock: Clock,
        *,
        paused: Callable[[str, str], bool],
        spent: Callable[[str, str], bool],
        at_once: int = SLICE,
    ) -> None:
        self._store, self._door, self._clock, self._at_once = store, door, clock, at_once
        self._paused, self._spent = paused, spent
        self._passed: dict[Held, None] = {}
        self.waiting = True
        """Whether anybody is known to wait: the last look saw him, or somebody has said so since."""

    async def offer(self) -> int:
        """Answers how many runs were offered a slot."""
        self.waiting = bool(self._passed)
        offered: set[UUID] = set()
        slots = _Slots(self._store, self._door)
        for _ in range(LOOKS):
            most = self._at_once + len(offered)
            seen = await self._store.queued_runs(self._door.epoch, limit=most, but=self._passed)
            self.waiting = self.waiting or bool(seen)
            held = await self._offer([run for run in seen if run.run_id not in offered], slots, offered)
            if len(seen) < most or not held:
                self._passed.clear()
                break
            self._passed |= held
        return len(offered)

    async def _offer(self, queued: Sequence[OpenRun], slots: _Slots, offered: set[UUID]) -> dict[Held, None]:
        """Offers each that fits a slot; whom the others belong to, none of whose runs fits."""
        held: dict[Held, None] = {}
        await slots.count({run.tenant for run in queued})
        for run in queued:
            if self._paused(run.tenant, run.workflow) or self._spent(run.tenant, run.workflow):
                held[run.tenant, run.workflow] = None
            elif (full := slots.full(run)) is not None:
                held[full] = None
            else:
                slots.take(run)
                offered.add(run.run_id)
                self._door.submit(run.tenant, run.run_id, Admitted(at=self._clock.now()))
        return held


class _Slots:
    """What is held during one look, with what it has offered: more would be decided in vain."""

    def __init__(self, store: Store, door: Coordinator) -> None:
        self._store, self._door = store, door
        self._counted: set[str] = set()
        self._of_tenant: Counter[str] = Counter()
        self._of_workflow: Counter[Held] = Counter()

    async def count(self, tenants: set[str]) -> None:
        new = tenants - self._counted
        if not new:
            return
        self._counted |= new
        for (tenant, workflow), slots in (await self._store.slots_held(sorted(new))).items():
            self._of_tenant[tenant] += slots
            self._of_workflow[tenant, workflow] += slots

    def full(self, run: OpenRun) -> Held | None:
        caps = self._door.caps(run.tenant, run.workflow)
        if caps.tenant is not None and self._of_tenant[run.tenant] >= caps.tenant:
            return run.tenant, None
        if caps.workflow is not None and self._of_workflow[run.tenant, run.workflow] >= caps.workflow:
            return run.tenant, run.workflow
        return None

    def take(self, run: OpenRun) -> None:
        self._of_tenant[run.tenant] += 1
        self._of_workflow[run.tenant, run.workflow] += 1
