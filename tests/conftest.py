"""Fixtures that every suite shares: a fresh database and a fresh virtual host for each test, servers of one's own
for fault tests, and the rule when there are none: skip with a reason, or fail when UNWIND_TEST_REQUIRE_SERVERS=1.
Servers themselves are brought up by scripts/test (or by hand: python -m scripts.provision up)."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import pytest

from scripts.provision import NoServers, PostgresServer, RabbitmqServer, sources
from scripts.provision.given import GivenRabbitmq
from scripts.provision.places import Instance
from scripts.provision.rabbitmq import management_request
from tests import node

pytest_plugins = ["tests.acceptance_plugin", "unwind_saga.pytest_plugin", "pytester"]

Programs = TypeVar("Programs")

SERVER_FIXTURES = {
    "postgres_server_url": "postgres",
    "postgres_url": "postgres",
    "own_postgres": "postgres",
    "rabbitmq_server_url": "rabbitmq",
    "rabbitmq_url": "rabbitmq",
    "own_rabbitmq": "rabbitmq",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for a server carries the marker of it, so that -m 'not postgres' never meets one."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        for marker in sorted({SERVER_FIXTURES[name] for name in names if name in SERVER_FIXTURES}):
            item.add_marker(getattr(pytest.mark, marker))


def pytest_report_header() -> list[str]:
    """What the run has at hand, said first."""
    wanted = {"PostgreSQL": "UNWIND_TEST_POSTGRES_URL", "RabbitMQ": "UNWIND_TEST_RABBITMQ_URL"}
    return [f"{name}: {'at hand' if os.environ.get(variable) else 'NONE'}" for name, variable in wanted.items()]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tests left out for want of a server are named by count at the end, where nobody overlooks them."""
    left_out = [r for r in terminalreporter.stats.get("skipped", []) if "no server" in str(r.longrepr)]
    if left_out:
        files = sorted({r.nodeid.split("::")[0] for r in left_out})
        terminalreporter.section("SUITES NOT RUN", red=True, bold=True)
        terminalreporter.write_line(
            f"{len(left_out)} tests had no PostgreSQL, RabbitMQ, promtool, npm: {', '.join(files)}"
        )


def _without(server: str, remedy: str) -> NoReturn:
    reason = f"no server: {server}. {remedy}"
    if os.environ.get("UNWIND_TEST_REQUIRE_SERVERS") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _own(server: str, programs: Callable[[], Programs]) -> Programs:
    if os.environ.get("UNWIND_TEST_EMBEDDED") == "1":
        _without(server, "This run is embedded only")
    try:
        return programs()
    except NoServers as why:
        _without(server, str(why))


def _address(variable: str, server: str) -> str:
    return os.environ.get(variable) or _without(server, f"Run scripts/test, or set {variable}")


@pytest.fixture(scope="session")
def postgres_server_url() -> str:
    """The superuser's URL of the server that all tests share; create no objects in its databases."""
    return _address("UNWIND_TEST_POSTGRES_URL", "PostgreSQL")


@pytest.fixture(scope="session")
def rabbitmq_server_url() -> str:
    """The administrator's URL of the broker that all tests share; create nothing in its default virtual host."""
    return _address("UNWIND_TEST_RABBITMQ_URL", "RabbitMQ")


