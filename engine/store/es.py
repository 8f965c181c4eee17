"""What the store uses of the `eventsourcing` library: its SQLite recorder, subclassed. The log, its versions and its
tracking are the library's own code on our tables; our statements come from `sql/sqlite`. Only this module and the
mapper import the library."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from eventsourcing.persistence import IntegrityError, OperationalError, PersistenceError, StoredEvent
from eventsourcing.sqlite import (
    SQLiteConnection,
    SQLiteConnectionPool,
    SQLiteCursor,
    SQLiteDatastore,
    SQLiteProcessRecorder,
)

from contracts.sdk.private_file import private_file
from contracts.sdk.write_ahead import write_ahead
from engine.store.statements import Statement

__all__ = ["EventRow", "IntegrityError", "LogRecorder", "OperationalError", "PersistenceError", "open_recorder"]

EventRow = tuple[int, str, str, str, int, str, bytes, int, int]
"""As `insert_events` binds it: ordinal, tenant, stream, kind, version, topic, body, lane, recorded at."""


class _Pool(SQLiteConnectionPool):
    """One writing connection, to a file of its owner's alone, that syncs every commit to the disk."""

    def _create_connection(self) -> SQLiteConnection:
        # The library's own switch to WAL gives up at once while another process makes the same file.
        with closing(sqlite3.connect(private_file(Path(self.db_name.removeprefix("file:"))))) as first:
            write_ahead(first, seconds=self.lock_timeout or 0)
        connection = super()._create_connection()
        cursor = connection.cursor()
        for pragma in ("synchronous = FULL", "wal_autocheckpoint = 4000", "cache_size = -32000", "temp_store = MEMORY"):
            cursor.execute(f"PRAGMA {pragma}")
        return connection


class _Datastore(SQLiteDatastore):
    def __init__(self, path: Path, lock_timeout_seconds: int) -> None:
        super().__init__(f"file:{path}", lock_timeout=lock_timeout_seconds, pool_size=1, max_overflow=0)
        self.pool.close()
        self.pool = _Pool(db_name=f"file:{path}", lock_timeout=lock_timeout_seconds, pool_size=1, max_overflow=0)


class LogRecorder(SQLiteProcessRecorder):
    """The library's recorder on our `log` and `checkpoints`. Migrations make the tables, so it creates none."""

    def __init__(self, datastore: SQLiteDatastore, statements: Mapping[str, Statement]) -> None:
        super().__init__(datastore, events_table_name="log")
        self.insert_events_statement = _text(statements, "insert_events")
        self.select_events_statement = _text(statements, "select_events") + " "
        self.insert_tracking_statement = _text(statements, "insert_tracking")
        self.select_max_tracking_id_statement = _text(statements, "select_max_tracking_id")
        self.last_position_statement = _text(statements, "last_position")
        self.table_migration_identifier = ""

    def construct_create_table_statements(self) -> list[str]:
        return []

    def _insert_events(
        self, c: SQLiteCursor, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """The library's verb: rows of no tenant in particular, then the tracking."""
        tracking = kwargs.get("tracking")
        rows: list[EventRow] = [
            (0, "", _hex(e.originator_id), "run", e.originator_version, e.topic, e.state, 0, 0) for e in stored_events
        ]
        first = self.insert_rows(c.sqlite_cursor, rows)
        if tracking is not None:
            self._insert_tracking(c, tracking)
        return list(range(first, first + len(rows)))

    def insert_rows(self, cursor: sqlite3.Cursor, rows: Sequence[EventRow]) -> int:
        """Writes events and answers the first one's position; the others follow it without a gap."""
        if not rows:
            return 0
        last = cursor.execute(self.last_position_statement).fetchone()
        cursor.executemany(self.insert_events_statement, rows)
        return int(last[0]) + 1 if last is not None else 1

    def move_tracking(self, cursor: sqlite3.Cursor, name: str, position: int) -> bool:
        """False when the name has that position already, or a later one."""
        cursor.execute(self.insert_tracking_statement, {"application_name": name, "notification_id": position})
        return cursor.fetchone() is not None

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Cursor]:
        """One transaction on the writing connection, committed at the end. It takes the write lock at once, so that a
        second process cannot make it read an old state and fail at its first write.
        """
        with self.datastore.get_connection(commit=True) as connection:
            cursor = connection.cursor().sqlite_cursor
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
            except BaseException:
                connection.rollback()
                raise
            try:
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

    def close(self) -> None:
        self.datastore.close()


def open_recorder(path: Path, statements: Mapping[str, Statement], *, lock_timeout_seconds: int) -> LogRecorder:
    """A recorder on that file, in WAL mode with every commit synced."""
    return LogRecorder(_Datastore(path, lock_timeout_seconds), statements)


def _text(statements: Mapping[str, Statement], name: str) -> str:
    return statements[name].steps[0].sql


def _hex(stream: UUID | str) -> str:
    return stream.hex if isinstance(stream, UUID) else stream
