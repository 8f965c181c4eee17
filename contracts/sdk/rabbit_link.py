"""One connection to RabbitMQ that heals itself, and the split of its incoming frames.

    socket ─▶ SplitProtocol ─┬─ frames of a channel that a lane has taken (deliveries, confirms, returns) ─▶ the lane,
    at once
                             └─ everything else (negotiation, heartbeats, channel and topology calls) ─────▶ aio-pika /
                             aiormq

The split uses aiormq's own seam for it, the transport factory. aio-pika's robust connection is not used: it
re-declares by itself and for ever what the broker refuses, resends nothing, and runs handlers as tasks that it
cancels; here a lost connection is only an event that lanes and consumers answer. Called by `contracts.sdk.rabbit`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar, Protocol

import aio_pika
from aio_pika.abc import ConnectionParameter
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError, AMQPError, AuthenticationError, ProbableAuthenticationError
from yarl import URL

from contracts.problems import Unavailable
from contracts.sdk import rabbit_wire as wire

log = logging.getLogger(__name__)
# It reports every failed attempt as an error, with a traceback for some; what it knows is said here, once per change.
logging.getLogger("aiormq").setLevel(logging.CRITICAL)

CONNECTION_ERRORS = (AMQPError, OSError, TimeoutError, EOFError, RuntimeError, asyncio.InvalidStateError)
"""What aio-pika and aiormq raise when a connection or a channel cannot be had or is lost in the middle."""

_CALL_SECONDS = 10.0
_ENDING_SECONDS = 2.0
_HEARTBEAT_FORWARD_SECONDS = 1.0


class Trouble:
    """What went wrong inside a `tolerating` block, if anything did."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __str__(self) -> str:
        return str(self.error) or type(self.error).__name__


@asynccontextmanager
async def tolerating() -> AsyncIterator[Trouble]:
    """For the loops that keep something alive: trouble with the broker ends the block, not the loop."""
    trouble = Trouble()
    task = asyncio.current_task()
    try:
        yield trouble
    except (*CONNECTION_ERRORS, Unavailable, asyncio.CancelledError) as error:
        # aiormq cancels what waits on a dying connection, and answers a real cancellation with errors of its own: only
        # the task itself knows whether it was asked to end.
        trouble.error = error
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def end(task: asyncio.Task[None] | None) -> None:
    """Cancels a task that keeps something alive, again if need be: aiormq swallows a cancellation that meets its
    answer half-way."""
    while task is not None and not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=_ENDING_SECONDS)


class Lane(Protocol):
    """Takes the hot frames of one channel."""

    def take(self, kind: int, data: bytes, at: int, size: int) -> bool:
        """Whether the frame whose payload of `size` bytes begins at `at` was meant for this lane; if so it has been
        dealt with."""


class SplitProtocol(asyncio.StreamReaderProtocol):
    """Sees every incoming frame once; hands it to a lane or on to aiormq's reader."""

    def __init__(
        self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop, on_blocked: Callable[[bool], None]
    ) -> None:
        super().__init__(reader, loop=loop)
        self.lanes: dict[int, Lane] = {}
        self.lost: asyncio.Future[None] = loop.create_future()
        self.writer: asyncio.StreamWriter | None = None
        self._loop = loop
        self._on_blocked = on_blocked
        self._rest = b""
        self._forwarded_at = 0.0

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        lanes = self.lanes
        at, end, passed_from = 0, len(data), 0
        taken = False
        while end - at >= 7:
            kind, channel, size = wire.FRAME.unpack_from(data, at)
            after = at + 8 + size
            if after > end and kind in (wire.METHOD, wire.HEADER, wire.BODY, 8):
                break
            if kind not in (wire.METHOD, wire.HEADER, wire.BODY, 8):
                at = end  # not a frame: aiormq's reader knows what to say about a foreign protocol
                break
            lane = lanes.get(channel)
            if lane is not None and lane.take(kind, data, at + 7, size):
                if at > passed_from:
                    super().data_received(data[passed_from:at])
                passed_from = after
                taken = True
            elif channel == 0 and kind == wire.METHOD:
                (method,) = wire.NUMBER.unpack_from(data, at + 7)
                if method in (wire.BLOCKED, wire.UNBLOCKED):
                    self._on_blocked(method == wire.BLOCKED)
            at = after
        if at > passed_from:
            super().data_received(data[passed_from:at])
        elif taken:
            self._say_alive()
        self._rest = data[at:]

    def _say_alive(self) -> None:
        """aiormq counts the silence it sees; a broker that sends deliveries sends no heartbeats."""
        now = self._loop.time()
        if now - self._forwarded_at >= _HEARTBEAT_FORWARD_SECONDS:
            self._forwarded_at = now
            super().data_received(wire.HEARTBEAT)

    def write(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)

    async def drain(self) -> None:
        """Waits while the socket takes no more, so that a slow broker cannot fill our memory."""
        assert self.writer is not None
        await self.writer.drain()

    @property
    def open(self) -> bool:
        return not self.lost.done() and self.writer is not None and not self.writer.is_closing()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        super().connection_lost(error)


