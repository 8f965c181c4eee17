"""What must hold of a site once everything has been mended and every run has ended: the laws of docs/simulation.md, by
the same functions, over the real log and the real module's ledger.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Final
from uuid import UUID

from contracts import run_events as ev
from contracts.run_events import RunEvent
from engine.clock import SystemClock
from engine.metrics import Metrics
from engine.store import Store
from engine.store.key_ring import KeyRing
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from projections.reader import Reader
from scripts.chaos.crowd import visitor
from scripts.chaos.site import Site
from scripts.opening import opened_store
from scripts.simulation import checks, workload
from scripts.simulation.play import Runs

BATCH: Final = 1_000
AGREE: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`broken` has every law that does not hold, with what broke it."""

    runs: int
    events: int
    effects: int
    broken: tuple[str, ...]
    calm_seconds: tuple[float, ...] = ()
    flooded_seconds: tuple[float, ...] = ()
    crowded_seconds: tuple[float, ...] = ()
    """What orders took from being sent to the end of their run: shortly before each fan-out, while its visitors came,
    and once the gate was open.
    """


async def until_quiet(site: Site, seconds: float) -> list[str]:
    """Waits until no run is open and nothing is to be sent; answers what is left at the end. As an operator would, it
    tries again what is parked: whoever may have been what killed its owners waits for a person.
    """
    deadline = time.monotonic() + seconds
    token = site.settings.admin_token_path.read_text(encoding="ascii").strip()
    async with opened_store(site.settings, wait_seconds=seconds) as store:
        while True:
            census = await store.census()
            left = [f"{count} runs {status}" for status, count in census.runs.items() if count]
            left += [f"{census.outbox_rows} messages to be sent"] if census.outbox_rows else []
            if not left or time.monotonic() > deadline:
                return left
            for run in await store.open_runs(limit=1_000):
                if run.status == "parked":
                    await site.retry(str(run.run_id), token)
            await asyncio.sleep(0.2)


async def judge(site: Site) -> Verdict:
    """Every process has ended; nobody else reads or writes."""
    async with opened_store(site.settings) as store:
        vault, mapper, metrics = Vault(store, KeyRing.load(site.settings.key_path)), Mapper(), Metrics()
        await vault.start()
        runs, times = await _runs(store, vault, mapper)
        effects = _effects(site.effects)
        wanted = {
            (event.tenantid, event.id, saga.name)
            for event in site.sent
            for saga in (*workload.SAGAS, visitor)
            if event.type in saga.on
        }
        broken = [
            *checks.one_run_each(wanted, runs),
            *checks.histories(runs),
            *checks.undone(runs),
            *checks.children(runs),
            *one_time(times),
            *checks.one_effect_each(effects, runs),
            *await checks.audited(Reader(store, vault), sorted({event.tenantid for event in site.sent})),
            *await checks.rebuilt(store, vault, mapper, SystemClock(), metrics),
        ]
        letters = await store.dead_letters(tenant=None, state="dead", limit=1_000)
        if len(letters) > site.poisoned:
            broken.append(f"Q: {len(letters)} dead letters of {site.poisoned} poisonous messages")
    return Verdict(len(runs), len(times), len(effects), tuple(broken), *served(site, runs))


async def _runs(
    store: Store, vault: Vault, mapper: Mapper
) -> tuple[dict[tuple[str, UUID], list[RunEvent]], list[tuple[int, datetime]]]:
    """Every run, and (position, time) of each of its events in the order of the log."""
    streams: dict[tuple[str, UUID], list[int]] = {}
    after = 0
    while batch := await store.read(0, after=after, limit=BATCH):
        after = batch[-1].position
        for one in batch:
            if one.kind == "run":
                streams.setdefault((one.tenant, one.stream), []).append(one.position)
    runs: dict[tuple[str, UUID], list[RunEvent]] = {}
    times: list[tuple[int, datetime]] = []
    every = iter(streams.items())
    while part := list(islice(every, BATCH)):
        loaded = await store.load_many([key for key, _ in part])
        for (tenant, stream), positions in part:
            stored = loaded[stream]
            keys = await vault.ready(tenant, [one.body for one in stored])
            runs[tenant, stream] = mapper.decode_all(keys, stream, stored)
            times += zip(positions, (event.at for event in runs[tenant, stream]), strict=True)
    return runs, sorted(times)


def served(site: Site, runs: Runs) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Seconds from the moment that an order was sent to the end of the run that merely notes it: calm, flooded,
    crowded.
    """
    orders = [event for event in site.sent if event.type == workload.PLACED and not event.data["naps"]]
    sent = {event.id: event.time for event in orders}
    calm: list[float] = []
    flooded: list[float] = []
    crowded: list[float] = []
    for log in runs.values():
        start, end = log[0], log[-1]
        if not isinstance(start, ev.RunStarted) or start.workflow != workload.echo.name:
            continue
        at = sent.get(str(start.trigger.get("id")))
        if at is None:
            continue
        for since, began, opened, over in site.crowded:
            if since <= at < over:
                found = calm if at < began else flooded if at < opened else crowded
                found.append((end.at - at).total_seconds())
    return tuple(sorted(calm)), tuple(sorted(flooded)), tuple(sorted(crowded))


def one_time(times: Sequence[tuple[int, datetime]]) -> list[str]:
    """Whatever clock the machine of a process has, all go by one time: who came later says so, give or take what a
    commit may wait for a server that is down.
    """
    found: list[str] = []
    latest: datetime | None = None
    for position, at in times:
        if latest is None or at > latest:
            latest = at
        elif at < latest - AGREE:
            found.append(f"D: the event at {position} says that it happened at {at}, after one of {latest}")
    return found[:5]


def _effects(file: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return list(connection.execute("SELECT key, done FROM effects ORDER BY place"))
