"""What a call of the store costs does not depend on what PostgreSQL believes of its tables. The tables of waiting runs
are empty at night and full by day: a plan that was right for an empty one, or made of statistics taken then, must not
read the whole of a full one at each call.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import pytest

from engine.store import (
    Appended,
    Await,
    Changed,
    Closed,
    Commit,
    NewInput,
    OutboxMessage,
    Store,
    Subscription,
    Timer,
)
from tests.conformance.store_making import NOW, append, arrived, events, later, open_a_run, started
from tests.conformance.store_postgres_database import SharedDatabase

pytestmark = pytest.mark.postgres
WAITING: Final = 1_200
BATCH: Final = 100
ROUNDS: Final = 40
AT_A_CALL: Final = 5
OF_A_RUN: Final = 60
"""So many rows of any one table are read at most for all of a run's life. One call in a round that reads a whole table
is 240 for each."""


_whatever_is_believed = pytest.mark.parametrize("believed", ["nothing", "empty", "full"])


@pytest.fixture
async def owner(shared: SharedDatabase) -> AsyncIterator[Any]:
    """A connection of the database's owner, who takes the statistics."""
    connection: Any = await asyncpg.connect(shared.url)
    yield connection
    await connection.close()


@dataclass
class Crowd:
    """Runs that wait for a fact, a reply and a time, each with a message to send."""

    store: Store
    epoch: int
    runs: list[uuid.UUID] = field(default_factory=list)

    def _begun(self, run: uuid.UUID) -> Commit:
        return started(
            run,
            timers=(Timer(key="nap", due=later(minutes=1)),),
            subscriptions=(
                Subscription(
                    name="paid",
                    visit=1,
                    type="billing.PaidV1",
                    key_name="order",
                    key_hash=run.bytes,
                    look_back=later(hours=-1),
                ),
            ),
            awaits=(Await(command_id=f"{run}/charge", step="charge", visit=1, types=("billing.DoneV1",)),),
            input_keys=("begin",),
            outbox=(
                OutboxMessage(
                    message_id=f"{run}/m", exchange="unwind.commands", routing_key="billing.ChargeV1", body=b"sealed"
                ),
            ),
            snapshot=b"state",
            status="waiting",
        )

    async def grow(self, runs: int) -> None:
        for first in range(0, runs, BATCH):
            new = [uuid.uuid4() for _ in range(min(BATCH, runs - first))]
            await append(self.store, self.epoch, *map(self._begun, new))
            self.runs += new

    async def round(self) -> None:
        """Every call that the life of a run makes, for a few of them, which end with it."""
        some, self.runs = self.runs[:AT_A_CALL], self.runs[AT_A_CALL:]
        store, epoch, named = self.store, self.epoch, [("acme", run) for run in some]
        assert len(await store.claim_named(epoch, named)) == len(some)
        assert len(await store.load_many(named)) == len(some)
        assert len(await store.snapshots_of(named)) == len(some)
        await store.hand_over(epoch, some, now=NOW)
        facts = [arrived(f"{run}/paid", type="billing.PaidV1", keys=(("order", run.bytes),)) for run in some]
        replies = [arrived(f"{run}/done", type="billing.DoneV1", causation_id=f"{run}/charge") for run in some]
        for came in (facts, replies):
            for outcome in await append(store, epoch, *came):
                assert isinstance(outcome, Appended)
                assert len(outcome.matched) == 1
        noted = [
            Commit(tenant="acme", stream=None, inputs=(NewInput(kind="note", run_id=run, name="note", body=b"n"),))
            for run in some
        ]
        await append(store, epoch, *noted)
        rows = await store.claim_inputs(epoch, limit=AT_A_CALL, now=later(seconds=31))
        sent = await store.claim_outbox(epoch, limit=AT_A_CALL, now=later(seconds=31))
        await store.settle_outbox([row.id for row in sent])
        due = await store.due_timers(epoch, limit=AT_A_CALL, now=later(minutes=2))
        assert len(rows) == len(sent) == len(due) == AT_A_CALL
        woken = [
            Commit(
                tenant="acme",
                stream=run,
                expected=1,
                events=events("woken"),
                timers_cleared=("nap",),
                subscriptions_dropped=(("paid", 1),),
                awaits_dropped=(f"{run}/charge",),
                input_keys=("fact/paid/1",),
                snapshot=b"later",
                open_run=Changed(status="running", slot=True),
            )
            for run in some
        ]
        assert all(isinstance(one, Appended) for one in await append(store, epoch, *woken))
        settled = Commit(tenant="acme", stream=None, settled=tuple(row.id for row in rows))
        await append(store, epoch, settled)
        await store.release_runs(epoch, some)
        assert len(await store.claim_runs(epoch, plans=[("onboarding", 1)], limit=AT_A_CALL)) == len(some)
        ended = [
            Commit(tenant="acme", stream=run, expected=2, events=events("ended"), open_run=Closed()) for run in some
        ]
        assert all(isinstance(one, Appended) for one in await append(store, epoch, *ended))


