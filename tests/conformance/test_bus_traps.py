"""RabbitMQ's and aio-pika's traps, each answered: what a happy path never shows. The broker here is this file's own
and is killed, frozen and starved."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import aiormq
import pytest

from contracts.problems import Unavailable
from contracts.sdk import rabbit_wire as wire
from contracts.sdk.rabbit import RabbitTransport
from contracts.sdk.transport import (
    Binding,
    Delivery,
    Exchange,
    Message,
    Published,
    Queue,
    Topology,
    TopologyMismatch,
)
from scripts.provision import NoServers, RabbitmqServer, sources
from scripts.provision.places import Instance
from scripts.provision.rabbitmq import management_request
from tests.conformance.bus import PATIENCE_SECONDS, Inbox, Names, receive

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(180)]

Open = Callable[..., Awaitable[RabbitTransport]]


@pytest.fixture(scope="module")
def broker(own_instance: Instance) -> Iterator[RabbitmqServer]:
    try:
        server = RabbitmqServer(sources.rabbitmq_programs(), own_instance)
    except NoServers as why:
        pytest.skip(f"no server: RabbitMQ of the test's own. {why}")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def name() -> Names:
    return Names()


@pytest.fixture
async def connect(broker: RabbitmqServer) -> AsyncIterator[Open]:
    opened: list[RabbitTransport] = []

    async def connect(url: str | None = None, **options: Any) -> RabbitTransport:
        transport = RabbitTransport(url or broker.url, **{"name": "traps", "reconnect_seconds": 0.2, **options})
        opened.append(transport)
        await transport.start()
        return transport

    yield connect
    for transport in opened:
        await transport.stop()


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


# -- 0.1: a broker disconnect must not cancel the running handler ------------------------------------------------------


async def test_a_running_handler_survives_a_disconnect_and_its_late_ack_is_ignored_and_counted(
    broker: RabbitmqServer, connect: Open, name: Names
) -> None:
    transport = await connect()
    await transport.declare(name.plain())
    release, finished = asyncio.Event(), asyncio.Event()
    handled: list[Delivery] = []
    tasks: list[asyncio.Task[None]] = []

    async def handle(delivery: Delivery) -> None:
        await release.wait()
        handled.append(delivery)
        consumer.ack([delivery])
        finished.set()

    def start_handling(delivery: Delivery) -> None:
        tasks.append(asyncio.create_task(handle(delivery)))

    consumer = await transport.consume(name("intake.v1"), start_handling, prefetch=1)
    await transport.publish([name.message(b"slow")])
    await until(lambda: tasks, "the handler begins")
    await disconnect_all(broker)
    await until(lambda: len(tasks) == 2, "the message comes again on the next connection")
    assert not tasks[0].done()
    release.set()
    await finished.wait()
    await asyncio.gather(*tasks)
    assert [(d.redelivered, d.delivery_count) for d in handled] == [(False, 0), (True, 1)]
    assert consumer.stale_settlements == 1
    await consumer.stop()
    await transport.publish([name.message(b"next")])
    assert [d.body for d in await receive(transport, name("intake.v1"), 1)] == [b"next"]


# -- 0.2, 0.3: returned is not acknowledged, also with equal bodies in flight ------------------------------------------


async def test_returned_and_acknowledged_are_never_mixed_up_with_a_thousand_equal_messages_in_flight(
    connect: Open, name: Names
) -> None:
    transport = await connect(window=2000)
    await transport.declare(
        Topology(
            exchanges=(Exchange(name=name("events")),),
            queues=(Queue(name=name("intake.v1")),),
            bindings=(Binding(queue=name("intake.v1"), exchange=name("events"), key="bound"),),
        )
    )
    chance = random.Random(20261121)
    keys = [chance.choice(("bound", "free")) for _ in range(3000)]
    thirds = [keys[:1000], keys[1000:2000], keys[2000:]]
    answers = await asyncio.gather(*(transport.publish([name.message(b"same", k) for k in third]) for third in thirds))
    for third, fates in zip(thirds, answers, strict=True):
        assert fates == [Published.CONFIRMED if key == "bound" else Published.UNROUTABLE for key in third]
    assert len(await receive(transport, name("intake.v1"), keys.count("bound"))) == keys.count("bound")


async def test_every_publish_carries_a_message_id_of_its_own(
    connect: Open, name: Names, broker: RabbitmqServer
) -> None:
    transport = await connect()
    await transport.declare(name.plain())
    message = name.message(b"same")
    await transport.publish([message] * 20)
    await transport.publish([message])
    async with await aio_pika.connect(broker.url) as connection:
        queue = await (await connection.channel()).get_queue(name("intake.v1"))
        received = [await queue.get(no_ack=True) for _ in range(21)]
    assert len({incoming.message_id for incoming in received if incoming is not None}) == 21
    assert {incoming.delivery_mode for incoming in received if incoming is not None} == {2}


# -- 0.4: nothing is lost when consuming is cancelled ------------------------------------------------------------------


async def test_no_message_is_lost_when_a_consumer_is_cancelled_in_the_middle_and_no_dead_letter_exchange_would_catch_it(
    connect: Open, name: Names
) -> None:
    transport, other = await connect(), await connect()
    await transport.declare(Topology(queues=(Queue(name=name("bare.v1")),)))
    await transport.publish([Message("", name("bare.v1"), b"%d" % i) for i in range(50)])
    inbox = Inbox()
    await transport.consume(name("bare.v1"), inbox, prefetch=50)
    await inbox.wait(50)
    stopping = asyncio.create_task(transport.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with suppress(asyncio.CancelledError):
        await stopping
    await transport.stop()
    again = await receive(other, name("bare.v1"), 50)
    assert sorted(d.body for d in again) == sorted(b"%d" % i for i in range(50))
    assert {d.redelivered for d in again} == {True}


# -- 0.5: messages are persistent, and a confirm outlives kill -9 ------------------------------------------------------


async def test_confirmed_messages_outlive_kill_9_of_the_broker_and_sending_goes_on_by_itself(
    broker: RabbitmqServer, connect: Open, name: Names
) -> None:
    transport = await connect()
    await transport.declare(name.plain())
    classic = name("classic.v1")
    async with await aio_pika.connect(broker.url) as connection:
        await (await connection.channel()).declare_queue(classic, durable=True)
    assert set(await transport.publish([Message("", classic, b"%d" % i) for i in range(50)])) == {Published.CONFIRMED}

    confirmed: list[bytes] = []
    unknown = 0
    killed = asyncio.Event()
    stop = asyncio.Event()

    async def send() -> None:
        nonlocal unknown
        number = 0
        while not stop.is_set():
            batch = [b"%d" % (number + i) for i in range(20)]
            number += 20
            fates = await transport.publish([name.message(body) for body in batch], deadline_seconds=2)
            confirmed.extend(b for b, fate in zip(batch, fates, strict=True) if fate is Published.CONFIRMED)
            unknown += fates.count(Published.UNKNOWN)
            if not transport.ready:
                killed.set()
                await asyncio.sleep(0.05)

    # RabbitMQ 3.10 writes its register of quorum queues with a delay: a queue younger than that is lost to a kill -9.
    aged = asyncio.get_running_loop().time() + 3
    sending = asyncio.create_task(send())
    await until(lambda: len(confirmed) > 500 and asyncio.get_running_loop().time() > aged, "some are confirmed before")
    await asyncio.to_thread(broker.kill)
    await asyncio.wait_for(killed.wait(), PATIENCE_SECONDS)
    before = len(confirmed)
    assert await transport.publish([name.message(b"x")]) == [Published.UNKNOWN]
    await asyncio.to_thread(broker.start)
    await until(lambda: len(confirmed) > before + 500, "some are confirmed after", 60)
    stop.set()
    await sending
    assert unknown > 0

    inbox = Inbox(lambda delivery: consumer.ack([delivery]))
    consumer = await transport.consume(name("intake.v1"), inbox, prefetch=500)
    await until(lambda: set(confirmed) <= set(inbox.bodies), "every confirmed message is there", 60)
    assert len(await receive(transport, classic, 50)) == 50


# -- 0.6: dead-lettering at least once ---------------------------------------------------------------------------------


async def test_a_dead_letter_that_no_queue_takes_stays_in_its_queue(
    broker: RabbitmqServer, connect: Open, name: Names
) -> None:
    transport = await connect()
    await transport.declare(
        Topology(
            exchanges=(Exchange(name=name("dead")),),
            queues=(Queue(name=name("intake.v1"), dead_letter_exchange=name("dead")),),
        )
    )
    await transport.publish([Message("", name("intake.v1"), b"poison")])
    inbox = Inbox()
    consumer = await transport.consume(name("intake.v1"), inbox, prefetch=10)
    consumer.reject((await inbox.wait(1))[0], requeue=False)
    await transport.publish([Message("", name("intake.v1"), b"next")])
    consumer.ack((await inbox.wait(2))[1:])
    await consumer.stop()
    held: dict[str, Any] = {}
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (held.get("messages_ready"), held.get("messages_unacknowledged"), held.get("messages")) != (0, 0, 1):
            held = await queue_state(broker, name("intake.v1"))
    arguments = (await queue_state(broker, name("intake.v1")))["arguments"]
    assert arguments == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": name("dead"),
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


# -- section 2: connections and consumers heal -------------------------------------------------------------------------


async def test_a_publish_in_flight_when_the_connection_ends_is_unknown_at_once_and_the_next_is_confirmed(
    broker: RabbitmqServer, connect: Open, name: Names, frozen: Frozen
) -> None:
    transport = await connect(frozen.url)
    await transport.declare(name.plain())
    frozen.freeze()
    in_flight = asyncio.create_task(transport.publish([name.message(b"lost?")] * 3, deadline_seconds=30))
    await until(lambda: frozen.held, "the publish is on its way")
    frozen.cut()
    assert await asyncio.wait_for(in_flight, 5) == [Published.UNKNOWN] * 3
    await until(lambda: transport.ready, "connected again")
    assert await transport.publish([name.message(b"again")]) == [Published.CONFIRMED]


async def test_a_silent_peer_is_noticed_by_the_heartbeat_and_a_publish_meanwhile_ends_at_its_deadline(
    connect: Open, name: Names, frozen: Frozen
) -> None:
    transport = await connect(frozen.url, heartbeat_seconds=1)
    await transport.declare(name.plain())
    frozen.freeze()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await transport.publish([name.message(b"?")], deadline_seconds=0.5) == [Published.UNKNOWN]
    assert 0.4 < loop.time() - began < 3
    await until(lambda: not transport.ready, "the silence is noticed", 15)
    frozen.cut()
    await until(lambda: transport.ready, "connected again")
    assert await transport.publish([name.message(b"!")]) == [Published.CONFIRMED]


async def test_deliveries_alone_count_as_a_sign_of_life(connect: Open, name: Names) -> None:
    transport = await connect(heartbeat_seconds=1)
    await transport.declare(name.plain())
    inbox = Inbox(lambda delivery: consumer.ack([delivery]))
    consumer = await transport.consume(name("intake.v1"), inbox, prefetch=50)
    loop = asyncio.get_running_loop()
    ends = loop.time() + 8  # aiormq gives a silent peer up after 3 x (1 + 1) s
    while loop.time() < ends:
        assert set(await transport.publish([name.message(b"x")] * 20)) == {Published.CONFIRMED}
    assert consumer.attached == 1
    assert consumer.stale_settlements == 0


async def test_a_consumer_whose_queue_is_deleted_gets_the_queue_back_and_goes_on(
    broker: RabbitmqServer, connect: Open, name: Names
) -> None:
    transport = await connect()
    await transport.declare(name.plain())
    inbox = Inbox(lambda delivery: consumer.ack([delivery]))
    consumer = await transport.consume(name("intake.v1"), inbox, prefetch=10)
    async with await aio_pika.connect(broker.url) as connection:
        await (await connection.channel()).queue_delete(name("intake.v1"))
    await until(lambda: consumer.attached == 2 and consumer.alive, "it consumes again")
    assert await transport.publish([name.message(b"back")]) == [Published.CONFIRMED]
    await inbox.wait(1)


async def test_a_consumer_that_only_the_broker_has_forgotten_is_found_by_asking(
    broker: RabbitmqServer, connect: Open, name: Names
) -> None:
    transport = await connect(watch_seconds=0.2)
    await transport.declare(name.plain())
    inbox = Inbox(lambda delivery: consumer.ack([delivery]))
    consumer = await transport.consume(name("intake.v1"), inbox, prefetch=10)
    state = (await asyncio.to_thread(broker.rabbitmqctl, "list_consumers", "--quiet", "--no-table-headers")).split("\n")
    [tag] = [line.split("\t")[2] for line in state if line.startswith(name("intake.v1"))]
    connection = transport._receiving._connection
    assert connection is not None
    assert connection.transport is not None
    for channel in list(connection.transport.connection.channels.values()):
        if isinstance(channel, aiormq.Channel) and tag in channel.consumers:
            await channel.basic_cancel(tag)  # as if the broker had dropped it without a word
    await until(lambda: consumer.attached == 2 and consumer.alive, "it consumes again")
    await transport.publish([name.message(b"x")])
    await inbox.wait(1)


async def test_a_consumer_whose_channel_the_broker_closes_gets_a_new_one_and_loses_nothing(
    connect: Open, name: Names
) -> None:
    transport = await connect()
    await transport.declare(name.plain())
    await transport.publish([name.message(b"a"), name.message(b"b")])
    inbox = Inbox()
    consumer = await transport.consume(name("intake.v1"), inbox, prefetch=10)
    await inbox.wait(2)
    protocol = transport._receiving.protocol
    [channel] = protocol.lanes
    protocol.write(
        wire.ack_frame(channel, 999, multiple=False)
    )  # the broker closes a channel that settles what it never had
    await inbox.wait(4)
    consumer.ack(inbox.deliveries)
    assert consumer.stale_settlements == 2
    assert [(d.body, d.delivery_count) for d in inbox.deliveries[2:]] == [(b"a", 1), (b"b", 1)]


async def test_stopping_while_a_consumer_is_being_opened_again_comes_to_an_end(connect: Open, name: Names) -> None:
    transport = await connect()
    await transport.declare(name.plain())
    await transport.publish([name.message(b"a")])
    inbox = Inbox()
    consumer = await transport.consume(name("intake.v1"), inbox, prefetch=10)
    await inbox.wait(1)
    protocol = transport._receiving.protocol
    [channel] = protocol.lanes
    protocol.write(wire.ack_frame(channel, 999, multiple=False))
    await inbox.wait(2)  # a delivery comes before the answer to the call that asked for it
    async with asyncio.timeout(10):
        await transport.stop()
    assert not consumer.alive


async def test_a_reply_queue_and_its_consumer_come_back_with_the_connection(
    broker: RabbitmqServer, connect: Open, name: Names
) -> None:
    transport = await connect()
    await transport.declare(Topology(queues=(Queue(name=name("replies"), transient=True),)))
    inbox = Inbox(lambda delivery: consumer.ack([delivery]))
    consumer = await transport.consume(name("replies"), inbox, prefetch=10)
    await disconnect_all(broker)
    await until(lambda: consumer.attached == 2 and consumer.alive and transport.ready, "it consumes again")
    assert await transport.publish([Message("", name("replies"), b"!")]) == [Published.CONFIRMED]
    await inbox.wait(1)


async def test_an_exchange_deleted_behind_our_back_costs_no_later_message(
    broker: RabbitmqServer, connect: Open, name: Names
) -> None:
    transport = await connect()
    await transport.declare(name.plain())
    async with await aio_pika.connect(broker.url) as connection:
        await (await connection.channel()).exchange_delete(name("events"))
    assert await transport.publish([name.message(b"a")], deadline_seconds=2) == [Published.UNKNOWN]
    await until(lambda: transport.ready, "the channel is open again")
    assert await transport.publish([name.message(b"b")]) == [Published.UNROUTABLE]
    await transport.declare(name.plain())
    assert await transport.publish([name.message(b"c")]) == [Published.CONFIRMED]


async def test_a_crash_loop_counts_for_the_neighbours_of_a_poison_message_but_takes_none_of_them_below_the_limit(
    broker: RabbitmqServer, connect: Open, name: Names
) -> None:
    transport = await connect()
    await transport.declare(name.plain(delivery_limit=3))
    await transport.publish([name.message(b"%d" % i) for i in range(10)])
    inbox = Inbox()
    consumer = await transport.consume(name("intake.v1"), inbox, prefetch=10)
    for crash in range(1, 4):
        await inbox.wait(10 * crash)
        await disconnect_all(broker)
    await inbox.wait(40)
    assert {d.delivery_count for d in inbox.deliveries[30:]} == {3}
    consumer.ack(inbox.deliveries[30:])
    await consumer.stop()
    dead = await queue_state(broker, name("dead.v1"))
    assert dead.get("messages", 0) == 0


# -- section 2: alarms -------------------------------------------------------------------------------------------------


async def test_under_an_alarm_publishing_is_blocked_and_unknown_without_waiting_while_settling_goes_on(
    broker: RabbitmqServer, connect: Open, name: Names
) -> None:
    transport = await connect()
    await transport.declare(name.plain())
    await transport.publish([name.message(b"%d" % i) for i in range(4)])
    inbox = Inbox()
    consumer = await transport.consume(name("intake.v1"), inbox, prefetch=2)
    await inbox.wait(2)
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(broker.rabbitmqctl, "set_disk_free_limit", "5000GB")
    try:
        began = loop.time()
        fates: list[Published] = []
        while not transport.blocked and loop.time() < began + PATIENCE_SECONDS:
            fates = await transport.publish([name.message(b"late")], deadline_seconds=3)
        assert transport.blocked
        assert fates == [Published.UNKNOWN]
        began = loop.time()
        assert await transport.publish([name.message(b"later")] * 100, deadline_seconds=3) == [Published.UNKNOWN] * 100
        assert loop.time() - began < 0.5
        consumer.ack(inbox.deliveries[:2])
        await inbox.wait(4)
    finally:
        await asyncio.to_thread(broker.rabbitmqctl, "set_disk_free_limit", "50MB")
    await until(lambda: not transport.blocked, "the alarm is over")
    assert await transport.publish([name.message(b"after")]) == [Published.CONFIRMED]


# -- section 2: topology -----------------------------------------------------------------------------------------------


async def test_a_queue_of_another_type_is_refused_by_name_and_with_the_remedy(
    broker: RabbitmqServer, connect: Open, name: Names
) -> None:
    async with await aio_pika.connect(broker.url) as connection:
        await (await connection.channel()).declare_queue(name("intake.v1"), durable=True)
    transport = await connect()
    with pytest.raises(TopologyMismatch, match=r"intake\.v1.*name\.v2"):
        await transport.declare(name.plain())
    assert transport.ready


async def test_a_topology_that_changed_while_away_does_not_keep_the_connection_from_healing(
    broker: RabbitmqServer, connect: Open, name: Names
) -> None:
    transport = await connect()
    await transport.declare(name.plain())
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.queue_delete(name("intake.v1"))
        await channel.declare_queue(name("intake.v1"), durable=True)
    await disconnect_all(broker)
    await until(lambda: not transport.ready, "the loss is noticed")
    await until(lambda: transport.ready, "connected again")
    assert await transport.publish([Message("", name("intake.v1"), b"x")]) == [Published.CONFIRMED]
    await receive(transport, name("intake.v1"), 1)


# -- section 2: users --------------------------------------------------------------------------------------------------


async def test_a_module_user_is_stamped_by_default_and_vouched_for_by_the_broker(
    broker: RabbitmqServer, connect: Open, name: Names
) -> None:
    user = f"module-{uuid.uuid4().hex[:6]}"
    await asyncio.to_thread(broker.rabbitmqctl, "add_user", user, "secret")
    await asyncio.to_thread(broker.rabbitmqctl, "set_permissions", user, ".*", ".*", ".*")
    engine = await connect()
    await engine.declare(name.plain())
    module = await connect(f"amqp://{user}:secret@127.0.0.1:{broker.port}/")
    await module.publish([name.message(b"mine")])
    await engine.publish([name.message(b"engine's")])
    received = await receive(engine, name("intake.v1"), 2)
    assert [(d.body, d.user_id) for d in received] == [(b"mine", user), (b"engine's", None)]


async def test_start_without_a_broker_is_unavailable_within_its_deadline_and_tells_no_password() -> None:
    transport = RabbitTransport("amqp://someone:hush@127.0.0.1:1/", start_deadline_seconds=0.5, reconnect_seconds=0.1)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1") as refusal:
        await transport.start()
    assert "hush" not in str(refusal.value)
    assert not transport.ready


async def test_a_wrong_password_is_said_at_once(broker: RabbitmqServer) -> None:
    place = urlsplit(broker.url)
    url = f"amqp://{place.username}:wrong@{place.hostname}:{place.port}/"
    transport = RabbitTransport(url, start_deadline_seconds=60)
    async with asyncio.timeout(20):
        with pytest.raises(Unavailable, match="user"):
            await transport.start()


# -- a link that can be frozen and cut ---------------------------------------------------------------------------------


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


@pytest.fixture
async def frozen(broker: RabbitmqServer) -> AsyncIterator[Frozen]:
    cable = Frozen(broker.port, urlsplit(broker.url).netloc.rpartition("@")[0])
    await cable.start()
    yield cable
    await cable.stop()
