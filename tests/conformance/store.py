"""What every store driver must do, once: the log and its outcomes. The other parts are in `store_matching`,
`store_work` and `store_catalog`; a driver's own test file has only what is special to it."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from engine.store import (
    READ_BYTES,
    Appended,
    Change,
    Changed,
    Closed,
    Commit,
    Duplicate,
    Fenced,
    Limited,
    NewInput,
    Recorded,
    Stale,
    Store,
)
from engine.store.errors import CommitRefused, TenantRefused
from tests.conformance.store_making import (
    NOW,
    Opening,
    append,
    arrival,
    arrived,
    events,
    later,
    open_a_run,
    started,
)


class LogConformance:
    async def test_a_commit_is_read_back_as_it_was_written(self, store: Store, epoch: int) -> None:
        run = uuid.uuid4()
        [outcome] = await append(store, epoch, started(run, events=events("a", "b"), snapshot=b"folded"))
        assert outcome == Appended(2)
        stored = await store.load("acme", run)
        assert [(e.version, e.topic, e.body, e.recorded_at) for e in stored] == [
            (1, "a", b"body of a", NOW),
            (2, "b", b"body of b", NOW),
        ]
        assert await store.load("acme", run, after=1) == stored[1:]
        assert await store.snapshot("acme", run) == (2, b"folded")

    async def test_a_stream_shows_itself_to_its_tenant_only(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch, snapshot=b"folded")
        assert await store.load("other", run) == []
        assert await store.snapshot("other", run) is None
        none = await open_a_run(store, epoch)
        assert await store.snapshots_of([("acme", run), ("acme", none)]) == {run: (1, b"folded")}
        assert await store.snapshots_of([("other", run)]) == {}
        assert await store.open_run("other", run) is None
        assert await store.load_many([("other", run)]) == {run: []}

    async def test_a_run_that_ends_takes_its_snapshot_with_it_and_no_other_run_s(
        self, store: Store, epoch: int
    ) -> None:
        ending, going = [await open_a_run(store, epoch, snapshot=b"folded") for _ in range(2)]
        end = Commit(tenant="acme", stream=ending, expected=1, events=events("end"), open_run=Closed())
        late = replace(end, stream=going, expected=7)
        assert isinstance((await append(store, epoch, end, late))[0], Appended)
        assert await store.snapshots_of([("acme", ending), ("acme", going)]) == {going: (1, b"folded")}

    async def test_several_streams_are_loaded_in_one_call(self, store: Store, epoch: int) -> None:
        runs = [await open_a_run(store, epoch) for _ in range(3)]
        loaded = await store.load_many([("acme", run) for run in runs])
        assert {run: [e.topic for e in stored] for run, stored in loaded.items()} == {
            run: ["run.started"] for run in runs
        }

    async def test_positions_count_up_without_gaps_in_the_order_of_the_batch(self, store: Store, epoch: int) -> None:
        first, second = started(events=events("a", "b")), started(events=events("c"))
        outcomes = await append(store, epoch, first, arrived("only"), second)
        assert outcomes == [Appended(2), Appended(0), Appended(3)]
        notifications = await store.read(0, after=0, limit=10)
        assert [(n.position, n.topic, n.stream) for n in notifications] == [
            (1, "a", first.stream),
            (2, "b", first.stream),
            (3, "c", second.stream),
        ]
        assert [n.position for n in await store.read(0, after=1, limit=1)] == [2]
        assert await store.head(0) == 3

    async def test_a_read_is_bounded_by_bytes_and_never_stands_still(self, store: Store, epoch: int) -> None:
        quarter = Recorded("a", bytes(READ_BYTES // 4))
        for one in [quarter] * 6 + [Recorded("a", bytes(READ_BYTES + 1))] * 2:
            await append(store, epoch, started(events=(one,)))
        pages, after = [], 0
        while page := [n.position for n in await store.read(0, after=after, limit=10)]:
            pages.append(page)
            after = page[-1]
        assert pages == [[1, 2, 3, 4], [5, 6, 7], [8]]

    async def test_another_version_is_stale_and_tells_the_actual_one(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch)
        behind = Commit(tenant="acme", stream=run, expected=0, events=events("x"))
        ahead = Commit(tenant="acme", stream=run, expected=5, events=events("x"))
        assert await append(store, epoch, behind) == [Stale(1)]
        assert await append(store, epoch, ahead) == [Stale(1)]
        assert [e.version for e in await store.load("acme", run)] == [1]

    async def test_a_start_key_is_taken_for_ever_and_names_the_original_run(self, store: Store, epoch: int) -> None:
        original = await open_a_run(store, epoch, key="event/w/1")
        await append(
            store, epoch, Commit(tenant="acme", stream=original, expected=1, events=events("end"), open_run=Closed())
        )
        assert await append(store, epoch, started(key="event/w/1")) == [Duplicate(original)]
        assert await store.started("acme", "event/w/1") == original
        assert await store.started("other", "event/w/1") is None
        assert await append(store, epoch, started(key="event/w/1", tenant="other")) != [Duplicate(original)]

    async def test_an_input_key_is_taken_until_the_run_ends(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch)
        answer = Commit(tenant="acme", stream=run, expected=1, events=events("x"), input_keys=("reply/1", "reply/1"))
        assert await append(store, epoch, answer) == [Appended(2)]
        again = replace(answer, expected=2)
        assert await append(store, epoch, again) == [Duplicate(run)]
        await append(
            store, epoch, Commit(tenant="acme", stream=run, expected=2, events=events("end"), open_run=Closed())
        )
        assert await append(store, epoch, replace(answer, expected=3, open_run=None)) == [Appended(4)]

    async def test_an_arrival_is_kept_once_and_another_body_is_a_mismatch(self, store: Store, epoch: int) -> None:
        assert await append(store, epoch, arrived("e1")) == [Appended(0)]
        assert await append(store, epoch, arrived("e1")) == [Duplicate()]
        assert await append(store, epoch, arrived("e1", body_hash=b"another")) == [Duplicate(mismatch=True)]
        assert await append(store, epoch, arrived("e1", tenant="other")) == [Appended(0)]
        assert await store.arrival("acme", "/modules/billing", "e1") == b"envelope of e1"
        assert await store.arrival("acme", "/modules/billing", "e2") is None

    async def test_within_a_batch_a_repeated_key_takes_the_first_ones_answer(self, store: Store, epoch: int) -> None:
        first = started(key="k")
        busy = await open_a_run(store, epoch, workflow="full", workflow_cap=1)
        limited = started(key="l", workflow="full", workflow_cap=1)
        outcomes = await append(
            store,
            epoch,
            first,
            started(key="k"),
            arrived("e1"),
            arrived("e1", body_hash=b"another"),
            limited,
            replace(limited, stream=uuid.uuid4()),
        )
        assert outcomes == [
            Appended(2),
            Duplicate(first.stream),
            Appended(0),
            Duplicate(mismatch=True),
            Limited("workflow", 1),
            Limited("workflow", 1),
        ]
        assert busy is not None

    async def test_a_batch_sent_again_after_a_lost_answer_is_all_duplicates(self, store: Store, epoch: int) -> None:
        starts = [started() for _ in range(5)]
        run = await open_a_run(store, epoch)
        step = Commit(tenant="acme", stream=run, expected=1, events=events("x", "y"), input_keys=("reply/9",))
        batch = [*starts, step, arrived("e7")]
        before = await append(store, epoch, *batch)
        assert all(isinstance(outcome, Appended) for outcome in before)
        head = await store.head(0)
        again = await append(store, epoch, *batch)
        assert again == [Duplicate(start.stream) for start in starts] + [Duplicate(run), Duplicate()]
        assert await store.head(0) == head

    async def test_every_commit_of_a_mixed_batch_of_forty_tenants_answers_for_itself(
        self, store: Store, epoch: int
    ) -> None:
        """Five fates, eight tenants each; no tenant's bad luck touches another's."""
        tenants = [f"tenant-{n:02}" for n in range(40)]
        runs = {tenant: await open_a_run(store, epoch, tenant=tenant, key="first") for tenant in tenants}
        other = await store.register("other", ["all"], now=NOW)
        foreign = {tenant: await open_a_run(store, other, tenant=tenant, key="foreign") for tenant in tenants[4::5]}
        fates = [
            lambda t: Commit(tenant=t, stream=runs[t], expected=1, events=events("next")),
            lambda t: Commit(tenant=t, stream=runs[t], expected=7, events=events("next")),
            lambda t: started(tenant=t, key="first"),
            lambda t: started(tenant=t, key="second", workflow_cap=1),
            lambda t: Commit(tenant=t, stream=foreign[t], expected=1, events=events("next")),
        ]
        outcomes = await append(store, epoch, *(fates[n % 5](tenant) for n, tenant in enumerate(tenants)))
        for n, (tenant, outcome) in enumerate(zip(tenants, outcomes, strict=True)):
            expected = [None, Stale(1), Duplicate(runs[tenant]), Limited("workflow", 1), Fenced()][n % 5]
            if expected is None:
                assert isinstance(outcome, Appended)
            else:
                assert outcome == expected
        added = await store.read(0, after=48, limit=100)
        assert [n.tenant for n in added] == tenants[0::5]
        assert [n.position for n in added] == list(range(49, 57))

    async def test_a_poison_commit_is_named_and_all_others_are_appended(self, store: Store, epoch: int) -> None:
        runs = [started(tenant=f"t{n}") for n in range(20)]
        runs[13] = replace(runs[13], events=(Recorded("topic", None),))  # type: ignore[arg-type]
        with pytest.raises(CommitRefused) as refusal:
            await append(store, epoch, *runs)
        assert refusal.value.ordinal == 13
        assert list(refusal.value.causes) == [13]
        for n, (run, outcome) in enumerate(zip(runs, refusal.value.outcomes, strict=True)):
            assert run.stream is not None
            if n == 13:
                assert outcome is None
                assert await store.open_run(run.tenant, run.stream) is None
            else:
                assert isinstance(outcome, Appended)
                assert len(await store.load(run.tenant, run.stream)) == 1

    async def test_a_stream_of_another_tenant_is_refused(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch)
        with pytest.raises(CommitRefused, match="another tenant"):
            await append(store, epoch, Commit(tenant="other", stream=run, expected=1, events=events("x")))
        assert len(await store.load("acme", run)) == 1

    async def test_two_commits_of_one_stream_in_a_batch_are_a_callers_error(self, store: Store, epoch: int) -> None:
        commit = started()
        with pytest.raises(ValueError, match="occurs twice"):
            await append(store, epoch, commit, replace(commit, start=None, open_run=None))

    async def test_an_empty_batch_is_nothing(self, store: Store, epoch: int) -> None:
        assert await append(store, epoch) == []
        assert await store.head(0) == 0

    async def test_an_append_wakes_who_waits_for_it(self, store: Store, epoch: int) -> None:
        assert not await store.wait_for_append(0, 0, 0.01)
        waiting = asyncio.create_task(store.wait_for_append(0, 0, 30))
        await open_a_run(store, epoch)
        assert await waiting
        assert await store.wait_for_append(0, 0, 0)
        assert not await store.wait_for_append(0, 1, 0.01)

    async def test_an_append_of_another_process_wakes_as_well(self, store: Store, epoch: int, opening: Opening) -> None:
        waiting = asyncio.create_task(store.wait_for_append(0, 0, 30))
        other = await opening()
        await open_a_run(other, await other.register("other", ["all"]))
        assert await waiting

    async def test_a_caller_bound_to_a_tenant_records_for_that_tenant_only(self, store: Store, epoch: int) -> None:
        await store.lane_of("acme")
        note = NewInput(kind="note", run_id=uuid.uuid4(), name="approval", body=b"yes")
        mine = arrived("e1", inputs=(note, NewInput(kind="start", workflow="w", arrival=("/modules/billing", "e1"))))
        assert await store.append_for("acme", [mine], epoch=epoch, now=NOW) == [Appended(0)]
        with pytest.raises(TenantRefused):
            await store.append_for("acme", [arrived("e2", tenant="other")], epoch=epoch)
        with pytest.raises(TenantRefused):
            await store.append_for("acme", [started()], epoch=epoch)
        theirs = await open_a_run(store, epoch, tenant="other")
        stolen = Commit(tenant="acme", stream=None, inputs=(NewInput(kind="note", run_id=theirs, body=b"x"),))
        with pytest.raises(TenantRefused):
            await store.append_for("acme", [stolen], epoch=epoch)
        assert await store.arrival("other", "/modules/billing", "e2") is None
        assert [row.kind for row in await store.claim_inputs(epoch, limit=10, now=later(minutes=1))] == [
            "note",
            "start",
        ]


class CapsConformance:
    async def test_a_workflow_cap_bounds_the_holders_of_slots(self, store: Store, epoch: int) -> None:
        commits = [started(workflow="w", workflow_cap=2) for _ in range(3)]
        assert await append(store, epoch, *commits) == [Appended(1), Appended(2), Limited("workflow", 2)]
        free = started(workflow="v", workflow_cap=2)
        queued = replace(commits[2], open_run=replace(commits[2].open_run, status="queued", slot=False))  # type: ignore[type-var]
        assert await append(store, epoch, free, queued) == [Appended(3), Appended(4)]

    async def test_a_tenant_cap_bounds_all_its_workflows_together(self, store: Store, epoch: int) -> None:
        commits = [started(workflow=f"w{n}", tenant_cap=2, workflow_cap=5) for n in range(3)]
        assert await append(store, epoch, *commits, started(tenant="other", tenant_cap=2)) == [
            Appended(1),
            Appended(2),
            Limited("tenant", 2),
            Appended(3),
        ]

    async def test_a_freed_slot_can_be_taken_and_a_held_one_is_not_counted_twice(
        self, store: Store, epoch: int
    ) -> None:
        holder = await open_a_run(store, epoch, workflow_cap=1)
        waiting = await open_a_run(store, epoch, status="queued", slot=False)
        take = Changed(status="running", slot=True, takes_slot=True, workflow_cap=1)

        def granted(run: uuid.UUID, version: int) -> Commit:
            return Commit(tenant="acme", stream=run, expected=version, events=events("granted"), open_run=take)

        assert await append(store, epoch, granted(waiting, 1)) == [Limited("workflow", 1)]
        assert await append(store, epoch, granted(holder, 1)) == [Appended(3)]
        sleeping = Changed(status="waiting", slot=False)
        asleep = Commit(tenant="acme", stream=holder, expected=2, events=events("waits"), open_run=sleeping)
        assert await append(store, epoch, asleep) == [Appended(4)]
        assert await append(store, epoch, granted(waiting, 1)) == [Appended(5)]
        assert await append(store, epoch, granted(holder, 3)) == [Limited("workflow", 1)]
        assert await append(
            store, epoch, Commit(tenant="acme", stream=waiting, expected=2, events=events("end"), open_run=Closed())
        ) == [Appended(6)]
        assert await append(store, epoch, granted(holder, 3)) == [Appended(7)]

    async def test_a_cap_holds_when_processes_race_for_it(self, store: Store, epoch: int, opening: Opening) -> None:
        stores = [store, await opening(), await opening()]
        epochs = [epoch, *[await s.register("racer", ["all"]) for s in stores[1:]]]
        await asyncio.gather(*(s.lane_of("acme") for s in stores))

        async def race(n: int) -> int:
            taken = 0
            for _ in range(6):
                outcomes = await append(stores[n], epochs[n], *(started(workflow_cap=7) for _ in range(2)))
                taken += sum(isinstance(outcome, Appended) for outcome in outcomes)
            return taken

        assert sum(await asyncio.gather(*map(race, range(3)))) == 7
        assert sum(run.slot for run in await store.open_runs(tenant="acme")) == 7


class ReadModelConformance:
    async def test_rows_and_checkpoint_move_together_or_not_at_all(self, store: Store) -> None:
        put = Change("seen_put", [("acme", "a", 1), ("acme", "b", 2)])
        assert await store.checkpoint("seen", 0) == 0
        assert await store.apply("seen", 0, expected=0, position=5, changes=[put])
        assert await store.checkpoint("seen", 0) == 5
        late = Change("seen_put", [("acme", "c", 3)])
        assert not await store.apply("seen", 0, expected=0, position=9, changes=[late])
        assert not await store.apply("seen", 0, expected=4, position=9, changes=[late])
        assert not await store.apply("never", 0, expected=4, position=9, changes=[late])
        assert await store.checkpoint("seen", 0) == 5
        assert [row["name"] for row in await store.fetch("seen_list", tenant="acme", least=0)] == ["a", "b"]

    async def test_a_failing_change_leaves_neither_rows_nor_checkpoint(self, store: Store) -> None:
        bad = [Change("seen_put", [("acme", "a", 1)]), Change("seen_put", [("acme", None, 2)])]
        with pytest.raises(Exception, match=r"(?i)not.null"):
            await store.apply("seen", 0, expected=0, position=5, changes=bad)
        assert await store.checkpoint("seen", 0) == 0
        assert await store.fetch("seen_list", tenant="acme", least=0) == []

    async def test_a_tenant_sees_its_own_rows_and_the_platform_sees_all(self, store: Store) -> None:
        rows = [("acme", "a", 1), ("other", "b", 2)]
        await store.apply("seen", 0, expected=0, position=1, changes=[Change("seen_put", rows)])
        assert [row["name"] for row in await store.fetch("seen_list", tenant="acme", least=0)] == ["a"]
        assert [row["name"] for row in await store.fetch("seen_list", tenant=None, least=0)] == ["a", "b"]
        assert await store.fetch("seen_list", tenant="acme", least=2) == []

    async def test_a_missing_parameter_is_named(self, store: Store) -> None:
        with pytest.raises(KeyError, match="least"):
            await store.fetch("seen_list", tenant="acme")

    async def test_a_reset_empties_the_view_and_its_checkpoints(self, store: Store) -> None:
        await store.apply("seen", 0, expected=0, position=1, changes=[Change("seen_put", [("acme", "a", 1)])])
        await store.reset("seen")
        assert await store.checkpoint("seen", 0) == 0
        assert await store.fetch("seen_list", tenant=None, least=0) == []


SEEN = {
    "postgres": """
