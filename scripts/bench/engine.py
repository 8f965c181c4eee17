"""The measured engine: the product's own assembly with all roles, plus workload A's contract and saga. It prints one
JSON line (`scripts.bench.stack.Engine`) when it is ready and serves until SIGTERM. Settings come from the
environment as for `unwind serve`. With `--unguarded` its guardrails stand aside (`scripts.bench.unguarded`)."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime

import orjson

from consumers.assembly import Assembly
from engine.guards.first_run import first_run
from engine.logs import configure
from engine.loop import run
from engine.settings import Settings, bus_url, database_url, load
from scripts.bench.unguarded import stand_aside
from scripts.bench.workload import MODULE, SAGAS
from scripts.opening import opened_store


async def serve(settings: Settings, appends_at_once: int) -> None:
    async def started(assembly: Assembly) -> None:
        await assembly.ready()
        store = database_url(settings).removeprefix("sqlite:///" if settings.database_url is None else "")
        ready = {"bus_url": bus_url(settings), "store": store, "metrics_url": f"{assembly.url}/metrics"}
        sys.stdout.write(orjson.dumps(ready).decode() + "\n")
        sys.stdout.flush()

    async with opened_store(settings, migrate=settings.migrate) as store:
        await first_run(settings, store, now=datetime.now(UTC))
    await Assembly(settings, sagas=SAGAS, modules=(MODULE,), appends_at_once=appends_at_once).run_until_signal(
        started=started
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits-per-append", type=int, default=0)
    parser.add_argument("--appends-at-once", type=int, default=1)
    parser.add_argument("--core", type=int, default=None)
    parser.add_argument("--unguarded", action="store_true")
    given = parser.parse_args()
    if given.unguarded:
        stand_aside()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    settings = load()
    limits = settings.limits.model_copy(
        update={"batch_commits": given.commits_per_append} if given.commits_per_append else {}
    )
    # Standard output carries the one line that says the engine is ready.
    configure(format=settings.log.format, level=settings.log.level, stream=sys.stderr)
    run(serve(settings.model_copy(update={"limits": limits}), given.appends_at_once))


if __name__ == "__main__":
    main()
