"""A small disk: a folder on a file system of its own, of so many megabytes and in memory, that can be filled and freed.
Needs the right to mount, which root has outside most containers, and an ordinary user in name spaces of his own where
the kernel lets him. Unmounted with the instance whose folder it is in.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from scripts.provision.mounts import enter_own_name_spaces, mount, refusal, unmount_below
from scripts.provision.places import Account

BALLAST: Final = "ballast"
MEGABYTE: Final = 1_048_576
DECIDING: Final = ("user.max_user_namespaces", "kernel.apparmor_restrict_unprivileged_userns")
"""The kernel's settings by which an ordinary user may have name spaces of his own."""


def prepare() -> None:
    """Gives an ordinary user's process the right to mount where the kernel lets it, and is to be called before there
    are threads; without it an ordinary user has no small disk. Once is enough, twice does no harm.
    """
    if os.geteuid() != 0 and _refused() and not refusal():
        enter_own_name_spaces()


@cache
def missing() -> str:
    """Why no small disk can be had here; empty when one can."""
    why = _refused()
    if why and os.geteuid() != 0:
        why = f"{why}; nor in name spaces of its own ({refusal() or 'not prepared'}), see {' and '.join(DECIDING)}"
    return why and f"a file system of limited size needs the right to mount: {why}"


def _refused() -> str:
    """Why this process may not mount; empty when it may."""
    with tempfile.TemporaryDirectory(prefix="unwind-disk-") as folder:
        try:
            mount(Path(folder), "size=1m")
        except OSError as why:
            return str(why.strerror)
        unmount_below(Path(folder))
    return ""


class SmallDisk:
    """Mounted over `folder`, which must be empty, and owned by the account."""

    def __init__(self, folder: Path, megabytes: int, account: Account) -> None:
        """Raises `OSError` where mounting is not permitted."""
        self.folder, self.megabytes = folder, megabytes
        owner = "" if account.uid is None else f",uid={account.uid},gid={account.gid}"
        mount(folder, f"size={megabytes}m,mode=0700{owner}")

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
