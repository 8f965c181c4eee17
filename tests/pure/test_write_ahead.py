"""Several processes may make one SQLite file at once: the switch to WAL is asked for again."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.sdk.write_ahead import write_ahead


class Told(sqlite3.Connection):
    """Says when it has been asked for something the second time: the first answer was no."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.asked = 0
        self.again = threading.Event()

    def execute(self, *given: Any) -> sqlite3.Cursor:
        self.asked += 1
        if self.asked == 2:
            self.again.set()
        return super().execute(*given)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Whoever is making the file just now."""
    connection = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    connection.execute("CREATE TABLE t (x)")
    connection.execute("BEGIN EXCLUSIVE")
    yield connection
    connection.close()


def opened(tmp_path: Path) -> Told:
    """Its busy timeout is 0: it answers at once, as SQLite does during the switch."""
    return sqlite3.connect(tmp_path / "store.db", timeout=0, check_same_thread=False, factory=Told)


def test_the_switch_is_asked_for_again_until_the_file_is_free(tmp_path: Path, holder: sqlite3.Connection) -> None:
    second = opened(tmp_path)
    switching = threading.Thread(target=lambda: write_ahead(second, seconds=30))
    switching.start()
    assert second.again.wait(30)
    holder.execute("COMMIT")
    switching.join(30)
    assert second.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    second.close()


def test_a_file_that_stays_locked_is_given_up(tmp_path: Path, holder: sqlite3.Connection) -> None:
    second = opened(tmp_path)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        write_ahead(second, seconds=0)
    second.close()
