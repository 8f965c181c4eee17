"""File systems in memory, mounted and unmounted by the kernel's own calls: `mount` is another program, and what another
program is given to run has no rights in the name spaces of an ordinary user. Linux only. Called by disk.py and
places.py.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

SOURCE: Final = "unwind"
"""By this name our mounts are known among all others."""

_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWUSER: Final = 0x10000000
_MNT_DETACH: Final = 2
_NO_DEVICES: Final = 2 | 4  # MS_NOSUID | MS_NODEV


def mount(folder: Path, options: str) -> None:
    """A tmpfs over the folder. Raises `OSError` where that is not permitted."""
    _call("mount", SOURCE.encode(), os.fsencode(folder), b"tmpfs", ctypes.c_ulong(_NO_DEVICES), options.encode())


def unmount_below(folder: Path) -> None:
    """Unmount every mount of ours at or below a folder; what may not be unmounted stays."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, place, *_ = (field.replace("\\040", " ") for field in line.split(" "))
        if source == SOURCE and Path(place).is_relative_to(folder):
            with suppress(OSError):
                _call("umount2", os.fsencode(place), _MNT_DETACH)


@cache
def refusal() -> str:
    """Why this user may not mount in name spaces of his own; empty when he may. Tried by another process, since there
    is no way back out of them.
    """
    with tempfile.TemporaryDirectory(prefix="unwind-disk-") as folder:
        argv = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", SOURCE, folder]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        except OSError as why:
            return str(why)
    return done.stderr.strip() if done.returncode != 0 else ""


def enter_own_name_spaces() -> None:
    """This process keeps its user and group and may mount from now on; its mounts are seen by itself and by what it
    starts, and go with the last of them. Raises `OSError` where that is refused, or when there are threads already.
    """
    user, group = os.geteuid(), os.getegid()
    _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", name).write_text(text)


def _call(name: str, *arguments: object) -> None:
    """A function of the C library that answers 0 or sets errno."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
