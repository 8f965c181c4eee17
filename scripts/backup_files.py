"""Copies of the SQLite files of a data folder, all as they were at one instant, and putting them back."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from contracts.problems import Conflict, NotFound, Unavailable

LOCK_SECONDS: Final = 30.0
FILES: Final = ("unwind.db", "bus.db", "modules/*.sqlite")
"""The store, the bus, and each shipped module's own."""


def copy_all(source: Path, target: Path) -> list[str]:
    """While nobody may write to any of the files, for milliseconds, a reader is opened on each; the copies are what
    these readers see. So no message is in neither the store nor the bus. Raises `Unavailable` when a writer does not
    let go, `NotFound` when there is no store."""
    files = [file for pattern in FILES for file in sorted(source.glob(pattern))]
    if not (source / "unwind.db").exists():
        raise NotFound(f"{source} holds no unwind.db; set UNWIND_DATA_DIR", field="data_dir")
    with ExitStack() as readers:
        open_readers: list[tuple[Path, sqlite3.Connection]] = []
        with ExitStack() as writers:
            for file in files:
                writer = writers.enter_context(closing(_open(file)))
                try:
                    writer.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    raise Unavailable(f"{file} could not be locked ({error}); try again") from error
            for file in files:
                reader = readers.enter_context(closing(_open(file)))
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
                open_readers.append((file, reader))
        for file, reader in open_readers:
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with closing(sqlite3.connect(copy)) as written:
                reader.backup(written)
            copy.chmod(0o600)
    return [str(file.relative_to(source)) for file in files]


def put_all(folder: Path, files: list[str], target: Path) -> None:
    """Raises `Conflict` when the target holds a store already."""
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    there = [name for name in files if (target / name).exists()]
    if there:
        raise Conflict(f"{target} already holds {', '.join(there)}; restore into another folder", field="data_dir")
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.copyfile(folder / name, target / name)
        (target / name).chmod(0o600)


def _open(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, timeout=LOCK_SECONDS, isolation_level=None)
