"""What one append holds, and what the one door does when its answer is lost, stale, or names a duplicate."""

from __future__ import annotations

import asyncio

import pytest

from contracts import run_events as ev
from engine.answers import Ignored
from engine.run.inputs import CancelAsked, RetryAsked, TimerDue
from engine.store import Appended, Closed, Duplicate
from tests.conformance import coordinating
from tests.conformance.coordinating import House, Node, World, topics

QUICK = ["run.started", *["step.scheduled", "step.succeeded"] * 3, "run.ended"]


# -------------------------------------------------------------------------------------------------------- group commit


async def test_runs_that_are_decided_together_are_committed_together_in_two_halves(node: Node) -> None:
    runs = [await node.begin("quick") for _ in range(80)]
    await node.settled()
    assert {type(heard.result()) for _, heard in runs} == {Appended}
    assert [await node.status(run_id) for run_id, _ in runs] == ["succeeded"] * 80
    # Four transitions of two halves: one append each, and a few for what fell between two turns.
    assert len(node.store.batches) <= 16
    assert max(len(batch) for batch in node.store.batches) == 40
    shown, _ = node.metrics.render()
    assert f"unwind_append_duration_seconds_count {len(node.store.batches)}.0" in shown.decode()


async def test_the_intent_is_in_the_log_before_the_effect_and_the_outcome_travels_with_the_next_intent(
    node: Node, world: World
) -> None:
    run_id = await node.run("slow", {"gate": "g"})
    await asyncio.wait_for(world.arrival("g").wait(), 20)
    assert topics(await node.log(run_id)) == ["run.started", "step.scheduled", "step.succeeded", "step.scheduled"]
    assert [len(batch[0].events) for batch in node.store.batches] == [2, 2]
    world.gate("g").set()
    await node.settled()
    assert await node.status(run_id) == "succeeded"


async def test_inputs_of_one_run_that_gathered_travel_in_one_commit(node: Node) -> None:
    run_id = await node.run("waiting")
    await node.settled()
    before = len(node.store.batches)
    for key in ("sleep/nap/1", "sleep/nap/1"):
        node.coordinator.submit("acme", run_id, TimerDue(at=node.clock.now(), key=key))
    node.coordinator.submit("acme", run_id, CancelAsked(at=node.clock.now(), by="ann"))
    await node.settled()
    assert topics(await node.log(run_id))[2:5] == ["sleep.ended", "step.scheduled", "compensation.started"]
    assert len(node.store.batches[before][0].events) == 3


async def test_a_run_that_brought_nothing_to_clear_away_says_so_at_its_end(node: Node) -> None:
    await node.run("quick")
    await node.settled()
    assert node.store.batches[-1][0].open_run == Closed(bare=True)


async def test_a_run_that_ends_before_its_timer_is_due_clears_the_timer_away(node: Node) -> None:
    run_id = await node.run("waiting")
    await node.settled()
    assert (await node.store.wakes("acme", run_id))["timers"] != []
    node.coordinator.submit("acme", run_id, CancelAsked(at=node.clock.now(), by="ann"))
    await node.settled()
    assert await node.status(run_id) == "cancelled"
    assert (await node.store.wakes("acme", run_id))["timers"] == []


