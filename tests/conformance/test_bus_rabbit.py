"""RabbitMQ passes the common suite. Its own traps, and how it heals, are in `tests.conformance.rabbit`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from contracts.sdk.rabbit import RabbitTransport
from tests.conformance.bus import BusConformance


class RabbitBus:
    def __init__(self, url: str) -> None:
        self.url = url
        self.opened: list[RabbitTransport] = []

    async def open(self) -> RabbitTransport:
        transport = RabbitTransport(self.url, name="conformance")
        self.opened.append(transport)
        await transport.start()
        return transport


@pytest.fixture
async def bus(rabbitmq_url: str) -> AsyncIterator[RabbitBus]:
    bus = RabbitBus(rabbitmq_url)
    yield bus
    for transport in bus.opened:
        await transport.stop()


class TestRabbitBus(BusConformance):
    pass
