"""Waiting for a server that is still starting, at the start of a process alone: later each part waits its own way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from contracts.problems import Unavailable


async def patiently(work: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Tries until a server that is still starting answers; after `seconds` its `Unavailable` is raised."""
    deadline = time.monotonic() + seconds
    delay = 0.1
    while True:
        try:
            await work()
            return
        except Unavailable:
            if time.monotonic() + delay > deadline:
                raise
        await asyncio.sleep(delay)
        delay = min(1.0, delay * 1.5)
