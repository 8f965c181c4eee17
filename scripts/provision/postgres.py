"""A private PostgreSQL: its own data folder, port and superuser, never as root, answering on the loopback only.
Used by the test suites and by fault tests, which may stop, kill and start it again on the same port. Not for data
anyone wants to keep."""

from __future__ import annotations

import secrets
import signal
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.provision.disk import SmallDisk
from scripts.provision.places import Instance, free_port
from scripts.provision.processes import ServerProcess, run_as

_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
shared_buffers = 128MB
max_wal_size = 1GB
jit = off
log_min_messages = warning
log_checkpoints = off
log_line_prefix = '%m [%p] %d '
lc_messages = 'C'
timezone = 'GMT'
"""
_NOT_DURABLE = "fsync = off\nfull_page_writes = off\n"


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """Where the binaries are, and what their dynamic linker needs."""

    bin: Path
    env: Mapping[str, str] = field(default_factory=dict)
    origin: str = "installed"


class PostgresServer:
    """One server. `durable=False` leaves out fsync: safe against a killed process, not against a power cut. With
    `disk_megabytes` its data lies on a small disk, `disk`."""

    def __init__(
        self,
        programs: PostgresPrograms,
        instance: Instance,
        *,
        durable: bool = False,
        disk_megabytes: int | None = None,
    ) -> None:
        self._programs = programs
        self._instance = instance
        self._durable = durable
        self._password = secrets.token_hex(12)
        self._room = instance.room(f"postgres-{secrets.token_hex(3)}")
        self.disk = None if disk_megabytes is None else SmallDisk(self._room, disk_megabytes, instance.account)
        self._process = ServerProcess(instance, "PostgreSQL", instance.folder / f"{self._room.name}.log")
        self._env = {"PATH": f"{programs.bin}:/usr/bin:/bin", "HOME": str(self._room), "LC_ALL": "C", **programs.env}
        self.port = free_port()
        self._initdb()

    @property
    def url(self) -> str:
        return f"postgresql://unwind:{self._password}@127.0.0.1:{self.port}/postgres"

    @property
    def origin(self) -> str:
        return self._programs.origin

    @property
    def running(self) -> bool:
        return self._process.alive

    def _initdb(self) -> None:
        secret = self._room / "password"
        secret.write_text(self._password)
        secret.chmod(0o600)
        self._instance.account.own(secret)
        data = self._room / "data"
        argv = [str(self._programs.bin / "initdb"), "-D", str(data), "-U", "unwind", "-A", "password", "--pwfile",
                str(secret), "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]  # fmt: skip
        run_as(self._instance.account, argv, self._env)
        secret.unlink()
        with (data / "postgresql.conf").open("a") as conf:
            conf.write(_SETTINGS + ("" if self._durable else _NOT_DURABLE))
            if self.disk is not None:
                conf.write(f"max_wal_size = {self.disk.megabytes // 4}MB\n")

    def start(self) -> None:
        """Start, and return when it accepts a connection."""
        argv = [str(self._programs.bin / "postgres"), "-D", str(self._room / "data"), "-p", str(self.port)]
        self._process.start(argv, self._env)
        self._process.await_ready(lambda: startup_reply(self.port) == b"R", within=60)

    def stop(self) -> None:
        """Fast shutdown: sessions end, everything is written."""
        self._process.end(signal.SIGINT)

    def discard(self) -> None:
        """End it at once; its data is about to be removed."""
        self._process.end(signal.SIGQUIT, within=5)

    def kill(self) -> None:
        """kill -9 of the server and its children; the next start recovers from the log."""
        self._process.kill()


def startup_reply(port: int) -> bytes:
    """The first byte a server answers to a start-up packet: R asks for a password, E refuses (it still recovers),
    empty is silence."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as link:
            body = struct.pack("!i", 196608) + b"user\0unwind\0database\0postgres\0\0"
            link.sendall(struct.pack("!i", len(body) + 4) + body)
            return link.recv(1)
    except OSError:
        return b""
