"""Drains the broker's own dead letters into the sealed table: a message that a module or the intake could not take
must never rest in the broker in clear.
"""

from __future__ import annotations

import asyncio
from typing import Any

from consumers.burying import bury
from contracts.problems import Problem, Unavailable
from contracts.sdk.transport import Consumer, Delivery, Transport
from engine.clock import Clock
from engine.metrics import Metrics
from engine.store import Store
from engine.store.keys import Vault


class RejectedByConsumer(Problem):
    """A consumer refused the message, or met its delivery limit."""

    code = "rejected"
    title = "A consumer refused the message"
    status = 422


class Unreadable:
    """One consumer of the engine's dead-letter queue."""

    def __init__(
        self, transport: Transport, queue: str, store: Store, vault: Vault, clock: Clock, metrics: Metrics
    ) -> None:
        self._transport, self._queue, self._store, self._vault = transport, queue, store, vault
        self._clock, self._metrics = clock, metrics
        self._consumer: Consumer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._consumer = await self._transport.consume(self._queue, self._deliver, prefetch=50)

    async def stop(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _deliver(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._keep(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, delivery: Delivery) -> None:
        assert self._consumer is not None
        came = _origin(delivery)
        try:
            await bury(self._store, self._vault, self._clock, came, RejectedByConsumer(_why(delivery)))
        except Unavailable:
            self._consumer.reject(delivery, requeue=True)
            return
        self._metrics.dead_letters.of(RejectedByConsumer.code).inc()
        self._consumer.ack([delivery])


def _deaths(delivery: Delivery) -> dict[str, Any]:
    """The broker's record of the first death: queue, reason, exchange, routing keys (RabbitMQ's `x-death`)."""
    deaths = delivery.headers.get("x-death")
    return deaths[-1] if isinstance(deaths, list) and deaths and isinstance(deaths[-1], dict) else {}


def _why(delivery: Delivery) -> str:
    death = _deaths(delivery)
    queue, reason = death.get("queue", "unknown"), death.get("reason", "rejected")
    return f"queue {queue} gave it up ({reason}); mend its consumer and redrive it"


def _origin(delivery: Delivery) -> Delivery:
    """The delivery as it was sent at first, so that a redrive goes where the sender meant it to go."""
    death = _deaths(delivery)
    keys = death.get("routing-keys")
    return Delivery(
        tag=delivery.tag,
        body=delivery.body,
        headers={name: value for name, value in delivery.headers.items() if name != "x-death"},
        exchange=str(death.get("exchange", delivery.exchange)),
        routing_key=str(keys[0]) if isinstance(keys, list) and keys else delivery.routing_key,
        redelivered=delivery.redelivered,
        delivery_count=delivery.delivery_count,
        user_id=delivery.user_id,
    )
