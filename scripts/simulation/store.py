"""The store of a world: the embedded driver's own verbs and statements on one database in memory, without threads and
without a disk. Each simulated process has a `SimStore`; all of them share a `SimDatabase`.

A call passes a gate before and one after its transaction. There the world lets time pass and other processes in, kills
the process, refuses the call (`Unavailable`, nothing happened), or loses its answer (`Unavailable`, it happened).
Transactions themselves are whole and in some order, as both real drivers keep them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from eventsourcing.sqlite import SQLiteDatastore

from engine.store import Commit, Outcome
from engine.store import rows as read
from engine.store.catalog import CatalogVerbs
from engine.store.es import LogRecorder
from engine.store.migrate import FOLDER, migrations
from engine.store.sqlite import SqliteStore, complete_statements, own_value, shown_value
from engine.store.sqlite_append import LEASE_MICROSECONDS, Appender
from engine.store.sqlite_threads import RowSum, translated
from engine.store.statements import Driver, Statement, bind, load

T = TypeVar("T")
DRIVER: Driver = "sqlite"
POLL_SECONDS = 1.0


class Gate(Protocol):
    """What stands at a port's awaits. Both may raise `Unavailable`; `after` then loses an answer."""

    async def before(self, port: str) -> None: ...

    async def after(self, port: str) -> None: ...

    def now(self) -> datetime:
        """The database's clock."""


class Open:
    """A gate that lets everything pass at once, on the real clock: for the conformance suites."""

    async def before(self, port: str) -> None:
        await asyncio.sleep(0)

    async def after(self, port: str) -> None:
        await asyncio.sleep(0)

    def now(self) -> datetime:
        return datetime.now(UTC)


class Unhindered(Open):
    """That gate in a world, for whoever is no process of it: `now` is the world's clock."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now()


class SimDatabase:
    """One database in memory, migrated, with the read models of `views`. All of a world is one transaction that is
    never committed, so that the connection, with all its prepared statements, serves the next world as it was.
    """

    def __init__(self, views: Path | None = None) -> None:
        self._folder = views or Path(__file__).parents[2] / "projections" / "sql" / "sqlite"
        self.statements, self.views = _statements(FOLDER / "sqlite"), _statements(self._folder)
        self.recorder, self.appender = _appender()
        idle = _IDLE.setdefault(self._folder, [])
        self.connection = idle.pop() if idle else _open(self._folder)
        self._cursor = self.connection.cursor()
        self._cursor.execute("BEGIN")

    def close(self) -> None:
        self._cursor.execute("ROLLBACK")
        _IDLE[self._folder].append(self.connection)

    def transaction(self, work: Callable[[sqlite3.Cursor], T]) -> T:
        """Whole or not at all; raises the store's errors."""
        cursor = self._cursor
        cursor.execute("SAVEPOINT transaction_of_a_process")
        try:
            answer = work(cursor)
        except Exception as error:
            cursor.execute("ROLLBACK TO transaction_of_a_process")
            cursor.execute("RELEASE transaction_of_a_process")
            known = translated(error)
            raise known from (None if known is error else error)
        cursor.execute("RELEASE transaction_of_a_process")
        return answer

    def rows(self, sql: str, values: Sequence[Any]) -> list[Any]:
        """Of the shape of `sqlite3.Row`."""
        try:
            return self._cursor.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise translated(error) from error


class _Told(Appender):
    """Keeps what its transaction has appended."""

    def __init__(self, appender: Appender, written: list[tuple[Sequence[Commit], Sequence[Outcome], int]]) -> None:
        self.__dict__.update(appender.__dict__)
        self._written = written

    def append(self, cursor: sqlite3.Cursor, commits: Sequence[Commit], *, epoch: int, **more: Any) -> list[Outcome]:
        outcomes = super().append(cursor, commits, epoch=epoch, **more)
        self._written.append((commits, outcomes, epoch))
        return outcomes


