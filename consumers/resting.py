"""What a process does about maintenance: everything that takes work is stopped when it begins, what is in hand is let
reach the log, and all of it starts again at the end. What only sends or shows (relay, projector, web) goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from engine.endless import Endless
from engine.logs import logger


class Taker(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Resting:
    """Owns the takers: they start and stop with it. `drain` waits until what was taken has reached the log."""

    def __init__(self, takers: Sequence[Taker], *, resting: bool, drain: Callable[[], Awaitable[None]]) -> None:
        self._takers = takers
        self._wanted = resting
        self._drain = drain
        self._taking = False
        self._changed = asyncio.Event()
        self._work = Endless()
        self._log = logger("resting")

    async def start(self) -> None:
        """Takes nothing yet when the process starts under maintenance."""
        if not self._wanted:
            await self._take()
        self._work.begin("resting", self._follow())

    async def stop(self) -> None:
        """Takes nothing more, for good. Twice is fine."""
        await self._work.end()
        await self._rest()

    def failed(self) -> BaseException | None:
        return self._work.failed()

    def want(self, resting: bool) -> None:
        """Maintenance begins, or ends."""
        self._wanted = resting
        self._changed.set()

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._wanted and self._taking:
                await self._rest()
                await self._drain()
                self._log.info("maintenance_begun")
            elif not self._wanted and not self._taking:
                await self._take()
                self._log.info("maintenance_ended")

    async def _take(self) -> None:
        self._taking = True
        for taker in self._takers:
            await taker.start()

    async def _rest(self) -> None:
        taking, self._taking = self._taking, False
        if taking:
            for taker in reversed(self._takers):
                await taker.stop()
