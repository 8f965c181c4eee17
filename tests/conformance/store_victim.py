"""A writing process for the kill tests: appends batches for ever and says so, one line before each batch and one
after. Run as `python -m tests.conformance.store_victim <url> <views>`; its batches can be made again by number."""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path

from engine.store import Commit, OutboxMessage, Timer, open_store
from tests.conformance.store_making import NOW, events, started

COMMITS = 50
_NAMESPACE = uuid.UUID(int=7)


def batch(number: int) -> list[Commit]:
    return [_commit(number, n) for n in range(COMMITS)]


def _commit(number: int, n: int) -> Commit:
    run = uuid.uuid5(_NAMESPACE, f"{number}/{n}")
    message = OutboxMessage(message_id=str(run), exchange="x", routing_key="k", body=bytes(500))
    return started(
        run, events=events("run.started", "step.started"), outbox=(message,), timers=(Timer(key="t", due=NOW),)
    )


async def write(url: str, views: Path) -> None:
    store = open_store(url, views=views)
    await store.start()
    epoch = await store.register("victim", ["all"])
    number = 0
    while True:
        print(f"sending {number}", flush=True)
        await store.append(batch(number), epoch=epoch)
        print(f"appended {number}", flush=True)
        number += 1


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], Path(sys.argv[2])))
