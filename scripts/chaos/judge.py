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

from contracts.run_events import RunEvent
from engine.clock import SystemClock
from engine.metrics import Metrics
from engine.settings import Settings
from engine.store import Store
from engine.store.key_ring import KeyRing
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from projections.reader import Reader
from scripts.chaos.site import Site
from scripts.opening import opened_store
from scripts.simulation import checks, workload

BATCH: Final = 1_000
AGREE: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`broken` has every law that does not hold, with what broke it."""

    runs: int
    events: int
    effects: int
    broken: tuple[str, ...]


async def until_quiet(site: Site, settings: Settings, seconds: float) -> list[str]:
    """Waits until no run is open and nothing is to be sent; answers what is left at the end. As an operator would, it
    tries again what is parked: whoever may have been what killed its owners waits for a person.
    """
    deadline = time.monotonic() + seconds
    token = settings.admin_token_path.read_text(encoding="ascii").strip()
    async with opened_store(settings, wait_seconds=seconds) as store:
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


async def judge(site: Site, settings: Settings) -> Verdict:
    """Every process has ended; nobody else reads or writes."""
    async with opened_store(settings) as store:
        vault, mapper, metrics = Vault(store, KeyRing.load(settings.key_path)), Mapper(), Metrics()
        await vault.start()
        runs, times = await _runs(store, vault, mapper)
        effects = _effects(site.effects)
        triggers = [(event.tenantid, event.id) for event in site.sent if event.type == workload.PLACED]
        begun = [saga.name for saga in workload.SAGAS if workload.PLACED in saga.on]
        wanted = {(*trigger, name) for trigger in triggers for name in begun}
        broken = [
            *checks.one_run_each(wanted, runs),
            *checks.histories(runs),
            *checks.undone(runs),
            *checks.children(runs),
            *one_time(times),
            *checks.one_effect_each(effects, runs),
            *await checks.audited(Reader(store, vault), workload.TENANTS),
            *await checks.rebuilt(store, vault, mapper, SystemClock(), metrics),
        ]
        letters = await store.dead_letters(tenant=None, state="dead", limit=1_000)
        if len(letters) > site.poisoned:
            broken.append(f"Q: {len(letters)} dead letters of {site.poisoned} poisonous messages")
    return Verdict(len(runs), len(times), len(effects), tuple(broken))


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
