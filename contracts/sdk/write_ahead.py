"""SQLite's write-ahead mode, also where several processes make one file at once. Called by whoever opens a file that
others may be making: the embedded bus, a module's database, the embedded store.
"""

from __future__ import annotations

import sqlite3
import time

_PAUSE_SECONDS = 0.01


def write_ahead(connection: sqlite3.Connection, *, seconds: float) -> None:
    """Switches the file to WAL. While another connection does the same, SQLite answers that it is locked at once,
    without the busy timeout (https://www.sqlite.org/c3ref/busy_handler.html: a deadlock would follow), so it is asked
    again for so many seconds; then its error is raised.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_SECONDS)
