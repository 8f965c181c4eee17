"""RabbitMQ's and aio-pika's traps, each answered: what a happy path never shows."""

from __future__ import annotations

import asyncio
import random
import uuid
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest

from contracts.problems import Unavailable
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
from scripts.provision import RabbitmqServer
from tests.conformance.bus import PATIENCE_SECONDS, Inbox, Names, receive
from tests.conformance.rabbit.mischief import Open, disconnect_all, queue_state, until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(180)]


# -- a broker disconnect must not cancel the running handler -----------------------------------------------------------


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


# -- returned is not acknowledged, also with equal bodies in flight ----------------------------------------------------


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


# -- nothing is lost when consuming is cancelled -----------------------------------------------------------------------


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


# -- messages are persistent, and a confirm outlives kill -9 -----------------------------------------------------------


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


# -- dead-lettering at least once --------------------------------------------------------------------------------------


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


# -- topology ----------------------------------------------------------------------------------------------------------


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


# -- users -------------------------------------------------------------------------------------------------------------


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
