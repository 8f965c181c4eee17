"""The bus of a world: quorum-queue semantics in memory, shared by the `SimTransport` of each simulated process.

Routing and what a declaration may say are the product's own (`contracts.sdk.routing`, `embedded_topology`). A gate
stands at every call: there the world lets time pass, kills, loses the connection, a confirm or a message on its way.
What was delivered and not settled when its connection is lost, or its process dies, comes again and is counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from contracts.problems import Unavailable
from contracts.sdk.embedded_topology import StoredQueue, additions
from contracts.sdk.routing import Routes
from contracts.sdk.transport import (
    Delivery,
    Difference,
    Exchange,
    Message,
    Published,
    Queue,
    Topology,
    TopologyMismatch,
)

MAX_KEY_BYTES: Final = 255


class Line(Protocol):
    """What stands at a transport's awaits, and what becomes of a message on its way."""

    async def before(self, port: str) -> None: ...

    async def after(self, port: str) -> None: ...

    def fate(self) -> tuple[int, Published]:
        """How many copies of a published message arrive, and what its sender hears."""

    def place(self, waiting: int) -> int:
        """Where in a queue of so many a message is put: at its end, unless the world reorders."""


class Straight:
    """A line on which nothing happens: for the conformance suite."""

    async def before(self, port: str) -> None:
        await asyncio.sleep(0)

    async def after(self, port: str) -> None:
        await asyncio.sleep(0)

    def fate(self) -> tuple[int, Published]:
        return 1, Published.CONFIRMED

    def place(self, waiting: int) -> int:
        return waiting


@dataclass(slots=True)
class _Kept:
    """A message in a queue."""

    message: Message
    count: int = 0
    expires: float | None = None
    headers: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Held:
    queue: Queue
    owner: SimTransport | None
    waiting: deque[_Kept] = field(default_factory=deque)
    consumers: list[SimConsumer] = field(default_factory=list)


