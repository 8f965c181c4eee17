"""An engine process for chaos: the product's own assembly with the sagas whose effects can be counted. It prints one
JSON line with its address when it is ready and serves until SIGTERM. Settings come from the environment.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import orjson

from consumers.assembly import Assembly
from engine.guards.first_run import first_run
from engine.logs import configure
from engine.loop import run
from engine.settings import load
from scripts.chaos.crowd import CROWD, visitor
from scripts.opening import opened_store
from scripts.simulation.workload import MODULE, SAGAS


async def serve() -> None:
    settings = load()
    configure(format="json", level="warning", stream=sys.stderr)

    async def started(assembly: Assembly) -> None:
        await assembly.ready()
        print(orjson.dumps({"url": assembly.url}).decode(), flush=True)

    async with opened_store(settings, migrate=True, wait_seconds=settings.timeouts.start_seconds) as store:
        await first_run(settings, store, now=datetime.now(UTC))
    await Assembly(settings, sagas=(*SAGAS, visitor), modules=(MODULE, CROWD)).run_until_signal(started=started)


if __name__ == "__main__":
    run(serve())
