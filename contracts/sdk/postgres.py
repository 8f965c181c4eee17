"""A module's database on PostgreSQL, through asyncpg: a small pool, its tables optionally in a schema of their own.

Limits on statements and locks are the server's (`statement_timeout`, `lock_timeout`), never a timeout around a commit:
a commit that timed out here may have happened there.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import asyncpg

from contracts.sdk.database import SAVEPOINT, TAKE_BACK, DatabaseUnavailable, Row, Tx
from contracts.sdk.statements import statements

STATEMENT_SECONDS = 15
LOCK_SECONDS = 10
CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 5.0

_OURS = frozenset({*statements("module.postgres.sql").values(), SAVEPOINT, TAKE_BACK})
_SCHEMA = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
_SCHEMA_LOCK = 7_305_531_102
"""Advisory lock under which processes that start together make their tables one after the other."""


class PostgresDatabase:
    def __init__(self, dsn: str, *, schema: str | None = None, connections: int = 8) -> None:
        if schema is not None and not _SCHEMA.match(schema):
            raise ValueError(f"schema {schema!r} must be 1 to 63 lower-case letters, digits and underscores")
        self._dsn = dsn
        self._schema = schema
        self._connections = connections
        self._pool: asyncpg.Pool | None = None

    @property
    def dialect(self) -> Literal["postgres", "sqlite"]:
        return "postgres"

    async def open(self, schemas: Sequence[str]) -> None:
        if self._pool is not None:
            return
        settings = {
            "application_name": f"unwind-module-{self._schema}" if self._schema else "unwind-module",
            "statement_timeout": f"{STATEMENT_SECONDS}s",
            "lock_timeout": f"{LOCK_SECONDS}s",
            "idle_in_transaction_session_timeout": "60s",
            "tcp_user_timeout": "10s",
        }
        if self._schema is not None:
            settings["search_path"] = self._schema
        with _as_unavailable():
            pool = await asyncpg.create_pool(
                self._dsn,
                min_size=0,
                max_size=self._connections,
                reset=_nothing,
                timeout=CONNECT_SECONDS,
                server_settings=settings,
            )
        try:
            with _as_unavailable():
                async with pool.acquire(timeout=CONNECT_SECONDS) as connection, connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
                    if self._schema is not None:
                        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
                    for schema in schemas:
                        await connection.execute(schema)
        except BaseException:
            pool.terminate()
            raise
        self._pool = pool

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            # A close may wait for ever on a cancel that the server never answers; it gets a limit of its own.
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Tx]:
        pool = self._pool
        if pool is None:
            raise DatabaseUnavailable("the database is not open; open it first")
        with _as_unavailable():
            async with pool.acquire(timeout=CONNECT_SECONDS) as connection:
                await connection.execute("BEGIN")
                tx = _PostgresTx(connection)
                try:
                    yield tx
                except (Exception, asyncio.CancelledError):
                    await tx.end("ROLLBACK")
                    raise
                await tx.end("COMMIT")


async def _nothing(connection: Any) -> None:
    """What the pool does on release is done by then."""


class _PostgresTx:
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._foreign = False

    async def rows(self, sql: str, *values: Any) -> list[Row]:
        self._note(sql)
        return [dict(record) for record in await self._connection.fetch(sql, *values)]

    async def row(self, sql: str, *values: Any) -> Row | None:
        self._note(sql)
        record = await self._connection.fetchrow(sql, *values)
        return None if record is None else dict(record)

    async def run(self, sql: str, *values: Any) -> int:
        self._note(sql)
        status: str = await self._connection.execute(sql, *values)
        count = status.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    async def end(self, how: Literal["COMMIT", "ROLLBACK"]) -> None:
        """Ends the transaction and, on the same way to the server, takes back what a handler has set for its
        session.
        """
        await self._connection.execute(f"{how};\n{self._connection.get_reset_query()}" if self._foreign else how)

    def _note(self, sql: str) -> None:
        # What the SDK itself runs sets nothing for the session, so after it nothing need be taken back.
        self._foreign = self._foreign or sql not in _OURS


@contextmanager
def _as_unavailable() -> Iterator[None]:
    try:
        yield
    except (asyncpg.InterfaceError, OSError, TimeoutError) as error:
        # InterfaceError is "connection is closed" after the server dropped it; its ProgrammingError kin are bugs.
        if isinstance(error, asyncpg.InterfaceError) and "clos" not in str(error):
            raise
        raise DatabaseUnavailable(f"PostgreSQL: {type(error).__name__}: {error}; try again") from error
    except asyncpg.PostgresError as error:
        if _is_transient(error):
            raise DatabaseUnavailable(f"PostgreSQL {error.sqlstate}: {error}; try again") from error
        raise


def _is_transient(error: asyncpg.PostgresError) -> bool:
    state: str = error.sqlstate or ""
    return state[:2] in ("08", "53") or state in ("57P01", "57P02", "57P03", "57014", "40001", "40P01", "55P03")
