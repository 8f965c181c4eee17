"""A RabbitMQ of these tests' own, to be killed, frozen and starved."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from contracts.sdk.rabbit import RabbitTransport
from scripts.provision import NoServers, RabbitmqServer, sources
from scripts.provision.places import Instance
from tests.conformance.bus import Names
from tests.conformance.rabbit.mischief import Frozen, Open


@pytest.fixture(scope="module")
def broker(own_instance: Instance) -> Iterator[RabbitmqServer]:
    try:
        server = RabbitmqServer(sources.rabbitmq_programs(), own_instance)
    except NoServers as why:
        pytest.skip(f"no server: RabbitMQ of the test's own. {why}")
    try:
        server.start()
        yield server
    finally:
        server.discard()


@pytest.fixture
def name() -> Names:
    return Names()


@pytest.fixture
async def connect(broker: RabbitmqServer) -> AsyncIterator[Open]:
    opened: list[RabbitTransport] = []

    async def connect(url: str | None = None, **options: Any) -> RabbitTransport:
        transport = RabbitTransport(url or broker.url, **{"name": "traps", "reconnect_seconds": 0.2, **options})
        opened.append(transport)
        await transport.start()
        return transport

    yield connect
    for transport in opened:
        await transport.stop()


@pytest.fixture
async def frozen(broker: RabbitmqServer) -> AsyncIterator[Frozen]:
    cable = Frozen(broker.port, urlsplit(broker.url).netloc.rpartition("@")[0])
    await cable.start()
    yield cable
    await cable.stop()
