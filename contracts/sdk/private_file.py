"""Database files that hold other people's data: readable by their owner alone, from their first byte. Called before a
database library opens, and so would make, the file.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def private_file(path: Path) -> Path:
    """Makes the file, mode 0600, unless it is there. What a database puts beside it takes its mode. A file that cannot
    be made is left to the library, which says so in its own words.

    One that is there is not even opened: to close it would end all locks that this process holds on it, by whatever
    connection (POSIX; https://sqlite.org/howtocorrupt.html, 2.2), and the next process to leave would take the
    write-ahead log away from under those that are open here.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return path