-- name: seen_create
CREATE TABLE IF NOT EXISTS seen (tenant text NOT NULL, name text NOT NULL, n integer NOT NULL, PRIMARY KEY (tenant,
name));

-- name: seen_reset
TRUNCATE seen;

-- name: seen_put
INSERT INTO seen (tenant, name, n) SELECT * FROM unnest($1::text[], $2::text[], $3::integer[]);

-- name: seen_list
SELECT name, n FROM seen WHERE (CAST(:tenant AS text) IS NULL OR tenant = :tenant) AND n >= :least ORDER BY name;
""",
    "sqlite": """
-- name: seen_create
CREATE TABLE IF NOT EXISTS seen (tenant TEXT NOT NULL, name TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (tenant,
name));

-- name: seen_reset
DELETE FROM seen;

-- name: seen_put
INSERT INTO seen (tenant, name, n) VALUES ($1, $2, $3);

-- name: seen_list
SELECT name, n FROM seen WHERE (:tenant IS NULL OR tenant = :tenant) AND n >= :least ORDER BY name;
""",
}


def write_views(folder: Path, driver: str) -> Path:
    """A read model for the suite, so that it needs none of the product's."""
    folder.mkdir(exist_ok=True)
    (folder / "seen.sql").write_text(SEEN[driver])
    return folder


__all__ = ["SEEN", "CapsConformance", "LogConformance", "ReadModelConformance", "arrival", "write_views"]
