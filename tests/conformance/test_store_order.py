"""Readers of a lane never step over an event. Proven twice: many writers and a tailing reader miss nothing, and with
the lock taken out of the append function the same schedule does miss one. Beside it the other lock of an append: the
end of its process is judged before or after it, never in between."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from engine.store import Appended, Commit, Fenced, Notification, Store, open_store
from engine.store.batch import flatten
from engine.store.postgres_wire import columns, packed_instant, packed_uuid
from tests.conformance.store_making import events
from tests.conformance.store_postgres_database import SharedDatabase

pytestmark = pytest.mark.postgres
LOCK = "v_done := pg_advisory_xact_lock(1970169719, p_lane)::text;"
WRITERS, BATCHES, COMMITS = 4, 40, 10
Connection = asyncpg.Connection


@pytest.fixture
async def stores(shared: SharedDatabase) -> AsyncIterator[list[Store]]:
    await shared.wipe()
    opened = [open_store(shared.url, views=shared.views) for _ in range(WRITERS + 1)]
    for store in opened:
        await store.start()
    yield opened
    for store in opened:
        await store.stop()


def commit() -> Commit:
    return Commit(tenant="acme", stream=uuid.uuid4(), events=events("a"))


async def append_in(connection: Connection, epoch: int) -> None:
    batch = columns(flatten([commit()], uuids=packed_uuid, instants=packed_instant))
    await connection.fetchrow("SELECT * FROM append(0::smallint, $1, NULL, false, NULL, NULL, true, $2)", epoch, batch)


async def waits_for_a_lock(watch: Connection, pid: int, work: asyncio.Task[Any]) -> bool:
    """Whether that session comes to wait for an advisory lock before its work is done."""
    async with asyncio.timeout(30):
        while not await watch.fetchval(
            "SELECT count(*) > 0 FROM pg_locks WHERE pid = $1 AND locktype = 'advisory' AND NOT granted", pid
        ):
            if work.done():
                return False
    return True


async def two_writers(store: Store, url: str, epoch: int) -> tuple[bool, list[int], list[int]]:
    """The first writer appends and does not commit yet; the second appends; the reader looks; the first commits; the
    reader looks on. Answers whether the second had to wait, what the reader saw in all, and what is in the log.
    """
    settings = {"search_path": "unwind"}
    first, second, watch = [await asyncpg.connect(url, server_settings=settings) for _ in range(3)]
    slow = first.transaction()
    await slow.start()
    await append_in(first, epoch)
    hasty = asyncio.create_task(append_in(second, epoch))
    waited = await waits_for_a_lock(watch, second.get_server_pid(), hasty)
    seen = [n.position for n in await store.read(0, after=0, limit=10)]
    await slow.commit()
    await hasty
    seen += [n.position for n in await store.read(0, after=max(seen, default=0), limit=10)]
    recorded = [n.position for n in await store.read(0, after=0, limit=10)]
    for connection in (first, second, watch):
        await connection.close()
    return waited, seen, recorded


async def test_a_second_append_waits_for_the_first_to_commit(stores: list[Store], shared: SharedDatabase) -> None:
    epoch = await stores[0].register("w", ["all"])
    waited, seen, recorded = await two_writers(stores[0], shared.url, epoch)
    assert waited
    assert seen == recorded == [1, 2]


async def test_without_the_lock_the_reader_misses_an_event(stores: list[Store], shared: SharedDatabase) -> None:
    epoch = await stores[0].register("w", ["all"])
    admin = await asyncpg.connect(shared.url)
    source = await admin.fetchval("SELECT pg_get_functiondef('unwind.append_with_costs'::regproc)")
    assert source.count(LOCK) == 1
    try:
        await admin.execute(source.replace(LOCK, ""))
        waited, seen, recorded = await two_writers(stores[0], shared.url, epoch)
    finally:
        await admin.execute(source)
        await admin.close()
    assert not waited
    assert recorded == [1, 2]
    assert seen == [2], "the reader went on from 2 and never sees 1"


async def test_whoever_declares_a_process_dead_waits_for_its_append_and_the_next_one_is_refused(
    stores: list[Store], shared: SharedDatabase
) -> None:
    epoch = await stores[0].register("w", ["all"])
    settings = {"search_path": "unwind"}
    appending, judging, watch = [await asyncpg.connect(shared.url, server_settings=settings) for _ in range(3)]
    under_way = appending.transaction()
    await under_way.start()
    await append_in(appending, epoch)
    judged = asyncio.create_task(judging.fetch("SELECT declare_dead(1, clock_timestamp() + interval '1 hour') AS gone"))
    assert await waits_for_a_lock(watch, judging.get_server_pid(), judged)
    await under_way.commit()
    assert [row["gone"] for row in await judged] == [epoch]
    assert [n.position for n in await stores[0].read(0, after=0, limit=10)] == [1]
    assert await stores[0].append([commit()], epoch=epoch) == [Fenced()]
    for connection in (appending, judging, watch):
        await connection.close()


async def test_four_writers_and_a_tailing_reader_miss_nothing(stores: list[Store]) -> None:
    *writers, reader = stores
    total = WRITERS * BATCHES * COMMITS

    async def write(store: Store) -> None:
        epoch = await store.register("w", ["all"])
        for _ in range(BATCHES):
            outcomes = await store.append([commit() for _ in range(COMMITS)], epoch=epoch)
            assert all(isinstance(outcome, Appended) for outcome in outcomes)

    async def tail() -> list[int]:
        seen: list[int] = []
        async with asyncio.timeout(60):
            while len(seen) < total:
                last = seen[-1] if seen else 0
                if not await reader.wait_for_append(0, last, 1):
                    continue
                seen.extend(n.position for n in await reader.read(0, after=last, limit=100))
        return seen

    seen, *_ = await asyncio.gather(tail(), *map(write, writers))
    assert seen == list(range(1, total + 1))


async def test_every_lane_counts_and_locks_for_itself(stores: list[Store], shared: SharedDatabase) -> None:
    store = stores[0]
    epoch = await store.register("w", ["all"])
    admin = await asyncpg.connect(shared.url, server_settings={"search_path": "unwind"})
    await admin.execute("SELECT open_lane(1::smallint); INSERT INTO tenants (tenant, lane) VALUES ('far', 1)")
    assert await store.lane_of("far") == 1
    assert await store.lanes() == [0, 1]
    near, far = commit(), replace(commit(), tenant="far")
    assert await store.append([near, far, replace(commit(), tenant="far")], epoch=epoch) == [
        Appended(1),
        Appended(1),
        Appended(2),
    ]
    await admin.execute("SELECT pg_advisory_lock(1970169719, 1)")
    async with asyncio.timeout(20):
        assert await store.append([commit()], epoch=epoch) == [Appended(2)]
    assert [n.stream for n in await store.read(1, after=0, limit=1)] == [far.stream]
    await admin.close()


async def test_a_page_of_the_archive_ends_between_positions_and_not_within_one(
    stores: list[Store], shared: SharedDatabase
) -> None:
    """Two lanes give the same positions; whoever reads on behind the last one misses none of either."""
    store = stores[0]
    epoch = await store.register("w", ["all"])
    admin = await asyncpg.connect(shared.url, server_settings={"search_path": "unwind"})
    await admin.execute("SELECT open_lane(1::smallint); INSERT INTO tenants (tenant, lane) VALUES ('far', 1)")
    await admin.close()
    commits = [replace(commit(), tenant=tenant) for tenant in ("acme", "far", "acme", "far", "far")]
    await store.append(commits, epoch=epoch)
    for one in commits:
        assert one.stream is not None
        assert await store.archive_runs(one.tenant, [one.stream], month="2030-03") == {one.stream: 1}
    for limit in (1, 2, 3, 4, 9):
        read: list[Notification] = []
        while page := await store.read_archive("2030-03", after=read[-1].position if read else 0, limit=limit):
            read += page
        assert [one.position for one in read] == [1, 1, 2, 2, 3]
        assert {one.stream for one in read} == {one.stream for one in commits}
