"""Paces what this process tells the others of its appends. A notification costs the server a lock of its own and wakes
every process that listens, so a run's steps on the way are told of at most every 20 ms; what somebody waits for (a run
that ended, a message to send) is told with the append itself. A told head is a hint: whoever hears nothing polls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from engine.store.batch import Batch
from engine.store.errors import Unavailable

PACE_SECONDS: Final = 0.02


class Telling:
    """`tell` sends one notification in a transaction of its own; it is used for the last append before a silence."""

    def __init__(
        self, tell: Callable[[int, int], Awaitable[object]], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._monotonic = monotonic
        self._told_at: dict[int, float] = {}
        self._untold: dict[int, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def with_append(self, lane: int, batch: Batch) -> bool:
        """Whether this append tells of itself."""
        now = self._monotonic()
        if batch.rows["cl"] or batch.rows["o"] or now - self._told_at.get(lane, 0.0) >= PACE_SECONDS:
            self._told_at[lane] = now
            self._untold.pop(lane, None)
            return True
        return False

    def later(self, lane: int, head: int) -> None:
        """Something was appended without telling: tell of it soon, unless the next append does."""
        self._untold[lane] = head
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PACE_SECONDS, self._due)

    def stop(self) -> None:
        """Tells nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    def _due(self) -> None:
        self._timer = None
        untold, self._untold = self._untold, {}
        if untold:
            task = asyncio.get_running_loop().create_task(self._tell_all(untold), name="store-telling")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell_all(self, untold: dict[int, int]) -> None:
        for lane, head in untold.items():
            self._told_at[lane] = self._monotonic()
            try:
                await self._tell(lane, head)
            except Unavailable:
                return  # those who listen have lost the server too, and poll
