"""How another process on this machine is known: by its id and when it started, as the kernel tells.

Not a lease: it only lets the embedded bus see at once that a process is gone, where its lease would take seconds to
run out. Where the kernel does not tell, the lease decides alone.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def host() -> str:
    """What makes process ids comparable: this machine and this namespace of processes."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}/{namespace}"


def process_start(pid: int) -> str | None:
    """When a process started, in the kernel's ticks, so that a reused pid is told apart. None: no such process; empty:
    it cannot be told here."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else ""
    except OSError:
        return ""
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()
