"""The load generator, a process of its own: publishes trigger events on the stack's bus, keeps a number of runs in
flight, and measures from outside.

It reads one JSON document on standard input (`Load`) and prints one on standard output (`Report`). The window that
counts begins when the warm-up's runs have ended and ends `runs` later; it is never cut off at either end by an idle
engine.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from contracts.envelope import Envelope
from contracts.sdk.transport import EVENTS_EXCHANGE, Message, Published, Transport, open_transport
from engine.loop import run
from scripts.answer import whole
from scripts.bench.watch import PostgresWatch, SqliteWatch, Watch
from scripts.bench.workload import TENANT, TRIGGER, order

STALLED_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.01
SATURATED: Final = 1_000
SATURATED_POLL_SECONDS: Final = 0.05
"""With so many in flight the queue does not run dry meanwhile, and looking takes the engine's time."""
PUBLISH_AT_MOST: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to do. `store` is a postgresql:// URL of the database's owner, or the path of an embedded store.
    `metrics_url` is the engine's /metrics. `core` is the one to stay on; None: any. `trigger` is the type of the
    events that start runs; they come of so many `tenants` in turn.
    """

    bus_url: str
    store: str
    metrics_url: str
    in_flight: int
    warm_up: int
    runs: int
    core: int | None = None
    trigger: str = TRIGGER
    tenants: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was seen. `seconds` is how long `runs` took to end. `latencies`, in seconds: one at a time from the broker's
    confirm of the trigger, which is when it is delivered, to the end seen; else from the commit that admitted a run to
    that of its terminal event. `publishing`, in seconds, is what comes before, one at a time: publish to confirm.
    `appends` is the engine's own count, `commits` the database's, `calls` by function; each of all `counted` runs.
    """

    runs: int
    seconds: float
    events_per_run: float
    latencies: list[float]
    publishing: list[float]
    counted: int
    appends: float
    commits: int = 0
    calls: dict[str, int] = field(default_factory=dict)


async def generate(load: Load) -> Report:
    transport = open_transport(load.bus_url, name="bench-load")
    await transport.start()
    watch: Watch = (
        await PostgresWatch.open(load.store) if load.store.startswith("postgres") else SqliteWatch(Path(load.store))
    )
    drive = _one_at_a_time if load.in_flight == 1 else _many
    try:
        await drive(load, transport, watch, load.warm_up)
        before = await _counts(load, watch)
        seen = await drive(load, transport, watch, load.runs)
        after = await _counts(load, watch)
        events, counted = await watch.counted()
    finally:
        await watch.close()
        await transport.stop()
    return Report(
        runs=seen.runs,
        seconds=seen.seconds,
        events_per_run=events / counted,
        latencies=seen.latencies,
        publishing=seen.publishing,
        counted=counted,
        appends=after.appends - before.appends,
        commits=after.commits - before.commits,
        calls={name: calls - before.calls.get(name, 0) for name, calls in after.calls.items()},
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    runs: int
    seconds: float
    latencies: list[float]
    publishing: list[float] = field(default_factory=list)


async def _many(load: Load, transport: Transport, watch: Watch, runs: int) -> _Seen:
    """Closed loop: as runs end, as many new triggers are published. The window leaves out how the house fills up and
    empties again."""
    total, published, ended = runs + 2 * load.in_flight, 0, 0
    pause = SATURATED_POLL_SECONDS if load.in_flight >= SATURATED else POLL_SECONDS
    tenants = [TENANT, *(f"{TENANT}-{number}" for number in range(1, load.tenants))]
    triggers = [
        trigger(load.trigger, order(number), str(number), tenant=tenants[number % len(tenants)])
        for number in range(total)
    ]  # made beforehand: the engine shares our cores
    await watch.begin()
    opened: tuple[float, int] | None = None
    closed: tuple[float, int] | None = None
    moved = time.monotonic()
    while ended < total:
        room = min(load.in_flight - (published - ended), total - published, PUBLISH_AT_MOST)
        if room > 0:
            await publish(transport, triggers[published : published + room])
            published += room
        before, ended = ended, await watch.ended()
        now = time.perf_counter()
        if opened is None and ended >= load.in_flight:
            opened = now, ended
        if closed is None and published == total:
            closed = now, ended
        if ended != before:
            moved = time.monotonic()
        elif time.monotonic() - moved > STALLED_SECONDS:
            raise SystemExit(
                f"no run ended for {STALLED_SECONDS:g} s with {published - ended} in flight; see the engine's log"
            )
        await asyncio.sleep(pause)
    assert opened is not None
    assert closed is not None
    latencies = await watch.seconds_per_run()
    return _Seen(closed[1] - opened[1], closed[0] - opened[0], latencies[load.in_flight : load.in_flight + runs])


async def _one_at_a_time(load: Load, transport: Transport, watch: Watch, runs: int) -> _Seen:
    """The next trigger is published when the end of the run before was seen. The store tells of the append that ends a
    run: that moment counts, and asking whether the run has ended comes after it.
    """
    triggers = [trigger(load.trigger, order(number), str(number)) for number in range(runs)]
    await watch.begin()
    latencies: list[float] = []
    publishing: list[float] = []
    for number, one in enumerate(triggers):
        published = time.perf_counter()
        await publish(transport, [one])
        confirmed = time.perf_counter()
        while True:
            told = await watch.moved()
            if await watch.ended() > number:
                break
            if told > confirmed + STALLED_SECONDS:
                raise SystemExit(f"run {number} did not end within {STALLED_SECONDS:g} s; see the engine's log")
        latencies.append(told - confirmed)
        publishing.append(confirmed - published)
    return _Seen(runs, sum(latencies) + sum(publishing), latencies, publishing)


@dataclass(frozen=True, slots=True)
class _Counts:
    appends: float
    commits: int
    calls: dict[str, int]


async def _counts(load: Load, watch: Watch) -> _Counts:
    async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(load.metrics_url) as response:
        text = await response.text()
    appends = sum(
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("unwind_appends_total")
    )
    commits, calls = await watch.transactions()
    return _Counts(appends, commits, calls)


def trigger(kind: str, data: dict[str, Any], story: str, *, tenant: str = TENANT) -> Message:
    """An event as a module publishes it."""
    envelope = Envelope(
        id=str(uuid.uuid4()),
        source="/modules/bench",
        type=kind,
        tenantid=tenant,
        time=datetime.now(UTC),
        data=data,
        correlationid=f"bench-{story}",
    )
    return Message(EVENTS_EXCHANGE, kind, envelope.to_json())


async def publish(transport: Transport, triggers: Sequence[Message]) -> None:
    fates = await transport.publish(triggers, deadline_seconds=30.0)
    lost = [fate for fate in fates if fate is not Published.CONFIRMED]
    if lost:
        raise SystemExit(f"{len(lost)} of {len(triggers)} triggers were not confirmed ({lost[0].value}); measure again")


def main() -> None:
    load = Load(**orjson.loads(sys.stdin.buffer.read()))
    if load.core is not None:
        os.sched_setaffinity(0, {load.core})
    print(orjson.dumps(asdict(run(generate(load)))).decode(), file=whole(sys.stdout), flush=True)


if __name__ == "__main__":
    main()
