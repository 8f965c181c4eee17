"""Watching a measured engine from outside: how many runs have ended, by reading its log as the owner of the database.
It counts nothing that the engine counts about itself, so that the two can be compared."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg


def _statements(file: str) -> dict[str, str]:
    text = Path(__file__).with_name(file).read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


SQL: Final = _statements("load.sql")
SQLITE: Final = _statements("load_sqlite.sql")
APPEND_SECONDS: Final = 0.002
"""How long a watch waits for the next append where nobody tells it of one."""

HEARD_SECONDS: Final = 0.25
"""The same where the store tells of appends: only a lost notification lets it run out."""

STATISTICS_SECONDS: Final = 2.5
"""Backends report their counts about once a second, and once more when they fall idle."""


class Watch(Protocol):
    """`ended` counts the runs that ended since `begin`, or since it was last asked to `begin`."""

    async def begin(self) -> None: ...

    async def ended(self) -> int: ...

    async def moved(self) -> float:
        """Waits until something was appended, or for a moment; when that was heard, by `time.perf_counter`. Waiting
        must not take the measured engine's time.
        """

    async def counted(self) -> tuple[int, int]:
        """Events and runs in the log since `begin`."""

    async def seconds_per_run(self) -> list[float]:
        """Of every run since `begin`, from the commit that admitted it to the commit of its terminal event; empty
        where the store does not tell."""

    async def transactions(self) -> tuple[int, dict[str, int]]:
        """Commits of the database so far without our own, and calls by function; 0 and none where the store does not
        tell."""

    async def close(self) -> None: ...


class PostgresWatch:
    """One connection. It counts its own questions, so that watching is not among the commits that are reported."""

    def __init__(self, connection: asyncpg.Connection[Any], listening: asyncpg.Connection[Any]) -> None:
        self._connection = connection
        self._listening = listening
        self._start = self._position = self._ended = self._asked = 0
        self._appended = asyncio.Event()
        self._heard_at = 0.0

    @classmethod
    async def open(cls, url: str) -> PostgresWatch:
        watch = cls(await asyncpg.connect(url), await asyncpg.connect(url))
        await watch._listening.add_listener("unwind_appends", watch._heard)
        return watch

    def _heard(self, *_: object) -> None:
        self._heard_at = time.perf_counter()
        self._appended.set()

    async def moved(self) -> float:
        try:
            async with asyncio.timeout(HEARD_SECONDS):
                await self._appended.wait()
        except TimeoutError:
            return time.perf_counter()
        self._appended.clear()
        return self._heard_at

    @property
    def begun_at(self) -> int:
        """The log's position then."""
        return self._start

    async def begin(self) -> None:
        self._start = self._position = (await self._row("head"))["position"]
        self._ended = 0

    async def ended(self) -> int:
        row = await self._row("ended_since", self._position)
        self._ended += row["ended"]
        self._position = row["position"] or self._position
        return self._ended

    async def counted(self) -> tuple[int, int]:
        row = await self._row("counted", self._start)
        return row["events"], row["runs"]

    async def seconds_per_run(self) -> list[float]:
        self._asked += 1
        rows = await self._connection.fetch(SQL["seconds_per_run"].replace(":after", "$1"), self._start)
        return [row["seconds"] for row in rows]

    async def transactions(self) -> tuple[int, dict[str, int]]:
        await asyncio.sleep(STATISTICS_SECONDS)
        row = await self._row("commits")
        calls = await self._connection.fetch(SQL["function_calls"])
        commits = row["commits"] - self._asked
        self._asked += 1
        return commits, {call["name"]: call["calls"] for call in calls}

    async def close(self) -> None:
        await self._connection.close()
        await self._listening.close()

    async def _row(self, name: str, *given: int) -> Any:
        self._asked += 1
        return await self._connection.fetchrow(SQL[name].replace(":after", "$1"), *given)


class SqliteWatch:
    """A read-only connection to the embedded store's file."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        self._start = self._position = self._ended = 0

    async def begin(self) -> None:
        self._start = self._position = self._connection.execute(SQLITE["head"]).fetchone()[0]
        self._ended = 0

    async def ended(self) -> int:
        ended, position = self._connection.execute(SQLITE["ended_since"], {"after": self._position}).fetchone()
        self._ended += ended
        self._position = position or self._position
        return self._ended

    async def moved(self) -> float:
        await asyncio.sleep(APPEND_SECONDS)
        return time.perf_counter()

    async def counted(self) -> tuple[int, int]:
        events, runs = self._connection.execute(SQLITE["counted"], {"after": self._start}).fetchone()
        return events, runs

    async def seconds_per_run(self) -> list[float]:
        return []

    async def transactions(self) -> tuple[int, dict[str, int]]:
        return 0, {}

    async def close(self) -> None:
        self._connection.close()
