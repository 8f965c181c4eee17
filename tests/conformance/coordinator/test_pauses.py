"""A paused tenant's runs record what happens to them and begin no new step; everybody else's go on."""

from __future__ import annotations

import asyncio

from contracts import run_events as ev
from engine.answers import Ignored, Result
from engine.run.inputs import Admitted, CancelAsked
from tests.conformance.coordinating import Node, World


async def test_a_start_under_a_pause_is_queued_and_runs_when_it_is_over(node: Node, world: World) -> None:
    node.paused.add("acme")
    held = await node.run("quick")
    other = await node.run("quick", tenant="other")
    await node.settled()
    await node.admit()
    assert (await node.status(held), await node.status(other, "other")) == ("queued", "succeeded")
    assert [type(event) for event in await node.log(held)] == [ev.RunStarted]
    node.paused.clear()
    await node.admit()
    assert await node.status(held) == "succeeded"


async def test_a_run_under_way_is_held_at_its_next_step_and_loses_nothing(node: Node, world: World) -> None:
    run_id = await node.run("slow", {"gate": "g"})
    await asyncio.wait_for(world.arrival("g").wait(), 20)
    node.paused.add("acme")
    world.gate("g").set()
    await node.settled()
    log = await node.log(run_id)
    assert [type(event) for event in log[-2:]] == [ev.StepSucceeded, ev.RunHeld]
    assert await node.status(run_id) == "queued"
    row = await node.store.open_run("acme", run_id)
    assert row is not None
    assert not row.slot
    await node.admit()
    assert await node.status(run_id) == "queued"
    node.paused.clear()
    await node.admit()
    assert await node.status(run_id) == "succeeded"
    assert [name for name, _ in world.done] == ["note", "gated", "note"]


async def test_a_timer_that_fires_under_a_pause_is_recorded_then_and_acted_on_later(node: Node, world: World) -> None:
    run_id = await node.run("waiting")
    await node.settled()
    node.paused.add("acme")
    await node.later(seconds=61)
    assert [type(event) for event in (await node.log(run_id))[-2:]] == [ev.SleepEnded, ev.RunHeld]
    assert world.done == []
    node.paused.clear()
    await node.admit()
    assert await node.status(run_id) == "succeeded"


async def test_what_is_undone_is_undone_under_a_pause(node: Node, world: World) -> None:
    run_id = await node.run("slow", {"gate": "g"})
    await asyncio.wait_for(world.arrival("g").wait(), 20)
    node.paused.add("acme")
    node.coordinator.submit("acme", run_id, CancelAsked(at=node.clock.now(), by="ann", reason="enough"))
    world.gate("g").set()
    await node.settled()
    assert await node.status(run_id) == "cancelled"
    assert [name for name, _ in world.done] == ["note", "gated", "unnote"]


async def test_a_run_that_was_held_is_derived_again_as_recorded(node: Node, world: World) -> None:
    run_id = await node.run("slow", {"gate": "g"})
    await asyncio.wait_for(world.arrival("g").wait(), 20)
    node.paused.add("acme")
    world.gate("g").set()
    await node.settled()
    node.paused.clear()
    await node.admit()
    _, replayed = await node.door.replay("acme", run_id, by="ann")
    assert replayed.difference is None


async def test_a_slot_offered_by_another_process_that_has_not_read_of_the_pause_is_not_taken(node: Node) -> None:
    node.paused.add("acme")
    run_id = await node.run("quick")
    await node.settled()
    heard: list[Result] = []
    node.coordinator.submit("acme", run_id, Admitted(at=node.clock.now()), heard.append)
    await node.settled()
    assert heard == [Ignored("the tenant is paused")]
    assert await node.status(run_id) == "queued"
