"""A module's database in one SQLite file: sqlite3 on a thread of its own, one transaction at a time, durable at commit.

Several processes may open the same file; the file's write lock orders them. The engine's own SQLite store is another
thing (`engine.store.sqlite`).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from contracts.envelope import format_time
from contracts.sdk.database import DatabaseUnavailable, Row, Tx
from contracts.sdk.private_file import private_file
from contracts.sdk.write_ahead import write_ahead

T = TypeVar("T")

BUSY_SECONDS = 5.0
"""How long a transaction waits for another process's write lock."""


class SqliteDatabase:
    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._lock = asyncio.Lock()
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    @property
    def dialect(self) -> Literal["postgres", "sqlite"]:
        return "sqlite"

    async def open(self, schemas: Sequence[str]) -> None:
        if self._connection is not None:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"sqlite-{self._path.stem}")
        self._connection = await self._call(self._connect, list(schemas))

    async def close(self) -> None:
        async with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                await self._call(connection.close)
            thread, self._thread = self._thread, None
            if thread is not None:
                thread.shutdown(wait=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        async with self._lock:
            connection = self._connection
            if connection is None:
                raise DatabaseUnavailable(f"{self._path} is not open; open the database first")
            try:
                await self._call(connection.execute, "BEGIN IMMEDIATE")
                yield _SqliteTx(self, connection)
                await self._call(connection.execute, "COMMIT")
            finally:
                # Also after a cancelled BEGIN or a failed COMMIT: the next transaction must find the connection clean.
                if connection.in_transaction:
                    await self._call(connection.execute, "ROLLBACK")

    def _connect(self, schemas: Sequence[str]) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            private_file(self._path),
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_SECONDS,
            detect_types=sqlite3.PARSE_DECLTYPES,
        )
        try:
            connection.row_factory = _dictionary
            write_ahead(connection, seconds=BUSY_SECONDS)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            for schema in schemas:
                connection.executescript(f"BEGIN IMMEDIATE;\n{schema}\nCOMMIT;")
        except BaseException:
            connection.close()
            raise
        return connection

    async def _call(self, work: Callable[..., T], *values: Any) -> T:
        """Runs it on the thread and sees it through even when the caller is cancelled, so that no statement of a dead
        task lands in somebody else's transaction.
        """
        assert self._thread is not None
        future = asyncio.get_running_loop().run_in_executor(self._thread, _translated, work, *values)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue
            if not future.cancelled():
                future.exception()  # seen: the cancellation is what the caller hears of
            raise


class _SqliteTx:
    def __init__(self, database: SqliteDatabase, connection: sqlite3.Connection) -> None:
        self._database = database
        self._connection = connection

    async def rows(self, sql: str, *values: Any) -> list[Row]:
        return await self._database._call(self._fetch, sql, values)

    async def row(self, sql: str, *values: Any) -> Row | None:
        found = await self.rows(sql, *values)
        return found[0] if found else None

    async def run(self, sql: str, *values: Any) -> int:
        return await self._database._call(self._run, sql, values)

    def _fetch(self, sql: str, values: Sequence[Any]) -> list[Row]:
        return self._connection.execute(sql, _named(values)).fetchall()

    def _run(self, sql: str, values: Sequence[Any]) -> int:
        return self._connection.execute(sql, _named(values)).rowcount


def _translated(work: Callable[..., T], *values: Any) -> T:
    with _as_unavailable():
        return work(*values)


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DatabaseUnavailable(f"SQLite: {error}; check the folder and its rights") from error
    except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
        # "no such table" and "syntax error" are OperationalErrors too; they are bugs and must not be tried for ever.
        code = getattr(error, "sqlite_errorcode", None)
        closed = isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error)
        if closed or (code is not None and code & 0xFF in _TRANSIENT):
            raise DatabaseUnavailable(f"SQLite: {error}; try again") from error
        raise


_TRANSIENT = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
    }
)


def _named(values: Sequence[Any]) -> dict[str, Any]:
    # `$1` is a named parameter to SQLite, called "1".
    return {str(place): _native(value) for place, value in enumerate(values, start=1)}


def _native(value: Any) -> Any:
    return format_time(value) if isinstance(value, datetime) else value


def _dictionary(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


# Only connections opened with PARSE_DECLTYPES use these, so other users of sqlite3 in the process notice nothing.
sqlite3.register_converter("timestamptz", lambda text: datetime.fromisoformat(text.decode()))
sqlite3.register_converter("boolean", lambda text: text not in (b"0", b""))
