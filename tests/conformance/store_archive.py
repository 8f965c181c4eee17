"""What every store driver must do about runs that leave the log: they are read as before, nothing else may go, and a
month is dropped whole."""

from __future__ import annotations

import uuid
from dataclasses import replace

from engine.store import ArchivedMonth, ArchivedRun, Closed, Commit, Notification, Store, Stored
from tests.conformance.store_making import append, events, open_a_run


async def ended(store: Store, epoch: int, *, tenant: str = "acme") -> uuid.UUID:
    run = await open_a_run(store, epoch, tenant=tenant, snapshot=b"folded")
    end = Commit(tenant=tenant, stream=run, expected=1, events=events("x", "run.ended"), input_keys=("k",))
    await append(store, epoch, replace(end, open_run=Closed()))
    return run


class ArchiveConformance:
    async def test_an_archived_run_is_read_as_before_wherever_the_log_is_read(self, store: Store, epoch: int) -> None:
        runs = [await ended(store, epoch) for _ in range(3)]
        open_one = await open_a_run(store, epoch)
        log, streams = await store.read(0, after=0, limit=100), [("acme", run) for run in (*runs, open_one)]
        before = await store.load_many(streams)
        moved = await store.archive_runs("acme", [runs[0], runs[2], open_one], month="2030-03")
        assert moved == {runs[0]: 3, runs[2]: 3}
        assert await store.read(0, after=0, limit=100) == log
        for limit in (1, 2, 7):
            read: list[Notification] = []
            while page := await store.read(0, after=read[-1].position if read else 0, limit=limit):
                read += page
            assert read == log
        assert await store.load_many(streams) == before
        assert await store.load("acme", runs[0]) == before[runs[0]]
        assert await store.load("acme", runs[0], after=2) == before[runs[0]][2:]
        assert await store.load("other", runs[0]) == []
        assert await store.head(0) == log[-1].position
        assert await store.snapshot("acme", runs[0]) is None

        assert await store.archive_runs("acme", [runs[0]], month="2030-04") == {runs[0]: 3}
        assert await store.archived_run("acme", runs[0]) == ArchivedRun("acme", "2030-03", dropped=False)
        assert await store.archived_run("other", runs[0]) is None
        assert await store.archived_run(None, runs[1]) is None
        assert await store.archive_months() == [ArchivedMonth("2030-03", 2, 6, dropped=False)]
        assert (
            await store.read_archive("2030-03", after=0, limit=4)
            == [one for one in log if one.stream in (runs[0], runs[2])][:4]
        )

    async def test_what_is_another_tenants_is_not_archived(self, store: Store, epoch: int) -> None:
        run = await ended(store, epoch)
        assert await store.archive_runs("other", [run], month="2030-03") == {}
        assert len(await store.load("acme", run)) == 3
        assert await store.archive_months() == []

    async def test_a_position_is_never_given_twice_and_a_start_never_taken_twice(
        self, store: Store, epoch: int
    ) -> None:
        run = await ended(store, epoch)
        head = await store.head(0)
        await store.archive_runs("acme", [run], month="2030-03")
        assert await store.started("acme", f"event/w/{run}") == run
        after = await open_a_run(store, epoch)
        assert [one.position for one in await store.read(0, after=head, limit=5)] == [head + 1]
        assert [one.stream for one in await store.read(0, after=head, limit=5)] == [after]

    async def test_a_month_is_dropped_whole_and_its_runs_are_known_to_be_gone(self, store: Store, epoch: int) -> None:
        march, april = await ended(store, epoch), await ended(store, epoch)
        await store.archive_runs("acme", [march], month="2030-03")
        await store.archive_runs("acme", [april], month="2030-04")
        assert await store.drop_month("2030-03") == (1, 3)
        assert await store.drop_month("2030-03") == (0, 0)
        nothing: list[Stored] = []
        assert await store.load("acme", march) == nothing
        assert len(await store.load("acme", april)) == 3
        assert await store.archived_run("acme", march) == ArchivedRun("acme", "2030-03", dropped=True)
        assert await store.dropped_runs([march, april]) == {march}
        assert [one.dropped for one in await store.archive_months()] == [True, False]
