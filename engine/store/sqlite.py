"""The embedded store: one SQLite file in WAL mode, synced at every commit, written by one thread that joins waiting
callers into one transaction. The same verbs and answers as on PostgreSQL; a second process may open the same file."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import orjson

from engine.store import READ_BYTES, Change, Commit, Notification, Outcome, Shadow, Stored
from engine.store import rows as read
from engine.store.archive import ArchiveVerbs
from engine.store.batch import send_bisecting
from engine.store.catalog import CatalogVerbs
from engine.store.errors import Unavailable
from engine.store.es import open_recorder
from engine.store.journal import JournalVerbs
from engine.store.migrate import FOLDER, Missing, check, missing
from engine.store.people_verbs import PeopleVerbs
from engine.store.quotas import QuotaVerbs
from engine.store.secrets import SecretVerbs
from engine.store.shadows import views_of
from engine.store.sqlite_append import LEASE_MICROSECONDS, Appender
from engine.store.sqlite_shadows import SqliteShadows, create
from engine.store.sqlite_threads import Readers, Writer
from engine.store.statements import Statement, bind, load, narrowed
from engine.store.work import WorkVerbs

T = TypeVar("T")
_POLL_SECONDS = 0.25


class SqliteStore(WorkVerbs, JournalVerbs, CatalogVerbs, QuotaVerbs, SecretVerbs, PeopleVerbs, ArchiveVerbs):
    """`engine.store.Store` on one SQLite file (3.35 or newer)."""

    def __init__(self, path: Path, *, views: Path, patience_seconds: float = 5.0) -> None:
        super().__init__()
        self._path = path
        self._statements = load([FOLDER / "sqlite"], "sqlite")
        self.view_statements = load([views], "sqlite")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._recorder = open_recorder(path, self._statements, lock_timeout_seconds=max(1, round(patience_seconds)))
        self._appender = Appender(self._recorder, self._statements)
        self._writer: Writer | None = None
        self.readers = Readers(path)
        self._shadows = SqliteShadows(self, path)
        self._heads: dict[int, int] = {}
        self._moved = asyncio.Event()
        self._inputs = asyncio.Event()
        self._stopped = False

    # ------------------------------------------------------------------------------------------------------------ life

    async def start(self) -> None:
        check("sqlite", await self.write(self._applied))

    async def pending(self) -> Missing:
        return missing("sqlite", await self.write(self._applied))

    async def table_rows(self) -> dict[str, int]:
        return {}

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        if self._writer is not None:
            await self._writer.stop()
        await self.readers.stop()
        self._recorder.close()

    async def migrate(self) -> list[str]:
        def run(cursor: sqlite3.Cursor) -> list[str]:
            cursor.execute(self._sql("prepare"))
            fresh = missing("sqlite", self._applied(cursor))
            for migration in fresh.migrations:
                for statement in complete_statements(migration.script):
                    cursor.execute(statement)
                self.execute(
                    cursor, "record_migration", {"name": migration.name, "checksum": migration.checksum, "now": _now()}
                )
            for view in views_of(self.view_statements):
                create(cursor, self.view_statements, view)
            return fresh.names

        return await self.write(run)

    async def ping(self) -> None:
        await self.call("ping")

    def _applied(self, cursor: sqlite3.Cursor) -> dict[str, str]:
        if not cursor.execute(self._sql("migrations_exist")).fetchone()["exist"]:
            return {}
        return {row["name"]: row["checksum"] for row in cursor.execute(self._sql("applied")).fetchall()}

    # ----------------------------------------------------------------------------------------------------------- calls

    def _sql(self, statement: str) -> str:
        return self._statements[statement].steps[0].sql

    async def write(self, work: Callable[[sqlite3.Cursor], T]) -> T:
        if self._stopped:
            raise Unavailable("the store is stopped; open it again")
        if self._writer is None:
            self._writer = Writer(self._recorder)
        return await self._writer.run(work)

    async def call(self, statement: str, **values: Any) -> Sequence[Mapping[str, Any]]:
        known = self._statements[statement]
        moment = values.get("now")
        now = read.microseconds(moment) if moment is not None else _now()
        plain = {name: own_value(value) for name, value in values.items()} | {
            "now": now,
            "lease": now + LEASE_MICROSECONDS,
        }
        if known.reads:
            return await self.readers.fetch(known.steps[0].sql, bind(known.steps[0], plain))
        return await self.write(lambda cursor: self.execute(cursor, statement, plain))

    def execute(self, cursor: sqlite3.Cursor, statement: str, values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        answer: list[Mapping[str, Any]] = []
        for step in self._statements[statement].steps:
            answer.extend(cursor.execute(step.sql, bind(step, values)).fetchall())
        return answer

    async def _forgotten(self, tenant: str) -> Sequence[Mapping[str, Any]]:
        def work(cursor: sqlite3.Cursor) -> Sequence[Mapping[str, Any]]:
            if self.execute(cursor, "open_runs", {"tenant": tenant, "after": None, "limit": 1}):
                return ()
            return self.execute(cursor, "forget_tenant", {"tenant": tenant})

        return await self.write(work)

    # ------------------------------------------------------------------------------------------------------------- log

    async def append(self, commits: Sequence[Commit], *, epoch: int, now: datetime | None = None) -> list[Outcome]:
        return await self._append(commits, epoch, now, None)

    async def append_for(
        self, tenant: str, commits: Sequence[Commit], *, epoch: int, now: datetime | None = None
    ) -> list[Outcome]:
        return await self._append(commits, epoch, now, tenant)

    async def _append(
        self, commits: Sequence[Commit], epoch: int, now: datetime | None, tenant: str | None
    ) -> list[Outcome]:
        if not commits:
            return []
        places: dict[int, list[int]] = {}
        for place, commit in enumerate(commits):
            lane = self._lane_by_tenant.get(commit.tenant)
            places.setdefault(await self.lane_of(commit.tenant) if lane is None else lane, []).append(place)
        answers: dict[int, Outcome] = {}
        for lane, members in places.items():
            outcomes = await self._append_lane(lane, [commits[place] for place in members], epoch, now, tenant)
            answers.update(zip(members, outcomes, strict=True))
        return [answers[place] for place in range(len(commits))]

    async def _append_lane(
        self, lane: int, commits: Sequence[Commit], epoch: int, now: datetime | None, tenant: str | None
    ) -> list[Outcome]:
        moment = now or datetime.now(UTC)

        async def send(part: Sequence[Commit]) -> list[Outcome]:
            def work(cursor: sqlite3.Cursor) -> list[Outcome]:
                if tenant is not None:
                    self._appender.check_tenant(cursor, tenant, part)
                return self._appender.append(cursor, part, lane=lane, epoch=epoch, now=moment)

            outcomes = await self.write(work)
            self._appended(lane, outcomes, any(commit.arrival or commit.inputs for commit in part))
            return outcomes

        return await send_bisecting(commits, send)

    async def append_strictly(
        self, commits: Sequence[Commit], *, epoch: int, view: tuple[str, int] | None = None, lane: int = 0
    ) -> list[Outcome]:
        """All commits or none: any refusal raises `ContentRefused`. `view` moves that checkpoint forward in the same
        transaction."""

        def work(cursor: sqlite3.Cursor) -> list[Outcome]:
            moment = datetime.now(UTC)
            return self._appender.append(cursor, commits, lane=lane, epoch=epoch, now=moment, strict=True, view=view)

        outcomes = await self.write(work)
        self._appended(lane, outcomes, False)
        return outcomes

    def _appended(self, lane: int, outcomes: Sequence[Outcome], inputs: bool) -> None:
        position = max((getattr(outcome, "position", 0) for outcome in outcomes), default=0)
        if inputs:
            self._inputs.set()
        if position > self._heads.get(lane, 0):
            self._heads[lane] = position
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

    async def load(self, tenant: str, stream: UUID, *, after: int = 0) -> list[Stored]:
        return [read.stored(row) for row in await self.call("load", tenant=tenant, stream=stream, after=after)]

    async def load_many(self, streams: Sequence[tuple[str, UUID]]) -> dict[UUID, list[Stored]]:
        loaded: dict[UUID, list[Stored]] = {stream: [] for _, stream in streams}
        tenants = [tenant for tenant, _ in streams]
        for row in await self.call("load_many", tenants=tenants, streams=[stream for _, stream in streams]):
            loaded[read.uuid(row["stream"])].append(read.stored(row))
        return loaded

    async def snapshot(self, tenant: str, stream: UUID) -> tuple[int, bytes] | None:
        found = await self.call("snapshot", tenant=tenant, stream=stream)
        return (found[0]["version"], found[0]["body"]) if found else None

    async def snapshots_of(self, streams: Sequence[tuple[str, UUID]]) -> dict[UUID, tuple[int, bytes]]:
        tenants = [tenant for tenant, _ in streams]
        found = await self.call("snapshots_of", tenants=tenants, streams=[stream for _, stream in streams])
        return {read.uuid(row["stream"]): (row["version"], row["body"]) for row in found}

    async def read(self, lane: int, *, after: int, limit: int) -> list[Notification]:
        found = await self.call("read_log", lane=lane, after=after, limit=limit, bytes=READ_BYTES)
        return [read.notification(row) for row in found]

    async def head(self, lane: int) -> int:
        found = await self.call("head", lane=lane)
        return int(found[0]["head"])

    async def wait_for_append(self, lane: int, after: int, timeout_seconds: float) -> bool:
        """Appends of this process wake at once, those of another are polled for."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            moved = self._moved
            if self._heads.get(lane, 0) > after or await self.head(lane) > after:
                return True
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout(min(remaining, _POLL_SECONDS)):
                    await moved.wait()

    async def wait_for_inputs(self, timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._inputs.wait()
        except TimeoutError:
            return False
        self._inputs.clear()
        return True

    # ----------------------------------------------------------------------------------------------------- read models

    async def checkpoint(self, view: str, lane: int) -> int:
        found = await self.call("checkpoint", view=view, lane=lane)
        return int(found[0]["position"]) if found else 0

    async def apply(
        self,
        view: str,
        lane: int,
        *,
        expected: int,
        position: int,
        changes: Sequence[Change],
        texts: Mapping[str, Statement] | None = None,
    ) -> bool:
        """`texts`: other statements of those names, a shadow's."""
        statements = self.view_statements if texts is None else texts

        def work(cursor: sqlite3.Cursor) -> bool:
            move = {"view": view, "lane": lane, "expected": expected, "position": position}
            if not self.execute(cursor, "move_checkpoint", move):
                return False
            for change in changes:
                rows = [tuple(shown_value(value) for value in row) for row in change.rows]
                for step in statements[change.statement].steps:
                    cursor.executemany(step.sql, rows)
            return True

        return await self.write(work)

    async def fetch(self, statement: str, *, tenant: str | None, **params: Any) -> list[dict[str, Any]]:
        return await self.rows(self.view_statements[statement], tenant, params)

    async def rows(self, text: Statement, tenant: str | None, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """`fetch` of this statement."""
        step = text.steps[0]
        values = {name: shown_value(value) for name, value in params.items()} | {"tenant": tenant}
        bound = bind(step, values)
        return [dict(row) for row in await self.readers.fetch(narrowed(step.sql, bound), bound)]

    async def reset(self, view: str) -> None:
        def work(cursor: sqlite3.Cursor) -> None:
            for step in self.view_statements[f"{view}_reset"].steps:
                cursor.execute(step.sql)
            self.execute(cursor, "drop_checkpoints", {"view": view})

        await self.write(work)

    def shadow(self, view: str) -> AbstractAsyncContextManager[Shadow]:
        return self._shadows.shadow(view)

    async def drop_shadows(self) -> list[str]:
        return await self._shadows.drop_shadows()

    async def view_rows(self, view: str) -> dict[str, int]:
        return await self._shadows.view_rows(view)


def _now() -> int:
    return read.microseconds(datetime.now(UTC))


_KEPT_AS_IT_IS: Final = frozenset({int, str, bytes, float, bool})
"""Most values are of these types, and are asked for nothing more."""


def own_value(value: Any) -> Any:
    """A value as our own tables keep it."""
    if value is None or type(value) in _KEPT_AS_IT_IS:
        return value
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return read.microseconds(value)
    if isinstance(value, list):
        return orjson.dumps([own_value(item) for item in value]).decode()
    return value


def shown_value(value: Any) -> Any:
    """A value as read models keep it: readable, and the same text that PostgreSQL's would be printed as."""
    if value is None or type(value) in _KEPT_AS_IT_IS:
        return value
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def complete_statements(script: str) -> list[str]:
    """The statements of a script, triggers whole. `executescript` would commit the runner's transaction."""
    statements: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        if not pending and (not line.strip() or line.lstrip().startswith("--")):
            continue
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
