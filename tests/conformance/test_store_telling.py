"""What PostgreSQL's listeners are told of appends: seldom while a run is on its way, at once where somebody waits for
it, and never too little."""

from __future__ import annotations

import asyncio
import uuid

import asyncpg
import pytest

from engine.store import Commit, OutboxMessage, Store
from engine.store.batch import flatten
from engine.store.telling import Telling
from tests.conformance.store_making import events
from tests.conformance.store_postgres_database import SharedDatabase

pytestmark = pytest.mark.postgres
BURST = 20


async def test_a_burst_is_told_of_seldom_and_its_end_always(store: Store, shared: SharedDatabase) -> None:
    heard: list[int] = []
    last = asyncio.Event()

    def hear(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        heard.append(int(str(payload).split()[1]))
        if heard[-1] == BURST:
            last.set()

    listener = await asyncpg.connect(shared.url)
    await listener.add_listener("unwind_appends", hear)
    epoch = await store.register("w", ["all"])
    try:
        for _ in range(BURST):
            await store.append([Commit(tenant="acme", stream=uuid.uuid4(), events=events("a"))], epoch=epoch)
        async with asyncio.timeout(10):
            await last.wait()
    finally:
        await listener.close()
    assert heard == sorted(set(heard))


async def test_what_somebody_waits_for_is_told_with_its_append() -> None:
    async def nobody(lane: int, head: int) -> None:
        raise AssertionError("nothing was left untold")

    on_the_way = flatten([Commit(tenant="acme", stream=uuid.uuid4(), events=events("a"))])
    message = OutboxMessage(message_id="m", exchange="e", routing_key="r", body=b"")
    sends = flatten([Commit(tenant="acme", stream=uuid.uuid4(), events=events("a"), outbox=(message,))])
    telling = Telling(nobody, monotonic=lambda: 100.0)
    assert telling.with_append(0, on_the_way)
    assert not telling.with_append(0, on_the_way)
    assert telling.with_append(1, on_the_way)
    assert telling.with_append(0, sends)
    telling.stop()
