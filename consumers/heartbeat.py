"""Says again and again that this process lives: its epoch is what it appends, leases and sends under.

Every process has one, whatever its roles: one that was silent for too long is declared dead by the others, and may then
neither start a run nor send a message until it has registered anew (`lost`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final

from contracts.problems import Unavailable
from engine.clock import Clock, SharedClock
from engine.endless import Endless
from engine.logs import logger
from engine.store import Store

WRONG: Final = timedelta(seconds=1)
"""A clock that is moved by more is told of."""


async def keep_time(store: Store, clock: Clock) -> None:
    """Sets a clock that is to go by the database's."""
    if isinstance(clock, SharedClock):
        moved = await clock.keep(store.time)
        if abs(moved) > WRONG:
            logger("clock").warning("clock_set", behind_seconds=round(clock.behind.total_seconds(), 3))


class Heartbeat:
    """With each beat the clock is set too. `epoch` answers this process's own; `lost` is called when it finds itself
    declared dead.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        epoch: Callable[[], int],
        seconds: float,
        lost: Callable[[], Awaitable[None]],
    ) -> None:
        self._store, self._clock, self._epoch, self._seconds, self._lost = store, clock, epoch, seconds, lost
        self._work = Endless()
        self._suspected = asyncio.Event()

    async def start(self) -> None:
        self._work.begin("heartbeat", self._run())

    async def stop(self) -> None:
        await self._work.end()

    def failed(self) -> BaseException | None:
        return self._work.failed()

    def suspected(self) -> None:
        """An append was fenced: find out at once whether this process has been declared dead."""
        self._suspected.set()

    async def beat(self) -> None:
        """Says that this process lives; learns whether others have given it up."""
        if not await self._store.heartbeat(self._epoch(), now=self._clock.database_now()):
            await self._lost()
        await keep_time(self._store, self._clock)

    async def _run(self) -> None:
        while True:
            self._suspected.clear()
            with suppress(Unavailable):
                await self.beat()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._suspected.wait()
