"""What every store driver must do about work: process epochs and fencing, leases of runs, the competition for inputs,
messages and timers, the janitor's list."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.store import Account, Appended, Changed, Closed, Commit, Fenced, NewInput, OutboxMessage, Store, Timer
from tests.conformance.store_catalog import letter
from tests.conformance.store_making import NOW, Opening, append, arrived, events, later, open_a_run, started

PLAN = [("onboarding", 1)]


def step(run: uuid.UUID, version: int = 1, **more: Any) -> Commit:
    return replace(Commit(tenant="acme", stream=run, expected=version, events=events("x")), **more)


def message(n: int, **more: Any) -> OutboxMessage:
    made = OutboxMessage(message_id=f"m{n}", exchange="unwind.commands", routing_key="billing.ChargeV1", body=b"sealed")
    return replace(made, **more)


class EpochConformance:
    async def test_every_process_gets_a_higher_epoch(self, store: Store, epoch: int) -> None:
        epochs = [await store.register(f"p{n}", ["worker"], now=NOW) for n in range(3)]
        assert epochs == sorted(epochs)
        assert epochs[0] > epoch
        last = (await store.processes())[-1]
        assert (last.epoch, last.name, last.roles, last.started_at, last.dead) == (
            epochs[-1],
            "p2",
            ("worker",),
            NOW,
            False,
        )

    async def test_a_database_that_was_put_back_knows_no_living_process_and_gives_higher_epochs(
        self, store: Store, epoch: int
    ) -> None:
        message = OutboxMessage(message_id="m", exchange="e", routing_key="k", body=b"")
        run = await open_a_run(store, epoch, outbox=(message,))
        assert len(await store.claim_outbox(epoch, limit=5, now=NOW)) == 1
        await store.restored()
        assert all(process.dead for process in await store.processes())
        extension = Commit(tenant="acme", stream=run, expected=1, events=events("late"))
        assert await append(store, epoch, extension) == [Fenced()]
        fresh = await store.register("fresh", ["all"])
        assert fresh > epoch + 99_999
        assert [found.message_id for found in await store.claim_outbox(fresh, limit=5, now=NOW)] == ["m"]
        assert len(await store.claim_named(fresh, [("acme", run)])) == 1
        assert isinstance((await append(store, fresh, extension))[0], Appended)

    async def test_what_tenants_used_is_added_up_and_its_rows_are_counted_again(self, store: Store, epoch: int) -> None:
        day = NOW.date().isoformat()
        used = [Account(tenant=name, day=day, decide_seconds=0.5, rows=2, sends=1, actions=3) for name in ("acme", "b")]
        await store.account(day, used)
        await store.account(day, [Account(tenant="acme", day=day, project_seconds=0.25, rows=1)])
        span: dict[str, Any] = {"first": day, "last": day}
        acme, other = await store.accounts(None, **span)
        assert (acme.decide_seconds, acme.project_seconds, acme.rows, acme.sends, acme.actions) == (0.5, 0.25, 3, 1, 3)
        assert other == used[1]
        assert await store.accounts("b", **span) == [other]
        assert await store.accounts(None, first="2001-01-01", last="2001-01-31") == []
        run = await open_a_run(store, epoch)
        await append(store, epoch, step(run))
        await store.recount_accounts(**span)
        assert [one.rows for one in await store.accounts("acme", **span)] == [len(await store.load("acme", run))]
        assert await store.accounts("b", **span) == [other]

    async def test_rows_are_counted_again_in_portions_of_the_log_and_of_the_archive(
        self, store: Store, epoch: int
    ) -> None:
        runs = [await open_a_run(store, epoch, tenant=tenant) for tenant in ("acme", "globex", "acme", "acme")]
        for run in runs[:1] + runs[2:]:
            await append(store, epoch, step(run))
        last = Commit(tenant="acme", stream=runs[2], expected=2, events=events("end"), open_run=Closed())
        await append(store, epoch, last)
        await store.archive_runs("acme", [runs[2]], month=f"{NOW:%Y-%m}")
        await store.append([started()], epoch=epoch, now=later(days=1))
        day = NOW.date().isoformat()
        await store.account(day, [Account(tenant="acme", day=day, rows=9)])
        for most in (1, 2, 3, 100):
            await store.recount_accounts(first=day, last=day, most=most)
            found = await store.accounts(None, first=day, last=later(days=1).date().isoformat())
            assert [(one.tenant, one.day, one.rows) for one in found] == [("acme", day, 7), ("globex", day, 1)]
            await store.account(day, [Account(tenant="globex", day=day, rows=-1)])

    async def test_the_database_tells_the_time(self, store: Store) -> None:
        before = datetime.now(UTC)
        assert before - timedelta(seconds=1) <= await store.time() <= datetime.now(UTC) + timedelta(seconds=1)

    async def test_a_silent_process_is_declared_dead_and_can_append_nothing(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch)
        other = await store.register("other", ["all"], now=later(seconds=8))
        assert await store.heartbeat(epoch, now=later(seconds=2))
        assert await store.declare_dead(silent_seconds=10, now=later(seconds=11)) == []
        assert await store.declare_dead(silent_seconds=10, now=later(seconds=13)) == [epoch]
        assert not await store.heartbeat(epoch, now=later(seconds=13))
        assert await append(store, epoch, step(run), started()) == [Fenced(), Fenced()]
        assert await store.claim_runs(epoch, plans=PLAN) == []
        assert await store.claim_named(epoch, [("acme", run)]) == []
        assert await store.claim_inputs(epoch, limit=1) == []
        assert await store.claim_outbox(epoch, limit=1) == []
        assert await store.due_timers(epoch, limit=1) == []
        assert await append(store, other, started()) == [Appended(2)]

    async def test_an_epoch_nobody_registered_can_append_nothing(self, store: Store, epoch: int) -> None:
        assert await append(store, epoch + 99, started()) == [Fenced()]

    async def test_only_a_runs_owner_decides_it(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch)
        other = await store.register("other", ["all"], now=NOW)
        assert await append(store, other, step(run)) == [Fenced()]
        assert await store.claim_named(other, [("acme", run)]) == []
        assert await append(store, epoch, step(run)) == [Appended(2)]


class LeaseConformance:
    async def test_runs_of_a_dead_process_are_taken_over_and_counted(self, store: Store, epoch: int) -> None:
        runs = [await open_a_run(store, epoch) for _ in range(5)]
        await open_a_run(store, epoch, workflow="unknown")
        other = await store.register("other", ["all"], now=later(seconds=20))
        assert await store.claim_runs(other, plans=PLAN) == []
        await store.declare_dead(silent_seconds=10, now=later(seconds=20))
        first = await store.claim_runs(other, plans=PLAN, limit=3)
        second = await store.claim_runs(other, plans=PLAN, limit=3)
        assert {run.run_id for run in first + second} == set(runs)
        assert [(run.owner, run.takeovers) for run in first + second] == [(other, 1)] * 5
        assert await append(store, other, step(runs[0])) == [Appended(7)]
        assert await append(store, epoch, step(runs[1])) == [Fenced()]
        progress = step(runs[0], 2, open_run=Changed(status="waiting", slot=False))
        await append(store, other, progress)
        run = await store.open_run("acme", runs[0])
        assert run is not None
        assert (run.takeovers, run.status, run.slot) == (0, "waiting", False)

    async def test_only_known_plan_versions_are_claimed(self, store: Store, epoch: int) -> None:
        old = await open_a_run(store, epoch, workflow_version=1)
        new = await open_a_run(store, epoch, workflow_version=2)
        await store.release_runs(epoch, [old, new])
        claimed = await store.claim_runs(epoch, plans=[("onboarding", 2), ("other", 1)])
        assert [run.run_id for run in claimed] == [new]

    async def test_a_clean_goodbye_releases_everything_and_counts_no_takeover(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch, outbox=(message(1),), timers=(Timer(key="t", due=NOW),))
        assert len(await store.claim_outbox(epoch, limit=5, now=NOW)) == 1
        assert len(await store.due_timers(epoch, limit=5, now=NOW)) == 1
        await store.retire(epoch)
        other = await store.register("other", ["all"], now=NOW)
        assert [(r.run_id, r.takeovers) for r in await store.claim_runs(other, plans=PLAN)] == [(run, 0)]
        assert len(await store.claim_outbox(other, limit=5, now=NOW)) == 1
        assert len(await store.due_timers(other, limit=5, now=NOW)) == 1
        assert await append(store, epoch, step(run)) == [Fenced()]

    async def test_a_single_run_can_be_claimed_when_nobody_living_has_it(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch)
        [again] = await store.claim_named(epoch, [("acme", run)])
        assert again.takeovers == 0
        assert await store.claim_named(epoch, [("other", run)]) == []
        assert await store.claim_named(epoch, [("acme", uuid.uuid4())]) == []
        await store.release_runs(epoch, [run])
        other = await store.register("other", ["all"], now=NOW)
        await store.release_runs(other, [run])
        [claimed] = await store.claim_named(other, [("acme", run)])
        assert (claimed.owner, claimed.takeovers, claimed.started_at) == (other, 0, NOW)

    async def test_of_many_named_runs_those_are_taken_that_nobody_living_has(self, store: Store, epoch: int) -> None:
        other = await store.register("other", ["all"], now=NOW)
        theirs, free, mine, elsewhere = [await open_a_run(store, epoch) for _ in range(4)]
        await store.release_runs(epoch, [free, mine])
        assert [run.run_id for run in await store.claim_named(other, [("acme", mine)])] == [mine]
        named = [("acme", theirs), ("acme", free), ("acme", mine), ("other", elsewhere), ("acme", uuid.uuid4())]
        assert {run.run_id for run in await store.claim_named(other, named)} == {free, mine}

    async def test_processes_racing_for_runs_share_them_out(self, store: Store, epoch: int, opening: Opening) -> None:
        runs = [await open_a_run(store, epoch) for _ in range(20)]
        await store.release_runs(epoch, runs)
        stores = [await opening() for _ in range(3)]
        epochs = [await s.register("racer", ["all"]) for s in stores]

        async def take(n: int) -> list[uuid.UUID]:
            taken: list[uuid.UUID] = []
            while claimed := await stores[n].claim_runs(epochs[n], plans=PLAN, limit=3):
                taken.extend(run.run_id for run in claimed)
            return taken

        taken = [run for share in await asyncio.gather(*map(take, range(3))) for run in share]
        assert sorted(taken) == sorted(runs)

    async def test_open_runs_are_listed_in_pages(self, store: Store, epoch: int) -> None:
        runs = sorted([await open_a_run(store, epoch) for _ in range(3)])
        theirs = await open_a_run(store, epoch, tenant="other")
        page = await store.open_runs(tenant="acme", limit=2)
        rest = await store.open_runs(tenant="acme", limit=2, after=page[-1].run_id)
        assert [run.run_id for run in page + rest] == runs
        assert {run.run_id for run in await store.open_runs()} == {*runs, theirs}

    async def test_queued_runs_come_in_fair_order_and_woken_before_new(self, store: Store, epoch: int) -> None:
        """`big` queues four runs and holds no slot; `small` queues one; `heavy` weighs as much as two."""
        await store.put_setting("heavy", "quotas", {"weight": 2})
        await store.put_setting("small", "quotas", {"weight": None})
        queue: dict[str, Any] = {"status": "queued", "slot": False}
        big = [await open_a_run(store, epoch, tenant="big", **queue) for _ in range(4)]
        small = await open_a_run(store, epoch, tenant="small", **queue)
        heavy = [await open_a_run(store, epoch, tenant="heavy", **queue) for _ in range(2)]
        holder = await open_a_run(store, epoch, tenant="holder")
        held = await open_a_run(store, epoch, tenant="holder", **queue)
        woken = big[3]
        await append(
            store,
            epoch,
            Commit(
                tenant="big",
                stream=woken,
                expected=1,
                events=events("woken"),
                open_run=Changed(status="queued", slot=False),
            ),
        )
        order = [run.run_id for run in await store.queued_runs(epoch, limit=100)]
        assert set(order) == {*big, small, *heavy, held}
        assert holder not in order
        assert order[0] in heavy
        assert set(order[1:4]) == {woken, small, *heavy} - {order[0]}
        assert order.index(held) > 3
        assert order.index(woken) < min(map(order.index, big[:3]))
        other = await store.register("other", ["all"], now=NOW)
        assert await store.queued_runs(other, limit=100) == []

    async def test_a_workflow_that_waits_in_vain_keeps_no_other_of_its_tenant_waiting(
        self, store: Store, epoch: int
    ) -> None:
        """As one that is paused, at its cap or without a budget: however many of its runs came first."""
        queue: dict[str, Any] = {"status": "queued", "slot": False}
        for workflow, runs in (("many", 4), ("few", 2)):
            for _ in range(runs):
                await open_a_run(store, epoch, workflow=workflow, **queue)

        async def first(limit: int) -> Counter[str]:
            return Counter(run.workflow for run in await store.queued_runs(epoch, limit=limit))

        assert await first(2) == {"many": 1, "few": 1}
        assert await first(4) == {"many": 2, "few": 2}
        assert await first(100) == {"many": 4, "few": 2}

    async def test_queued_runs_of_whoever_is_named_are_left_out(self, store: Store, epoch: int) -> None:
        queue: dict[str, Any] = {"status": "queued", "slot": False}
        for tenant, workflow in (("one", "ship"), ("one", "ship"), ("one", "bill"), ("two", "ship"), ("three", "bill")):
            await open_a_run(store, epoch, tenant=tenant, workflow=workflow, **queue)

        async def left(*but: tuple[str, str | None]) -> Counter[tuple[str, str]]:
            found = await store.queued_runs(epoch, limit=100, but=but)
            return Counter((run.tenant, run.workflow) for run in found)

        everybody = await left()
        assert everybody == {("one", "ship"): 2, ("one", "bill"): 1, ("two", "ship"): 1, ("three", "bill"): 1}
        assert await left(("one", "ship")) == everybody - Counter({("one", "ship"): 2})
        assert await left(("one", None), ("two", "bill")) == {("two", "ship"): 1, ("three", "bill"): 1}
        assert await left(("one", "bill"), ("two", None), ("three", "bill")) == {("one", "ship"): 2}

    async def test_slots_are_counted_by_tenant_and_workflow(self, store: Store, epoch: int) -> None:
        running, queued = ("running", True), ("queued", False)
        for tenant, workflow, (status, slot) in (
            ("big", "ship", running), ("big", "ship", running), ("big", "bill", running), ("big", "bill", queued),
            ("small", "ship", queued), ("other", "ship", running),
        ):  # fmt: skip
            await open_a_run(store, epoch, tenant=tenant, workflow=workflow, status=status, slot=slot)
        assert await store.slots_held(["big", "small"]) == {("big", "ship"): 2, ("big", "bill"): 1}
        assert await store.slots_held([]) == {}

    async def test_slots_go_to_tenants_by_their_weights(self, store: Store, epoch: int) -> None:
        """Of the first slots each has its share, and a change holds at once."""
        queue: dict[str, Any] = {"status": "queued", "slot": False}
        for tenant in ("one", "three", "six"):
            for _ in range(12):
                await open_a_run(store, epoch, tenant=tenant, **queue)
        await store.put_setting("*", "quotas", {"weight": 2})
        await store.put_setting("three", "quotas", {"weight": 6})
        await store.put_setting("six", "quotas", {"weight": 12})

        async def first(limit: int) -> Counter[str]:
            return Counter(run.tenant for run in await store.queued_runs(epoch, limit=limit))

        assert await first(20) == {"one": 2, "three": 6, "six": 12}
        await store.put_setting("six", "quotas", {"weight": 2})
        assert await first(10) == {"one": 2, "three": 6, "six": 2}


class OutboxConformance:
    async def test_messages_are_claimed_in_order_once_and_deleted_when_sent(self, store: Store, epoch: int) -> None:
        await open_a_run(store, epoch, outbox=tuple(message(n) for n in range(3)))
        first = await store.claim_outbox(epoch, limit=2, now=NOW)
        assert [(row.tenant, row.message_id, row.exchange, row.routing_key, row.body) for row in first] == [
            ("acme", f"m{n}", "unwind.commands", "billing.ChargeV1", b"sealed") for n in range(2)
        ]
        other = await store.register("other", ["all"], now=NOW)
        [third] = await store.claim_outbox(other, limit=2, now=NOW)
        assert third.message_id == "m2"
        await store.settle_outbox([first[0].id], returned=[first[1].id], retry_at=later(seconds=5))
        assert await store.claim_outbox(other, limit=5, now=later(seconds=4)) == []
        assert [row.message_id for row in await store.claim_outbox(other, limit=5, now=later(seconds=5))] == ["m1"]
        assert [row.message_id for row in await store.claim_outbox(epoch, limit=5, now=later(minutes=5))] == [
            "m1",
            "m2",
        ]

    async def test_a_message_waits_for_its_time(self, store: Store, epoch: int) -> None:
        await open_a_run(store, epoch, outbox=(message(1, not_before=later(minutes=1)), message(2)))
        assert [row.message_id for row in await store.claim_outbox(epoch, limit=5, now=NOW)] == ["m2"]
        assert "m1" in {row.message_id for row in await store.claim_outbox(epoch, limit=5, now=later(minutes=1))}

    async def test_what_a_dead_process_had_claimed_is_free_at_once(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch, outbox=(message(1),), timers=(Timer(key="t", due=NOW),))
        await append(store, epoch, arrived("e1", inputs=(NewInput(kind="note", run_id=run, body=b"x"),)))
        assert len(await store.claim_outbox(epoch, limit=5, now=NOW)) == 1
        assert len(await store.claim_inputs(epoch, limit=5, now=NOW)) == 1
        assert len(await store.due_timers(epoch, limit=5, now=NOW)) == 1
        other = await store.register("other", ["all"], now=later(seconds=20))
        await store.declare_dead(silent_seconds=10, now=later(seconds=20))
        assert len(await store.claim_outbox(other, limit=5, now=later(seconds=20))) == 1
        assert len(await store.claim_inputs(other, limit=5, now=later(seconds=20))) == 1
        assert len(await store.due_timers(other, limit=5, now=later(seconds=20))) == 1

    async def test_who_asks_for_the_silent_is_none_of_them(self, store: Store, epoch: int) -> None:
        other = await store.register("other", ["all"], now=NOW)
        assert await store.declare_dead(silent_seconds=10, but=epoch, now=later(seconds=20)) == [other]
        assert await store.heartbeat(epoch, now=later(seconds=20))
        assert await store.declare_dead(silent_seconds=10, now=later(seconds=40)) == [epoch]

    async def test_what_was_claimed_of_a_run_that_another_owns_is_handed_over(self, store: Store, epoch: int) -> None:
        theirs, mine = [
            await open_a_run(store, epoch, timers=(Timer(key="t", due=NOW),), deadline=NOW) for _ in range(2)
        ]
        for run in (theirs, mine):
            await append(store, epoch, arrived(f"e-{run}", inputs=(NewInput(kind="note", run_id=run, body=b"x"),)))
        await store.release_runs(epoch, [theirs, mine])
        assert len(await store.claim_inputs(epoch, limit=5, now=NOW)) == 2
        assert len(await store.due_timers(epoch, limit=5, now=NOW)) == 4
        other = await store.register("other", ["all"], now=NOW)
        await store.claim_named(other, [("acme", theirs)])

        await store.hand_over(epoch, [theirs, mine], now=NOW)

        # What it holds of a run that nobody else owns it keeps.
        assert [row.run_id for row in await store.claim_inputs(other, limit=5, now=NOW)] == [theirs]
        due = await store.due_timers(other, limit=5, now=NOW)
        assert {(timer.run_id, timer.key) for timer in due} == {(theirs, "t"), (theirs, "run/deadline")}

    async def test_processes_racing_for_messages_send_each_once(
        self, store: Store, epoch: int, opening: Opening
    ) -> None:
        await open_a_run(store, epoch, outbox=tuple(message(n) for n in range(40)))
        stores = [await opening() for _ in range(3)]
        epochs = [await s.register("racer", ["all"], now=NOW) for s in stores]

        async def take(n: int) -> list[str]:
            taken: list[str] = []
            while rows := await stores[n].claim_outbox(epochs[n], limit=4, now=NOW):
                taken.extend(row.message_id for row in rows)
                await stores[n].settle_outbox([row.id for row in rows])
            return taken

        taken = [name for share in await asyncio.gather(*map(take, range(3))) for name in share]
        assert sorted(taken) == sorted(f"m{n}" for n in range(40))


class TimerConformance:
    async def test_a_timer_is_due_at_its_time_and_never_before(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch, timers=(Timer(key="sleep/nap/1", due=later(minutes=5)),))
        assert await store.due_timers(epoch, limit=5, now=later(minutes=5, microseconds=-1)) == []
        [timer] = await store.due_timers(epoch, limit=5, now=later(minutes=5))
        assert (timer.tenant, timer.run_id, timer.key, timer.due) == ("acme", run, "sleep/nap/1", later(minutes=5))
        assert await store.due_timers(epoch, limit=5, now=later(minutes=5)) == []
        assert len(await store.due_timers(epoch, limit=5, now=later(minutes=6))) == 1
        await append(store, epoch, step(run, timers_cleared=("sleep/nap/1",)))
        assert await store.due_timers(epoch, limit=5, now=later(days=1)) == []

    async def test_a_timer_set_again_moves(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch, timers=(Timer(key="t", due=NOW), Timer(key="t", due=later(minutes=1))))
        await append(store, epoch, step(run, timers_cleared=("t",), timers=(Timer(key="t", due=later(minutes=2)),)))
        assert await store.due_timers(epoch, limit=5, now=later(minutes=1)) == []
        assert len(await store.due_timers(epoch, limit=5, now=later(minutes=2))) == 1

    async def test_a_run_deadline_is_due_like_a_timer_and_moves_with_the_run(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch, deadline=later(minutes=1))
        assert await store.due_timers(epoch, limit=5, now=NOW) == []
        [timer] = await store.due_timers(epoch, limit=5, now=later(minutes=1))
        assert (timer.run_id, timer.key, timer.due) == (run, "run/deadline", later(minutes=1))
        assert await store.due_timers(epoch, limit=5, now=later(minutes=1)) == []
        parked = Changed(status="parked", slot=False, deadline=None)
        await append(store, epoch, step(run, open_run=parked))
        assert await store.due_timers(epoch, limit=5, now=later(days=1)) == []

    async def test_a_living_owner_alone_is_given_its_timers(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch, timers=(Timer(key="t", due=NOW),), deadline=NOW)
        other = await store.register("other", ["all"], now=NOW)
        assert await store.due_timers(other, limit=5, now=NOW) == []
        await store.release_runs(epoch, [run])
        assert {timer.key for timer in await store.due_timers(other, limit=5, now=NOW)} == {"t", "run/deadline"}

    async def test_runs_without_a_reason_to_wake_are_found(self, store: Store, epoch: int) -> None:
        waiting: dict[str, Any] = {"status": "waiting", "slot": False}
        asleep = await open_a_run(store, epoch, timers=(Timer(key="t", due=later(days=1)),), **waiting)
        stuck = await open_a_run(store, epoch, **waiting)
        await open_a_run(store, epoch, status="queued", slot=False)
        await open_a_run(store, epoch, status="parked", slot=False)
        orphan = await open_a_run(store, epoch, timers=(Timer(key="t", due=later(days=1)),))
        await store.release_runs(epoch, [orphan])

        async def found(**age: float) -> set[uuid.UUID]:
            runs = await store.runs_without_wake(older_than_seconds=60, limit=10, now=later(**age))
            return {run.run_id for run in runs}

        assert await found(seconds=59) == set()
        assert await found(seconds=60) == {stuck, orphan}
        assert asleep not in await found(days=1)
        assert [t["key"] for t in (await store.wakes("acme", asleep))["timers"]] == ["t"]
        assert (await store.wakes("other", asleep))["timers"] == []


class CensusConformance:
    async def test_a_store_in_which_nothing_waits_counts_nothing(self, store: Store, epoch: int) -> None:
        found = await store.census(now=NOW)
        assert (dict(found.runs), found.processes) == ({}, 1)
        assert (found.outbox_rows, found.outbox_age_seconds) == (0, 0.0)
        assert (found.timers_late, found.timers_lateness_seconds) == (0, 0.0)
        assert found.dead_letters == 0

    async def test_open_runs_are_counted_by_status_until_they_end(self, store: Store, epoch: int) -> None:
        await open_a_run(store, epoch, status="queued", slot=False)
        runs = [await open_a_run(store, epoch) for _ in range(2)]
        assert dict((await store.census(now=NOW)).runs) == {"queued": 1, "running": 2}
        await append(store, epoch, step(runs[0], open_run=Changed(status="parked", slot=False, deadline=None)))
        assert dict((await store.census(now=NOW)).runs) == {"queued": 1, "running": 1, "parked": 1}
        await append(store, epoch, step(runs[1], open_run=Closed()))
        assert dict((await store.census(now=NOW)).runs) == {"queued": 1, "parked": 1}

    async def test_messages_count_with_the_age_of_the_oldest_until_they_are_sent(
        self, store: Store, epoch: int
    ) -> None:
        await open_a_run(store, epoch, outbox=tuple(message(n) for n in range(3)))
        claimed = await store.claim_outbox(epoch, limit=3, now=NOW)
        found = await store.census(now=later(seconds=90))
        assert (found.outbox_rows, found.outbox_age_seconds) == (3, 90.0)
        assert (await store.census(most=2, now=NOW)).outbox_rows == 2
        await store.settle_outbox([row.id for row in claimed])
        found = await store.census(now=later(seconds=90))
        assert (found.outbox_rows, found.outbox_age_seconds) == (0, 0.0)

    async def test_a_timer_or_deadline_is_late_from_its_time_until_it_is_answered(
        self, store: Store, epoch: int
    ) -> None:
        asleep = await open_a_run(store, epoch, timers=(Timer(key="t", due=later(minutes=1)),))
        bounded = await open_a_run(store, epoch, deadline=later(minutes=2))
        assert (await store.census(now=later(seconds=59))).timers_late == 0
        assert len(await store.due_timers(epoch, limit=5, now=later(minutes=3))) == 2
        found = await store.census(now=later(minutes=3))  # claimed, not answered
        assert (found.timers_late, found.timers_lateness_seconds) == (2, 120.0)
        await append(store, epoch, step(asleep, timers_cleared=("t",)))
        found = await store.census(now=later(minutes=3))
        assert (found.timers_late, found.timers_lateness_seconds) == (1, 60.0)
        await append(store, epoch, step(bounded, open_run=Changed(status="parked", slot=False, deadline=None)))
        assert (await store.census(now=later(days=1))).timers_late == 0

    async def test_dead_letters_count_until_they_are_settled_and_processes_until_they_are_dead(
        self, store: Store, epoch: int
    ) -> None:
        buried = letter()
        await store.bury(buried)
        assert (await store.census(now=NOW)).dead_letters == 1
        await store.settle_dead_letter(buried.id, state="discarded", by="ann", now=NOW)
        assert (await store.census(now=NOW)).dead_letters == 0
        other = await store.register("other", ["all"], now=later(seconds=20))
        assert (await store.census(now=NOW)).processes == 2
        await store.declare_dead(silent_seconds=10, now=later(seconds=20))
        assert (await store.census(now=NOW)).processes == 1
        await store.retire(other)
        assert (await store.census(now=NOW)).processes == 0
