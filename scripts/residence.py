"""Who lives in a data folder: `unwind up` holds a file lock there and writes down where it listens, so that every
other verb can find it. It never talks to the engine itself (`scripts.reach` does)."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from contracts.problems import Conflict

LOCK: Final = "up.lock"
ADDRESS: Final = "up.json"


@dataclass(frozen=True, slots=True)
class Resident:
    """The process that holds the folder. `url` is None while it is still starting."""

    pid: int
    url: str | None


@contextmanager
def residence(folder: Path) -> Iterator[Residence]:
    """Holds the folder for as long as the block runs. Raises `Conflict` when another process holds it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = _read(folder)
            where = f" at {other.url}" if other and other.url else ""
            raise Conflict(
                f"{folder} is in use by another `unwind up`{where}; stop it, or set UNWIND_DATA_DIR to another folder",
                field="data_dir",
            ) from None
        home = Residence(folder)
        home.announce(None)
        try:
            yield home
        finally:
            (folder / ADDRESS).unlink(missing_ok=True)
    finally:
        os.close(descriptor)  # and with it the lock; the file stays, or two processes could each lock their own


class Residence:
    """A folder that this process holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def announce(self, url: str | None) -> None:
        """Writes where this process listens, in one move."""
        beside = self.folder / f".{ADDRESS}.{os.getpid()}"
        beside.write_text(json.dumps({"pid": os.getpid(), "url": url}))
        beside.replace(self.folder / ADDRESS)


def resident(folder: Path) -> Resident | None:
    """Who holds the folder; None when nobody does, whatever a process that was killed left behind."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(folder) or Resident(0, None)
    finally:
        os.close(descriptor)
    return None


def _read(folder: Path) -> Resident | None:
    try:
        document = json.loads((folder / ADDRESS).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return Resident(int(document["pid"]), document["url"])
