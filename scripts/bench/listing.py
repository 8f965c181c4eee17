"""Lists of very many runs, a process of its own: how long a page takes of each kind that the API can ask for, with a
history of a million runs, and how long a run takes to be found by an attribute. It asks what the API asks
(`projections.reader.Reader`).

It reads one JSON document on standard input (`Listing`) and prints one on standard output (`Listed`).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from engine.loop import run
from engine.settings import database_url, load
from projections.reader import ATTRIBUTE, Reader
from scripts.answer import whole
from scripts.bench.installed import installed
from scripts.bench.watch import SQL
from scripts.bench.workload import TENANT

RARE: Final = "compensation_failed"
WARM_UP: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What to do, with the empty PostgreSQL store and the key file that the environment names. `asked`: how often each
    page."""

    runs: int
    asked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Median milliseconds of each kind of page, by its name: lists, and searches by attribute."""

    runs: int
    pages: dict[str, float]
    searches: dict[str, float]


async def measure(asked: Listing) -> Listed:
    settings = load()
    async with installed(settings) as (store, vault):
        keys = await vault.keys_for(TENANT)
        owner = await asyncpg.connect(database_url(settings))
        try:
            await owner.execute(SQL["drop_list_indexes"])
            await owner.execute(_given(SQL["fill_runs"], tenant=TENANT, runs=asked.runs))
            middle: UUID = await owner.fetchval(SQL["middle_run"].replace(":runs", "$1"), asked.runs)
            own, shared = keys.index_hash(ATTRIBUTE + "order", "mine"), keys.index_hash(ATTRIBUTE + "plan", "pro")
            await owner.execute(_given(SQL["fill_attributes"], mine=own, shared=shared, run=middle))
            await store.migrate()
            for table in ("history_runs", "history_attributes"):
                await owner.execute(SQL["settle"].format(table=table))
        finally:
            await owner.close()
        reader = Reader(store, vault)
        pages, searches = _kinds(str(middle))
        return Listed(
            runs=asked.runs,
            pages=await _medians(reader, pages, asked.asked),
            searches=await _medians(reader, searches, asked.asked),
        )


Kinds = Mapping[str, tuple[str | None, Mapping[str, Any]]]


def _kinds(middle: str) -> tuple[Kinds, Kinds]:
    """What is asked for, of the tenant that has nearly all runs and, as the platform, of all tenants."""
    pages: dict[str, tuple[str | None, Mapping[str, Any]]] = {}
    for whose, tenant in (("tenant", TENANT), ("platform", None)):
        pages |= {
            f"{whose}_newest": (tenant, {}),
            f"{whose}_deep": (tenant, {"before": middle}),
            f"{whose}_succeeded": (tenant, {"statuses": ["succeeded"]}),
            f"{whose}_failed": (tenant, {"statuses": ["failed"]}),
            f"{whose}_failed_deep": (tenant, {"statuses": ["failed"], "before": middle}),
            f"{whose}_rare_status": (tenant, {"statuses": [RARE]}),
            f"{whose}_two_statuses": (tenant, {"statuses": [RARE, "parked"]}),
            f"{whose}_no_such_status": (tenant, {"statuses": ["timed_out"]}),
            f"{whose}_workflow": (tenant, {"workflow": "workflow-3"}),
            f"{whose}_rare_workflow": (tenant, {"workflow": "rare"}),
            f"{whose}_workflow_and_status": (tenant, {"workflow": "workflow-3", "statuses": [RARE]}),
            f"{whose}_state": (tenant, {"business_state": "active"}),
            f"{whose}_story": (tenant, {"correlation_id": "story-77"}),
        }
    pages["small_tenant"] = ("tenant-10", {})
    pages["small_tenant_rare_status"] = ("tenant-10", {"statuses": [RARE]})
    own, shared = ("order", "mine"), ("plan", "pro")
    searches: Kinds = {
        "own_value": (TENANT, {"attribute": own}),
        "no_such_value": (TENANT, {"attribute": ("order", "nobody's")}),
        "shared_value": (TENANT, {"attribute": shared}),
        "shared_value_deep": (TENANT, {"attribute": shared, "before": middle}),
        "shared_value_and_status": (TENANT, {"attribute": shared, "statuses": [RARE]}),
    }
    return pages, searches


async def _medians(reader: Reader, kinds: Kinds, asked: int) -> dict[str, float]:
    """In turns, so that a moment in which the machine is busy falls on all kinds alike."""
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(WARM_UP + asked):
        for kind, (tenant, given) in kinds.items():
            began = time.perf_counter()
            await reader.runs(tenant, **given)
            if turn >= WARM_UP:
                took[kind].append((time.perf_counter() - began) * 1000)
    return {kind: statistics.median(times) for kind, times in took.items()}


def _given(sql: str, **values: object) -> str:
    """The script with these values as literals: scripts of several statements take no parameters."""
    for name, value in values.items():
        literal = f"'\\x{value.hex()}'" if isinstance(value, bytes) else f"'{value}'"
        sql = sql.replace(f":{name}", literal)
    return sql


def main() -> None:
    asked = Listing(**orjson.loads(sys.stdin.buffer.read()))
    print(orjson.dumps(asdict(run(measure(asked)))).decode(), file=whole(sys.stdout), flush=True)


if __name__ == "__main__":
    main()
