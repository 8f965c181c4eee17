"""A durable message bus in one SQLite file: the same promises as RabbitMQ for a laptop, a test or a single machine,
without a server.

Confirmed means committed with synchronous=FULL. Several processes may share the file: each message is held by one
consumer at a time, and comes back when that consumer stops, its process ends, or its lease (30 s without a sign of
life) runs out. Not for network file systems. Called by the engine and by modules through the `Transport` protocol; the
work is done in `contracts.sdk.embedded_writer`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from contracts.problems import Unavailable
from contracts.sdk import embedded_writer
from contracts.sdk.embedded_file import BusFile, Ready
from contracts.sdk.embedded_turn import Publish, Settle, Subscriber
from contracts.sdk.embedded_writer import Writer
from contracts.sdk.transport import Delivery, Difference, Message, Published, Topology, TopologyMismatch

log = logging.getLogger(__name__)

_CONTENT_TYPE = "application/cloudevents+json"
_MAX_KEY_BYTES = 255


class EmbeddedConsumer:
    """A running subscription to one queue of the file."""

    def __init__(self, writer: Writer, queue: str, on_delivery: Callable[[Delivery], None], prefetch: int) -> None:
        self.stale_settlements = 0
        """Settlements of deliveries that were no longer this consumer's; each of those messages comes again."""
        self._writer = writer
        self._on_delivery = on_delivery
        self._subscriber = Subscriber(asyncio.get_running_loop(), queue, prefetch, self._deliver)
        self._unsettled: dict[int, int] = {}
        self._early: list[Delivery] | None = []
        self._number = 0
        self._tag = 0
        self._open = False

    @property
    def alive(self) -> bool:
        return self._open and self._writer.healthy

    async def start(self) -> None:
        self._open = True
        try:
            await self._writer.call(self._open_row, lambda number: self._writer.subscribe(self._subscriber, number))
        except BaseException:
            self._open = False
            raise
        # Handlers settle through the consumer that this call returns: they must not be called before it has.
        self._subscriber.loop.call_soon(self._open_gate)

    def _open_gate(self) -> None:
        early, self._early = self._early or [], None
        for delivery in early:
            if delivery.tag in self._unsettled:
                self._hand(delivery)

    def _open_row(self, file: BusFile, session: int) -> int:
        stored = file.queues.get(self._subscriber.queue)
        if stored is None:
            raise TopologyMismatch(
                f"queue {self._subscriber.queue} does not exist; declare it first", field=self._subscriber.queue
            )
        return file.open_consumer(session, stored.id)

    def _deliver(self, number: int, messages: Sequence[Ready]) -> None:
        if not self._open:
            return
        if number != self._number:
            # The file had given this process up and took its messages back: what it still holds is no longer its own.
            self._number = number
            self._unsettled.clear()
        for message in messages:
            self._tag += 1
            self._unsettled[self._tag] = message.id
            delivery = _delivery(self._tag, message)
            if self._early is not None:
                self._early.append(delivery)
            else:
                self._hand(delivery)

    def _hand(self, delivery: Delivery) -> None:
        try:
            self._on_delivery(delivery)
        except Exception:
            log.exception("the handler of queue %s raised; its message goes back", self._subscriber.queue)
            self.reject(delivery, requeue=True)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._settle(deliveries, "done")

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        self._settle((delivery,), "back" if requeue else "refused")

    def _settle(self, deliveries: Sequence[Delivery], fate: str) -> None:
        pop = self._unsettled.pop
        ids = [number for delivery in deliveries if (number := pop(delivery.tag, 0))]
        self.stale_settlements += len(deliveries) - len(ids)
        if ids:
            self._writer.ask(Settle(self._subscriber, self._number, ids, fate))

    async def stop(self) -> None:
        if not self._open:
            return
        self._open = False
        self._unsettled.clear()
        await self._writer.close(self._subscriber)


