"""The engine of the fault tests as a process: the product's own assembly over the orders of these tests, which kills
itself at one exact place if it is given one (`tests.faults.places`). It serves until SIGTERM and prints one line of
JSON when it is ready.

    python engine_process.py append-before:2
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).parents[2]))

from consumers.assembly import Assembly
from contracts.problems import Problem
from engine.guards.first_run import first_run
from engine.logs import configure
from engine.settings import load
from scripts.border import tell
from scripts.opening import opened_store
from tests.faults import places
from tests.faults.orders import FAULTS, PARCELS, order


async def serve(place: str) -> None:
    settings = load(modules="none")
    configure(format="json", level="info", stream=sys.stderr)
    if not settings.admin_token_path.exists():
        async with opened_store(settings, migrate=True) as store:
            await first_run(settings, store, now=datetime.now(UTC))
    assembly = Assembly(settings, sagas=(order,), modules=(FAULTS, PARCELS))
    places.die_at(place)
    places.watch(assembly)

    async def started(ready: Assembly) -> None:
        await ready.ready()
        sys.stdout.write(orjson.dumps({"url": ready.url}).decode() + "\n")
        sys.stdout.flush()

    await assembly.run_until_signal(started=started)


if __name__ == "__main__":
    try:
        asyncio.run(serve(sys.argv[1] if len(sys.argv) > 1 else ""))
    except Problem as problem:
        sys.exit(tell(problem, as_json=False))
