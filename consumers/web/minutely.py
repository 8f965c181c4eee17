"""What is counted in memory and recorded once a minute, so that a flood of requests is a few entries."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Final

from contracts.problems import Unavailable

FLUSH_SECONDS: Final = 60.0


class EveryMinute(ABC):
    """`flush` is called every minute and at the end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def flush(self) -> None:
        """Records what was counted since the last time. What cannot be recorded now is counted on."""

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Twice is fine."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        with suppress(Unavailable):
            await self.flush()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            with suppress(Unavailable):
                await self.flush()
