"""What is done to a broker behind its clients' backs, and a look at what it says about itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from contracts.sdk.rabbit import RabbitTransport
from scripts.provision import RabbitmqServer
from scripts.provision.rabbitmq import management_request
from tests.conformance.bus import PATIENCE_SECONDS

Open = Callable[..., Awaitable[RabbitTransport]]


async def until(holds: Callable[[], object], what: str, within_seconds: float = PATIENCE_SECONDS) -> None:
    """Looks again and again: what we wait for is the state of another process."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + within_seconds
    while not holds():
        assert loop.time() < ends, f"not within {within_seconds} s: {what}"
        await asyncio.sleep(0.02)


async def disconnect_all(broker: RabbitmqServer) -> None:
    await asyncio.to_thread(broker.rabbitmqctl, "close_all_connections", "a test wants it")


async def queue_state(broker: RabbitmqServer, queue: str) -> dict[str, Any]:
    state = await asyncio.to_thread(management_request, broker.management_url, "GET", f"/api/queues/%2F/{queue}")
    assert isinstance(state, dict)
    return state


class Frozen:
    """A stretch of cable between client and broker: it can be held still, and cut."""

    def __init__(self, port: int, credentials: str) -> None:
        self._port, self._credentials = port, credentials
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: list[asyncio.StreamWriter] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.held = 0

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"amqp://{self._credentials}@127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def freeze(self) -> None:
        self._flowing.clear()

    def cut(self) -> None:
        """Ends the present connections; new ones flow."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += (writer, far_writer)
        for source, target in ((reader, far_writer), (far_reader, writer)):
            pump = asyncio.create_task(self._pump(source, target))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if not self._flowing.is_set():
                    self.held += len(data)
                await self._flowing.wait()
                if target.is_closing():
                    return
                target.write(data)
            target.close()
