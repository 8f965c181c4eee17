"""The raw append ceiling of a PostgreSQL: how many events a second one connection can insert in batches of 1,000 with
unnest and bytea, doing nothing else. Run as a process of its own by `scripts.bench.measure`; it prints one JSON line.

python -m scripts.bench.ceiling postgresql://... [EVENTS]
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import uuid
from pathlib import Path
from typing import Final

import asyncpg
import orjson

BATCH: Final = 1_000
EVENTS_PER_RUN: Final = 10
BODY: Final = orjson.dumps(
    {
        "type": "StepCompleted",
        "step": "reserve_stock",
        "attempt": 1,
        "at": "2030-01-01T00:00:00.000000+00:00",
        "correlation_id": str(uuid.UUID(int=1)),
        "causation_id": str(uuid.UUID(int=2)),
        "result": {"ok": True, "amount": 19.99, "ref": "r" * 40, "note": "n" * 80},
    }
)

Columns = tuple[list[uuid.UUID], list[int], list[str], list[uuid.UUID | None], list[bytes]]


def statements() -> dict[str, str]:
    """The named statements of ceiling.sql."""
    text = Path(__file__).with_name("ceiling.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def batch(size: int = BATCH) -> Columns:
    """One batch in columns; the first event of each run carries a dedup id, as a start does."""
    runs: list[uuid.UUID] = []
    versions: list[int] = []
    dedup: list[uuid.UUID | None] = []
    while len(runs) < size:
        run = uuid.uuid4()
        for version in range(1, EVENTS_PER_RUN + 1):
            runs.append(run)
            versions.append(version)
            dedup.append(uuid.uuid4() if version == 1 else None)
    return runs[:size], versions[:size], ["step.succeeded"] * size, dedup[:size], [BODY] * size


async def events_per_second(url: str, events: int) -> float:
    sql = statements()
    connection = await asyncpg.connect(url)
    try:
        for name in ("drop_table", "create_table", "create_position_index", "create_dedup_index"):
            await connection.execute(sql[name])
        append = await connection.prepare(sql["append_batch"])
        batches = [batch() for _ in range(max(1, events // BATCH))]
        await append.fetch(*batch())
        started = time.perf_counter()
        for columns in batches:
            await append.fetch(*columns)
        seconds = time.perf_counter() - started
        await connection.execute(sql["drop_table"])
    finally:
        await connection.close()
    return len(batches) * BATCH / seconds


def main() -> None:
    events = int(sys.argv[2]) if len(sys.argv) > 2 else 60_000
    print(json.dumps({"events_per_second": asyncio.run(events_per_second(sys.argv[1], events))}))


if __name__ == "__main__":
    main()