class SimBus:
    """The broker. `published` has every message that was taken, in order: what anybody could have heard."""

    def __init__(self) -> None:
        self.exchanges: dict[str, Exchange] = {}
        self.queues: dict[str, _Held] = {}
        self.published: list[Message] = []
        self._bindings: dict[str, dict[tuple[str, str], None]] = {}
        self._routes: Routes | None = None
        self._names: list[str] = []
        self._declared: dict[int, Topology] = {}

    def _additions(self, topology: Topology, transport: SimTransport) -> tuple[list[Exchange], list[Queue]]:
        numbers = {name: number for number, name in enumerate(self._names)}
        stored = {
            name: StoredQueue(numbers[name], held.queue, None if held.owner is None else id(held.owner))
            for name, held in self.queues.items()
        }
        return additions(topology, self.exchanges, stored, id(transport))

    def compare(self, topology: Topology, transport: SimTransport) -> Difference:
        try:
            exchanges, queues = self._additions(topology, transport)
        except TopologyMismatch as problem:
            return Difference(conflicts=(problem.detail,))
        bindings = [
            one for one in topology.bindings if (one.key, one.queue) not in self._bindings.get(one.exchange, {})
        ]
        return Difference(
            adds=(
                *(f"exchange {exchange.name}" for exchange in exchanges),
                *(f"queue {queue.name}" for queue in queues),
                *(f"binding {one.key} of {one.exchange} to {one.queue}" for one in bindings),
            )
        )

    def declare(self, topology: Topology, transport: SimTransport) -> None:
        """What is there already as a whole, known by being the same object, is there."""
        if self._declared.get(id(topology)) is topology:
            return
        if not any(queue.transient for queue in topology.queues):
            self._declared[id(topology)] = topology
        exchanges, queues = self._additions(topology, transport)
        self.exchanges |= {exchange.name: exchange for exchange in exchanges}
        for queue in queues:
            self.queues[queue.name] = _Held(queue, transport if queue.transient else None)
            if queue.name not in self._names:
                self._names.append(queue.name)
        for binding in topology.bindings:
            self._bindings.setdefault(binding.exchange, {})[binding.key, binding.queue] = None
        self._routes = None

    def take(self, message: Message, place: Callable[[int], int]) -> Published:
        """Puts it into every queue that is bound for it."""
        targets = [
            self.queues[self._names[number]] for number in self._routing.targets(message.exchange, message.routing_key)
        ]
        if not targets:
            return Published.UNROUTABLE if message.mandatory else Published.CONFIRMED
        for held in targets:
            if held.queue.max_length is not None and len(held.waiting) >= held.queue.max_length:
                return Published.REFUSED
        self.published.append(message)
        for held in targets:
            kept = _Kept(message, headers=dict(message.headers))
            if message.expiration_seconds is not None:
                loop = asyncio.get_running_loop()
                kept.expires = loop.time() + message.expiration_seconds
                loop.call_at(kept.expires, self._expire, held)
            held.waiting.insert(place(len(held.waiting)), kept)
            self.pump(held)
        return Published.CONFIRMED

    @property
    def _routing(self) -> Routes:
        if self._routes is None:
            numbers = {name: number for number, name in enumerate(self._names) if name in self.queues}
            self._routes = Routes(
                self.exchanges,
                numbers,
                {
                    exchange: tuple((key, numbers[queue]) for key, queue in bound if queue in numbers)
                    for exchange, bound in self._bindings.items()
                },
            )
        return self._routes

    def pump(self, held: _Held) -> None:
        """Gives what waits to consumers that have room, in turn."""
        while held.waiting:
            ready = [consumer for consumer in held.consumers if len(consumer.unsettled) < consumer.prefetch]
            if not ready:
                return
            consumer = ready[0]
            held.consumers.remove(consumer)
            held.consumers.append(consumer)
            kept = held.waiting.popleft()
            if kept.expires is not None and kept.expires <= asyncio.get_running_loop().time():
                self.bury(held, kept, "expired")
                continue
            consumer.give(kept)

    def give_back(self, held: _Held, kept: _Kept) -> None:
        """To the head of the queue, or, at its delivery limit, to the dead letters."""
        kept.count += 1
        if kept.count > held.queue.delivery_limit:
            self.bury(held, kept, "delivery_limit")
        else:
            held.waiting.appendleft(kept)

    def bury(self, held: _Held, kept: _Kept, reason: str) -> None:
        exchange = held.queue.dead_letter_exchange
        if exchange is None:
            return
        message = kept.message
        death = {"queue": held.queue.name, "reason": reason, "exchange": message.exchange, "count": 1}
        headers = {
            **kept.headers,
            "x-first-death-reason": reason,
            "x-first-death-queue": held.queue.name,
            "x-first-death-exchange": message.exchange,
            "x-death": [death],
        }
        key = held.queue.dead_letter_key or message.routing_key
        self.take(
            Message(
                exchange,
                key,
                message.body,
                headers=headers,
                content_type=message.content_type,
                mandatory=False,
                correlation_id=message.correlation_id,
            ),
            lambda waiting: waiting,
        )

    def _expire(self, held: _Held) -> None:
        now = asyncio.get_running_loop().time()
        for kept in [one for one in held.waiting if one.expires is not None and one.expires <= now]:
            held.waiting.remove(kept)
            self.bury(held, kept, "expired")

    def forget(self, transport: SimTransport) -> None:
        """The connection has ended, and with it the queues that were its own."""
        for name in [name for name, held in self.queues.items() if held.owner is transport]:
            del self.queues[name]
            self._routes = None


class SimConsumer:
    def __init__(
        self, transport: SimTransport, held: _Held, on_delivery: Callable[[Delivery], None], prefetch: int
    ) -> None:
        self.transport, self.held, self.prefetch = transport, held, prefetch
        self.unsettled: dict[int, _Kept] = {}
        self._on_delivery = on_delivery
        self._tag = 0
        self._stopped = False

    @property
    def alive(self) -> bool:
        return not self._stopped and self.transport.ready

    def give(self, kept: _Kept) -> None:
        self._tag += 1
        self.unsettled[self._tag] = kept
        message = kept.message
        headers = kept.headers if kept.count == 0 else dict(kept.headers)
        delivery = Delivery(
            tag=self._tag,
            body=message.body,
            headers=headers,
            exchange=message.exchange,
            routing_key=message.routing_key,
            redelivered=kept.count > 0,
            delivery_count=kept.count,
            reply_to=message.reply_to,
            correlation_id=message.correlation_id,
            content_type=message.content_type,
        )
        self.transport.run(self._deliver, delivery)

    def _deliver(self, delivery: Delivery) -> None:
        if delivery.tag not in self.unsettled or self._stopped:
            return
        try:
            self._on_delivery(delivery)
        except Exception:
            self.reject(delivery, requeue=True)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        if self.transport.dead:
            return
        for delivery in deliveries:
            self.unsettled.pop(delivery.tag, None)
        self.transport.bus.pump(self.held)

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        if self.transport.dead:
            return
        kept = self.unsettled.pop(delivery.tag, None)
        if kept is None:
            return
        if requeue:
            self.transport.bus.give_back(self.held, kept)
        else:
            self.transport.bus.bury(self.held, kept, "rejected")
        self.transport.bus.pump(self.held)

    async def stop(self) -> None:
        self.end()

    def end(self) -> None:
        if not self._stopped:
            self._stopped = True
            self.held.consumers.remove(self)
            self.lose()

    def lose(self) -> None:
        """The channel is gone: what was not settled returns, in order, and late settlements mean nothing."""
        lost, self.unsettled = self.unsettled, {}
        for kept in reversed(lost.values()):
            self.transport.bus.give_back(self.held, kept)
        self.transport.bus.pump(self.held)


