"""Shadows of read models in the embedded store: tables of the same file. SQLite cannot rename an index, so an index may
bear its own name or the shadow's, whichever was free when its table was made. The lock is a file lock: it ends with the
process."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

from contracts.problems import Conflict
from engine.store.shadows import (
    DIFFERENCES,
    PREFIX,
    Comparison,
    Difference,
    checkpoint_of,
    renamed,
    shadowed,
    tables_of,
    views_of,
)
from engine.store.shapes import Change
from engine.store.statements import Statement

_INDEX: Final = re.compile(r"\bCREATE INDEX IF NOT EXISTS (\w+) ON")
_TRIGGER: Final = re.compile(r"\bCREATE TRIGGER\b")
SHORTENED: Final = 500
"""Rows that are deleted in one transaction."""


def create(cursor: sqlite3.Cursor, statements: Mapping[str, Statement], view: str) -> None:
    """What the view lacks of its tables, indexes and triggers."""
    for step in statements[f"{view}_create"].steps:
        index = _INDEX.search(step.sql)
        if index is None or not _exists(cursor, PREFIX + index[1]):
            cursor.execute(step.sql)


def _exists(cursor: sqlite3.Cursor, name: str) -> bool:
    return cursor.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is not None


class SqliteShadow:
    """See `engine.store.shadows.Shadow`."""

    def __init__(self, store: Any, view: str) -> None:
        self._store = store
        self._view = view
        self._name = checkpoint_of(view)
        self.tables = tables_of(view, store.view_statements)
        self._texts: dict[str, Statement] = {}
        self.switched = False

    def _text(self, name: str) -> Statement:
        if name not in self._texts:
            self._texts[name] = shadowed(self._store.view_statements[name], self.tables)
        return self._texts[name]

    async def checkpoint(self, view: str, lane: int) -> int:
        return int(await self._store.checkpoint(self._name, lane))

    async def apply(self, view: str, lane: int, *, expected: int, position: int, changes: Sequence[Change]) -> bool:
        texts = {change.statement: self._text(change.statement) for change in changes}
        done = await self._store.apply(
            checkpoint_of(view), lane, expected=expected, position=position, changes=changes, texts=texts
        )
        return bool(done)

    async def fetch(self, statement: str, *, tenant: str | None, **params: Any) -> list[dict[str, Any]]:
        return list(await self._store.rows(self._text(statement), tenant, params))

    async def make(self) -> None:
        await self.drop()

        def work(cursor: sqlite3.Cursor) -> None:
            for step in self._store.view_statements[f"{self._view}_create"].steps:
                if _TRIGGER.search(step.sql):
                    continue  # made when the shadow has become the view
                sql = renamed(step.sql, self.tables)
                index = _INDEX.search(sql)
                if index is not None and _exists(cursor, index[1]):
                    sql = sql.replace(index[1], PREFIX + index[1], 1)
                cursor.execute(sql)

        await self._store.write(work)

    async def drop(self) -> None:
        for table in self.tables:
            for name in (f"{PREFIX}{table}", f"{PREFIX}old_{table}"):
                while await self._store.write(lambda cursor, name=name: _shorten(cursor, name)):
                    pass
        await self._store.write(self._drop)

    def _drop(self, cursor: sqlite3.Cursor) -> None:
        for table in self.tables:
            cursor.execute(f"DROP TABLE IF EXISTS {PREFIX}{table}")
            cursor.execute(f"DROP TABLE IF EXISTS {PREFIX}old_{table}")
        self._store.execute(cursor, "drop_checkpoints", {"view": self._name})

    async def compare(self) -> Comparison | None:
        digest = f"{self._view}_digest"

        def look(connection: sqlite3.Connection) -> Comparison | None:
            living_at, built_at = self._positions(connection.cursor())
            if living_at != built_at:
                return None
            living, built = [
                [dict(row) for row in connection.execute(text.steps[0].sql)]
                for text in (self._store.view_statements[digest], self._text(digest))
            ]
            differ = []
            if living != built:
                differ = [found for table in self.tables for found in _differences(connection, table)]
            return Comparison(built_at, living, built, differ)

        found: Comparison | None = await self._store.readers.at_one_moment(look)
        return found

    def _positions(self, cursor: sqlite3.Cursor) -> tuple[dict[int, int], dict[int, int]]:
        """Of the living view and of its shadow, by lane."""
        at: dict[str, dict[int, int]] = {self._view: {}, self._name: {}}
        for row in self._store.execute(cursor, "checkpoints_of", {"view": self._view, "shadow": self._name}):
            at[row["view"]][row["lane"]] = row["position"]
        return at[self._view], at[self._name]

    async def switch(self) -> bool:
        def work(cursor: sqlite3.Cursor) -> bool:
            living, built = self._positions(cursor)
            if any(position > built.get(lane, 0) for lane, position in living.items()):
                return False
            for table in self.tables:
                # Triggers go with names that are renamed: they are made anew. Dropping a large table takes long, and is
                # left for later.
                for row in cursor.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", (table,)
                ).fetchall():
                    cursor.execute(f"DROP TRIGGER {row['name']}")
            for table in self.tables:
                cursor.execute(f"ALTER TABLE {table} RENAME TO {PREFIX}old_{table}")
                cursor.execute(f"ALTER TABLE {PREFIX}{table} RENAME TO {table}")
            create(cursor, self._store.view_statements, self._view)
            self._store.execute(cursor, "drop_checkpoints", {"view": self._view})
            self._store.execute(cursor, "rename_checkpoints", {"view": self._view, "shadow": self._name})
            return True

        self.switched = bool(await self._store.write(work))
        return self.switched


def _shorten(cursor: sqlite3.Cursor, table: str) -> bool:
    """Deletes some rows; whether there may be more. A large table that is dropped at once is in memory as a whole until
    the transaction ends, and everyone who writes waits for it.
    """
    keys = _keys(list(cursor.execute(f"SELECT name, pk FROM pragma_table_info('{table}')")))
    if not keys:
        return False
    key = ", ".join(keys)
    cursor.execute(f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} ORDER BY {key} LIMIT {SHORTENED})")
    return cursor.rowcount == SHORTENED


def _keys(columns: Sequence[Any]) -> list[str]:
    """The primary key of a table, by rows of its `pragma_table_info`."""
    return [row["name"] for row in sorted(columns, key=lambda row: row["pk"]) if row["pk"]]


def _differences(connection: sqlite3.Connection, table: str) -> Iterator[Difference]:
    columns = list(connection.execute(f"SELECT name, pk FROM pragma_table_info('{table}')"))
    keys = _keys(columns)
    if not keys:
        return
    same = " AND ".join(f"other.{key} = one.{key}" for key in keys)
    unlike = " OR ".join(f"other.{row['name']} IS NOT one.{row['name']}" for row in columns)
    shown = ", ".join(f"one.{key} AS {key}" for key in keys)
    for row in connection.execute(
        f"SELECT {shown} FROM {table} AS one LEFT JOIN {PREFIX}{table} AS other ON {same} WHERE {unlike} "
        f"UNION ALL SELECT {shown} FROM {PREFIX}{table} AS one LEFT JOIN {table} AS other ON {same} "
        f"WHERE other.{keys[0]} IS NULL ORDER BY {', '.join(keys)} LIMIT {DIFFERENCES}"
    ):
        yield Difference(table, {key: row[key].hex() if isinstance(row[key], bytes) else row[key] for key in keys})


class SqliteShadows:
    """Makes them, for `engine.store.sqlite.SqliteStore`."""

    def __init__(self, store: Any, path: Path) -> None:
        self._store = store
        self._path = path

    @asynccontextmanager
    async def shadow(self, view: str) -> AsyncIterator[SqliteShadow]:
        with self._lock(view) as held:
            if not held:
                raise Conflict(f"view {view} is being rebuilt or verified already; wait until that is done", view=view)
            shadow = SqliteShadow(self._store, view)
            await shadow.make()
            try:
                yield shadow
            finally:
                await shadow.drop()

    async def drop_shadows(self) -> list[str]:
        found = await self._store.readers.fetch(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, ?) = ?", (len(PREFIX), PREFIX)
        )
        left = {row["name"].removeprefix(PREFIX).removeprefix("old_") for row in found}
        dropped = []
        for view in views_of(self._store.view_statements) if left else ():
            if left & set(tables_of(view, self._store.view_statements)):
                with self._lock(view) as held:
                    if held:
                        await SqliteShadow(self._store, view).drop()
                        dropped.append(view)
        return dropped

    async def view_rows(self, view: str) -> dict[str, int]:
        counted = {}
        for table in tables_of(view, self._store.view_statements):
            [row] = await self._store.readers.fetch(f"SELECT count(*) AS n FROM {table}", ())
            counted[table] = row["n"]
        return counted

    @contextmanager
    def _lock(self, view: str) -> Iterator[bool]:
        beside = self._path.with_name(f"{self._path.name}-rebuild-{view}")
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)  # and with it the lock; the file stays, or two processes could each lock their own
