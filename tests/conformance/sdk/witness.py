"""The other end of the bus in the SDK's tests: gives orders as the engine does and keeps what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from contracts.envelope import Envelope, parse
from contracts.problems import EnvelopeInvalid
from contracts.sdk.topology import EXCHANGES
from contracts.sdk.transport import (
    COMMANDS_EXCHANGE,
    DEAD_EXCHANGE,
    EVENTS_EXCHANGE,
    Binding,
    Consumer,
    Delivery,
    Message,
    Published,
    Queue,
    Topology,
    Transport,
)

DEADLINE_SECONDS = 20.0


class Witness:
    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.heard: list[Envelope] = []
        self.garbage: list[bytes] = []
        self.dead: list[Delivery] = []
        self._changed = asyncio.Condition()
        self._started = asyncio.Event()
        self._consumers: list[Consumer] = []
        self._notifying: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        await self.transport.start()
        await self.transport.declare(
            Topology(
                exchanges=EXCHANGES,
                queues=(
                    Queue(name="witness.events", dead_letter_exchange=DEAD_EXCHANGE),
                    Queue(name="witness.dead", dead_letter_exchange=DEAD_EXCHANGE),
                ),
                bindings=(
                    Binding(queue="witness.events", exchange=EVENTS_EXCHANGE, key="#"),
                    Binding(queue="witness.dead", exchange=DEAD_EXCHANGE, key="#"),
                ),
            )
        )
        events = await self.transport.consume("witness.events", self._on_event, prefetch=100)
        dead = await self.transport.consume("witness.dead", self._on_dead, prefetch=100)
        self._consumers = [events, dead]
        self._started.set()

    async def stop(self) -> None:
        await self.transport.stop()

    def _on_event(self, delivery: Delivery) -> None:
        try:
            self.heard.append(parse(delivery.body, delivery.headers))
        except EnvelopeInvalid:
            self.garbage.append(delivery.body)
        self._settled(0, delivery)

    def _on_dead(self, delivery: Delivery) -> None:
        self.dead.append(delivery)
        self._settled(1, delivery)

    def _settled(self, consumer: int, delivery: Delivery) -> None:
        async def tell() -> None:
            await self._started.wait()
            self._consumers[consumer].ack([delivery])
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.create_task(tell())
        self._notifying.add(task)
        task.add_done_callback(self._notifying.discard)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS), self._changed:
            await self._changed.wait_for(condition)

    def replies(self, command: Envelope) -> list[Envelope]:
        return [event for event in self.heard if event.causationid == command.id]

    async def reply(self, command: Envelope, number: int = 1) -> Envelope:
        """The first, second, ... thing heard that this command caused."""
        await self.until(lambda: len(self.replies(command)) >= number)
        return self.replies(command)[number - 1]

    async def give(self, envelope: Envelope, *, copies: int = 1) -> Envelope:
        message = Message(COMMANDS_EXCHANGE, envelope.type, envelope.to_json())
        fates = await self.transport.publish([message] * copies)
        assert fates == [Published.CONFIRMED] * copies
        return envelope

    async def give_raw(self, key: str, body: bytes, exchange: str = COMMANDS_EXCHANGE) -> None:
        assert await self.transport.publish([Message(exchange, key, body)]) == [Published.CONFIRMED]


def order(kind: str, data: dict[str, Any], *, key: str | None = None, tenant: str = "acme") -> Envelope:
    """A command as the engine sends it: its id derives from its idempotency key, which is its subject."""
    key = key or f"{uuid4()}/step/1"
    return Envelope(
        id=str(uuid5(NAMESPACE_URL, key)),
        source="/modules/unwind",
        type=kind,
        tenantid=tenant,
        time=datetime.now(UTC),
        data=data,
        subject=key,
        correlationid="story-1",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )


def fact(source: str, kind: str, data: dict[str, Any], *, tenant: str = "acme") -> Envelope:
    return Envelope(id=str(uuid4()), source=source, type=kind, tenantid=tenant, time=datetime.now(UTC), data=data)