async def test_a_drain_waits_for_what_is_queued_and_performed(node: Node, world: World) -> None:
    run_id = await node.run("slow", {"gate": "g"})
    await asyncio.wait_for(world.arrival("g").wait(), 20)
    draining = asyncio.create_task(node.coordinator.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    world.gate("g").set()
    await asyncio.wait_for(draining, 20)
    assert await node.status(run_id) == "succeeded"


# --------------------------------------------------------------------------------------------------------- lost answers


@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_a_lost_answer_neither_doubles_nor_loses(node: Node, world: World, number: int) -> None:
    node.store.lose = lambda n: n == number
    run_id = await node.run("quick")
    await node.settled()
    assert topics(await node.log(run_id)) == QUICK
    assert [key for _, key in world.done] == [f"{run_id}/{name}/1" for name in ("one", "two", "three")]


async def test_after_a_lost_answer_the_log_is_asked_again_until_it_answers(node: Node, world: World) -> None:
    node.store.lose = lambda n: n == 2
    node.store.loads_to_lose = 2
    run_id = await node.run("quick")
    await node.settled()
    assert node.store.loads_to_lose == 0
    assert topics(await node.log(run_id)) == QUICK
    assert len(world.done) == 3


async def test_a_lost_answer_in_a_batch_settles_each_run_for_itself(node: Node, world: World) -> None:
    node.store.lose = lambda n: n in (1, 3)
    runs = [await node.begin("quick") for _ in range(20)]
    await node.settled()
    for run_id, heard in runs:
        assert isinstance(heard.result(), Appended)
        assert topics(await node.log(run_id)) == QUICK
    assert len(world.done) == len(set(world.done)) == 60


# ---------------------------------------------------------------------------------------------------------------- races


async def test_a_stale_decision_is_made_again_on_what_is_true_now(house: House, node: Node) -> None:
    run_id = await node.run("waiting")
    await node.settled()
    twin = await house.node("twin")
    twin.coordinator.epoch = node.epoch
    twin.coordinator.submit("acme", run_id, CancelAsked(at=house.clock.now(), by="twin"))
    await twin.settled()
    heard: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    node.coordinator.submit("acme", run_id, TimerDue(at=house.clock.now(), key="sleep/nap/1"), heard.set_result)
    assert await asyncio.wait_for(heard, 20) == Ignored("the run has ended")
    assert topics(await node.log(run_id))[-2:] == ["compensation.started", "run.ended"]


async def test_a_stale_decision_on_an_open_run_is_decided_again(house: House, node: Node) -> None:
    coordinating.WORLD.failing.add("try")
    run_id = await node.run("patient")
    await node.settled()
    assert await node.status(run_id) == "parked"
    twin = await house.node("twin")
    twin.coordinator.epoch = node.epoch
    twin.coordinator.submit("acme", run_id, RetryAsked(at=house.clock.now(), by="twin"))
    await twin.settled()
    coordinating.WORLD.failing.clear()
    node.coordinator.submit("acme", run_id, RetryAsked(at=house.clock.now(), by="ann"))
    await node.settled()
    log = await node.log(run_id)
    assert [event.attempt for event in log if isinstance(event, ev.StepAttempted)] == [2, 3]
    assert await node.status(run_id) == "succeeded"


async def test_a_duplicate_start_answers_with_the_original_run(node: Node, world: World) -> None:
    first, _ = await node.begin("quick", key="event/quick/s/1")
    await node.settled()
    second, again = await node.begin("quick", key="event/quick/s/1")
    assert await asyncio.wait_for(again, 20) == Duplicate(run_id=first)
    assert await node.log(second) == []
    assert len(world.done) == 3
    assert not node.coordinator.owns(second)
    assert 'unwind_duplicates_total{of="start"} 1.0' in node.metrics.render()[0].decode()


async def test_of_two_starts_with_one_key_in_one_batch_one_run_begins(node: Node, world: World) -> None:
    (first, one), (second, two) = [await node.begin("quick", key="event/quick/s/1") for _ in range(2)]
    await node.settled()
    assert isinstance(one.result(), Appended)
    assert two.result() == Duplicate(run_id=first)
    assert await node.log(second) == []
    assert len(world.done) == 3


async def test_an_input_that_was_answered_before_is_a_duplicate_and_changes_nothing(node: Node) -> None:
    run_id = await node.run("flaky")
    await node.settled()
    coordinating.WORLD.failing.add("try")
    run_id = await node.run("flaky")
    await node.settled()
    heard: list[object] = []
    for _ in range(2):
        given = TimerDue(at=node.clock.now(), key="retry/try/1/1", dedup="once")
        node.coordinator.submit("acme", run_id, given, heard.append)
        await node.settled()
    given = TimerDue(at=node.clock.now(), key="retry/try/1/2", dedup="once")
    node.coordinator.submit("acme", run_id, given, heard.append)
    await node.settled()
    assert [type(one) for one in heard] == [Appended, Ignored, Duplicate]
    assert 'unwind_duplicates_total{of="input"} 1.0' in node.metrics.render()[0].decode()
    log = await node.log(run_id)
    assert [event.attempt for event in log if isinstance(event, ev.StepAttempted)] == [2]


async def test_a_duplicate_among_several_inputs_takes_none_of_the_others_with_it(node: Node) -> None:
    coordinating.WORLD.failing.add("try")
    run_id = await node.run("flaky")
    await node.settled()
    node.coordinator.submit("acme", run_id, TimerDue(at=node.clock.now(), key="retry/try/1/1", dedup="once"))
    await node.settled()
    heard: list[object] = []
    coordinating.WORLD.failing.clear()
    node.coordinator.submit(
        "acme", run_id, TimerDue(at=node.clock.now(), key="retry/try/1/2", dedup="once"), heard.append
    )
    node.coordinator.submit("acme", run_id, CancelAsked(at=node.clock.now(), by="ann"), heard.append)
    await node.settled()
    assert [type(one) for one in heard] == [Duplicate, Appended]
    assert await node.status(run_id) == "cancelled"
