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
    """What stays when a process ends. All of a world is one transaction that is never committed, if the schema allows
    it, so that the connection, with all its prepared statements, serves the next world as it was.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._schemas: tuple[str, ...] | None = None
        self._connection: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = _connect()
        return self._connection

    def make(self, schemas: Sequence[str]) -> None:
        """Runs the scripts, as each process does that begins, unless they have and only create what is not there."""
        asked = tuple(schemas)
        if self._connection is None and all(map(_only_creates, asked)):
            idle = _IDLE.setdefault(asked, [])
            self._connection, self._schemas = idle.pop() if idle else _connect(asked), asked
            self._connection.execute("BEGIN")
        elif asked != self._schemas:
            self._schemas = None
            for schema in asked:
                self.connection.executescript(schema)

    def rows(self, sql: str, *values: Any) -> list[Row]:
        cursor = self.connection.execute(sql, _named(values))
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def close(self) -> None:
        if self._schemas is None:
            self.connection.close()
        else:
            self.connection.execute("ROLLBACK")
            _IDLE[self._schemas].append(self.connection)


_IDLE: Final[dict[tuple[str, ...], list[sqlite3.Connection]]] = {}
"""Databases of worlds that have ended, by their schema: nothing else is in them."""


def _connect(schemas: Sequence[str] = ()) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, detect_types=sqlite3.PARSE_DECLTYPES)
    for schema in schemas:
        connection.executescript(schema)
    return connection


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
        self._kept, self._gate = kept, gate

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
        async with self._kept.lock:
            await self._cross(self._gate.before, "module.transaction")
            connection = self._kept.connection
            connection.execute("SAVEPOINT transaction_of_a_module")
            try:
                yield ModuleTx(connection)
                await self._cross(self._gate.before, "module.commit")
            except BaseException:
                connection.execute("ROLLBACK TO transaction_of_a_module")
                raise
            finally:
                connection.execute("RELEASE transaction_of_a_module")
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


_NAMES: Final = tuple(map(str, range(1, 1_000)))
"""Of the parameters `$1`, `$2`, ..."""


def _named(values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(_NAMES, map(_plain, values), strict=False))


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
