"""The event loop's lag, measured, and the end of a process whose loop stands still: another process can take its runs
over, and this one cannot even say that it hangs.

It guards nothing else. `consumers.assembly` starts it last and stops it last.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
import time
from typing import Final

from engine.metrics import Metrics

WATCHDOG_SECONDS: Final = 3.0
"""A loop that stands still for longer is not coming back."""


class Watchdog:
    """Measures the event loop's lag and, with a limit, ends the process when the loop stands still for longer: whatever
    blocks it, another process can take over. None where the process is somebody else's."""

    def __init__(self, limit_seconds: float | None, metrics: Metrics) -> None:
        self._limit = limit_seconds
        self._metrics = metrics
        self._seen = time.monotonic()
        self._stopping = threading.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._tick(), name="watchdog")
        if self._limit is not None:
            threading.Thread(target=self._watch, args=(self._limit,), name="watchdog", daemon=True).start()

    async def stop(self) -> None:
        self._stopping.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _tick(self) -> None:
        pause = 0.25
        while True:
            before = time.monotonic()
            await asyncio.sleep(pause)
            self._seen = time.monotonic()
            self._metrics.event_loop_lag.observe(max(0.0, self._seen - before - pause))

    def _watch(self, limit: float) -> None:
        while not self._stopping.wait(0.5):
            stood = time.monotonic() - self._seen
            # A machine that slept wakes up with a large gap once; a loop that stands still shows it twice in a row.
            if stood > limit and not self._stopping.wait(1.0) and time.monotonic() - self._seen > limit:
                faulthandler.dump_traceback(file=sys.stderr)
                os._exit(70)
