"""The store on PostgreSQL through asyncpg: `append` is one call of a database function, everything else a named
statement under the role it needs. Migrations run as the schema's owner. It knows no payload: bodies come in and go out
sealed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from asyncpg import InsufficientPrivilegeError

from contracts.problems import Forbidden
from engine.store import READ_BYTES, Appended, Commit, Duplicate, InputRow, Notification, Outcome, Stale, Stored
from engine.store import rows as read
from engine.store.archive import ArchiveVerbs
from engine.store.batch import Batch, assemble, costs_of, flatten, send_bisecting
from engine.store.catalog import CatalogVerbs
from engine.store.journal import JournalVerbs
from engine.store.listening import Listening
from engine.store.migrate import FOLDER, Missing, check, missing
from engine.store.people_verbs import PeopleVerbs
from engine.store.postgres_sessions import OWNER_SETTINGS, Connection, Sessions, patiently
from engine.store.postgres_views import PostgresViews
from engine.store.postgres_wire import packed_instant, packed_uuid
from engine.store.quotas import QuotaVerbs
from engine.store.secrets import SecretVerbs
from engine.store.statements import Statement, bind, load
from engine.store.telling import Telling
from engine.store.work import WorkVerbs

_MATCHED = tuple(
    f"m_{name}" for name in ("ord", "id", "tenant", "kind", "run", "name", "visit", "source", "event_id", "body")
)


class PostgresStore(
    WorkVerbs, JournalVerbs, CatalogVerbs, QuotaVerbs, SecretVerbs, PeopleVerbs, ArchiveVerbs, PostgresViews
):
    """`engine.store.Store` on PostgreSQL 13 or newer."""

    def __init__(
        self,
        url: str,
        *,
        views: Path,
        patience_seconds: float = 5.0,
        pool_size: int = 4,
        role: Literal["engine", "mail"] = "engine",
    ) -> None:
        CatalogVerbs.__init__(self)
        self._statements: dict[str, Statement] = load([FOLDER / "postgres"], "postgres")
        self._patience, self._role = patience_seconds, role
        self._sessions = Sessions(url, self._statements, patience_seconds=patience_seconds, pool_size=pool_size)
        self._listening = Listening(self._sessions, self.head)
        self._telling = Telling(self._tell)
        PostgresViews.__init__(self, self._sessions, self._statements, load([views], "postgres"))
        self._append = self._sql("append")
        self._append_for = self._sql("append_for")

    # ------------------------------------------------------------------------------------------------------------ life

    async def _look(self) -> tuple[dict[str, str], set[tuple[str, str]]]:
        """What is applied here; afterwards calls take the roles that this database has."""

        async def look() -> tuple[dict[str, str], set[tuple[str, str]], dict[str, str]]:
            connection = await self._sessions.connect()
            try:
                applied, had = await self._recorded(connection)
                roles = await connection.fetch(self._sql("roles")) if applied else []
            finally:
                connection.terminate()
            return applied, had, {row["name"]: row["role"] for row in roles}

        applied, had, self._sessions.roles = await patiently(look, seconds=self._patience)
        return applied, had

    async def start(self) -> None:
        check("postgres", *await self._look())
        if self._role == "engine":
            self._listening.start()

    async def pending(self) -> Missing:
        return missing("postgres", *await self._look())

    async def table_rows(self) -> dict[str, int]:
        return {row["name"]: row["rows"] for row in await self.call("table_rows")}

    async def stop(self) -> None:
        self._telling.stop()
        await self._listening.stop()
        await self._sessions.close()

    async def migrate(self) -> list[str]:
        async def run() -> list[str]:
            async with self._as_owner("lock_migrations", "prepare", "prepare_mail") as connection:
                return await self._migrate(connection)

        return await patiently(run, seconds=self._patience)

    async def _migrate(self, connection: Connection) -> list[str]:
        await connection.execute(self._sql("prepare_functions"))
        fresh = missing("postgres", *await self._recorded(connection))
        for migration in fresh.migrations:
            await connection.execute(migration.script)
            await connection.execute(self._sql("record_migration"), migration.name, migration.checksum)
        for each in fresh.functions:
            await connection.execute(each.script)
            await connection.execute(self._sql("record_functions"), each.name, each.checksum)
        if fresh.functions or await connection.fetchval(self._sql("mail_unguarded")):
            await connection.execute(self._sql("guard_functions"))
        await self.create_views(connection)
        return fresh.names

    async def drop_month(self, month: str) -> tuple[int, int]:
        """The engine's own role may drop nothing: this acts as the owner, as a migration does."""

        async def run() -> tuple[int, int]:
            try:
                async with self._as_owner() as connection:
                    [row] = await connection.fetch(self._sql("drop_month"), month)
            except InsufficientPrivilegeError as refused:
                raise Forbidden(f"dropping a month of the archive takes the database's owner: {refused}") from None
            return row["runs"], row["events"]

        return await patiently(run, seconds=self._patience)

    @asynccontextmanager
    async def _as_owner(self, *before: str) -> AsyncIterator[Connection]:
        """One transaction of the schema's owner, on a connection of its own. The statements `before` run in it as
        whoever the connection belongs to.
        """
        connection = await self._sessions.connect(settings=OWNER_SETTINGS)
        try:
            async with connection.transaction():
                for statement in before:
                    await connection.execute(self._sql(statement))
                await connection.execute(self._sql("become_owner"))
                await connection.execute(self._sql("make_in"), "unwind")
                yield connection
        finally:
            connection.terminate()

    async def _recorded(self, connection: Connection) -> tuple[dict[str, str], set[tuple[str, str]]]:
        """The migrations of this database by name, and every text its functions ever had."""
        if not await connection.fetchval(self._sql("migrations_exist")):
            return {}, set()
        applied = {row["name"]: row["checksum"] for row in await connection.fetch(self._sql("applied"))}
        if not await connection.fetchval(self._sql("functions_exist")):
            return applied, set()
        return applied, {
            (row["name"], row["checksum"]) for row in await connection.fetch(self._sql("functions_applied"))
        }

    async def ping(self) -> None:
        await self.call("ping")

    def _sql(self, statement: str) -> str:
        return self._statements[statement].steps[0].sql

    async def call(self, statement: str, **values: Any) -> Sequence[Mapping[str, Any]]:
        step = self._statements[statement].steps[0]
        return await self._sessions.fetch(self._role, step.sql, bind(step, values))

    # --------------------------------------------------------------------------------------------------------- the log

    async def append(self, commits: Sequence[Commit], *, epoch: int, now: datetime | None = None) -> list[Outcome]:
        if not commits:
            return []
        lane_of = self._lane_by_tenant.get
        first = lane_of(commits[0].tenant)
        if first is not None and all(lane_of(commit.tenant) == first for commit in commits):
            return await self._append_lane(first, commits, epoch, now)
        places: dict[int, list[int]] = {}
        for place, commit in enumerate(commits):
            places.setdefault(await self.lane_of(commit.tenant), []).append(place)
        answers: dict[int, Outcome] = {}
        for lane, members in places.items():
            outcomes = await self._append_lane(lane, [commits[place] for place in members], epoch, now)
            answers.update(zip(members, outcomes, strict=True))
        return [answers[place] for place in range(len(commits))]

    async def _append_lane(
        self, lane: int, commits: Sequence[Commit], epoch: int, now: datetime | None
    ) -> list[Outcome]:
        async def send(part: Sequence[Commit]) -> list[Outcome]:
            batch = flatten(part, uuids=packed_uuid, instants=packed_instant)
            tell = self._telling.with_append(lane, batch)
            values = (lane, epoch, now, False, None, None, tell, costs_of(batch))
            row, lost = await self._sessions.on_lane("engine", lane, self._append, values, batch)
            outcomes = self._outcomes(lane, batch, part, row)
            if not tell:
                self._telling.later(lane, self._listening.head(lane))
            return await self._ours(part, outcomes) if lost else outcomes

        return await send_bisecting(commits, send)

    async def append_for(
        self, tenant: str, commits: Sequence[Commit], *, epoch: int, now: datetime | None = None
    ) -> list[Outcome]:
        """`append` for a caller bound to one tenant: arrivals, inputs, messages and events of that tenant only, else
        `TenantRefused` and nothing is written."""
        if not commits:
            return []
        found = await self._sessions.fetch("web", self._sql("lane_of"), [tenant])
        lane = int(found[0]["lane"])

        async def send(part: Sequence[Commit]) -> list[Outcome]:
            batch = flatten(part, uuids=packed_uuid, instants=packed_instant)
            values = (tenant, lane, epoch, now)
            row, _ = await self._sessions.on_lane("web", lane, self._append_for, values, batch)
            return self._outcomes(lane, batch, part, row)

        return await send_bisecting(commits, send)

    async def append_strictly(
        self, commits: Sequence[Commit], *, epoch: int, view: tuple[str, int] | None = None, lane: int = 0
    ) -> list[Outcome]:
        """All commits or none: any refusal raises `ContentRefused`. `view` moves that checkpoint forward in the same
        transaction."""
        batch = flatten(commits, strict=True, uuids=packed_uuid, instants=packed_instant)
        name, position = view if view is not None else (None, None)
        values = (lane, epoch, None, True, name, position, True, costs_of(batch))
        row, _ = await self._sessions.on_lane("engine", lane, self._append, values, batch)
        return self._outcomes(lane, batch, commits, row)

    async def _ours(self, commits: Sequence[Commit], outcomes: list[Outcome]) -> list[Outcome]:
        """After a lost answer: what is refused now may be there because the lost try wrote it. A sealed body is never
        made twice, so a stream that holds these very bodies was written by us. Its position is given as the lane's
        head; inputs that it matched come by `claim_inputs` when their lease ends.
        """
        settled = list(outcomes)
        for place, (commit, outcome) in enumerate(zip(commits, outcomes, strict=True)):
            if commit.stream is None or not commit.events or not isinstance(outcome, Stale | Duplicate):
                continue
            stored = await self.load(commit.tenant, commit.stream, after=commit.expected)
            if [(e.topic, e.body) for e in stored[: len(commit.events)]] == [(e.topic, e.body) for e in commit.events]:
                settled[place] = Appended(await self.head(await self.lane_of(commit.tenant)))
        return settled

    def _outcomes(self, lane: int, batch: Batch, commits: Sequence[Commit], row: Mapping[str, Any]) -> list[Outcome]:
        matched: dict[int, list[InputRow]] = {}
        if row["m_ord"] is not None:
            for n, ident, tenant, kind, run, name, visit, source, event, body in zip(
                *(row[column] for column in _MATCHED), strict=True
            ):
                known = InputRow(ident, tenant, kind, run, None, name, visit, (source, event), body)
                matched.setdefault(n, []).append(known)
        outcomes = assemble(batch, commits, row["first_position"], row["codes"], row["nums"], row["runs"], matched)
        self._listening.appended(lane, max((getattr(outcome, "position", 0) for outcome in outcomes), default=0))
        return outcomes

    async def _tell(self, lane: int, head: int) -> None:
        await self._sessions.fetch("engine", self._sql("tell"), [f"{lane} {head}"])

    async def load(self, tenant: str, stream: UUID, *, after: int = 0) -> list[Stored]:
        return [read.stored(row) for row in await self.call("load", tenant=tenant, stream=stream, after=after)]

    async def load_many(self, streams: Sequence[tuple[str, UUID]]) -> dict[UUID, list[Stored]]:
        loaded: dict[UUID, list[Stored]] = {stream: [] for _, stream in streams}
        tenants = [tenant for tenant, _ in streams]
        for row in await self.call("load_many", tenants=tenants, streams=[stream for _, stream in streams]):
            loaded[row["stream"]].append(read.stored(row))
        return loaded

    async def snapshot(self, tenant: str, stream: UUID) -> tuple[int, bytes] | None:
        found = await self.call("snapshot", tenant=tenant, stream=stream)
        return (found[0]["version"], found[0]["body"]) if found else None

    async def snapshots_of(self, streams: Sequence[tuple[str, UUID]]) -> dict[UUID, tuple[int, bytes]]:
        tenants = [tenant for tenant, _ in streams]
        found = await self.call("snapshots_of", tenants=tenants, streams=[stream for _, stream in streams])
        return {row["stream"]: (row["version"], row["body"]) for row in found}

    async def read(self, lane: int, *, after: int, limit: int) -> list[Notification]:
        found = await self.call("read_log", lane=lane, after=after, limit=limit, bytes=READ_BYTES)
        return [Notification(*row.values()) for row in found]

    async def head(self, lane: int) -> int:
        found = await self.call("head", lane=lane)
        return int(found[0]["head"])

    async def wait_for_append(self, lane: int, after: int, timeout_seconds: float) -> bool:
        return await self._listening.wait(lane, after, timeout_seconds)

    async def wait_for_inputs(self, timeout_seconds: float) -> bool:
        """True as soon as an append may have left inputs for another process to claim, False at the timeout."""
        return await self._listening.wait_for_inputs(timeout_seconds)
