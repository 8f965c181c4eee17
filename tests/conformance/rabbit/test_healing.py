"""Connections and consumers heal: after a cut, a silence, a deleted queue, a closed channel, an alarm."""

from __future__ import annotations

import asyncio

import aio_pika
import aiormq
import pytest

from contracts.sdk import rabbit_wire as wire
from contracts.sdk.transport import (
    Message,
    Published,
    Queue,
    Topology,
)
from scripts.provision import RabbitmqServer
from tests.conformance.bus import PATIENCE_SECONDS, Inbox, Names
from tests.conformance.rabbit.mischief import Frozen, Open, disconnect_all, queue_state, until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(180)]


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


# -- alarms ------------------------------------------------------------------------------------------------------------


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
