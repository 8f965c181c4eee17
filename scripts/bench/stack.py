"""The measured engine in each of its deployments, as processes of their own on the bench's servers; and fresh databases
for them and for whatever else is measured.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import orjson

from contracts.problems import Unavailable
from scripts.bench.processes import ROOT, clean, end, tail
from scripts.bench.waiting import KILLED, LEASE_SECONDS
from scripts.bench.watch import SQL

PROCESSES: Final = (("intake", "worker", "relay", "timer", "janitor"), ("projector", "web"))
"""How the engine is deployed on PostgreSQL and RabbitMQ, as in compose.yaml: what owns runs apart from what shows them.
"""


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the production stack of the bench is. `postgres_url` names a database whose role may create others."""

    postgres_url: str
    rabbitmq_url: str


@dataclass(frozen=True, slots=True)
class Engine:
    """A measured engine that is ready: what the load generator must know of it."""

    bus_url: str
    store: str
    metrics_url: str
    pid: int
    shown_by: int | None = None
    """The process that writes the read models, where it is one of its own."""

    @property
    def pids(self) -> list[int]:
        return [pid for pid in (self.pid, self.shown_by) if pid is not None]


class Stack:
    """Where engines are started. Without servers only the embedded one can be."""

    def __init__(self, servers: Servers | None) -> None:
        self.servers = servers

    @contextmanager
    def production(self, *options: str, guarded: bool = True) -> Iterator[Engine]:
        """Both processes; the options are those of the one that owns runs (`scripts.bench.engine`)."""
        assert self.servers is not None
        with self.database() as url, tempfile.TemporaryDirectory(prefix="unwind-bench-") as folder:
            environment = {
                "UNWIND_DATA_DIR": folder,
                "UNWIND_DATABASE_URL": url,
                "UNWIND_BUS_URL": self.servers.rabbitmq_url,
            }
            owning, showing = ({**environment, "UNWIND_ROLES": ",".join(roles)} for roles in PROCESSES)
            # The first one makes the schema and the key file that the second one finds.
            alike = () if guarded else ("--unguarded",)
            with self.engine(owning, *options, *alike) as engine, self.engine(showing, *alike) as beside:
                yield replace(engine, shown_by=beside.pid)

    @contextmanager
    def module(self, engine: Engine) -> Iterator[None]:
        """Workload B's module with a database of its own."""
        with self.database() as url:
            process = subprocess.Popen(
                [sys.executable, "-m", "scripts.bench.module", engine.bus_url, url], cwd=ROOT, stdout=subprocess.PIPE
            )
            try:
                assert process.stdout is not None
                if not process.stdout.readline():
                    raise Unavailable("the measured module did not start")
                yield
            finally:
                end(process)

    @contextmanager
    def owners(self) -> Iterator[tuple[str, str, Callable[[str], AbstractContextManager[Engine]]]]:
        """A database and a way to start processes that own runs in it, under a name of theirs; and one that shows."""
        assert self.servers is not None
        with self.database() as url, tempfile.TemporaryDirectory(prefix="unwind-bench-") as folder:
            environment = {
                "UNWIND_DATA_DIR": folder,
                "UNWIND_DATABASE_URL": url,
                "UNWIND_BUS_URL": self.servers.rabbitmq_url,
                "UNWIND_LEASE__DEAD_SECONDS": str(LEASE_SECONDS),
            }

            def process(name: str) -> AbstractContextManager[Engine]:
                roles = {"UNWIND_ROLES": ",".join(PROCESSES[0]), "UNWIND_PROCESS_NAME": name}
                return self.engine({**environment, **roles}, killed=name == KILLED)

            yield url, self.servers.rabbitmq_url, process

    @contextmanager
    def engine(self, environment: dict[str, str], *options: str, killed: bool = False) -> Iterator[Engine]:
        """A process of the measured engine until the block ends; `killed`: the block itself ends it. Its log goes to a
        file that is shown when it fails.
        """
        given = clean(
            {
                "UNWIND_HTTP__PORT": "0",
                "UNWIND_HTTP__PROBE_PORT": "0",
                "UNWIND_MODULES": "none",
                "UNWIND_LOG__LEVEL": "warning",
                **environment,
            }
        )
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "scripts.bench.engine", *options],
                cwd=ROOT,
                env=given,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise Unavailable("the measured engine did not start")
                yield Engine(**orjson.loads(line), pid=process.pid)
                if process.poll() is not None and not killed:
                    raise Unavailable(f"the measured engine ended with {process.returncode}")
            except Unavailable as problem:
                log.seek(0)
                said = log.read()
                raise Unavailable(
                    f"{problem.detail}; the engine's log ends: {tail(said)}" if said else problem.detail
                ) from None
            finally:
                end(process)

    @contextmanager
    def database(self) -> Iterator[str]:
        """A fresh database with function statistics, dropped afterwards."""
        assert self.servers is not None
        name = f"unwind_bench_{uuid.uuid4().hex[:12]}"
        admin = self.servers.postgres_url
        asyncio.run(_execute(admin, SQL["create_database"].format(name=name), SQL["track_functions"].format(name=name)))
        try:
            yield urlunsplit(urlsplit(admin)._replace(path=f"/{name}"))
        finally:
            asyncio.run(_execute(admin, SQL["drop_database"].format(name=name)))


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
