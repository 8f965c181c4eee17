"""Says again and again that this process lives: its epoch is what it appends, leases and sends under.

Every process has one, whatever its roles: one that was silent for too long is declared dead by the others, and may then
neither start a run nor send a message until it has registered anew (`lost`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from contracts.problems import Unavailable
from engine.clock import Clock
from engine.endless import Endless
from engine.store import Store


class Heartbeat:
    """`epoch` answers this process's own; `lost` is called when it finds itself declared dead."""

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

    async def _run(self) -> None:
        while True:
            self._suspected.clear()
            with suppress(Unavailable):
                await self.beat()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._suspected.wait()