class SimStore(SqliteStore):
    """`engine.store.Store` for one simulated process. `appended` hears of every append that was committed."""

    def __init__(self, database: SimDatabase, gate: Gate) -> None:
        CatalogVerbs.__init__(self)
        self.database, self.gate = database, gate
        self.appended: Callable[[Sequence[Commit], Sequence[Outcome], int], None] = lambda commits, outcomes, epoch: (
            None
        )
        self._statements, self.view_statements = database.statements, database.views
        self._written: list[tuple[Sequence[Commit], Sequence[Outcome], int]] = []
        self._appender = _Told(database.appender, self._written)
        self._heads: dict[int, int] = {}
        self._moved, self._inputs = asyncio.Event(), asyncio.Event()
        self._stopped = False

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        self._stopped = True

    async def migrate(self) -> list[str]:
        return []

    async def drop_shadows(self) -> list[str]:
        """No rebuild runs in a simulated world."""
        return []

    async def write(self, work: Callable[[sqlite3.Cursor], T]) -> T:
        port = _port(work.__qualname__)
        await self.gate.before(port)
        self._written.clear()
        answer = self.database.transaction(work)
        for commits, outcomes, epoch in self._written:
            self.appended(commits, outcomes, epoch)
        await self.gate.after(port)
        return answer

    async def call(self, statement: str, **values: Any) -> Sequence[Mapping[str, Any]]:
        plain = {name: own_value(value) for name, value in values.items()}
        if plain.get("now") is None:
            plain["now"] = read.microseconds(self.gate.now())
        plain["lease"] = plain["now"] + LEASE_MICROSECONDS
        steps = self._statements[statement].steps
        await self.gate.before(statement)
        answer: Sequence[Mapping[str, Any]]
        if len(steps) == 1:  # a statement is whole by itself
            answer = self.database.rows(steps[0].sql, bind(steps[0], plain))
        else:
            answer = self.database.transaction(lambda cursor: self.execute(cursor, statement, plain))
        await self.gate.after(statement)
        return answer

    async def fetch(self, statement: str, *, tenant: str | None, **params: Any) -> list[dict[str, Any]]:
        step = self.view_statements[statement].steps[0]
        values = {name: shown_value(value) for name, value in params.items()} | {"tenant": tenant}
        await self.gate.before("fetch")
        rows = self.database.rows(step.sql, bind(step, values))
        await self.gate.after("fetch")
        return [dict(row) for row in rows]

    async def append(self, commits: Sequence[Commit], *, epoch: int, now: datetime | None = None) -> list[Outcome]:
        return await self._append(commits, epoch, now or self.gate.now(), None)

    async def append_for(
        self, tenant: str, commits: Sequence[Commit], *, epoch: int, now: datetime | None = None
    ) -> list[Outcome]:
        return await self._append(commits, epoch, now or self.gate.now(), tenant)

    async def wait_for_append(self, lane: int, after: int, timeout_seconds: float) -> bool:
        """As the driver waits, by the loop's own time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while True:
            moved = self._moved
            if self._heads.get(lane, 0) > after or await self.head(lane) > after:
                return True
            remaining = deadline - loop.time()
            if remaining <= 0:
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout(min(remaining, POLL_SECONDS)):
                    await moved.wait()


@cache
def _port(verb: str) -> str:
    """`append_lane` of a closure in `SqliteStore._append_lane`."""
    return verb.split(".")[1].lstrip("_")


@cache
def _statements(folder: Path) -> dict[str, Statement]:
    return load([folder], DRIVER)


_IDLE: dict[Path, list[sqlite3.Connection]] = {}
"""Empty databases of worlds that have ended, by the folder of their read models."""


def _open(views: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=1_000)
    connection.create_aggregate("row_sum", 1, RowSum)  # type: ignore[arg-type]
    connection.deserialize(_template(views))
    connection.row_factory = sqlite3.Row
    return connection


@cache
def _appender() -> tuple[LogRecorder, Appender]:
    statements = _statements(FOLDER / "sqlite")
    recorder = LogRecorder(SQLiteDatastore("file::memory:"), statements)
    return recorder, Appender(recorder, statements)


@cache
def _template(views: Path) -> bytes:
    """A migrated, empty database as bytes: made once, opened in a fraction of a millisecond."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    statements = _statements(FOLDER / "sqlite")
    connection.execute(statements["prepare"].steps[0].sql)
    for migration in migrations(DRIVER):
        for statement in complete_statements(migration.script):
            connection.execute(statement)
    for name, known in sorted(_statements(views).items()):
        if name.endswith("_create"):
            for step in known.steps:
                connection.execute(step.sql)
    content = connection.serialize()
    connection.close()
    return content
