"""RabbitMQ 3.10 to 4.x behind the `Transport` protocol: two connections that heal themselves, one for publishing and
one for everything else.

Two, because a broker under a memory or disk alarm stops reading from connections that publish: settlements must still
get through. Channels, topology and negotiation are aio-pika's; publishing, confirms, deliveries and settlements run on
`contracts.sdk.rabbit_lanes`. Called by the engine and by modules.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from urllib.parse import unquote, urlsplit

from contracts.problems import Unavailable
from contracts.sdk import rabbit_topology
from contracts.sdk.rabbit_consumer import RabbitConsumer
from contracts.sdk.rabbit_lanes import PublishLane
from contracts.sdk.rabbit_link import CONNECTION_ERRORS, Link, end, tolerating
from contracts.sdk.transport import Delivery, Difference, Message, Published, Topology, TopologyMismatch

log = logging.getLogger(__name__)

MODULE_USER_PREFIX = "module-"


class RabbitTransport:
    """`stamp_user_id`: whether messages carry the user of the connection, which the broker then vouches for; by
    default for users named `module-*`.
    `window`: how many messages may wait for their confirm. `watch_seconds`: how long a queue may be silent before the
    broker is asked about it."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "unwind",
        heartbeat_seconds: float = 4,
        reconnect_seconds: float = 1,
        start_deadline_seconds: float = 10,
        watch_seconds: float = 10,
        window: int = 1000,
        stamp_user_id: bool | None = None,
    ) -> None:
        self.name = name
        user = unquote(urlsplit(url).username or "guest")
        stamped = user.startswith(MODULE_USER_PREFIX) if stamp_user_id is None else stamp_user_id
        self._user_id = user if stamped else None
        self._reconnect_seconds, self._watch_seconds = reconnect_seconds, watch_seconds
        self._start_deadline_seconds, self._window = start_deadline_seconds, window
        self._sending = Link(
            url,
            name=f"{name} publishing",
            heartbeat_seconds=heartbeat_seconds,
            reconnect_seconds=reconnect_seconds,
            on_blocked=self._on_blocked,
        )
        self._receiving = Link(
            url,
            name=name,
            heartbeat_seconds=heartbeat_seconds,
            reconnect_seconds=reconnect_seconds,
            on_up=self._restore,
        )
        self._known = rabbit_topology.Known()
        self._consumers: list[RabbitConsumer] = []
        self._lane: PublishLane | None = None
        self._lane_opened = asyncio.Event()
        self._lane_keeper: asyncio.Task[None] | None = None
        self._blocked = False

    @property
    def ready(self) -> bool:
        return self._lane is not None and self._receiving.up.is_set()

    @property
    def blocked(self) -> bool:
        return self._blocked

    async def start(self) -> None:
        if self._lane_keeper is not None:
            return
        try:
            await self._receiving.start(self._start_deadline_seconds)
            await self._sending.start(self._start_deadline_seconds)
            self._lane_keeper = asyncio.create_task(self._keep_lane(), name=f"publisher {self.name}")
            async with asyncio.timeout(self._start_deadline_seconds):
                await self._lane_opened.wait()
        except TimeoutError:
            await self.stop()
            raise Unavailable(
                f"RabbitMQ at {self._sending.where} opens no channel for publishing; look at its log"
            ) from None
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        consumers, self._consumers = self._consumers, []
        for consumer in consumers:
            await consumer.stop()
        keeper, self._lane_keeper = self._lane_keeper, None
        await end(keeper)
        await self._sending.stop()
        await self._receiving.stop()
        self._known.clear()
        self._blocked = False

    async def declare(self, topology: Topology) -> None:
        try:
            await rabbit_topology.declare(self._receiving, topology)
        except CONNECTION_ERRORS as error:
            raise Unavailable(
                f"the topology could not be declared ({error or type(error).__name__}); try again"
            ) from error
        self._known.remember(topology)

    async def compare(self, topology: Topology) -> Difference:
        try:
            return await rabbit_topology.compare(self._receiving, topology)
        except CONNECTION_ERRORS as error:
            raise Unavailable(
                f"the topology could not be compared ({error or type(error).__name__}); try again"
            ) from error

    async def publish(self, messages: Sequence[Message], *, deadline_seconds: float = 5.0) -> list[Published]:
        lane = self._lane
        if lane is None or self._blocked:
            return [Published.UNKNOWN] * len(messages)
        if not messages:
            return []
        prepared = [lane.prepare(message) for message in messages]
        strange = {message.exchange for message in messages} - self._known.exchanges
        if not strange:
            return await lane.publish(prepared, deadline_seconds)
        return await self._publish_carefully(lane, messages, strange, deadline_seconds)

    async def _publish_carefully(
        self, lane: PublishLane, messages: Sequence[Message], strange: set[str], deadline_seconds: float
    ) -> list[Published]:
        """Looks first whether each exchange exists: one that does not would cost every message in flight its answer."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + deadline_seconds
        missing: set[str] = set()
        try:
            async with asyncio.timeout_at(ends):
                for exchange in strange:
                    if await rabbit_topology.exists(self._receiving, exchange):
                        self._known.exchanges.add(exchange)
                    else:
                        missing.add(exchange)
        except (*CONNECTION_ERRORS, Unavailable):
            return [Published.UNKNOWN] * len(messages)
        prepared = [lane.prepare(message) for message in messages if message.exchange not in missing]
        answers = iter(await lane.publish(prepared, max(0.0, ends - loop.time())) if prepared else ())
        return [
            next(answers)
            if message.exchange not in missing
            else Published.UNROUTABLE
            if message.mandatory
            else Published.CONFIRMED
            for message in messages
        ]

    async def consume(self, queue: str, on_delivery: Callable[[Delivery], None], *, prefetch: int) -> RabbitConsumer:
        if not 1 <= prefetch <= 65535:
            raise ValueError(f"prefetch must be 1 to 65535, was {prefetch}")
        if self._lane_keeper is None:
            raise Unavailable("the bus is not started; call start() first")
        consumer = RabbitConsumer(
            self._receiving,
            queue,
            on_delivery,
            prefetch=prefetch,
            reconnect_seconds=self._reconnect_seconds,
            watch_seconds=self._watch_seconds,
            restore=self._restore,
        )
        await consumer.start(self._start_deadline_seconds)
        self._consumers = [known for known in self._consumers if known.running]
        self._consumers.append(consumer)
        return consumer

    # -- keeping it alive ----------------------------------------------------------------------------------------------

    async def _restore(self) -> None:
        """Declares again what this transport had declared: reply queues end with their connection, and a broker may
        come back empty."""
        topology = self._known.topology
        try:
            await rabbit_topology.declare(self._receiving, topology, again=True)
        except TopologyMismatch as error:
            # What is there can still be consumed; the next start will refuse it and say so.
            log.error("the topology changed while the connection was away: %s", error)

    async def _keep_lane(self) -> None:
        while True:
            await self._sending.up.wait()
            async with tolerating() as trouble:
                await self._open_lane_and_stay()
            if trouble.error is not None:
                log.warning("publishing is interrupted: %s", trouble)
            if self._sending.up.is_set():
                await asyncio.sleep(self._reconnect_seconds)

    async def _open_lane_and_stay(self) -> None:
        protocol = self._sending.protocol
        channel = await self._sending.channel(confirms=True)
        underlay = await channel.get_underlay_channel()
        lane = PublishLane(
            protocol,
            underlay.number,
            frame_max=underlay.connection.connection_tune.frame_max,
            window=self._window,
            user_id=self._user_id,
        )
        closing = underlay.closing
        protocol.lanes[underlay.number] = self._lane = lane
        self._lane_opened.set()
        try:
            await asyncio.wait((closing, protocol.lost), return_when=asyncio.FIRST_COMPLETED)
            if closing.done() and not closing.cancelled() and protocol.open:
                log.warning("the publishing channel was closed: %s", closing.exception() or "no reason given")
                self._known.doubt()
        finally:
            self._lane = None
            self._lane_opened.clear()
            lane.close()
            protocol.lanes.pop(underlay.number, None)

    def _on_blocked(self, blocked: bool) -> None:
        if blocked != self._blocked:
            log.warning("RabbitMQ %s", "asks publishers to pause (an alarm)" if blocked else "takes messages again")
        self._blocked = blocked
        if blocked and self._lane is not None:
            self._lane.give_up()