async def rows_read(url: str, store: Store) -> dict[str, int]:
    """Rows that were read of each table, by index or not, once all sessions of the store have told."""
    await store.stop()
    watch: Any = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(30):
            while await watch.fetchval(
                "SELECT count(*) > 0 FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'unwind'"
            ):
                pass
        found = await watch.fetch(
            "SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) AS read FROM pg_stat_user_tables"
            " WHERE schemaname = 'unwind'"
        )
        return {row["relname"]: row["read"] for row in found}
    finally:
        await watch.close()


@_whatever_is_believed
async def test_no_call_reads_a_whole_table(shared: SharedDatabase, owner: Any, store: Store, believed: str) -> None:
    crowd = Crowd(store, await store.register("test", ["all"], now=NOW))
    await crowd.grow(2 * BATCH)
    while crowd.runs:
        await crowd.round()
    if believed == "empty":
        await owner.execute("ANALYZE")
    await crowd.grow(AT_A_CALL)
    await crowd.round()  # makes the plans of what is believed now
    await crowd.grow(WAITING)
    if believed == "full":
        await owner.execute("ANALYZE")
    await owner.execute("SELECT pg_stat_reset()")
    for _ in range(ROUNDS):
        await crowd.round()
    read = await rows_read(shared.url, store)
    assert read["open_runs"] >= ROUNDS * AT_A_CALL  # it is counted
    assert {name: rows for name, rows in read.items() if rows > OF_A_RUN * ROUNDS * AT_A_CALL} == {}


@_whatever_is_believed
async def test_a_batch_of_starts_counts_the_slots_of_each_tenant_once(
    shared: SharedDatabase, owner: Any, store: Store, believed: str
) -> None:
    epoch = await store.register("test", ["all"], now=NOW)
    capped: dict[str, Any] = {"workflow_cap": 10 * WAITING, "tenant_cap": 10 * WAITING}
    tenants = ("acme", "globex")

    async def start(each: int) -> None:
        begun = [started(tenant=tenant, **capped) for tenant in tenants for _ in range(each)]
        assert all(isinstance(one, Appended) for one in await append(store, epoch, *begun))

    if believed == "empty":
        await start(1)
        await owner.execute("ANALYZE")
    await start(1)
    while (held := await owner.fetchval("SELECT count(*) FROM unwind.open_runs WHERE slot")) < WAITING:
        await start(BATCH // 2)
    if believed == "full":
        await owner.execute("ANALYZE")
    await owner.execute("SELECT pg_stat_reset()")
    for _ in range(AT_A_CALL):
        await start(BATCH // 2)
        held += BATCH
    read = await rows_read(shared.url, store)
    # Once by workflow, once by tenant, and each start's own.
    assert WAITING < read["open_runs"] / AT_A_CALL < 5 * held


@_whatever_is_believed
async def test_a_look_at_the_queue_reads_each_run_of_it_once(
    shared: SharedDatabase, owner: Any, store: Store, believed: str
) -> None:
    epoch = await store.register("test", ["all"], now=NOW)
    queue: dict[str, Any] = {"status": "queued", "slot": False}
    tenants = [f"t{number}" for number in range(40)]
    if believed == "empty":
        await open_a_run(store, epoch)
        await owner.execute("ANALYZE")
    assert await store.queued_runs(epoch, limit=AT_A_CALL) == []
    for tenant in tenants:
        holding = [started(tenant=tenant) for _ in range(AT_A_CALL)]
        await append(store, epoch, *holding, *(started(tenant=tenant, **queue) for _ in range(WAITING // 40)))
    if believed == "full":
        await owner.execute("ANALYZE")
    await owner.execute("SELECT pg_stat_reset()")
    for _ in range(ROUNDS):
        assert len(await store.queued_runs(epoch, limit=AT_A_CALL, but=[("t0", None), ("t1", "other")])) == AT_A_CALL
    read = await rows_read(shared.url, store)
    assert WAITING // 2 < read["open_runs"] / ROUNDS < 2 * WAITING
