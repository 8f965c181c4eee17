"""One subscription on RabbitMQ, kept alive: its own channel, opened again after every loss.

Losses it answers: the connection, the channel (a consumer timeout, a refused frame), the consumer alone (its queue was
deleted, its leader moved), and the silent one that only the broker knows of, found by asking it when nothing comes.
Called by `contracts.sdk.rabbit`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from uuid import uuid4

from aio_pika.abc import AbstractChannel
from aiormq.abc import AbstractChannel as UnderlayChannel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity

from contracts.problems import Forbidden, Problem, Unavailable
from contracts.sdk.rabbit_lanes import ReceiveLane
from contracts.sdk.rabbit_link import CONNECTION_ERRORS, Link, end, tolerating
from contracts.sdk.transport import Delivery, TopologyMismatch

log = logging.getLogger(__name__)

_CALL_SECONDS = 10.0
_TAG_BITS = 44


class RabbitConsumer:
    """`attached` counts how often it was opened; `stale_settlements` the settlements that came too late for their
    channel."""

    def __init__(
        self,
        link: Link,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        reconnect_seconds: float,
        watch_seconds: float,
        restore: Callable[[], Awaitable[None]],
    ) -> None:
        self.queue = queue
        self.attached = 0
        self.stale_settlements = 0
        self._link, self._on_delivery, self._prefetch = link, on_delivery, prefetch
        self._reconnect_seconds, self._watch_seconds, self._restore = reconnect_seconds, watch_seconds, restore
        self._lane: ReceiveLane | None = None
        self._running = False
        self._early: list[Delivery] | None = []
        self._first = asyncio.Event()
        self._error: BaseException | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return self._running and self._lane is not None and self._lane.consuming

    @property
    def running(self) -> bool:
        """Not stopped, though it may be between two channels."""
        return self._running

    async def start(self, deadline_seconds: float) -> None:
        self._running = True
        self._keeper = asyncio.create_task(self._keep(), name=f"consumer of {self.queue}")
        try:
            async with asyncio.timeout(deadline_seconds):
                while not self.alive and not isinstance(self._error, Problem):
                    await self._first.wait()
                    self._first.clear()
        except TimeoutError:
            self._error = Unavailable(
                f"queue {self.queue} cannot be consumed yet ({self._error or 'no answer'}); try again"
            )
        except BaseException:
            await self.stop()
            raise
        if not self.alive:
            await self.stop()
            raise self._error or Unavailable(f"queue {self.queue} cannot be consumed; try again")
        # Handlers settle through the consumer that this call returns: they must not be called before it has.
        asyncio.get_running_loop().call_soon(self._open_gate)

    async def stop(self) -> None:
        self._running = False
        keeper, self._keeper = self._keeper, None
        await end(keeper)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        lane = self._lane
        settled = lane.ack(deliveries) if lane is not None else 0
        self._count_stale(len(deliveries) - settled)

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        lane = self._lane
        self._count_stale(1 - (lane.reject(delivery, requeue=requeue) if lane is not None else 0))

    def _count_stale(self, number: int) -> None:
        if number:
            self.stale_settlements += number
            log.debug("%d settlements on %s came after their channel; those messages come again", number, self.queue)

    def _deliver(self, delivery: Delivery) -> None:
        if not self._running:
            return  # it returns to the queue with the channel
        if self._early is not None:
            self._early.append(delivery)
            return
        self._on_delivery(delivery)

    def _open_gate(self) -> None:
        early, self._early = self._early or [], None
        for delivery in early:
            lane = self._lane
            if lane is not None and lane.holds(delivery):
                lane.hand(delivery)

    # -- keeping it alive ----------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            await self._link.up.wait()
            async with tolerating() as trouble:
                await self._attach_and_stay()
            if trouble.error is not None:
                self._error = _as_problem(trouble.error, self.queue)
                log.warning("the consumer of %s is interrupted: %s", self.queue, trouble)
                if isinstance(trouble.error, ChannelNotFoundEntity) and self.attached:
                    async with tolerating() as trouble:
                        await self._restore()
            self._first.set()
            await asyncio.sleep(self._reconnect_seconds)

    async def _attach_and_stay(self) -> None:
        protocol = self._link.protocol
        channel = await self._link.channel(confirms=False)
        underlay = await channel.get_underlay_channel()
        lane = ReceiveLane(
            protocol,
            underlay.number,
            base=(self.attached + 1) << _TAG_BITS,
            queue=self.queue,
            on_delivery=self._deliver,
        )
        gone = asyncio.Event()
        protocol.lanes[underlay.number] = lane
        underlay.on_consumer_cancel_callbacks.add(lambda _: gone.set())
        underlay.closing.add_done_callback(lambda _: gone.set())
        protocol.lost.add_done_callback(lambda _: gone.set())
        try:
            await channel.set_qos(prefetch_count=self._prefetch, timeout=_CALL_SECONDS)
            self._lane = lane
            await underlay.basic_consume(
                self.queue, _not_called, consumer_tag=f"unwind-{uuid4().hex}", timeout=_CALL_SECONDS
            )
            lane.consuming = True
            self.attached += 1
            self._error = None
            self._first.set()
            await self._stay(underlay, lane, gone)
        finally:
            self._lane = None
            lane.consuming = False
            if self._early:
                self._early.clear()
            await _close(channel)
            protocol.lanes.pop(underlay.number, None)
        if self._running:
            log.warning("the consumer of %s was ended by the broker; it is opened again", self.queue)

    async def _stay(self, underlay: UnderlayChannel, lane: ReceiveLane, gone: asyncio.Event) -> None:
        received = -1
        while not gone.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._watch_seconds):
                    await gone.wait()
            if not gone.is_set() and lane.received == received:
                state = await underlay.queue_declare(self.queue, passive=True, timeout=_CALL_SECONDS)
                if not state.consumer_count:
                    log.warning("the broker knows no consumer of %s any more; it is opened again", self.queue)
                    return
            received = lane.received


async def _not_called(message: DeliveredMessage) -> None:
    """aiormq wants a callback; deliveries reach the lane before it sees them."""


async def _close(channel: AbstractChannel) -> None:
    with suppress(*CONNECTION_ERRORS):
        async with asyncio.timeout(_CALL_SECONDS):
            await channel.close()


def _as_problem(error: BaseException, queue: str) -> BaseException:
    if isinstance(error, ChannelNotFoundEntity):
        return TopologyMismatch(f"queue {queue} does not exist; declare it first", field=queue)
    if isinstance(error, ChannelAccessRefused):
        return Forbidden(f"the broker's user may not read queue {queue} ({error}); grant it", field=queue)
    return error
