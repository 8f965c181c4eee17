"""Wakes those who wait for appends, by PostgreSQL's LISTEN and by polling: a notification is a hint, nothing is kept
for an absent listener, so polling is the truth. It reads no event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg

from engine.store.postgres_sessions import Connection, Sessions

APPENDS = "unwind_appends"
"""Says `<lane> <head>`."""

INPUTS = "unwind_inputs"
"""Says nothing more: rows were left for other processes to claim."""

_POLL_SECONDS = 1.0
_POLL_DEAF_SECONDS = 0.25


class Listening:
    """One listening connection per store. It hears of appends from the first `wait` on: committing a notification wakes
    every process that listens, and one that only owns runs has no use for it."""

    def __init__(self, sessions: Sessions, read_head: Callable[[int], Awaitable[int]]) -> None:
        self._sessions = sessions
        self._read_head = read_head
        self._heads: dict[int, int] = {}
        self._moved = asyncio.Event()
        self._inputs = asyncio.Event()
        self._asked = asyncio.Event()
        self._hearing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="store-listening")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def appended(self, lane: int, position: int) -> None:
        """This store has appended itself; no need to wait for the notification to come round."""
        if position > self.head(lane):
            self._heads[lane] = position
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

    def head(self, lane: int) -> int:
        """The highest position heard of so far, our own appends among them; 0 before any."""
        return self._heads.get(lane, 0)

    async def wait(self, lane: int, after: int, timeout_seconds: float) -> bool:
        self._asked.set()
        deadline = time.monotonic() + timeout_seconds
        while True:
            moved = self._moved
            if self.head(lane) > after:
                return True
            self.appended(lane, await self._read_head(lane))
            if self.head(lane) > after:
                return True
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            pause = min(remaining, _POLL_SECONDS if self._hearing else _POLL_DEAF_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await moved.wait()

    async def wait_for_inputs(self, timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._inputs.wait()
        except TimeoutError:
            return False
        self._inputs.clear()
        return True

    def _heard_append(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        lane, head = str(payload).split()
        self.appended(int(lane), int(head))

    def _heard_inputs(self, *_: object) -> None:
        self._inputs.set()

    async def _listen(self) -> None:
        while True:
            connection: Connection | None = None
            try:
                connection = await self._sessions.connect("engine")
                lost = asyncio.Event()
                connection.add_termination_listener(lambda _connection, lost=lost: lost.set())
                await connection.add_listener(INPUTS, self._heard_inputs)
                self._inputs.set()  # whatever was said while nobody listened
                await self._asked_or(lost)
                await connection.add_listener(APPENDS, self._heard_append)
                self._hearing = True
                await lost.wait()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
                pass
            finally:
                self._hearing = False
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(_POLL_SECONDS)

    async def _asked_or(self, lost: asyncio.Event) -> None:
        """Returns when somebody waits for appends, or the connection is lost."""
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._asked, lost)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