class _SplitFactory(TransportFactory):
    def __init__(self, on_blocked: Callable[[bool], None]) -> None:
        self.protocol: SplitProtocol | None = None
        self._on_blocked = on_blocked

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider = options.pop("ssl_context_provider", None)
        context = await provider.get_context() if url.scheme == "amqps" and provider is not None else None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = SplitProtocol(reader, loop, self._on_blocked)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, url.host or "localhost", url.port or 5672, ssl=context, **options
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        protocol.writer, self.protocol = writer, protocol
        return reader, writer


class _Connection(aio_pika.Connection):
    PARAMETERS: ClassVar[tuple[ConnectionParameter, ...]] = (  # type: ignore[misc]
        *aio_pika.Connection.PARAMETERS,
        ConnectionParameter(name="transport_factory", parser=lambda given: given, is_kwarg=True),
    )


class Link:
    """Connects, says when it is up, notices when it is down, connects again. `on_up` runs after each connect, before
    `up` is told."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        heartbeat_seconds: float,
        reconnect_seconds: float,
        on_up: Callable[[], Awaitable[None]] | None = None,
        on_blocked: Callable[[bool], None] = lambda blocked: None,
    ) -> None:
        self._url = URL(url).update_query(heartbeat=str(max(1, round(heartbeat_seconds))), name=name)
        self._name = name
        self._reconnect_seconds = reconnect_seconds
        self._on_up, self._on_blocked = on_up, on_blocked
        self._connection: _Connection | None = None
        self._protocol: SplitProtocol | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._failed = asyncio.Event()
        self.error: BaseException | None = None
        self.up = asyncio.Event()

    @property
    def where(self) -> str:
        return f"{self._url.host}:{self._url.port or 5672}"

    @property
    def protocol(self) -> SplitProtocol:
        if self._protocol is None:
            raise Unavailable(f"RabbitMQ at {self.where} is not connected; it is tried again by itself")
        return self._protocol

    async def start(self, deadline_seconds: float) -> None:
        """Raises `Unavailable` at the deadline, and at once when the broker refuses the user."""
        self._keeper = asyncio.create_task(self._keep(), name=f"rabbitmq {self._name}")
        try:
            async with asyncio.timeout(deadline_seconds):
                while not self.up.is_set():
                    await self._either()
                    if isinstance(self.error, (AuthenticationError, ProbableAuthenticationError)):
                        break
        except TimeoutError:
            pass
        except BaseException:
            await self.stop()
            raise
        if not self.up.is_set():
            error = self.error
            await self.stop()
            raise Unavailable(
                f"RabbitMQ at {self.where} cannot be used after {deadline_seconds:g} s ({error or 'no answer'}); "
                "check address, user, virtual host and that it runs"
            ) from error

    async def _either(self) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self.up, self._failed)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            self._failed.clear()

    async def stop(self) -> None:
        keeper, self._keeper = self._keeper, None
        await end(keeper)

    async def channel(self, *, confirms: bool) -> aio_pika.abc.AbstractChannel:
        """An open channel. Raises one of CONNECTION_ERRORS or `Unavailable`."""
        connection = self._connection
        if connection is None:
            raise Unavailable(f"RabbitMQ at {self.where} is not connected; it is tried again by itself")
        # on_return_raises and confirms are aio-pika's names for what the lane does itself; they make the broker send
        # it.
        channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        async with asyncio.timeout(_CALL_SECONDS):
            await channel.initialize()
        return channel

    async def _keep(self) -> None:
        while True:
            async with tolerating() as trouble:
                await self._connect_and_stay()
            if trouble.error is not None:
                said = self.error is not None and str(self.error) == str(trouble.error)
                self.error = trouble.error
                self._failed.set()
                log.log(logging.DEBUG if said else logging.WARNING, "RabbitMQ at %s: %s", self.where, trouble)
            await asyncio.sleep(self._reconnect_seconds)

    async def _connect_and_stay(self) -> None:
        factory = _SplitFactory(self._on_blocked)
        connection = _Connection(self._url, transport_factory=factory)
        try:
            try:
                await connection.connect(timeout=_CALL_SECONDS)
            except StopAsyncIteration:  # what aiormq says of a peer that has gone between two frames of the negotiation
                raise AMQPConnectionError("the connection was ended while it was made") from None
            assert factory.protocol is not None
            self._connection, self._protocol = connection, factory.protocol
            if self._on_up is not None:
                await self._on_up()
            self.error = None
            self.up.set()
            log.info("RabbitMQ at %s: connected as %s", self.where, self._name)
            await asyncio.shield(factory.protocol.lost)
            log.warning("RabbitMQ at %s: the connection %s is lost", self.where, self._name)
        finally:
            was_up = self._connection is not None
            self.up.clear()
            self._connection = self._protocol = None
            if was_up:
                self._on_blocked(False)
            await _close(connection, factory)


async def _close(connection: _Connection, factory: _SplitFactory) -> None:
    """Closes in an orderly way if the broker still answers, and in any case."""
    with suppress(*CONNECTION_ERRORS, asyncio.CancelledError):
        async with asyncio.timeout(2.0):
            await connection.close()
    if factory.protocol is not None and factory.protocol.writer is not None:
        factory.protocol.writer.transport.abort()
