"""Shadows of read models on PostgreSQL. Tables are made, switched and dropped by functions that run as the schema's
owner (`sql/postgres/functions/shadows.sql`); rows are written as the projector's role. The lock is the session's: it
ends with the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

from contracts.problems import Conflict
from engine.store.postgres_sessions import Connection, Sessions
from engine.store.shadows import (
    DIFFERENCES,
    PREFIX,
    Comparison,
    Difference,
    checkpoint_of,
    shadowed,
    tables_of,
    views_of,
)
from engine.store.shapes import Change
from engine.store.statements import Statement, bind

_NO_LIMIT_SECONDS = 24 * 3600.0
"""A comparison reads whole tables: neither the server's nor the client's deadline for one statement is meant for it."""


class PostgresShadow:
    """See `engine.store.shadows.Shadow`."""

    def __init__(self, views: Any, held: Connection, view: str) -> None:
        self._views = views
        self._held = held
        self._view = view
        self.tables: list[str] = tables_of(view, views.statements)
        self._texts: dict[str, Statement] = {}
        self.switched = False

    def _text(self, name: str) -> Statement:
        if name not in self._texts:
            self._texts[name] = shadowed(self._views.statements[name], self.tables)
        return self._texts[name]

    async def checkpoint(self, view: str, lane: int) -> int:
        return int(await self._views.checkpoint(checkpoint_of(view), lane))

    async def apply(self, view: str, lane: int, *, expected: int, position: int, changes: Sequence[Change]) -> bool:
        texts = {change.statement: self._text(change.statement) for change in changes}
        done = await self._views.apply(
            checkpoint_of(view), lane, expected=expected, position=position, changes=changes, texts=texts
        )
        return bool(done)

    async def fetch(self, statement: str, *, tenant: str | None, **params: Any) -> list[dict[str, Any]]:
        return list(await self._views.rows(self._text(statement), tenant, params))

    async def compare(self) -> Comparison | None:
        own, digest = self._views.own, f"{self._view}_digest"
        step = own["checkpoints_of"].steps[0]
        shadow = checkpoint_of(self._view)
        async with self._held.transaction(isolation="repeatable_read", readonly=True):
            await self._held.execute("SET LOCAL statement_timeout = 0")
            found = await self._held.fetch(step.sql, *bind(step, {"view": self._view, "shadow": shadow}))
            at: dict[str, dict[int, int]] = {self._view: {}, shadow: {}}
            for row in found:
                at[row["view"]][row["lane"]] = row["position"]
            if at[self._view] != at[shadow]:
                return None
            living, built = [
                [dict(row) for row in await self._held.fetch(text.steps[0].sql, timeout=_NO_LIMIT_SECONDS)]
                for text in (self._views.statements[digest], self._text(digest))
            ]
            differ: list[Difference] = []
            if living != built:
                ask = own["shadow_differences"].steps[0]
                values = bind(ask, {"tables": self.tables, "limit": DIFFERENCES})
                found = await self._held.fetch(ask.sql, *values, timeout=_NO_LIMIT_SECONDS)
                differ = [Difference(row["name"], orjson.loads(row["key"])) for row in found]
        return Comparison(at[shadow], living, built, differ)

    async def switch(self) -> bool:
        step = self._views.own["shadow_switch"].steps[0]
        # On the session that has the lock: a process that lost it switches nothing.
        self.switched = bool(
            await self._held.fetchval(step.sql, *bind(step, {"view": self._view, "tables": self.tables}))
        )
        return self.switched

    async def drop(self) -> None:
        step = self._views.own["shadow_drop"].steps[0]
        await self._held.execute(step.sql, *bind(step, {"view": self._view, "tables": self.tables}))


class PostgresShadows:
    """Makes them, for `engine.store.postgres_views.PostgresViews`."""

    def __init__(self, views: Any, sessions: Sessions) -> None:
        self._views = views
        self._sessions = sessions

    @asynccontextmanager
    async def shadow(self, view: str) -> AsyncIterator[PostgresShadow]:
        held = await self._sessions.connect("projector")
        try:
            if not await self._lock(held, view):
                raise Conflict(f"view {view} is being rebuilt or verified already; wait until that is done", view=view)
            shadow = PostgresShadow(self._views, held, view)
            make = self._views.own["shadow_make"].steps[0]
            await held.execute(make.sql, *bind(make, {"view": view, "tables": shadow.tables}))
            try:
                yield shadow
            finally:
                if not shadow.switched and not held.is_closed():
                    await shadow.drop()
        finally:
            held.terminate()

    async def drop_shadows(self) -> list[str]:
        left = {row["name"] for row in await self._ask("shadow_tables_left")}
        dropped = []
        for view in views_of(self._views.statements) if left else ():
            tables = tables_of(view, self._views.statements)
            if not left & {PREFIX + table for table in tables}:
                continue
            held = await self._sessions.connect("projector")
            try:
                if await self._lock(held, view):
                    await PostgresShadow(self._views, held, view).drop()
                    dropped.append(view)
            finally:
                held.terminate()
        return dropped

    async def view_rows(self, view: str) -> dict[str, int]:
        tables = tables_of(view, self._views.statements)
        known = {row["name"]: row["rows"] for row in await self._ask("estimated_rows", tables=tables)}
        for table in tables:
            if table not in known:
                [row] = await self._sessions.fetch("projector", f"SELECT count(*) AS n FROM {table}", [])
                known[table] = row["n"]
        return {table: known[table] for table in tables}

    async def _ask(self, statement: str, **values: Any) -> list[Mapping[str, Any]]:
        step = self._views.own[statement].steps[0]
        return await self._sessions.fetch("projector", step.sql, bind(step, values))

    async def _lock(self, held: Connection, view: str) -> bool:
        step = self._views.own["shadow_lock"].steps[0]
        return bool(await held.fetchval(step.sql, view))
