"""The embedded bus passes the common suite, and keeps its own promises: several processes, leases, a file that cannot
be written."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from contracts.problems import Unavailable
from contracts.sdk import embedded_writer
from contracts.sdk.embedded import EmbeddedTransport
from contracts.sdk.transport import (
    Binding,
    Exchange,
    Message,
    Published,
    Queue,
    Topology,
    TopologyMismatch,
)
from tests.conformance.bus import PATIENCE_SECONDS, BusConformance, Inbox, receive

pytestmark = pytest.mark.embedded


class EmbeddedBus:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.opened: list[EmbeddedTransport] = []

    async def open(self) -> EmbeddedTransport:
        transport = EmbeddedTransport(self.path)
        self.opened.append(transport)
        await transport.start()
        return transport


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[EmbeddedBus]:
    bus = EmbeddedBus(tmp_path / "bus.db")
    yield bus
    for transport in bus.opened:
        await transport.stop()


class TestEmbeddedBus(BusConformance):
    pass


# -- several processes over one file -----------------------------------------------------------------------------------

CHILD = """
import asyncio, signal, sys
from contracts.sdk.embedded import EmbeddedTransport
from contracts.sdk.transport import Message, Queue, Topology

async def main(path, queue, work):
    transport = EmbeddedTransport(path)
    await transport.start()
    await transport.declare(Topology(queues=(Queue(name=queue),)))
    if work == "send":
        await transport.publish([Message("", queue, b"%d" % i) for i in range(20)])
        print("sent", flush=True)
    else:
        held = []
        def settle():
            consumer.ack(held)
            print("acknowledged", flush=True)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, settle)
        def take(delivery):
            held.append(delivery)
            print("took", delivery.body.decode(), int(delivery.redelivered), flush=True)
            if work == "ack":
                consumer.ack([delivery])
        consumer = await transport.consume(queue, take, prefetch=5)
        print("consuming", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


class Child:
    """Another process on the same bus; what it says comes line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def say(self, count: int = 1) -> list[str]:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            return [(await self.process.stdout.readline()).decode().strip() for _ in range(count)]

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@pytest.fixture
async def child(bus: EmbeddedBus) -> AsyncIterator[Callable[[str, str], Awaitable[Child]]]:
    children: list[Child] = []

    async def start(queue: str, work: str) -> Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CHILD, str(bus.path), queue, work, stdout=asyncio.subprocess.PIPE
        )
        children.append(Child(process))
        return children[-1]

    yield start
    for child in children:
        with suppress(ProcessLookupError):
            child.process.kill()
        await child.process.wait()


Start = Callable[[str, str], Awaitable[Child]]


async def test_a_message_sent_by_another_process_arrives_here(bus: EmbeddedBus, child: Start) -> None:
    transport = await bus.open()
    await transport.declare(Topology(queues=(Queue(name="q"),)))
    inbox = Inbox(lambda delivery: consumer.ack([delivery]))
    consumer = await transport.consume("q", inbox, prefetch=5)
    sender = await child("q", "send")
    assert await sender.say() == ["sent"]
    await inbox.wait(20)
    assert inbox.bodies == [b"%d" % i for i in range(20)]
    await sender.kill()


async def test_processes_compete_and_each_message_is_taken_once(bus: EmbeddedBus, child: Start) -> None:
    transport = await bus.open()
    await transport.declare(Topology(queues=(Queue(name="q"),)))
    other = await child("q", "ack")
    assert await other.say() == ["consuming"]
    mine = Inbox()
    consumer = await transport.consume("q", mine, prefetch=5)
    await transport.publish([Message("", "q", b"%d" % i) for i in range(10)])
    theirs = await other.say(5)
    assert sorted(mine.bodies + [line.split()[1].encode() for line in theirs]) == [b"%d" % i for i in range(10)]
    consumer.ack(mine.deliveries)


async def test_what_a_killed_process_held_comes_again_and_is_counted(bus: EmbeddedBus, child: Start) -> None:
    transport = await bus.open()
    await transport.declare(Topology(queues=(Queue(name="q"),)))
    holder = await child("q", "hold")
    assert await holder.say() == ["consuming"]
    await transport.publish([Message("", "q", b"%d" % i) for i in range(7)])
    assert len(await holder.say(5)) == 5
    inbox = Inbox()
    consumer = await transport.consume("q", inbox, prefetch=10)
    await inbox.wait(2)
    await holder.kill()
    await inbox.wait(7)
    assert inbox.bodies == [b"5", b"6", b"0", b"1", b"2", b"3", b"4"]
    assert [d.delivery_count for d in inbox.deliveries] == [0, 0, 1, 1, 1, 1, 1]
    consumer.ack(inbox.deliveries)


async def test_what_a_frozen_process_held_comes_again_and_its_late_settlements_change_nothing(
    bus: EmbeddedBus, child: Start
) -> None:
    transport = await bus.open()
    await transport.declare(Topology(queues=(Queue(name="q"),)))
    frozen = await child("q", "hold")
    assert await frozen.say() == ["consuming"]
    await transport.publish([Message("", "q", b"%d" % i) for i in range(5)])
    assert len(await frozen.say(5)) == 5
    os.kill(frozen.process.pid, signal.SIGSTOP)
    with sqlite3.connect(bus.path) as file:
        file.execute("UPDATE sessions SET lease_until = 0 WHERE pid = ?", (frozen.process.pid,))  # as after 30 s
    file.close()
    inbox = Inbox()
    consumer = await transport.consume("q", inbox, prefetch=5)
    await inbox.wait(5)
    os.kill(frozen.process.pid, signal.SIGUSR1)  # acknowledge all of it
    os.kill(frozen.process.pid, signal.SIGCONT)
    assert await frozen.say() == ["acknowledged"]
    await transport.publish([Message("", "q", b"last")])
    assert await frozen.say() == ["took last 0"]  # it has begun anew
    for delivery in inbox.deliveries[:5]:
        consumer.reject(delivery, requeue=True)
    again = await inbox.wait(10)
    assert sorted(d.body for d in again[5:]) == [b"%d" % i for i in range(5)]
    consumer.ack(again[5:])


async def test_two_processes_may_make_the_file_at_once(bus: EmbeddedBus, child: Start) -> None:
    children = await asyncio.gather(*(child(f"q{i}", "hold") for i in range(4)))
    assert [await one.say() for one in children] == [["consuming"]] * 4


# -- a file that cannot be written -------------------------------------------------------------------------------------


async def test_while_another_holds_the_file_a_publish_is_unknown_at_its_deadline_and_settlements_are_kept(
    bus: EmbeddedBus,
) -> None:
    transport = await bus.open()
    await transport.declare(Topology(queues=(Queue(name="q"),)))
    await transport.publish([Message("", "q", b"a")])
    inbox = Inbox()
    consumer = await transport.consume("q", inbox, prefetch=1)
    await inbox.wait(1)
    holder = sqlite3.connect(bus.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    consumer.ack(inbox.deliveries)
    assert await transport.publish([Message("", "q", b"b")], deadline_seconds=0.2) == [Published.UNKNOWN]
    holder.execute("ROLLBACK")
    holder.close()
    assert await transport.publish([Message("", "q", b"c")]) == [Published.CONFIRMED]
    assert (await inbox.wait(2))[1].body == b"c"  # the abandoned one was never begun
    consumer.ack(inbox.deliveries[1:])


async def test_a_full_disk_blocks_publishers_and_loses_no_settlement(bus: EmbeddedBus) -> None:
    transport = await bus.open()
    await transport.declare(Topology(queues=(Queue(name="q"),)))
    assert await transport.publish([Message("", "q", b"a")]) == [Published.CONFIRMED]
    writer = embedded_writer.acquire(bus.path)

    async def allow_pages(count: str) -> None:
        await writer.call(lambda file, session: file._db.execute(f"PRAGMA max_page_count = {count}").fetchall())

    await allow_pages("1")  # below what it has: no further page
    assert await transport.publish([Message("", "q", bytes(1_000_000))]) == [Published.UNKNOWN]
    assert (transport.blocked, transport.ready) == (True, False)
    await allow_pages("1000000")
    await receive(transport, "q", 1)
    assert (transport.blocked, transport.ready) == (False, True)
    assert await transport.publish([Message("", "q", bytes(1_000_000))]) == [Published.CONFIRMED]
    embedded_writer.release(writer)


async def test_a_file_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "bus.db") as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(TopologyMismatch, match="newer release"):
        await EmbeddedTransport(tmp_path / "bus.db").start()


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(Unavailable, match="check the folder"):
        await EmbeddedTransport(tmp_path / "taken" / "bus.db").start()


async def test_a_dead_letter_that_no_queue_takes_is_held_and_delivered_when_one_does(bus: EmbeddedBus) -> None:
    transport = await bus.open()
    await transport.declare(
        Topology(exchanges=(Exchange(name="dead"),), queues=(Queue(name="q", dead_letter_exchange="dead"),))
    )
    await transport.publish([Message("", "q", b"poison")])
    inbox = Inbox()
    consumer = await transport.consume("q", inbox, prefetch=1)
    consumer.reject((await inbox.wait(1))[0], requeue=False)
    await transport.declare(
        Topology(queues=(Queue(name="d"),), bindings=(Binding(queue="d", exchange="dead", key="#"),))
    )
    [dead] = await receive(transport, "d", 1)
    assert (dead.body, dead.headers["x-death"][0]["count"]) == (b"poison", 1)


async def test_confirmed_messages_are_there_after_kill_9_of_the_sender(bus: EmbeddedBus, child: Start) -> None:
    sender = await child("q", "send")
    assert await sender.say() == ["sent"]
    await sender.kill()
    transport = await bus.open()
    assert [d.body for d in await receive(transport, "q", 20)] == [b"%d" % i for i in range(20)]
