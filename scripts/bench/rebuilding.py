"""A read model written anew from a long log, a process of its own: how many events a second, and what the process holds
in memory early and late in the rebuild. Rebuilt is `history`, the largest read model, by what `unwind rebuild` runs.

It reads one JSON document on standard input (`Rebuilding`) and prints one on standard output: with `fill` the events
that it has put into the log, workload A's runs as its engine leaves them; else `Rebuilt`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import orjson
import uuid_utils.compat

from contracts import run_events as ev
from contracts.run_events import RunEvent
from engine.loop import run
from engine.settings import load
from engine.store import Appended, Closed, Commit, Opened, Start, Store
from engine.store.keys import TenantKeys
from engine.store.mapper import Mapper
from projections.history import History
from scripts.answer import whole
from scripts.bench.installed import installed
from scripts.bench.workload import EVENTS_PER_RUN, STEPS, TENANT, TRIGGER, order
from scripts.verbs.projections import builder

IN_FLIGHT: Final = 200
"""Runs whose events lie between one another's in the log, as in workload A."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilding:
    """What to do, with the store and the key file that the environment names."""

    events: int
    fill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """`seconds` from the first event read to the switch, the comparison with the living rows in it; `reading` of them
    until all events were written. `early_bytes` and `late_bytes` are resident: the medians of the second and of the
    last fifth of the events.
    """

    events: int
    seconds: float
    reading: float
    cpu_seconds: float
    early_bytes: int
    late_bytes: int
    equal: bool


async def fill(runs: int) -> int:
    """Appends so many finished runs; answers how many events they have."""
    async with installed(load()) as (store, vault):
        keys = await vault.keys_for(TENANT)
        epoch = await store.register("bench-fill", ["worker"])
        for first in range(0, runs, IN_FLIGHT):
            await _append(store, epoch, list(_runs(keys, range(first, min(runs, first + IN_FLIGHT)))))
    return runs * EVENTS_PER_RUN


async def _append(store: Store, epoch: int, streams: list[list[Commit]]) -> None:
    for commits in zip(*streams, strict=True):
        outcomes = await store.append(commits, epoch=epoch)
        if not all(isinstance(outcome, Appended) for outcome in outcomes):
            raise SystemExit(f"the log refused {outcomes[0]}; give the bench an empty database")


def _runs(keys: TenantKeys, numbers: range) -> Iterator[list[Commit]]:
    """Each run's commits, two events in each, as the coordinator makes them."""
    mapper = Mapper()
    for number in numbers:
        stream = uuid_utils.compat.uuid7()
        sealed = [mapper.encode(keys, stream, version, event) for version, event in enumerate(_life(stream, number), 1)]
        commits = []
        for at in range(0, EVENTS_PER_RUN, 2):
            start = Start(key=f"bench/{stream}", workflow="bench-order", workflow_version=1) if at == 0 else None
            ends = at + 2 == EVENTS_PER_RUN
            opened = Opened(status="running", slot=False) if at == 0 else Closed() if ends else None
            commits.append(
                Commit(
                    tenant=TENANT,
                    stream=stream,
                    expected=at,
                    events=tuple(sealed[at : at + 2]),
                    start=start,
                    open_run=opened,
                )
            )
        yield commits


def _life(stream: UUID, number: int) -> Iterator[RunEvent]:
    at, placed = datetime.now(UTC), order(number)
    cause = str(uuid_utils.compat.uuid7())
    yield ev.RunStarted(
        at=at,
        workflow="bench-order",
        workflow_version=1,
        trigger={"kind": "event", "id": cause, "type": TRIGGER, "source": "/modules/bench"},
        data=placed,
        scope=str(stream),
        initiator="/modules/bench",
        correlation_id=f"bench-{number}",
        causation_id=cause,
        attributes={"order": placed["order_id"]},
    )
    for step in range(STEPS):
        name = f"step-{step}"
        yield ev.StepScheduled(
            at=at,
            step=name,
            visit=1,
            key=f"{stream}/{name}/1",
            action="scripts.bench.workload.handle_order",
            kind="local",
            input={"order": placed},
            input_hash="0" * 64,
        )
        yield ev.StepSucceeded(
            at=at, step=name, visit=1, attempt=1, output={"ok": True, "order_id": placed["order_id"]}
        )
    yield ev.RunEnded(at=at, status="succeeded", output={"ok": True, "order_id": placed["order_id"]})


async def rebuild(events: int) -> Rebuilt:
    """Twice: the first one writes the rows that the second, which is measured, is compared with."""
    async with builder() as first:
        await first.run(History())
    resident: list[tuple[int, int]] = []
    read_at = 0.0

    def watch(position: int, target: int) -> None:
        nonlocal read_at
        resident.append((position, _resident()))
        read_at = time.perf_counter()

    async with builder() as second:
        began, cpu = time.perf_counter(), time.process_time()
        rebuilt = await second.run(History(), progress=watch)
        seconds, busy = time.perf_counter() - began, time.process_time() - cpu
    return Rebuilt(
        events=rebuilt.events,
        seconds=seconds,
        reading=read_at - began,
        cpu_seconds=busy,
        early_bytes=_between(resident, 0.2 * events, 0.4 * events),
        late_bytes=_between(resident, 0.8 * events, events),
        equal=rebuilt.equal,
    )


def _between(resident: list[tuple[int, int]], first: float, last: float) -> int:
    return int(statistics.median(held for position, held in resident if first <= position <= last))


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/self/status names no VmRSS")


async def _do(asked: Rebuilding) -> Any:
    if asked.fill:
        return {"events": await fill(asked.events // EVENTS_PER_RUN)}
    return asdict(await rebuild(asked.events))


def main() -> None:
    asked = Rebuilding(**orjson.loads(sys.stdin.buffer.read()))
    print(orjson.dumps(run(_do(asked))).decode(), file=whole(sys.stdout), flush=True)


if __name__ == "__main__":
    main()
