"""A small disk: a folder on a file system of its own, of so many megabytes and in memory, that can be filled and freed.
Needs the right to mount, which root has outside most containers. Unmounted with the instance whose folder it is in.
"""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from scripts.provision.places import Account, unmount_below

BALLAST: Final = "ballast"
MEGABYTE: Final = 1_048_576


@cache
def missing() -> str:
    """Why no small disk can be had here; empty when one can."""
    with tempfile.TemporaryDirectory(prefix="unwind-disk-") as folder:
        try:
            _mount(Path(folder), 1, "")
        except OSError as why:
            return str(why)
        unmount_below(Path(folder))
    return ""


class SmallDisk:
    """Mounted over `folder`, which must be empty, and owned by the account."""

    def __init__(self, folder: Path, megabytes: int, account: Account) -> None:
        """Raises `OSError` where mounting is not permitted."""
        self.folder, self.megabytes = folder, megabytes
        owner = "" if account.uid is None else f",uid={account.uid},gid={account.gid}"
        _mount(folder, megabytes, owner)

    def fill(self) -> None:
        """Nothing more can be written, until `free`."""
        with (self.folder / BALLAST).open("wb", buffering=0) as ballast:
            piece = bytes(MEGABYTE)
            while piece:
                try:
                    ballast.write(piece)
                except OSError:
                    piece = piece[: len(piece) // 2]

    def free(self) -> None:
        (self.folder / BALLAST).unlink(missing_ok=True)


def _mount(folder: Path, megabytes: int, owner: str) -> None:
    argv = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700{owner}", "unwind", str(folder)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"a file system of limited size needs the right to mount: {done.stderr.strip()}")