@pytest.fixture
async def postgres_url(postgres_server_url: str) -> AsyncIterator[str]:
    """A superuser's URL of an empty database that lives for this test."""
    name = f"t_{uuid.uuid4().hex}"
    await _statement(postgres_server_url, f'CREATE DATABASE "{name}"')
    yield urlunsplit(urlsplit(postgres_server_url)._replace(path=f"/{name}"))
    await _statement(postgres_server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    # The engine's roles belong to the whole server and carry the database's name; nothing else would drop them.
    await _statement(
        postgres_server_url,
        "DO $$ DECLARE r text; BEGIN "
        f"FOR r IN SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'unwind_{name}_') "
        "LOOP EXECUTE format('DROP ROLE %I', r); END LOOP; END $$",
    )


async def _statement(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=30)
    try:
        await connection.execute(statement, timeout=60)
    finally:
        await connection.close(timeout=10)


@pytest.fixture
def rabbitmq_url(rabbitmq_server_url: str) -> Iterator[str]:
    """An administrator's URL of an empty virtual host that lives for this test."""
    name = f"t-{uuid.uuid4().hex}"
    broker = GivenRabbitmq(rabbitmq_server_url)
    user = urlsplit(rabbitmq_server_url).username or "guest"
    _add_virtual_host(broker, name, user)
    yield urlunsplit(urlsplit(rabbitmq_server_url)._replace(path=f"/{name}"))
    _remove_virtual_host(broker, name)


def _add_virtual_host(broker: GivenRabbitmq, name: str, user: str) -> None:
    # The management API takes milliseconds, the command a second; a broker without the plugin still serves.
    if broker.management_url:
        management_request(broker.management_url, "PUT", f"/api/vhosts/{name}", {})
        grant = {"configure": ".*", "write": ".*", "read": ".*"}
        management_request(broker.management_url, "PUT", f"/api/permissions/{name}/{quote(user)}", grant)
    elif broker.rabbitmqctl_path:
        broker.rabbitmqctl("add_vhost", name)
        broker.rabbitmqctl("set_permissions", "-p", name, user, ".*", ".*", ".*")
    else:
        pytest.fail(
            "a given broker needs UNWIND_TEST_RABBITMQ_MGMT (http://user:password@host:15672) or "
            "UNWIND_TEST_RABBITMQCTL, so that each test gets a virtual host of its own",
            pytrace=False,
        )


def _remove_virtual_host(broker: GivenRabbitmq, name: str) -> None:
    if broker.management_url:
        management_request(broker.management_url, "DELETE", f"/api/vhosts/{name}")
    else:
        broker.rabbitmqctl("delete_vhost", name)


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus' own checker of rules and pages."""
    return _own("promtool", sources.promtool)


@pytest.fixture(scope="session")
def node_folder(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """Gives the folder of a Node program, with its locked packages installed."""
    cache = request.config.cache
    assert cache is not None

    def prepared(here: Path) -> Path:
        folder = cache.mkdir(node.folder_name(here))
        try:
            node.install(here, folder)
        except (OSError, subprocess.SubprocessError) as why:
            told = getattr(why, "stderr", None) or str(why)
            _without(f"npm, for {here.name}", f"Its packages could not be installed: {told.strip()[-300:]}")
        for program in (*here.glob("*.js"), *here.glob("*.mjs")):
            shutil.copy(program, folder / program.name)
        return folder

    return prepared


@pytest.fixture(scope="session")
def own_instance() -> Iterator[Instance]:
    """The folder for servers that this test process starts itself."""
    instance = Instance()
    yield instance
    instance.remove()


@pytest.fixture
def own_servers() -> None:
    """The test starts servers by itself; it needs programs to do so."""
    _own("PostgreSQL of the test's own", sources.postgres_programs)
    _own("RabbitMQ of the test's own", sources.rabbitmq_programs)


@pytest.fixture
def own_postgres(own_instance: Instance) -> Iterator[PostgresServer]:
    """A PostgreSQL of this test alone, running; the test may stop, kill and start it. Calls block: use
    asyncio.to_thread."""
    server = PostgresServer(_own("PostgreSQL of the test's own", sources.postgres_programs), own_instance)
    try:
        server.start()
        yield server
    finally:
        server.discard()


@pytest.fixture
def own_rabbitmq(own_instance: Instance) -> Iterator[RabbitmqServer]:
    """A RabbitMQ of this test alone, running; the test may stop, kill and start it. Calls block: use
    asyncio.to_thread."""
    server = RabbitmqServer(_own("RabbitMQ of the test's own", sources.rabbitmq_programs), own_instance)
    try:
        server.start()
        yield server
    finally:
        server.discard()
