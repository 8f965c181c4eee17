"""Wakes runs whose time has come: due timers and run deadlines of this process's runs, and of those that have no live
owner.
"""

from __future__ import annotations

import asyncio
from typing import Final

from contracts.problems import Unavailable
from engine.clock import Clock
from engine.coordinator import Coordinator
from engine.endless import Endless
from engine.run.inputs import TimerDue
from engine.store import Store

POLL_SECONDS: Final = 0.25
BATCH: Final = 500


class TimerLoop:
    """Polls the database's due times; the commit that answers a timer clears it, so one that was missed is simply
    offered again.
    """

    def __init__(
        self, store: Store, coordinator: Coordinator, clock: Clock, *, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._store, self._door, self._clock, self._poll = store, coordinator, clock, poll_seconds
        self._work = Endless()

    async def start(self) -> None:
        self._work.begin("timers", self._run())

    async def stop(self) -> None:
        await self._work.end()

    def failed(self) -> BaseException | None:
        return self._work.failed()

    async def fire(self) -> int:
        """Submits every due timer; answers how many there were."""
        due = await self._store.due_timers(self._door.epoch, limit=BATCH, now=self._clock.database_now())
        for timer in due:
            # Never early: the database's clock has said that it is due, ours may be behind.
            at = max(self._clock.now(), timer.due)
            self._door.submit(timer.tenant, timer.run_id, TimerDue(at=at, key=timer.key))
        return len(due)

    async def _run(self) -> None:
        while True:
            try:
                fired = await self.fire()
            except Unavailable:
                fired = 0
            if fired < BATCH:
                await asyncio.sleep(self._poll)
