"""How fast the buses publish and deliver, as ratios to aio-pika's plain path on the same broker in the same run.

    python -m scripts.bench.bus --amqp amqp://user:password@host/ [--embedded FILE] [--messages 20000] [--json]

Persistent messages of 500 bytes into a quorum queue, confirmed; one process, one connection for each direction. Each
figure is the median of three, taken in turn so that all meet the same weather. Not part of the engine's own figures:
it measures the transports alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from contracts.sdk.transport import Delivery, Message, Published, Queue, Topology, Transport, open_transport

BODY = os.urandom(250).hex().encode()
ROUNDS = 3
WINDOW = 500
PREFETCH = 1000
ACKED_TOGETHER = 100

Rates = dict[str, float]


async def through(transport: Transport, queue: str, count: int) -> Rates:
    """Messages per second of one of our transports, each direction."""
    await transport.declare(Topology(queues=(Queue(name=queue),)))
    batch = [Message("", queue, BODY) for _ in range(WINDOW)]
    began = time.perf_counter()
    for _ in range(count // WINDOW):
        assert set(await transport.publish(batch, deadline_seconds=60)) == {Published.CONFIRMED}
    published = time.perf_counter() - began

    done = asyncio.Event()
    waiting: list[Delivery] = []
    received = 0

    def take(delivery: Delivery) -> None:
        nonlocal received
        received += 1
        waiting.append(delivery)
        if len(waiting) == ACKED_TOGETHER or received == count:
            consumer.ack(waiting)
            waiting.clear()
        if received == count:
            done.set()

    began = time.perf_counter()
    consumer = await transport.consume(queue, take, prefetch=PREFETCH)
    await asyncio.wait_for(done.wait(), 120)
    consumed = time.perf_counter() - began
    await consumer.stop()
    return {"publish": count / published, "consume": count / consumed}


async def plain(url: str, count: int) -> Rates:
    """The same through aio-pika as its manual shows it: a task per publish, a coroutine per delivery, an ack per
    hundred."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        name = f"bench.{uuid.uuid4().hex[:8]}"
        queue = await channel.declare_queue(name, durable=True, arguments={"x-queue-type": "quorum"})
        exchange = channel.default_exchange

        def message() -> aio_pika.Message:
            return aio_pika.Message(BODY, delivery_mode=2, content_type="application/json")

        began = time.perf_counter()
        for _ in range(count // WINDOW):
            await asyncio.gather(*(exchange.publish(message(), name) for _ in range(WINDOW)))
        published = time.perf_counter() - began

        await channel.set_qos(prefetch_count=PREFETCH)
        done = asyncio.Event()
        received = 0

        async def take(incoming: AbstractIncomingMessage) -> None:
            nonlocal received
            received += 1
            if received % ACKED_TOGETHER == 0 or received == count:
                await incoming.ack(multiple=True)
            if received == count:
                done.set()

        began = time.perf_counter()
        await queue.consume(take)
        await asyncio.wait_for(done.wait(), 120)
        consumed = time.perf_counter() - began
        await queue.delete(if_unused=False, if_empty=False)
    return {"publish": count / published, "consume": count / consumed}


async def ours(url: str, count: int) -> Rates:
    queue = f"bench.{uuid.uuid4().hex[:8]}"
    transport = open_transport(url, name="bench")
    await transport.start()
    try:
        return await through(transport, queue, count)
    finally:
        await transport.stop()
        if url.startswith("amqp"):
            connection = await aio_pika.connect(url)
            async with connection:
                await (await connection.channel()).queue_delete(queue)


async def measure(amqp: str | None, file: Path, count: int) -> dict[str, Rates]:
    """Medians by contestant."""
    contestants: dict[str, Callable[[], Awaitable[Rates]]] = {"embedded": lambda: ours(f"embedded://{file}", count)}
    if amqp is not None:
        contestants["rabbitmq"] = lambda: ours(amqp, count)
        contestants["aio-pika"] = lambda: plain(amqp, count)
    rounds: dict[str, list[Rates]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, run in contestants.items():
            rounds[name].append(await run())
    return {
        name: {way: statistics.median(rates[way] for rates in found) for way in ("publish", "consume")}
        for name, found in rounds.items()
    }


def table(found: dict[str, Rates]) -> str:
    reference = found.get("aio-pika")
    lines = [f"{'':10} {'publish/s':>10} {'consume/s':>10}   against aio-pika"]
    for name, rates in found.items():
        ratio = (
            ""
            if reference is None
            else f"{rates['publish'] / reference['publish']:.1f}x / {rates['consume'] / reference['consume']:.1f}x"
        )
        lines.append(f"{name:10} {rates['publish']:10,.0f} {rates['consume']:10,.0f}   {ratio}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--amqp", help="the broker; without it only the embedded bus is measured")
    parser.add_argument("--embedded", type=Path, help="a bus file to use instead of a temporary one")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    count = max(WINDOW, given.messages // WINDOW * WINDOW)
    with tempfile.TemporaryDirectory(prefix="unwind-bench-") as folder:
        file = (given.embedded or Path(folder) / "bus.db").absolute()
        found = asyncio.run(measure(given.amqp, file, count))
    print(json.dumps(found) if given.json else table(found))


if __name__ == "__main__":
    main()