class SimTransport:
    """`contracts.sdk.transport.Transport` for one simulated process. `run` calls back in the process's own context."""

    def __init__(self, bus: SimBus, line: Line, run: Callable[..., object] | None = None) -> None:
        self.bus, self.line = bus, line
        self.run = run or (lambda work, *values: asyncio.get_running_loop().call_soon(work, *values))
        self.blocked = False
        self.dead = False
        self._started = False
        self._consumers: list[SimConsumer] = []

    @property
    def ready(self) -> bool:
        return self._started and not self.dead

    async def start(self) -> None:
        await self.line.before("bus.start")
        self._started = True

    async def stop(self) -> None:
        self.end()

    def end(self) -> None:
        """Closed, or the process is gone."""
        if self._started:
            self._started = False
            for consumer in self._consumers:
                with suppress(ValueError):
                    consumer.end()
            self.bus.forget(self)

    def break_off(self) -> None:
        """The connection is lost and heals itself: consumers go on, what was unsettled comes again."""
        for consumer in self._consumers:
            if not consumer._stopped:
                consumer.lose()

    async def declare(self, topology: Topology) -> None:
        await self.line.before("bus.declare")
        self._check()
        self.bus.declare(topology, self)
        await self.line.after("bus.declare")

    async def compare(self, topology: Topology) -> Difference:
        await self.line.before("bus.compare")
        self._check()
        return self.bus.compare(topology, self)

    async def publish(self, messages: Sequence[Message], *, deadline_seconds: float = 5.0) -> list[Published]:
        try:
            await self.line.before("bus.publish")
        except Unavailable:
            return [Published.UNKNOWN] * len(messages)
        if not self.ready:
            return [Published.UNKNOWN] * len(messages)
        for message in messages:
            check(message)
        answers = []
        for message in messages:
            copies, heard = self.line.fate()
            taken = Published.CONFIRMED
            for _ in range(copies):
                taken = self.bus.take(message, self.line.place)
            answers.append(taken if heard is Published.CONFIRMED else heard)
        try:
            await self.line.after("bus.publish")
        except Unavailable:
            return [Published.UNKNOWN] * len(messages)
        return answers

    async def consume(self, queue: str, on_delivery: Callable[[Delivery], None], *, prefetch: int) -> SimConsumer:
        await self.line.before("bus.consume")
        self._check()
        held = self.bus.queues.get(queue)
        if held is None:
            raise TopologyMismatch(f"there is no queue {queue}; declare it first", field=queue)
        consumer = SimConsumer(self, held, on_delivery, prefetch)
        self._consumers.append(consumer)
        held.consumers.append(consumer)
        self.bus.pump(held)
        return consumer

    def _check(self) -> None:
        if not self.ready:
            raise Unavailable("the bus cannot be reached")


def check(message: Message) -> None:
    """Raises ValueError for what no bus could carry."""
    key = message.routing_key
    if len(key.encode()) > MAX_KEY_BYTES or "\x00" in key:
        raise ValueError(f"routing_key must be at most {MAX_KEY_BYTES} bytes without NUL: {key[:80]!r}")
    if message.headers:
        try:
            orjson.dumps(dict(message.headers))
        except orjson.JSONEncodeError as error:
            raise ValueError(f"headers of {key} must hold JSON values: {error}") from None
