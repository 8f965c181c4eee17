"""One tenant's storm, a process of its own: what the others wait while a tenant sends ten times what they send
together, against what they wait when the same events come from all tenants alike. It reads one JSON document on
standard input (`Storm`) and prints one on standard output (`Stormed`).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import asyncpg
import orjson

from contracts.sdk.transport import Transport, open_transport
from engine.loop import run
from scripts.answer import whole
from scripts.bench.load import STALLED_SECONDS, publish, trigger
from scripts.bench.watch import SQL, PostgresWatch
from scripts.bench.workload import TENANT, TRIGGER, order

OTHERS: Final = tuple(f"small-{number}" for number in range(10))
"""Each of them sends as much as the nine others; the storm ten times as much as all of them."""
TENANTS: Final = (TENANT, *OTHERS)
TIMES: Final = 10
AT_ONCE: Final = 200
POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """`runs` are all events of one of the two spells; they are sent as fast as the broker confirms them."""

    bus_url: str
    store: str
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stormed:
    """Seconds from the publish of an event to the commit that ends its run, of each of the others' runs, and how long
    the whole spell took.
    """

    alike: list[float]
    storm: list[float]
    alike_seconds: float
    storm_seconds: float


async def measure(asked: Storm) -> Stormed:
    transport = open_transport(asked.bus_url, name="bench-storm")
    await transport.start()
    watch = await PostgresWatch.open(asked.store)
    owner = await asyncpg.connect(asked.store)
    try:
        await _spell(asked.runs // 10, _alike, transport, watch, owner)  # every tenant has its keys by then
        alike, alike_seconds = await _spell(asked.runs, _alike, transport, watch, owner)
        storm, storm_seconds = await _spell(asked.runs, _storm, transport, watch, owner)
    finally:
        await owner.close()
        await watch.close()
        await transport.stop()
    return Stormed(alike=alike, storm=storm, alike_seconds=alike_seconds, storm_seconds=storm_seconds)


def _alike(number: int) -> str:
    return TENANTS[number % len(TENANTS)]


def _storm(number: int) -> str:
    turn, place = divmod(number, TIMES + 1)
    return TENANT if place else OTHERS[turn % len(OTHERS)]


async def _spell(
    runs: int,
    tenant_of: Callable[[int], str],
    transport: Transport,
    watch: PostgresWatch,
    owner: asyncpg.Connection,
) -> tuple[list[float], float]:
    """What the others' runs took, and all of them together."""
    tenants = [tenant_of(number) for number in range(runs)]
    triggers = [
        trigger(TRIGGER, order(number), str(number), tenant=tenant) for number, tenant in enumerate(tenants)
    ]  # made beforehand: the engine shares our cores
    await watch.begin()
    sent: list[float] = []
    began = time.time()
    for at in range(0, runs, AT_ONCE):
        sent += [time.time()] * len(triggers[at : at + AT_ONCE])
        await publish(transport, triggers[at : at + AT_ONCE])
    moved, ended = time.monotonic(), 0
    while ended < runs:
        await asyncio.sleep(POLL_SECONDS)
        before, ended = ended, await watch.ended()
        if ended != before:
            moved = time.monotonic()
        elif time.monotonic() - moved > STALLED_SECONDS:
            raise SystemExit(f"no run ended for {STALLED_SECONDS:g} s, {runs - ended} are left; see the engine's log")
    took = time.time() - began
    rows = await owner.fetch(SQL["ended_by_event"].replace(":after", "$1"), watch.begun_at)
    ends = {row["event_id"]: row["ended"] for row in rows}
    ids = [orjson.loads(one.body)["id"] for one in triggers]
    seconds = [ends[identity] - at for identity, at, tenant in zip(ids, sent, tenants, strict=True) if tenant in OTHERS]
    return seconds, took


def main() -> None:
    asked = Storm(**orjson.loads(sys.stdin.buffer.read()))
    print(orjson.dumps(asdict(run(measure(asked)))).decode(), file=whole(sys.stdout), flush=True)


if __name__ == "__main__":
    main()
