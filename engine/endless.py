"""Work that has no end of its own: begun with its part, cancelled with it, and asked whether an error has ended it.

Not a supervisor: nothing is begun again. `consumers.assembly` asks every part, and ends the process over an error. Used
by the coordinator and the parts that poll; one that has to finish what it holds, such as the projector, keeps its own
task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Endless:
    """The tasks of one part."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    async def end(self) -> None:
        """Twice is fine."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def failed(self) -> BaseException | None:
        """The error that ended one of them, if any."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and task.exception() is not None:
                return task.exception()
        return None
