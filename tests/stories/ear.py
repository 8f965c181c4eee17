"""Everything that goes over the bus, kept in order: what a story asserts about messages. It listens with queues of its
own beside the engine's and the modules', and can send what a misbehaving participant would send."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

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
    Exchange,
    Message,
    Published,
    Queue,
    Topology,
    Transport,
)

QUEUES = {"events": EVENTS_EXCHANGE, "commands": COMMANDS_EXCHANGE}
MARKS = Exchange(name="ear.marks")
"""Nobody else is bound to it."""

CATCH_UP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Heard:
    """One message; `envelope` None when it is none."""

    exchange: str
    routing_key: str
    body: bytes
    envelope: Envelope | None


class Ear:
    """`hears` names what it listens to. What it does not listen to and nobody else is bound for stays unroutable."""

    def __init__(self, transport: Transport, *, hears: Sequence[str] = ("events", "commands")) -> None:
        self.transport = transport
        self.messages: list[Heard] = []
        self._queues = {f"ear.{name}": QUEUES[name] for name in hears}
        self._consumers: dict[str, Consumer] = {}
        self._marks: Counter[str] = Counter()
        self._marked = asyncio.Event()

    async def start(self) -> None:
        await self.transport.start()
        await self.transport.declare(
            Topology(
                exchanges=(*EXCHANGES, MARKS),
                queues=tuple(Queue(name=name, dead_letter_exchange=DEAD_EXCHANGE) for name in self._queues),
                bindings=tuple(
                    Binding(queue=name, exchange=source, key="#")
                    for name, exchange in self._queues.items()
                    for source in (exchange, MARKS.name)
                ),
            )
        )
        for name in self._queues:
            # Unlimited and never settled: a listener that acknowledges nothing misses nothing while it lives.
            self._consumers[name] = await self.transport.consume(name, self._hear, prefetch=60_000)

    async def stop(self) -> None:
        await self.transport.stop()

    async def catch_up(self) -> None:
        """Returns when everything that was on the bus before this call has been heard."""
        mark = uuid4().hex
        if self._queues:
            await self.send_raw(mark, b"{}", exchange=MARKS.name)
        async with asyncio.timeout(CATCH_UP_SECONDS):
            while self._marks[mark] < len(self._queues):
                self._marked.clear()
                await self._marked.wait()

    def _hear(self, delivery: Delivery) -> None:
        if delivery.exchange == MARKS.name:
            self._marks[delivery.routing_key] += 1
            self._marked.set()
            return
        try:
            envelope = parse(delivery.body, delivery.headers)
        except EnvelopeInvalid:
            envelope = None
        if not delivery.redelivered:
            self.messages.append(Heard(delivery.exchange, delivery.routing_key, delivery.body, envelope))

    # ------------------------------------------------------------------------------------------------ what was heard

    def events(self, kind: str | None = None, *, tenant: str | None = None) -> list[Envelope]:
        return self._of(EVENTS_EXCHANGE, kind, tenant)

    def commands(self, kind: str | None = None, *, tenant: str | None = None) -> list[Envelope]:
        return self._of(COMMANDS_EXCHANGE, kind, tenant)

    def facts(self, tenant: str) -> Counter[str]:
        """How many different facts of each type (event ids, not deliveries)."""
        return Counter(kind for kind, _ in {(event.type, event.id) for event in self.events(tenant=tenant)})

    def raw(self, envelope: Envelope) -> Heard:
        """The message as it came."""
        return next(heard for heard in self.messages if heard.envelope is envelope)

    def _of(self, exchange: str, kind: str | None, tenant: str | None) -> list[Envelope]:
        return [
            heard.envelope
            for heard in self.messages
            if heard.envelope is not None
            and heard.exchange == exchange
            and (kind is None or heard.envelope.type == kind)
            and (tenant is None or heard.envelope.tenantid == tenant)
        ]

    # ------------------------------------------------------------------------------------------------ what is sent

    async def send(self, envelope: Envelope, *, copies: int = 1, exchange: str = EVENTS_EXCHANGE) -> None:
        await self.send_raw(envelope.type, envelope.to_json(), copies=copies, exchange=exchange)

    async def send_raw(
        self,
        key: str,
        body: bytes,
        *,
        copies: int = 1,
        exchange: str = EVENTS_EXCHANGE,
        headers: dict[str, Any] | None = None,
    ) -> None:
        message = Message(exchange, key, body, headers=headers or {}, mandatory=False)
        assert await self.transport.publish([message] * copies) == [Published.CONFIRMED] * copies
