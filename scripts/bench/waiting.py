"""Workload D, a process of its own: very many runs that wait. What they cost in memory while nothing happens, how long
one takes to wake up by its event, and how long very many take that are due at the same moment.

It reads one JSON document on standard input (`Waiting`) and prints one on standard output (`Waited`).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson

from contracts.sdk.transport import Transport, open_transport
from engine.loop import run
from scripts.answer import whole
from scripts.bench.load import STALLED_SECONDS, publish, trigger
from scripts.bench.watch import SQL, PostgresWatch
from scripts.bench.workload import HELD, PAID

AT_ONCE: Final = 500
LONG_SECONDS: Final = 30 * 86_400.0
DUE_IN_SECONDS: Final = 3.0
KILLED: Final = "killed"
OTHER: Final = "other"
LEASE_SECONDS: Final = 4.0
CALM_SECONDS: Final = 3.0
"""So long nothing is published before memory is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What to do. `store` is the URL of the database's owner; `pid` the process that owns the runs."""

    bus_url: str
    store: str
    pid: int
    warm_up: int
    waiting: int
    wakes: int
    due: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """Resident bytes of the process with `warm_up` and with all runs waiting; seconds from the broker's confirm of the
    event to the end of its run, by wake-up; seconds from the moment that `due` runs were due to the end of the last.
    """

    idle_bytes: int
    waiting_bytes: int
    wake_seconds: list[float]
    due_seconds: float


async def measure(asked: Waiting) -> Waited:
    transport = open_transport(asked.bus_url, name="bench-waiting")
    await transport.start()
    watch = await PostgresWatch.open(asked.store)
    owner = await asyncpg.connect(asked.store)
    try:
        await watch.begin()
        await _hold(transport, owner, "w", asked.warm_up)
        await _pay(transport, watch, [f"w-{number}" for number in range(asked.warm_up)], asked.warm_up)
        idle = await _resident(asked.pid)
        await _hold(transport, owner, "h", asked.waiting)
        waiting = await _resident(asked.pid)
        woken = random.Random(1).sample(range(asked.waiting), asked.wakes)
        seconds = [await _wake(transport, watch, f"h-{number}", asked.warm_up + at) for at, number in enumerate(woken)]
        due = await _due(owner, watch, asked.due, asked.warm_up + asked.wakes)
    finally:
        await owner.close()
        await watch.close()
        await transport.stop()
    return Waited(idle_bytes=idle, waiting_bytes=waiting, wake_seconds=seconds, due_seconds=due)


async def _hold(transport: Transport, owner: asyncpg.Connection, prefix: str, runs: int) -> None:
    """Starts runs that wait, and returns when all of them do."""
    before = await owner.fetchval(SQL["waiting_runs"])
    for first in range(0, runs, AT_ONCE):
        some = range(first, min(runs, first + AT_ONCE))
        orders = [f"{prefix}-{number}" for number in some]
        await publish(
            transport, [trigger(HELD, {"order_id": order, "seconds": LONG_SECONDS}, order) for order in orders]
        )
        await _until_waiting(owner, before + some.stop - 4 * AT_ONCE)
    await _until_waiting(owner, before + runs)


async def _until_waiting(owner: asyncpg.Connection, runs: int) -> None:
    began = time.monotonic()
    while await owner.fetchval(SQL["waiting_runs"]) < runs:
        if time.monotonic() - began > STALLED_SECONDS:
            raise SystemExit(f"{runs} runs did not come to wait within {STALLED_SECONDS:g} s; see the engine's log")
        await asyncio.sleep(0.1)


async def _pay(transport: Transport, watch: PostgresWatch, orders: Sequence[str], ended: int) -> None:
    for first in range(0, len(orders), AT_ONCE):
        some = orders[first : first + AT_ONCE]
        await publish(transport, [trigger(PAID, {"order_id": order}, order) for order in some])
    await _until_ended(watch, ended)


async def _until_ended(watch: PostgresWatch, runs: int) -> float:
    """When the last of them ended, by `time.perf_counter`."""
    began = time.monotonic()
    while True:
        told = await watch.moved()
        if await watch.ended() >= runs:
            return told
        if time.monotonic() - began > STALLED_SECONDS:
            raise SystemExit(f"{runs} runs did not end within {STALLED_SECONDS:g} s; see the engine's log")


async def _wake(transport: Transport, watch: PostgresWatch, order: str, before: int) -> float:
    await publish(transport, [trigger(PAID, {"order_id": order}, order)])
    confirmed = time.perf_counter()
    return await _until_ended(watch, before + 1) - confirmed


async def _due(owner: asyncpg.Connection, watch: PostgresWatch, runs: int, before: int) -> float:
    """Moves the timers of so many runs to one moment, and waits until all of them have ended."""
    due = time.perf_counter() + DUE_IN_SECONDS
    await owner.execute(SQL["make_due"].replace(":seconds", "$1").replace(":runs", "$2"), DUE_IN_SECONDS, runs)
    return await _until_ended(watch, before + runs) - due


async def _resident(pid: int) -> int:
    """Resident bytes once it is calm: the median of a few looks."""
    await asyncio.sleep(CALM_SECONDS)
    looks = []
    for _ in range(5):
        looks.append(resident(pid))
        await asyncio.sleep(0.2)
    return int(statistics.median(looks))


def resident(pid: int) -> int:
    """Resident bytes of a process now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"process {pid} is gone; see the engine's log")


async def taken_over(url: str, bus_url: str, runs: int, process: Callable[[str], AbstractContextManager[Any]]) -> float:
    """Kills the process that owns `runs` open runs while another lives; seconds from the end of its lease to the last
    of them being the other's.
    """
    transport = open_transport(bus_url, name="bench-takeover")
    await transport.start()
    with process(KILLED) as owner, ExitStack() as others:
        database = await asyncpg.connect(url)
        try:
            await _hold(transport, database, "t", runs)
            await asyncio.to_thread(others.enter_context, process(OTHER))
            killed = time.perf_counter()
            os.kill(owner.pid, signal.SIGKILL)
            while await database.fetchval(SQL["owned_by"].replace(":name", "$1"), OTHER) < runs:
                if time.perf_counter() - killed > STALLED_SECONDS:
                    raise SystemExit("the runs of the killed process were not taken over; see the engine's log")
                await asyncio.sleep(0.02)
            return time.perf_counter() - killed - LEASE_SECONDS
        finally:
            await database.close()
            await transport.stop()


def main() -> None:
    asked = Waiting(**orjson.loads(sys.stdin.buffer.read()))
    print(orjson.dumps(asdict(run(measure(asked)))).decode(), file=whole(sys.stdout), flush=True)


if __name__ == "__main__":
    main()
