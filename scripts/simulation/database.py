"""A module's database in memory: it outlives the module's processes, as a server would."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from functools import cache
from typing import Any, Final, Literal

from contracts.problems import Unavailable
from contracts.sdk.database import DatabaseUnavailable, Row, Tx
from scripts.simulation.store import Gate


class Kept:
    """What stays when a process ends."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None, detect_types=sqlite3.PARSE_DECLTYPES)
        self.lock = asyncio.Lock()
        self._made: Sequence[str] = ()
        """Scripts that have made what they make, and would change nothing if they ran again."""

    def make(self, schemas: Sequence[str]) -> None:
        """Runs the scripts, as each process does that begins, unless they have and only create what is not there."""
        if schemas == self._made:
            return
        for schema in schemas:
            self.connection.executescript(schema)
        if all(map(_only_creates, schemas)):
            self._made = schemas

    def rows(self, sql: str, *values: Any) -> list[Row]:
        cursor = self.connection.execute(sql, _named(values))
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def close(self) -> None:
        self.connection.close()


_CREATES: Final = re.compile(r"\s*CREATE\s+(UNIQUE\s+)?(TABLE|INDEX|VIEW)\s+IF\s+NOT\s+EXISTS\s|\s*$", re.IGNORECASE)


@cache
def _only_creates(script: str) -> bool:
    """Whether that is all it does; when in doubt it does more."""
    return all(_CREATES.match(statement) for statement in re.sub(r"--.*", "", script).split(";"))


class Nowhere:
    """A database that is never opened: for a service that is asked for its manifest only."""

    @property
    def dialect(self) -> Literal["sqlite"]:
        return "sqlite"

    async def open(self, schemas: Sequence[str]) -> None:
        raise DatabaseUnavailable("this service is not run")

    async def close(self) -> None:
        """Nothing was opened."""

    def transaction(self) -> AbstractAsyncContextManager[Tx]:
        raise DatabaseUnavailable("this service is not run")


class ModuleDatabase:
    """`contracts.sdk.database.Database` in memory; a transaction is whole or did not happen."""

    def __init__(self, kept: Kept, gate: Gate) -> None:
        self._kept, self._connection, self._lock, self._gate = kept, kept.connection, kept.lock, gate

    @property
    def dialect(self) -> Literal["sqlite"]:
        return "sqlite"

    async def open(self, schemas: Sequence[str]) -> None:
        await self._cross(self._gate.before, "module.open")
        self._kept.make(schemas)

    async def close(self) -> None:
        """It outlives its process."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        async with self._lock:
            await self._cross(self._gate.before, "module.transaction")
            self._connection.execute("BEGIN")
            try:
                yield ModuleTx(self._connection)
                await self._cross(self._gate.before, "module.commit")
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        await self._cross(self._gate.after, "module.commit")

    async def _cross(self, gate: Callable[[str], Awaitable[None]], port: str) -> None:
        try:
            await gate(port)
        except Unavailable as problem:
            raise DatabaseUnavailable(problem.detail) from None


class ModuleTx:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def rows(self, sql: str, *values: Any) -> list[Row]:
        cursor = self._connection.execute(sql, _named(values))
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    async def row(self, sql: str, *values: Any) -> Row | None:
        found = await self.rows(sql, *values)
        return found[0] if found else None

    async def run(self, sql: str, *values: Any) -> int:
        return self._connection.execute(sql, _named(values)).rowcount


def _named(values: Sequence[Any]) -> dict[str, Any]:
    return {
        str(place): value.isoformat() if isinstance(value, datetime) else value
        for place, value in enumerate(values, start=1)
    }
