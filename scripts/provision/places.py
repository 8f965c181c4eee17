"""Where throw-away servers live and as whom they run: the cache folder, the unprivileged account, free ports,
instance folders and the sweep of what a killed run left behind. Knows nothing of PostgreSQL or RabbitMQ. Called by
the other modules here."""

from __future__ import annotations

import fcntl
import os
import pwd
import secrets
import shutil
import signal
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.provision.mounts import unmount_below


@dataclass(frozen=True, slots=True)
class Account:
    """The user a server runs as; None ids mean the caller itself."""

    uid: int | None
    gid: int | None

    def own(self, path: Path) -> None:
        """Hand a file or folder to the account."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def account() -> Account:
    """PostgreSQL refuses to run as root, and nothing here needs it: root hands over to nobody."""
    if os.geteuid() != 0:
        return Account(None, None)
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def cache_folder() -> Path:
    """/var/cache/unwind as root, ~/.cache/unwind otherwise; UNWIND_CACHE names another."""
    named = os.environ.get("UNWIND_CACHE")
    if named:
        wanted = [Path(named)]
    elif os.geteuid() == 0:
        wanted = [Path("/var/cache/unwind")]
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        wanted = [Path(base) / "unwind", Path(tempfile.gettempdir()) / f"unwind-cache-{os.geteuid()}"]
    for folder in wanted:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            if folder.stat().st_uid == os.geteuid() and os.access(folder, os.W_OK):
                return folder.resolve()
    raise OSError(f"no writable cache among {', '.join(map(str, wanted))}; name a folder of your own in UNWIND_CACHE")


_handed_out: set[int] = set()


def free_port() -> int:
    """A TCP port of the loopback that nobody listens on now; never the same one twice in this process. It lies below
    the range from which the kernel serves port 0 and outgoing connections, so nobody gets it by chance before we use
    it."""
    try:
        ceiling = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        ceiling = 32768
    low, high = (15000, ceiling) if ceiling > 20000 else (33000, 60999)
    for _ in range(1000):
        port = low + secrets.randbelow(high - low)
        if port in _handed_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _handed_out.add(port)
        return port
    raise OSError(f"no free port between {low} and {high} on 127.0.0.1")


def started_at(pid: int) -> str | None:
    """The kernel's start time of a process, so that a recycled pid is never taken for an old one. None: gone, or a
    zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def descendants(pid: int) -> list[int]:
    """The processes below one, nearest first. PostgreSQL's children have process groups of their own."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            below.setdefault(int(fields[1]), []).append(int(entry.name))
    found = list(below.get(pid, ()))
    for child in found:
        found += below.get(child, ())
    return found


def kill_tree(pid: int) -> None:
    """kill -9 of a process group and everything below it; returns when all of them are gone."""
    doomed = {each: started_at(each) for each in (pid, *descendants(pid))}
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for each, began in doomed.items():
        if began is not None and started_at(each) == began:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(each, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(began is not None and started_at(each) == began for each, began in doomed.items()):
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)


def remove_folder(folder: Path) -> None:
    """Remove an instance folder, its lock last: a folder with a lock is found by the next sweep if this one fails."""
    unmount_below(folder)
    for entry in folder.iterdir():
        if entry.name != "lock":
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
    if [entry.name for entry in folder.iterdir()] == ["lock"]:
        shutil.rmtree(folder, ignore_errors=True)


class Instance:
    """One folder of one run: data, logs and the pids of its servers. Its lock is held for as long as the owner
    lives."""

    def __init__(self) -> None:
        instances = cache_folder() / "instances"
        instances.mkdir(mode=0o755, exist_ok=True)
        sweep(instances)
        self.folder = instances / f"{os.getpid()}-{secrets.token_hex(4)}"
        self.folder.mkdir(mode=0o755)
        self.account = account()
        self._lock = (self.folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.folder / "pids").mkdir()

    def room(self, name: str) -> Path:
        """A folder inside that the account may write."""
        room = self.folder / name
        room.mkdir(mode=0o700)
        self.account.own(room)
        return room

    def remember(self, pid: int) -> None:
        """Note a started process group for the sweep."""
        (self.folder / "pids" / str(pid)).write_text(started_at(pid) or "")

    def forget(self, pid: int) -> None:
        """The process group has ended."""
        (self.folder / "pids" / str(pid)).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder; its servers must have been stopped."""
        remove_folder(self.folder)
        self._lock.close()


def sweep(instances: Path) -> None:
    """End the processes and remove the folders of runs whose owner is gone."""
    if not instances.is_dir():
        return
    for folder in instances.iterdir():
        try:
            lock = (folder / "lock").open("r+")
        except OSError:
            continue
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            for note in (folder / "pids").glob("*"):
                began = note.read_text()
                if began and started_at(int(note.name)) == began:
                    kill_tree(int(note.name))
            remove_folder(folder)
