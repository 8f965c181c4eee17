"""Workload A for minutes, a process of its own: whether the engine is at the end what it was at the beginning. It reads
one JSON document on standard input (`Lasting`) and prints one on standard output (`Lasted`).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import asyncpg
import orjson

from contracts.sdk.transport import open_transport
from engine.loop import run
from scripts.answer import whole
from scripts.bench.load import PUBLISH_AT_MOST, SATURATED_POLL_SECONDS, STALLED_SECONDS, publish, trigger
from scripts.bench.waiting import resident
from scripts.bench.watch import SQL, PostgresWatch
from scripts.bench.workload import STEPS, TRIGGER, order

LAG_POLL_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """`pids` are the engine's processes. The load lasts `seconds` after one `span_seconds` of warming up; its first and
    its last span are compared."""

    bus_url: str
    store: str
    pids: Sequence[int]
    in_flight: int
    seconds: float
    span_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasted:
    """Steps a second in the first and the last span, resident bytes of all processes at the ends of both, and the
    seconds that the history took under full load to show what the log held at the end."""

    first_steps: float
    last_steps: float
    first_bytes: int
    last_bytes: int
    lag_seconds: float
    runs: int


async def measure(asked: Lasting) -> Lasted:
    transport = open_transport(asked.bus_url, name="bench-lasting")
    await transport.start()
    watch = await PostgresWatch.open(asked.store)
    owner = await asyncpg.connect(asked.store)
    published = ended = 0
    try:
        await watch.begin()
        began = moved = time.perf_counter()
        opens = began + asked.span_seconds
        moments = [opens, opens + asked.span_seconds, opens + asked.seconds - asked.span_seconds, opens + asked.seconds]
        seen: list[tuple[float, int]] = []
        sizes: list[int] = []
        while len(seen) < len(moments):
            room = min(asked.in_flight - (published - ended), PUBLISH_AT_MOST)
            if room > 0:
                some = range(published, published + room)
                await publish(transport, [trigger(TRIGGER, order(number), str(number)) for number in some])
                published += room
            before, ended = ended, await watch.ended()
            now = time.perf_counter()
            if ended != before:
                moved = now
            elif now - moved > STALLED_SECONDS:
                raise SystemExit(f"no run ended for {STALLED_SECONDS:g} s; see the engine's log")
            if now >= moments[len(seen)]:
                seen.append((now, ended))
                if len(seen) in (2, 4):
                    sizes.append(sum(resident(pid) for pid in asked.pids))
            await asyncio.sleep(SATURATED_POLL_SECONDS)
        # What is in flight goes on meanwhile: the projector is as busy as it was.
        lag = await _lag(owner)
    finally:
        await owner.close()
        await watch.close()
        await transport.stop()
    spans = [(later[1] - sooner[1]) * STEPS / (later[0] - sooner[0]) for sooner, later in (seen[:2], seen[2:])]
    return Lasted(
        first_steps=spans[0],
        last_steps=spans[1],
        first_bytes=sizes[0],
        last_bytes=sizes[1],
        lag_seconds=lag,
        runs=ended,
    )


async def _lag(owner: asyncpg.Connection) -> float:
    head = await owner.fetchval(SQL["head"])
    began = time.perf_counter()
    while await owner.fetchval(SQL["history_position"]) < head:
        if time.perf_counter() - began > STALLED_SECONDS:
            raise SystemExit(f"the history was not written within {STALLED_SECONDS:g} s; see the engine's log")
        await asyncio.sleep(LAG_POLL_SECONDS)
    return time.perf_counter() - began


def main() -> None:
    asked = Lasting(**orjson.loads(sys.stdin.buffer.read()))
    print(orjson.dumps(asdict(run(measure(asked)))).decode(), file=whole(sys.stdout), flush=True)


if __name__ == "__main__":
    main()
