"""Throw-away PostgreSQL and RabbitMQ for tests: private instances on free ports, gone when their block ends.
`servers()` gives a pair, `PostgresServer` and `RabbitmqServer` behind it can be stopped, killed and started by
fault tests. Standard library only, so that it also runs before anything is installed. Called by scripts/test,
tests/conftest.py and by people (python -m scripts.provision)."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol

from scripts.provision import sources
from scripts.provision.cluster import RabbitmqCluster
from scripts.provision.compose import ComposePostgres, ComposeProject, ComposeRabbitmq
from scripts.provision.disk import SmallDisk
from scripts.provision.given import GivenPostgres, GivenRabbitmq
from scripts.provision.places import Instance
from scripts.provision.postgres import PostgresServer
from scripts.provision.processes import ServerFailed
from scripts.provision.rabbitmq import RabbitmqServer
from scripts.provision.sources import NoServers

__all__ = [
    "NoServers",
    "Postgres",
    "PostgresServer",
    "Rabbitmq",
    "RabbitmqServer",
    "ServerFailed",
    "Servers",
    "servers",
]


class Server(Protocol):
    """What a fault test may do to a server."""

    @property
    def url(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def running(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def discard(self) -> None: ...


class Postgres(Server, Protocol):
    """A PostgreSQL; `url` is a superuser's."""


class Rabbitmq(Server, Protocol):
    """A RabbitMQ; `url` is an administrator's, on the default virtual host."""

    @property
    def management_url(self) -> str: ...
    def rabbitmqctl(self, *arguments: str, timeout: float = 60) -> str: ...


class Servers:
    """A pair of servers, or one of them, for the time of a `with` or `async with` block."""

    def __init__(
        self,
        *,
        postgres: bool,
        rabbitmq: bool,
        durable: bool,
        given: bool,
        disk_megabytes: int | None = None,
        clustered: bool = False,
    ) -> None:
        """With `disk_megabytes` PostgreSQL's data lies on a small disk, `disk`; `clustered` makes RabbitMQ three nodes,
        `cluster`."""
        self.disk: SmallDisk | None = None
        self.cluster: RabbitmqCluster | None = None
        self._clustered = clustered
        self._disk_megabytes = disk_megabytes
        self._want_postgres, self._want_rabbitmq = postgres, rabbitmq
        self._durable, self._given = durable, given
        self._cleanup = ExitStack()
        self._instance: Instance | None = None
        self._project: ComposeProject | None = None
        self._postgres: Postgres | None = None
        self._rabbitmq: Rabbitmq | None = None

    @property
    def postgres(self) -> Postgres:
        if self._postgres is None:
            raise RuntimeError("this block asked for no PostgreSQL: servers(postgres=True)")
        return self._postgres

    @property
    def rabbitmq(self) -> Rabbitmq:
        if self._rabbitmq is None:
            raise RuntimeError("this block asked for no RabbitMQ: servers(rabbitmq=True)")
        return self._rabbitmq

    @property
    def postgres_url(self) -> str:
        return self.postgres.url

    @property
    def rabbitmq_url(self) -> str:
        return self.rabbitmq.url

    def rabbitmqctl(self, *arguments: str, timeout: float = 60) -> str:
        """Run rabbitmqctl against the broker and return what it printed."""
        return self.rabbitmq.rabbitmqctl(*arguments, timeout=timeout)

    def environment(self) -> dict[str, str]:
        """The variables by which tests/conftest.py and people find the servers."""
        found = {}
        if self._postgres is not None:
            found["UNWIND_TEST_POSTGRES_URL"] = self._postgres.url
        if self._rabbitmq is not None:
            found["UNWIND_TEST_RABBITMQ_URL"] = self._rabbitmq.url
            found["UNWIND_TEST_RABBITMQ_MGMT"] = self._rabbitmq.management_url
            tool = getattr(self._rabbitmq, "rabbitmqctl_path", None)
            if tool is not None:
                found["UNWIND_TEST_RABBITMQCTL"] = str(tool)
        return {name: value for name, value in found.items() if value}

    def start(self) -> Servers:
        """Bring them up; what was begun is taken down again when one of them cannot be had."""
        try:
            if self._want_postgres:
                self._postgres = self._begin_postgres()
            if self._want_rabbitmq:
                self._rabbitmq = self._begin_rabbitmq()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Stop everything and remove its files; nothing is left running."""
        self._cleanup.close()

    def __enter__(self) -> Servers:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Servers:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def _begin_postgres(self) -> Postgres:
        url = os.environ.get("UNWIND_TEST_POSTGRES_URL") if self._given else None
        if url:
            return GivenPostgres(url)
        server: PostgresServer | ComposePostgres
        try:
            server = PostgresServer(
                sources.postgres_programs(), self._room(), durable=self._durable, disk_megabytes=self._disk_megabytes
            )
            self.disk = server.disk
        except NoServers as why:
            server = ComposePostgres(self._containers(why))
        self._run(server)
        return server

    def _begin_rabbitmq(self) -> Rabbitmq:
        url = os.environ.get("UNWIND_TEST_RABBITMQ_URL") if self._given else None
        if url:
            return GivenRabbitmq(url)
        if self._clustered:
            self.cluster = RabbitmqCluster(sources.rabbitmq_programs(), self._room())
            self._run(self.cluster)
            return self.cluster
        server: RabbitmqServer | ComposeRabbitmq
        try:
            server = RabbitmqServer(sources.rabbitmq_programs(), self._room())
        except NoServers as why:
            server = ComposeRabbitmq(self._containers(why))
        self._run(server)
        return server

    def _run(self, server: Server) -> None:
        self._cleanup.callback(server.discard)
        server.start()

    def _room(self) -> Instance:
        if self._instance is None:
            self._instance = Instance()
            self._cleanup.callback(self._instance.remove)
        return self._instance

    def _containers(self, why: NoServers) -> ComposeProject:
        if self._project is None:
            if sources.choice() not in ("auto", "compose") or not sources.docker_answers():
                raise NoServers(
                    f"{why}; compose: no Docker daemon answers. "
                    "Give UNWIND_TEST_POSTGRES_URL and UNWIND_TEST_RABBITMQ_URL"
                )
            self._project = ComposeProject(self._room())
            self._cleanup.callback(self._project.down)
        return self._project


def servers(*, postgres: bool = True, rabbitmq: bool = True, durable: bool = False, given: bool = True) -> Servers:
    """Servers for a block. `given=False` ignores addresses in the environment: a test that kills a server needs one
    of its own. `durable=True` leaves fsync on, for measurements."""
    return Servers(postgres=postgres, rabbitmq=rabbitmq, durable=durable, given=given)
