"""What every store driver must do about early and late facts: a wait and its event find each other whichever is
recorded first, and a command's outcome its step."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest

from engine.store import Appended, Await, Closed, Commit, NewInput, Store, Subscription
from tests.conformance.store_making import NOW, append, arrived, events, later, matched, open_a_run, started

WAIT = Subscription(
    name="paid", visit=1, type="billing.PaidV1", key_name="order", key_hash=b"k1", look_back=later(hours=-1)
)
EXPECTED = Await(command_id="c1", step="charge", visit=1, types=("billing.PaidV1", "billing.RefusedV1"))
FACT: dict[str, Any] = {"keys": (("order", b"k1"),)}
REPLY: dict[str, Any] = {"causation_id": "c1"}


def waits(run: uuid.UUID, version: int = 1, wait: Subscription = WAIT, **more: Any) -> Commit:
    commit = Commit(tenant="acme", stream=run, expected=version, events=events("waits"), subscriptions=(wait,))
    return replace(commit, **more)


class MatchingConformance:
    async def test_a_fact_finds_the_wait_that_stands(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch)
        await append(store, epoch, waits(run))
        [outcome] = await append(store, epoch, arrived("e1", **FACT))
        [row] = matched(outcome)
        assert (row.kind, row.run_id, row.name, row.visit) == ("fact", run, "paid", 1)
        assert (row.arrival, row.body) == (("/modules/billing", "e1"), b"envelope of e1")

    async def test_a_wait_finds_the_fact_that_came_early(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch)
        assert matched((await append(store, epoch, arrived("e1", **FACT)))[0]) == ()
        [outcome] = await append(store, epoch, waits(run))
        assert [(row.name, row.arrival, row.body) for row in matched(outcome)] == [
            ("paid", ("/modules/billing", "e1"), b"envelope of e1")
        ]

    async def test_a_forgotten_subjects_arrivals_stay_and_are_found_by_no_wait(self, store: Store, epoch: int) -> None:
        frame, another = b"\x02" + b"s" * 16, b"\x02" + b"t" * 16
        await append(store, epoch, arrived("e1", body=frame + b"1", **FACT), arrived("e2", body=another + b"2", **FACT))
        assert await store.forget_subject("other", frame) == 0
        assert await store.forget_subject("acme", frame, most=1) == 1
        assert await store.forget_subject("nobody", frame) == 0
        [outcome] = await append(store, epoch, started(subscriptions=(WAIT,)))
        assert [row.arrival for row in matched(outcome)] == [("/modules/billing", "e2")]
        assert await store.arrival("acme", "/modules/billing", "e1") == frame + b"1"

    async def test_a_fact_before_its_run_even_starts_is_found(self, store: Store, epoch: int) -> None:
        await append(store, epoch, arrived("e1", **FACT))
        [outcome] = await append(store, epoch, started(subscriptions=(WAIT,)))
        assert [row.name for row in matched(outcome)] == ["paid"]

    @pytest.mark.parametrize("fact_first", [True, False])
    async def test_a_wait_and_its_fact_in_one_batch_meet_once(self, store: Store, epoch: int, fact_first: bool) -> None:
        run = await open_a_run(store, epoch)
        batch = [arrived("e1", **FACT), waits(run)]
        outcomes = await append(store, epoch, *(batch if fact_first else reversed(batch)))
        assert [row.name for outcome in outcomes for row in matched(outcome)] == ["paid"]

    async def test_a_wait_and_its_fact_in_one_commit_meet_once(self, store: Store, epoch: int) -> None:
        fact = arrived("e1", **FACT).arrival
        [outcome] = await append(store, epoch, started(arrival=fact, subscriptions=(WAIT,)))
        assert [row.name for row in matched(outcome)] == ["paid"]

    async def test_type_key_tenant_and_look_back_must_all_fit(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch)
        await append(store, epoch, waits(run))
        strangers = [
            arrived("e1", type="billing.OtherV1", **FACT),
            arrived("e2", keys=(("order", b"k2"),)),
            arrived("e3", keys=(("customer", b"k1"),)),
            arrived("e4", tenant="other", **FACT),
            arrived("e5", received_at=later(hours=-2), **FACT),
            arrived("e6"),
        ]
        outcomes = await append(store, epoch, *strangers)
        assert [matched(outcome) for outcome in outcomes] == [()] * 6
        [outcome] = await append(store, epoch, waits(run, 2, replace(WAIT, name="again")))
        assert matched(outcome) == ()

    async def test_an_old_wait_takes_the_earliest_fact_only(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch)
        await append(
            store,
            epoch,
            arrived("e2", received_at=later(minutes=2), **FACT),
            arrived("e1", received_at=later(minutes=1), **FACT),
        )
        [outcome] = await append(store, epoch, waits(run))
        assert [row.arrival for row in matched(outcome)] == [("/modules/billing", "e1")]

    async def test_a_wait_in_a_loop_sees_what_came_after_its_last_match(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch)
        for minute in (1, 2):
            fact = arrived(f"e{minute}", received_at=later(minutes=minute), **FACT)
            await append(store, epoch, fact)
        [first] = await append(store, epoch, waits(run))
        [row] = matched(first)
        second = waits(
            run,
            2,
            replace(WAIT, visit=2, look_back=later(minutes=1, microseconds=1)),
            subscriptions_dropped=(("paid", 1),),
            settled=(row.id,),
            input_keys=("fact/paid/1",),
        )
        [outcome] = await append(store, epoch, second)
        assert [(row.visit, row.arrival) for row in matched(outcome)] == [(2, ("/modules/billing", "e2"))]
        assert [s["visit"] for s in (await store.wakes("acme", run))["subscriptions"]] == [2]

    async def test_one_fact_wakes_every_run_that_waits_for_it(self, store: Store, epoch: int) -> None:
        runs = [await open_a_run(store, epoch) for _ in range(3)]
        await append(store, epoch, *(waits(run) for run in runs))
        [outcome] = await append(store, epoch, arrived("e1", **FACT))
        assert {row.run_id for row in matched(outcome)} == set(runs)

    async def test_two_hashes_of_one_key_match_once_while_the_index_key_is_replaced(
        self, store: Store, epoch: int
    ) -> None:
        run = await open_a_run(store, epoch)
        await append(store, epoch, waits(run))
        [outcome] = await append(store, epoch, arrived("e1", keys=(("order", b"k2"), ("order", b"k1"))))
        assert len(matched(outcome)) == 1

    async def test_an_outcome_finds_the_step_that_awaits_it(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch, awaits=(EXPECTED,))
        other = arrived("e0", type="billing.NoticedV1", **REPLY)
        stranger = arrived("e1", tenant="other", **REPLY)
        outcomes = await append(store, epoch, other, stranger, arrived("e2", **REPLY))
        assert [len(matched(outcome)) for outcome in outcomes] == [0, 0, 1]
        [row] = matched(outcomes[2])
        assert (row.kind, row.run_id, row.name, row.visit, row.body) == ("reply", run, "charge", 1, b"envelope of e2")

    async def test_a_step_finds_the_outcome_that_was_there_before_it(self, store: Store, epoch: int) -> None:
        await append(
            store,
            epoch,
            arrived("e0", type="billing.NoticedV1", **REPLY),
            arrived("e1", type="billing.RefusedV1", **REPLY),
        )
        [outcome] = await append(store, epoch, started(awaits=(EXPECTED,)))
        assert [row.arrival for row in matched(outcome)] == [("/modules/billing", "e1")]

    async def test_an_outcome_and_its_step_in_one_batch_meet_once(self, store: Store, epoch: int) -> None:
        outcomes = await append(store, epoch, arrived("e1", **REPLY), started(awaits=(EXPECTED,)))
        assert sum(len(matched(outcome)) for outcome in outcomes) == 1

    async def test_what_is_no_longer_awaited_matches_nothing(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch, awaits=(EXPECTED,), subscriptions=(WAIT,))
        done = Commit(
            tenant="acme",
            stream=run,
            expected=1,
            events=events("done"),
            awaits_dropped=("c1",),
            subscriptions_dropped=(("paid", 1),),
        )
        await append(store, epoch, done)
        [outcome] = await append(store, epoch, arrived("e1", **FACT, **REPLY))
        assert matched(outcome) == ()

    async def test_a_refused_commit_matches_nothing(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch)
        await append(store, epoch, arrived("e1", **FACT))
        await append(store, epoch, waits(run, 4))
        await append(store, epoch, arrived("e1", body_hash=b"another", keys=(("order", b"k9"),)))
        assert await store.claim_inputs(epoch, limit=10, now=later(hours=1)) == []
        [outcome] = await append(store, epoch, waits(run, 1, replace(WAIT, key_hash=b"k9")))
        assert outcome == Appended(2)

    async def test_a_match_of_another_processs_run_is_left_for_its_owner(self, store: Store, epoch: int) -> None:
        other = await store.register("other", ["all"], now=NOW)
        run = await open_a_run(store, other, subscriptions=(WAIT,))
        [outcome] = await append(store, epoch, arrived("e1", **FACT))
        assert matched(outcome) == ()
        assert await store.claim_inputs(epoch, limit=10, now=NOW) == []
        [row] = await store.claim_inputs(other, limit=10, now=NOW)
        assert (row.run_id, row.kind, row.body) == (run, "fact", b"envelope of e1")

    async def test_inputs_of_tenants_left_out_stay_for_another_claim(self, store: Store, epoch: int) -> None:
        for tenant in ("acme", "globex"):
            await append(store, epoch, arrived("e1", tenant=tenant, inputs=(NewInput(kind="start", workflow="w"),)))
        others = await store.claim_inputs(epoch, limit=10, but=["acme", "initech"], now=NOW)
        left = await store.claim_inputs(epoch, limit=10, now=NOW)
        assert [[row.tenant for row in rows] for rows in (others, left)] == [["globex"], ["acme"]]

    async def test_a_match_handed_out_is_not_claimed_again_before_its_lease_ends(
        self, store: Store, epoch: int
    ) -> None:
        run = await open_a_run(store, epoch, subscriptions=(WAIT,))
        [outcome] = await append(store, epoch, arrived("e1", **FACT))
        assert await store.claim_inputs(epoch, limit=10, now=later(seconds=1)) == []
        assert await store.claim_inputs(epoch, limit=10, now=later(minutes=1)) == list(matched(outcome))
        assert (await store.wakes("acme", run))["inputs"] != []

    async def test_a_run_that_ends_takes_its_reasons_to_wake_with_it(self, store: Store, epoch: int) -> None:
        run = await open_a_run(store, epoch, subscriptions=(WAIT,), awaits=(EXPECTED,))
        await append(store, epoch, arrived("e1", **FACT))
        end = Commit(tenant="acme", stream=run, expected=1, events=events("end"), open_run=Closed())
        await append(store, epoch, end)
        assert await store.wakes("acme", run) == {
            name: [] for name in ("timers", "subscriptions", "awaits", "inputs", "outbox")
        }
        assert sorted(await store.outcomes("acme", "/modules/billing", "e1")) == [
            "ignored: the run had ended",
            f"matched: {run} {WAIT.name}/{WAIT.visit}",
        ]
        assert matched((await append(store, epoch, arrived("e2", **FACT, **REPLY)))[0]) == ()

    async def test_a_run_that_was_given_nothing_but_an_input_ends_and_ignores_it(
        self, store: Store, epoch: int
    ) -> None:
        run = await open_a_run(store, epoch)
        note = NewInput(kind="note", run_id=run, name="approval", arrival=("/modules/billing", "e1"))
        await append(store, epoch, arrived("e1", inputs=(note,)))
        end = Commit(tenant="acme", stream=run, expected=1, events=events("end"), open_run=Closed(bare=True))
        await append(store, epoch, end)
        assert (await store.wakes("acme", run))["inputs"] == []
        assert await store.outcomes("acme", "/modules/billing", "e1") == ["ignored: the run had ended"]

    async def test_an_input_carries_its_arrival_or_its_own_body(self, store: Store, epoch: int) -> None:
        start = NewInput(kind="start", workflow="w", arrival=("/modules/billing", "e1"))
        note = NewInput(kind="note", run_id=uuid.uuid4(), name="approval", body=b"yes")
        waiting = store.wait_for_inputs(30)
        await append(store, epoch, arrived("e1", inputs=(start, note)))
        assert await waiting
        rows = await store.claim_inputs(epoch, limit=10, now=NOW)
        assert [(row.kind, row.workflow, row.name, row.body) for row in rows] == [
            ("start", "w", None, b"envelope of e1"),
            ("note", None, "approval", b"yes"),
        ]
        await append(store, epoch, Commit(tenant="acme", stream=None, settled=tuple(row.id for row in rows)))
        assert await store.claim_inputs(epoch, limit=10, now=later(hours=1)) == []
