"""Quotas of starts, as the append keeps them: whoever races and whoever dies, no more runs begin than may."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from contracts.envelope import MAX_ENVELOPE_BYTES
from contracts.quotas import FRESH, MOST_DEPTH, Quotas
from engine.guards.quotas import OLD_SETTING, SETTING, KnownQuotas
from engine.recording import Caps
from engine.store import Appended, Changed, ChangedSetting, Closed, Commit, Limited, Outcome, Store
from tests.conformance.store_making import NOW, Opening, append, events, later, open_a_run, started

OPEN = Limited("tenant", 2, "open_runs")
DAILY = Limited("tenant", 2, "daily_runs")


async def say(store: Store, tenant: str = "acme", **quotas: Any) -> None:
    await store.put_setting(tenant, SETTING, Quotas(**quotas).model_dump(mode="json"))


def ended(run: uuid.UUID, version: int = 1) -> Commit:
    return Commit(tenant="acme", stream=run, expected=version, events=events("end"), open_run=Closed())


def kinds(outcomes: list[Outcome]) -> list[Any]:
    return [Appended if isinstance(outcome, Appended) else outcome for outcome in outcomes]


class QuotasConformance:
    async def test_a_fresh_installation_bounds_every_tenant(self, store: Store) -> None:
        known = KnownQuotas(store)
        await known.start()
        await known.stop()
        assert await store.setting("anybody", SETTING) == FRESH.model_dump(mode="json")
        assert known("anybody", "any") == Caps(tenant=FRESH.concurrent_runs)
        await say(store, "*", concurrent_runs=3, at_limit="refuse", workflows={"w": {"concurrent_runs": 1}})
        await known.start()
        await known.stop()
        assert known("anybody", "w") == Caps(workflow=1, tenant=3, refuse=True)

    async def test_a_run_is_told_only_what_a_quota_narrows(self, store: Store) -> None:
        known = KnownQuotas(store)
        await known.start()
        await known.stop()
        assert (known.limits("acme"), known.payload_bytes("acme")) == (None, MAX_ENVELOPE_BYTES)
        await say(store, depth=MOST_DEPTH, steps=5, run_seconds=60, payload_bytes=100)
        await known.refresh()
        assert (known.limits("acme"), known.payload_bytes("acme")) == ({"steps": 5, "run_seconds": 60}, 100)
        assert known.limits("other") is None
        await say(store, "*", depth=0)
        await known.refresh()
        assert (known.limits("other"), known.payload_bytes("other")) == ({"depth": 0}, None)

    async def test_a_quota_of_a_later_release_stops_no_process(self, store: Store) -> None:
        later_document = {"concurrent_runs": 3, "colour": 1, "workflows": {"w": {"concurrent_runs": 2, "colour": 2}}}
        await store.put_setting("acme", SETTING, later_document)
        known = KnownQuotas(store)
        await known.refresh()
        assert known("acme", "w") == Caps(workflow=2, tenant=3)

    async def test_of_many_quotas_only_those_that_were_changed_are_read_again(self, store: Store) -> None:
        for n in range(20):
            await say(store, f"t{n}", daily_runs=n)
        read: list[int] = []

        class Watched:
            """The store, and how many settings it has told."""

            settings_named, put_setting = store.settings_named, store.put_setting

            async def settings_changed(self, names: Sequence[str], *, after: int) -> list[ChangedSetting]:
                found = await store.settings_changed(names, after=after)
                read.append(len(found))
                return found

        known = KnownQuotas(cast("Store", Watched()))
        heard: list[int] = []
        known.on_change = lambda: heard.append(len(read))
        await known.start()
        await known.stop()
        await known.refresh()
        await say(store, "t7", concurrent_runs=3)
        await store.put_setting("t7", OLD_SETTING, {"workflow": 2})
        await known.refresh()
        assert known("t7", "w") == Caps(workflow=2, tenant=3)
        assert (read, heard) == ([21, 0, 2], [1, 3])
        # What is gone with its tenant shows when all is read, once in a while.
        await store.forget_tenant("t7")
        await known.refresh()
        assert known("t7", "w") == Caps(workflow=2, tenant=3)
        known.read_whole()
        await known.refresh()
        assert known("t7", "w") == Caps(tenant=FRESH.concurrent_runs)
        await say(store, "t7", concurrent_runs=5)
        await known.refresh()
        assert known("t7", "w") == Caps(tenant=5)

    async def test_no_change_is_missed_by_who_reads_what_is_new(self, store: Store, opening: Opening) -> None:
        stores = [store, await opening(), await opening()]
        seen: dict[str, Any] = {}
        after, done = -1, False

        async def read() -> None:
            nonlocal after
            last = False
            while not last:
                last = done
                for one in await store.settings_changed([SETTING], after=after):
                    seen[one.tenant] = one.value["daily_runs"]
                    after = max(after, one.change)

        reading = asyncio.create_task(read())
        for n in range(5):
            await asyncio.gather(*(say(stores[k % 3], f"t{k}", daily_runs=n * 100 + k) for k in range(30)))
        done = True
        await reading
        assert seen == {f"t{k}": 400 + k for k in range(30)}

    async def test_open_runs_are_bounded_whatever_they_do_and_an_end_makes_room(self, store: Store, epoch: int) -> None:
        await say(store, open_runs=2)
        first, second, third = (started(counted=True) for _ in range(3))
        queued = started(counted=True, status="queued", slot=False)
        assert kinds(await append(store, epoch, first, second, third, queued)) == [Appended, Appended, OPEN, OPEN]
        asleep = Changed(status="waiting", slot=False)
        waits = Commit(tenant="acme", stream=first.stream, expected=1, events=events("waits"), open_run=asleep)
        assert kinds(await append(store, epoch, waits, third)) == [Appended, OPEN]
        assert second.stream is not None
        await append(store, epoch, ended(second.stream))
        assert kinds(await append(store, epoch, third, queued)) == [Appended, OPEN]
        assert kinds(await append(store, epoch, started(counted=True, tenant="other"))) == [Appended]

    async def test_what_a_run_starts_counts_and_is_never_refused(self, store: Store, epoch: int) -> None:
        await say(store, open_runs=2)
        children = [await open_a_run(store, epoch) for _ in range(3)]
        assert await append(store, epoch, started(counted=True)) == [OPEN]
        for child in children[:2]:
            await append(store, epoch, ended(child))
        assert kinds(await append(store, epoch, started(counted=True), started(counted=True))) == [Appended, OPEN]

    async def test_runs_from_before_there_was_a_quota_count(self, store: Store, epoch: int) -> None:
        for _ in range(2):
            await open_a_run(store, epoch)
        await say(store, open_runs=2)
        assert await append(store, epoch, started(counted=True)) == [OPEN]

    async def test_a_day_has_its_runs_and_the_next_has_as_many(self, store: Store, epoch: int) -> None:
        await say(store, daily_runs=2)
        runs = [started(counted=True) for _ in range(3)]
        assert kinds(await append(store, epoch, *runs)) == [Appended, Appended, DAILY]
        assert runs[0].stream is not None
        await append(store, epoch, ended(runs[0].stream))
        assert await append(store, epoch, runs[2]) == [DAILY]
        tomorrow = [runs[2], started(counted=True), started(counted=True)]
        assert kinds(await store.append(tomorrow, epoch=epoch, now=later(days=1))) == [Appended, Appended, DAILY]

    async def test_a_run_that_ends_with_its_first_commit_is_one_of_the_day(self, store: Store, epoch: int) -> None:
        await say(store, daily_runs=2)
        brief = [replace(started(counted=True), open_run=Closed(bare=True)) for _ in range(2)]
        await open_a_run(store, epoch)
        assert kinds(await append(store, epoch, *brief)) == [Appended, DAILY]
        assert kinds(await append(store, epoch, replace(started(), open_run=Closed(bare=True)))) == [Appended]
        [use] = await store.quota_use("acme", day=f"{NOW:%Y-%m-%d}")
        assert (use.started, use.open_runs) == (3, 1)

    async def test_a_workflow_has_a_quota_of_its_own_or_that_of_each(self, store: Store, epoch: int) -> None:
        await say(store, "*", daily_runs=5, workflows={"w": {"daily_runs": 1}, "*": {"daily_runs": 3}})
        await say(store, workflows={"v": {"daily_runs": 2}})

        async def begins(tenant: str, workflow: str) -> int:
            outcomes = await append(
                store, epoch, *(started(counted=True, tenant=tenant, workflow=workflow) for _ in range(4))
            )
            refused = {outcome for outcome in outcomes if not isinstance(outcome, Appended)}
            begun = len(outcomes) - sum(isinstance(outcome, Limited) for outcome in outcomes)
            assert refused == {Limited("workflow", begun, "daily_runs")}
            return begun

        assert [await begins("acme", workflow) for workflow in ("w", "v")] == [1, 2]
        assert [await begins("other", workflow) for workflow in ("w", "v")] == [1, 3]
        two = [started(counted=True, tenant="acme", workflow="x") for _ in range(3)]
        assert kinds(await append(store, epoch, *two)) == [Appended, Appended, Limited("tenant", 5, "daily_runs")]

    async def test_a_changed_quota_holds_for_the_next_start(self, store: Store, epoch: int) -> None:
        await say(store, daily_runs=0)
        start = started(counted=True)
        assert await append(store, epoch, start) == [Limited("tenant", 0, "daily_runs")]
        await say(store, daily_runs=1)
        assert kinds(await append(store, epoch, start)) == [Appended]

    async def test_a_start_that_takes_no_slot_is_counted_and_waits_for_none(self, store: Store, epoch: int) -> None:
        await say(store, daily_runs=2)
        holder = started(counted=True, tenant_cap=1)
        asleep = [started(counted=True, status="waiting", slot=False, tenant_cap=1) for _ in range(2)]
        assert kinds(await append(store, epoch, holder, *asleep)) == [Appended, Appended, DAILY]

    async def test_a_refused_start_takes_no_slot_and_counts_for_nothing(self, store: Store, epoch: int) -> None:
        await say(store, daily_runs=2, workflows={"w": {"daily_runs": 0}})
        over = started(counted=True, workflow="w", tenant_cap=1)
        begun = started(counted=True, workflow="v", tenant_cap=1)
        late = started(counted=True, workflow="v", tenant_cap=1)
        assert kinds(await append(store, epoch, over, begun, late)) == [
            Limited("workflow", 0, "daily_runs"),
            Appended,
            Limited("tenant", 1),
        ]
        more = [started(counted=True, workflow="v") for _ in range(2)]
        assert kinds(await append(store, epoch, *more)) == [Appended, DAILY]

    @pytest.mark.parametrize("quota", ["open_runs", "daily_runs"])
    async def test_no_race_of_two_hundred_passes_a_quota(
        self, store: Store, epoch: int, opening: Opening, quota: str
    ) -> None:
        only: dict[str, Any] = {quota: 17}
        await say(store, **only)
        stores = [store, await opening(), await opening(), await opening()]
        epochs = [epoch, *[await one.register("racer", ["all"], now=NOW) for one in stores[1:]]]
        await asyncio.gather(*(one.lane_of("acme") for one in stores))

        async def race(n: int) -> int:
            [outcome] = await append(stores[n % 4], epochs[n % 4], started(counted=True))
            return isinstance(outcome, Appended)

        assert sum(await asyncio.gather(*map(race, range(200)))) == 17
        assert len(await store.open_runs(tenant="acme")) == 17

    async def test_a_process_that_dies_keeps_nothing_from_its_tenant(
        self, store: Store, epoch: int, opening: Opening
    ) -> None:
        await say(store, open_runs=2)
        other = await opening()
        died = await other.register("dies", ["all"], now=NOW)
        runs = [await open_a_run(other, died, counted=True) for _ in range(2)]
        assert died in await store.declare_dead(silent_seconds=1, now=later(minutes=1))
        anew = await store.register("lives", ["all"], now=later(minutes=1))
        assert await append(store, anew, started(counted=True)) == [OPEN]
        taken = await store.claim_runs(anew, plans=[("onboarding", 1)], now=later(minutes=1))
        assert {one.run_id for one in taken} == set(runs)
        await append(store, anew, *(ended(run) for run in runs))
        again = [started(counted=True) for _ in range(3)]
        assert kinds(await append(store, anew, *again)) == [Appended, Appended, OPEN]

    async def test_starts_are_counted_in_portions_and_compared_at_the_head(self, store: Store, epoch: int) -> None:
        day, before = f"{NOW:%Y-%m-%d}", f"{later(days=-1):%Y-%m-%d}"
        nothing = await store.starts_counted(0, after=0, most=3, day=day)
        assert (nothing.upto, nothing.begun, nothing.counted) == (0, {}, [])
        runs = [started(tenant=tenant) for tenant in ("acme", "acme", "globex", "acme", "acme")]
        await append(store, epoch, *runs)
        first = await store.starts_counted(0, after=0, most=3, day=day)
        assert (first.upto, first.begun, first.counted) == (3, {"acme": 2, "globex": 1}, None)
        last = await store.starts_counted(0, after=3, most=3, day=day)
        assert (last.upto, last.begun) == (5, {"acme": 2})
        assert last.counted is not None
        assert sorted((one.tenant, one.counted) for one in last.counted) == [("acme", 4), ("globex", 1)]
        # One that ends at the head is not known to: the next says so.
        assert (await store.starts_counted(0, after=2, most=3, day=day)).counted is None
        assert (await store.starts_counted(0, after=5, most=3, day=day)).counted == last.counted
        assert (await store.starts_counted(0, after=0, most=9, day=before)).begun == {}

    async def test_starts_are_read_in_portions_bounded_by_bytes_and_never_none(self, store: Store, epoch: int) -> None:
        day, size = f"{NOW:%Y-%m-%d}", len(started().events[0].body)
        runs = [started(tenant=tenant) for tenant in ("acme", "other", "globex", "acme", "acme")]
        await append(store, epoch, *runs)
        both, found, ends = ["acme", "globex"], [], [0]
        while (
            part := await store.starts_of(both, 0, after=ends[-1], most=9, day=day, most_bytes=size)
        ).counted is None:
            found += [(tenant, stream, one.body) for tenant, stream, one in part.starts]
            ends.append(part.upto)
        found += [(tenant, stream, one.body) for tenant, stream, one in part.starts]
        assert sorted(found) == sorted((r.tenant, r.stream, r.events[0].body) for r in runs if r.tenant != "other")
        assert ends == [0, 2, 3, 4]
        assert part.counted == {("acme", "onboarding"): 3, ("globex", "onboarding"): 1}
        few = await store.starts_of(both, 0, after=0, most=2, day=day)
        assert (few.upto, len(few.starts), few.counted) == (2, 1, None)
        empty = await store.starts_of(["nobody"], 0, after=0, most=9, day=day)
        assert (empty.upto, empty.starts, empty.counted) == (5, [], {})

    async def test_of_a_day_that_is_over_no_count_is_corrected(self, store: Store, epoch: int) -> None:
        day, before = f"{NOW:%Y-%m-%d}", f"{later(days=-1):%Y-%m-%d}"
        await append(store, epoch, started(), started())
        await store.correct_counts("acme", day=before, started={"onboarding": 5})
        [use] = await store.quota_use("acme", day=day)
        assert use.started == 2
        await store.correct_counts("acme", day=f"{later(days=1):%Y-%m-%d}", started={"onboarding": 5})
        [use] = await store.quota_use("acme", day=f"{later(days=1):%Y-%m-%d}")
        assert use.started == 5
