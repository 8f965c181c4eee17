"""The `ReadModels` port on PostgreSQL: projections write as the projector's role, everyone reads as the web's role
under row-level security, or as the operator's over all tenants. The statements are the projections' own; this file
knows none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from engine.store import Change, Shadow
from engine.store.postgres_sessions import Connection, Sessions
from engine.store.postgres_shadows import PostgresShadows
from engine.store.statements import Statement, bind


class PostgresViews:
    """See `engine.store.ReadModels`; docstrings are there.

    A statement `<view>_create` makes the view's tables, idempotently, at each migration. A write statement takes the
    rows of a `Change` as columns (`unnest`), so that a batch is one execution.
    """

    def __init__(self, sessions: Sessions, own: Mapping[str, Statement], views: Mapping[str, Statement]) -> None:
        self._sessions = sessions
        self.own = own
        self.statements = views
        self._shadows = PostgresShadows(self, sessions)

    async def create_views(self, connection: Connection) -> None:
        """Makes every view's tables in schema `views`, and puts them behind row-level security."""
        await connection.execute(self.own["make_in"].steps[0].sql, "views")
        for name in sorted(self.statements):
            if name.endswith("_create"):
                for step in self.statements[name].steps:
                    await connection.execute(step.sql)
        await connection.execute(self.own["guard_views"].steps[0].sql)

    async def checkpoint(self, view: str, lane: int) -> int:
        step = self.own["checkpoint"].steps[0]
        found = await self._sessions.fetch("projector", step.sql, bind(step, {"view": view, "lane": lane}))
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
        statements = self.statements if texts is None else texts
        move = self.own["move_checkpoint"].steps[0]
        values = bind(move, {"view": view, "lane": lane, "expected": expected, "position": position})

        async def work(connection: Connection) -> bool:
            if await connection.fetchval(move.sql, *values) is None:
                return False
            for change in changes:
                sql = statements[change.statement].steps[0].sql
                if "unnest(" in sql:
                    # One statement for all rows: they travel as one array per column.
                    await connection.execute(sql, *(list(column) for column in zip(*change.rows, strict=True)))
                else:
                    await connection.executemany(sql, change.rows)
            return True

        return await self._sessions.within("projector", work)

    async def fetch(self, statement: str, *, tenant: str | None, **params: Any) -> list[dict[str, Any]]:
        return await self.rows(self.statements[statement], tenant, params)

    async def rows(self, text: Statement, tenant: str | None, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """`fetch` of this statement."""
        step = text.steps[0]
        values = bind(step, {**params, "tenant": tenant})

        async def work(connection: Connection) -> list[dict[str, Any]]:
            if tenant is None and self._sessions.roles:
                await self._sessions.take_role(connection, "operator", here=True)
            else:
                await self._sessions.see_tenant(connection, tenant if tenant is not None else "*", here=True)
            return [dict(row) for row in await connection.fetch(step.sql, *values)]

        return await self._sessions.within("web", work, readonly=True)

    async def reset(self, view: str) -> None:
        drop = self.own["drop_checkpoints"].steps[0]

        async def work(connection: Connection) -> None:
            for step in self.statements[f"{view}_reset"].steps:
                await connection.execute(step.sql)
            await connection.execute(drop.sql, *bind(drop, {"view": view}))

        await self._sessions.within("projector", work)

    def shadow(self, view: str) -> AbstractAsyncContextManager[Shadow]:
        return self._shadows.shadow(view)

    async def drop_shadows(self) -> list[str]:
        return await self._shadows.drop_shadows()

    async def view_rows(self, view: str) -> dict[str, int]:
        return await self._shadows.view_rows(view)
