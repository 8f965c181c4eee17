"""How fast the store appends, against the raw ceiling of the same server in the same run: batches of 100 and 250 runs
with two events each, bodies as large as the ceiling's. Measures the store alone: no engine, no sealing. Give it an
empty database of its own, or a path for the embedded store.

python -m scripts.bench.store postgresql://... [ROUNDS] python -m scripts.bench.store sqlite:///path [ROUNDS]
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import UUID

import uuid_utils.compat

from engine.store import Appended, Commit, Recorded, Start, Store, open_store
from engine.store import Opened as OpenedRun
from scripts.bench import ceiling

SIZES: Final = (100, 250)
EVENTS_PER_ROUND: Final = 20_000
STEPS: Final = 5
BODY: Final = ceiling.BODY


def batches(runs: int, events: int) -> Iterator[list[Commit]]:
    """Runs that start and go on for a few steps, as many at a time as the batch holds."""
    made = 0
    while True:
        ids = [uuid_utils.compat.uuid7() for _ in range(runs)]
        for step in range(STEPS + 1):
            if made >= events:
                return
            yield [_commit(run, step) for run in ids]
            made += 2 * runs


def _commit(run: UUID, step: int) -> Commit:
    recorded = (Recorded("step.started", BODY), Recorded("step.succeeded", BODY))
    if step:
        return Commit(tenant="bench", stream=run, expected=2 * step, events=recorded)
    start = Start(key=f"bench/{run}", workflow="bench", workflow_version=1)
    opened = OpenedRun(status="running", slot=True)
    return Commit(tenant="bench", stream=run, events=recorded, start=start, open_run=opened)


async def append_rate(store: Store, epoch: int, runs: int) -> tuple[float, float]:
    """Events a second, and microseconds of this process's CPU per event."""
    work = list(batches(runs, EVENTS_PER_ROUND))
    started, cpu = time.perf_counter(), time.process_time()
    for batch in work:
        outcomes = await store.append(batch, epoch=epoch)
        if not all(isinstance(outcome, Appended) for outcome in outcomes):
            raise RuntimeError("the bench's own database refused an append; give it an empty one")
    seconds, busy = time.perf_counter() - started, time.process_time() - cpu
    events = sum(2 * len(batch) for batch in work)
    return events / seconds, busy / events * 1e6


async def measure(url: str, rounds: int) -> dict[str, object]:
    """Medians over the rounds; each round measures the ceiling and every batch size, so that a noisy machine is noisy
    to all."""
    with tempfile.TemporaryDirectory() as nothing:
        store = open_store(url, views=Path(nothing))
    await store.migrate()
    await store.start()
    found: dict[str, list[float]] = {}
    try:
        epoch = await store.register("bench", ["bench"])
        await append_rate(store, epoch, SIZES[0])
        for _ in range(rounds):
            top = await ceiling.events_per_second(url, EVENTS_PER_ROUND) if url.startswith("postgres") else None
            if top is not None:
                found.setdefault("ceiling_events_per_second", []).append(top)
            for runs in SIZES:
                rate, cpu = await append_rate(store, epoch, runs)
                found.setdefault(f"append_{runs}_events_per_second", []).append(rate)
                found.setdefault(f"append_{runs}_client_us_per_event", []).append(cpu)
                if top is not None:
                    found.setdefault(f"append_{runs}_vs_ceiling", []).append(rate / top)
    finally:
        await store.stop()
    return {"rounds": rounds} | {name: round(statistics.median(values), 3) for name, values in found.items()}


def main() -> None:
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    print(json.dumps(asyncio.run(measure(sys.argv[1], rounds)), indent=2))


if __name__ == "__main__":
    main()
