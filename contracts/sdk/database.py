"""A module's own database as the SDK sees it: transactions in which a handled key, an effect and its answer commit
together. Two adapters, `contracts.sdk.postgres` (asyncpg) and `contracts.sdk.sqlite` (sqlite3 on a thread).

Statements are written once for both: parameters are `$1`, `$2`, ..., instants are `timestamptz` columns that take and
give aware datetimes. It is no query builder and no migration tool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Final, Literal, Protocol

from contracts.problems import Unavailable

Row = Mapping[str, Any]


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached, or another transaction was in the way. Whatever was begun did not happen, or
    happened whole: do it again under the same key.
    """

    code: ClassVar[str] = "database_unavailable"
    title: ClassVar[str] = "The module's database does not answer"


class Tx(Protocol):
    """One open transaction. Used by one task at a time."""

    async def rows(self, sql: str, *values: Any) -> list[Row]: ...

    async def row(self, sql: str, *values: Any) -> Row | None:
        """The first row, or None."""

    async def run(self, sql: str, *values: Any) -> int:
        """How many rows were inserted, updated or deleted."""


SAVEPOINT: Final = "SAVEPOINT handler"
TAKE_BACK: Final = "ROLLBACK TO SAVEPOINT handler"


class Lent:
    """A transaction as a handler has it: what it does there can be taken back by itself. A handler that asks the
    database nothing costs no statement.
    """

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._marked = False

    async def rows(self, sql: str, *values: Any) -> list[Row]:
        await self._mark()
        return await self._tx.rows(sql, *values)

    async def row(self, sql: str, *values: Any) -> Row | None:
        await self._mark()
        return await self._tx.row(sql, *values)

    async def run(self, sql: str, *values: Any) -> int:
        await self._mark()
        return await self._tx.run(sql, *values)

    async def take_back(self) -> None:
        """Undoes what was done through it; the transaction goes on."""
        if self._marked:
            await self._tx.run(TAKE_BACK)

    async def _mark(self) -> None:
        if not self._marked:
            await self._tx.run(SAVEPOINT)
            self._marked = True


class Database(Protocol):
    """Opened once, closed once (twice is fine). `transaction` commits when its block ends and rolls back when it
    raises; both it and the statements raise `DatabaseUnavailable` when trying again is the answer.
    """

    @property
    def dialect(self) -> Literal["postgres", "sqlite"]: ...

    async def open(self, schemas: Sequence[str]) -> None:
        """Connects and runs these scripts, each of which may run again and again. Raises `DatabaseUnavailable`."""

    async def close(self) -> None: ...

    def transaction(self) -> AbstractAsyncContextManager[Tx]: ...


def open_database(url: str) -> Database:
    """The database a URL names, not yet opened: `postgresql://user@host/name` (with `?schema=billing` for tables in a
    schema of their own) or `sqlite:///absolute/path/billing.db`.
    """
    # Both adapters are written on this file's protocols, so they can only be imported once it is there.
    scheme, _, rest = url.partition("://")
    if scheme in ("postgresql", "postgres"):
        from contracts.sdk.postgres import PostgresDatabase

        base, _, schema = url.partition("?schema=")
        return PostgresDatabase(base, schema=schema or None)
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        from contracts.sdk.sqlite import SqliteDatabase

        return SqliteDatabase(rest)
    raise ValueError("the database URL must be postgresql://user@host/name or sqlite:///absolute/path.db")
