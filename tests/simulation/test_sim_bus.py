"""The bus of a world passes the suite that the real ones pass."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from scripts.simulation.bus import SimBus, SimTransport, Straight
from tests.conformance.bus import BusConformance


class Memory:
    def __init__(self) -> None:
        self._bus = SimBus()
        self.opened: list[SimTransport] = []

    async def open(self) -> SimTransport:
        transport = SimTransport(self._bus, Straight())
        self.opened.append(transport)
        await transport.start()
        return transport


@pytest.fixture
async def bus() -> AsyncIterator[Memory]:
    bus = Memory()
    yield bus
    for transport in bus.opened:
        await transport.stop()


class TestSimBus(BusConformance):
    pass