class EmbeddedTransport:
    """A connection to the bus in `path`. `user_id` is stamped on what it publishes, as a broker would for an
    authenticated user."""

    def __init__(self, path: str | Path, *, name: str = "unwind", user_id: str | None = None) -> None:
        self.path = Path(path)
        self.name = name
        self._user_id = user_id
        self._writer: Writer | None = None
        self._consumers: list[EmbeddedConsumer] = []
        self._reply_queues: set[str] = set()

    @property
    def ready(self) -> bool:
        return self._writer is not None and self._writer.healthy

    @property
    def blocked(self) -> bool:
        return self._writer is not None and self._writer.full

    async def start(self) -> None:
        if self._writer is not None:
            return
        try:
            self._writer = await asyncio.to_thread(embedded_writer.acquire, self.path)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(
                f"the bus file {self.path} cannot be opened ({error}); check the folder and its rights"
            ) from error

    async def stop(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            for consumer in self._consumers:
                await consumer.stop()
            names = tuple(self._reply_queues)
            if names:
                await writer.call(
                    lambda file, session: file.drop_queues([file.queues[n].id for n in names if n in file.queues])
                )
        except Unavailable as error:
            log.warning("the bus file %s did not take its leave (%s); the lease will end it", self.path, error)
        finally:
            self._consumers.clear()
            self._reply_queues.clear()
            await asyncio.to_thread(embedded_writer.release, writer)

    async def declare(self, topology: Topology) -> None:
        await self._running().call(lambda file, session: file.declare(topology, session))
        self._reply_queues.update(q.name for q in topology.queues if q.transient)

    async def compare(self, topology: Topology) -> Difference:
        found: Difference = await self._running().call(lambda file, session: file.compare(topology, session))
        return found

    async def publish(self, messages: Sequence[Message], *, deadline_seconds: float = 5.0) -> list[Published]:
        if not messages:
            return []
        properties = [self._properties(message) for message in messages]
        if self._writer is None:
            return [Published.UNKNOWN] * len(messages)
        loop = asyncio.get_running_loop()
        asked = Publish(loop, loop.create_future(), messages, properties)
        self._writer.ask(asked)
        try:
            async with asyncio.timeout(deadline_seconds):
                return await asked.future
        except TimeoutError:
            return [Published.UNKNOWN] * len(messages)
        finally:
            asked.abandoned = True  # not begun yet: then it never will be

    async def consume(self, queue: str, on_delivery: Callable[[Delivery], None], *, prefetch: int) -> EmbeddedConsumer:
        if prefetch < 1:
            raise ValueError(f"prefetch must be at least 1, was {prefetch}")
        consumer = EmbeddedConsumer(self._running(), queue, on_delivery, prefetch)
        await consumer.start()
        self._consumers = [known for known in self._consumers if known.alive]
        self._consumers.append(consumer)
        return consumer

    def _running(self) -> Writer:
        if self._writer is None:
            raise Unavailable("the bus is not started; call start() first")
        return self._writer

    def _properties(self, message: Message) -> str | None:
        """What travels beside the body, as JSON; None for the plain case. Raises ValueError for what no bus could
        carry."""
        key = message.routing_key
        if len(key.encode()) > _MAX_KEY_BYTES or "\x00" in key:
            raise ValueError(f"routing_key must be at most {_MAX_KEY_BYTES} bytes without NUL: {key[:80]!r}")
        if (
            not message.headers
            and message.reply_to is None
            and message.correlation_id is None
            and self._user_id is None
            and message.content_type == _CONTENT_TYPE
        ):
            return None
        document: dict[str, Any] = {"content_type": message.content_type}
        if message.headers:
            document["headers"] = dict(message.headers)
        rest = {"reply_to": message.reply_to, "correlation_id": message.correlation_id, "user_id": self._user_id}
        document.update((name, value) for name, value in rest.items() if value is not None)
        try:
            return orjson.dumps(document).decode()
        except orjson.JSONEncodeError as error:
            raise ValueError(f"headers of {key} must hold JSON values: {error}") from None


def _delivery(tag: int, message: Ready) -> Delivery:
    document: dict[str, Any] = {} if message.properties is None else orjson.loads(message.properties)
    return Delivery(
        tag=tag,
        body=message.body,
        headers=document.get("headers", {}),
        exchange=message.exchange,
        routing_key=message.routing_key,
        redelivered=message.delivery_count > 0,
        delivery_count=message.delivery_count,
        user_id=document.get("user_id"),
        reply_to=document.get("reply_to"),
        correlation_id=document.get("correlation_id"),
        content_type=document.get("content_type", _CONTENT_TYPE),
    )
