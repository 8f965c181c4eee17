"""The wires of chaos against real servers: what is lost was done, what was cut never arrived."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from contracts.problems import Unavailable
from contracts.sdk import open_transport
from contracts.sdk.rabbit import RabbitTransport
from contracts.sdk.transport import Binding, Delivery, Exchange, Message, Published, Queue, Topology, Transport
from engine.loop import run
from scripts.chaos.wire import AmqpTalk, PostgresTalk, Talk, Trap, Wire


@asynccontextmanager
async def wired(url: str, talk: Callable[[], Talk]) -> AsyncIterator[tuple[Wire, str]]:
    """A wire to this server, and its address."""
    there = urlsplit(url)
    assert there.hostname is not None
    assert there.port is not None
    upstreams = [(there.hostname, there.port)]
    wire = Wire(lambda: upstreams, talk)
    await wire.start()
    try:
        user, _, _ = there.netloc.rpartition("@")
        yield wire, urlunsplit(there._replace(netloc=f"{user}@127.0.0.1:{wire.port}"))
    finally:
        await wire.stop()


LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError)


@pytest.mark.postgres
@pytest.mark.parametrize(("loses", "written"), [("answer", [1, 2]), ("request", [1])])
@pytest.mark.parametrize("transaction", [False, True])
async def test_of_a_lost_write_the_answer_or_the_whole_is_missing(
    postgres_url: str, loses: str, written: list[int], transaction: bool
) -> None:
    table = f"wire_{uuid4().hex}"
    direct = await asyncpg.connect(postgres_url)
    try:
        await direct.execute(f"CREATE TABLE {table} (n integer)")
        async with wired(postgres_url, PostgresTalk) as (wire, url):
            behind = await asyncpg.connect(url)
            await behind.execute(f"INSERT INTO {table} VALUES ($1)", 1)

            async def write() -> None:
                if not transaction:
                    await behind.execute(f"INSERT INTO {table} VALUES ($1)", 2)
                    return
                async with behind.transaction():
                    await behind.execute(f"INSERT INTO {table} VALUES ($1)", 2)

            # Inside a transaction the answer to the INSERT is no COMMIT's, and passes.
            losing = asyncio.create_task(wire.lose(Trap(loses), within_seconds=10))
            await asyncio.sleep(0)
            with pytest.raises(LOST):
                await write()
            await losing
        found = [row["n"] for row in await direct.fetch(f"SELECT n FROM {table} ORDER BY n")]
        assert found == written
    finally:
        await direct.execute(f"DROP TABLE IF EXISTS {table}")
        await direct.close()


@pytest.mark.postgres
async def test_what_is_held_comes_late_and_what_is_refused_may_come_again(postgres_url: str) -> None:
    async with wired(postgres_url, PostgresTalk) as (wire, url):
        behind = await asyncpg.connect(url)
        wire.hold()
        asking = asyncio.create_task(behind.fetchval("SELECT 1"))
        assert not (await asyncio.wait([asking], timeout=0.2))[0]
        wire.go_on()
        assert await asking == 1
        wire.refuse()
        with pytest.raises(OSError):
            await asyncpg.connect(url)
        await wire.start()
        again = await asyncpg.connect(url)
        assert await again.fetchval("SELECT 2") == 2
        await again.close()
        with pytest.raises(Unavailable, match=r"no answer passed the wire within 0\.1 s"):
            await wire.lose(Trap("answer"), within_seconds=0.1)


async def _told(transport: Transport, message: Message) -> Published:
    [answer] = await transport.publish([message], deadline_seconds=5)
    return answer


@pytest.mark.rabbitmq
@pytest.mark.parametrize(("loses", "arrived"), [("answer", 2), ("request", 1)])
async def test_of_a_lost_message_the_confirm_or_the_whole_is_missing(
    rabbitmq_url: str, loses: str, arrived: int
) -> None:
    name = f"wire-{uuid4().hex}"
    topology = Topology(
        exchanges=(Exchange(name=name),),
        queues=(Queue(name=name),),
        bindings=(Binding(queue=name, exchange=name, key="#"),),
    )
    direct = open_transport(rabbitmq_url, name="direct")
    await direct.start()
    try:
        await direct.declare(topology)
        async with wired(rabbitmq_url, AmqpTalk) as (wire, url):
            behind = open_transport(url, name="behind")
            await behind.start()
            try:
                message = Message(name, "a", b"1")
                assert await _told(behind, message) is Published.CONFIRMED
                losing = asyncio.create_task(wire.lose(Trap(loses), within_seconds=10))
                await asyncio.sleep(0)
                assert await _told(behind, message) is Published.UNKNOWN
                await losing
            finally:
                await behind.stop()
        came: asyncio.Queue[Delivery] = asyncio.Queue()
        consumer = await direct.consume(name, came.put_nowait, prefetch=10)
        async with asyncio.timeout(10):
            found = [await came.get() for _ in range(arrived)]
        await direct.declare(topology)  # whatever else there was would have come before the answer
        assert (len(found), came.qsize()) == (arrived, 0)
        consumer.ack(found)
        await consumer.stop()
    finally:
        await direct.stop()


def _end(listening: socket.socket, connections: int) -> None:
    """Takes so many connections and ends each at once, before or after the other side has said anything."""
    for _ in range(connections):
        listening.accept()[0].close()


async def _is_served(url: str) -> bool:
    transport = RabbitTransport(url, name="patient", reconnect_seconds=0.001)
    await transport.start()
    try:
        return transport.ready
    finally:
        await transport.stop()


@pytest.mark.rabbitmq
async def test_a_broker_that_ends_connections_while_they_are_made_is_tried_again(rabbitmq_url: str) -> None:
    async with wired(rabbitmq_url, AmqpTalk) as (wire, url):
        wire.refuse()
        with socket.create_server(("127.0.0.1", wire.port)) as listening:
            listening.settimeout(5)
            # On the loop of a process, which tells of an end sooner than the one of the tests.
            served = asyncio.create_task(asyncio.to_thread(run, _is_served(url)))
            async with asyncio.timeout(10):
                await asyncio.to_thread(_end, listening, 100)
        await wire.start()
        assert await served
