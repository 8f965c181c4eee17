"""A process that is declared dead and lives: what it held is free at once, for itself under its next epoch as for
others. Time stands still in these tests, so that whoever waits for the end of a lease waits for ever.
"""

from __future__ import annotations

import asyncio

from engine.run.inputs import TimerDue
from tests.conformance.coordinating import House, Node, World, eventually, topics


async def test_a_process_declared_dead_lets_go_of_everything_it_holds(house: House, node: Node) -> None:
    run_id = await node.run("waiting")
    await node.settled()
    node.coordinator.fenced()
    assert not node.coordinator.owns(run_id)
    assert node.coordinator.active == 0


async def declared_dead(house: House, node: Node, by: Node) -> None:
    """It was silent for a while, and goes on without knowing."""
    house.clock.forward(seconds=10)
    assert await by.store.heartbeat(by.epoch, now=house.clock.now())
    assert await by.store.declare_dead(silent_seconds=4, but=by.epoch, now=house.clock.now()) == [node.epoch]


async def test_whoever_looks_for_the_silent_does_not_declare_itself_dead(house: House, node: Node) -> None:
    other = await house.node("other")
    house.clock.forward(seconds=10)  # it was held up, and looks before it has said that it lives
    await node.janitor.take_over()
    assert await node.store.heartbeat(node.epoch, now=house.clock.now())
    assert not await other.store.heartbeat(other.epoch, now=house.clock.now())


async def test_a_start_that_a_process_had_in_hand_when_it_was_declared_dead_is_taken_again_at_once(
    house: House, node: Node
) -> None:
    node.store.gate = asyncio.Event()
    await node.inputs.start()
    web = await house.node("web")
    begun = await web.door.start_run("acme", "quick", {}, key="k", kind="manual", initiator="ann")
    await asyncio.wait_for(node.store.waiting.wait(), 20)

    await declared_dead(house, node, web)
    node.store.gate.set()
    await node.settled()
    await node.goes_on_as_another()

    async def ended() -> bool:
        return topics(await node.log(begun.run_id))[-1:] == ["run.ended"]

    node.inputs.wake()
    await eventually(ended)


async def test_a_run_that_was_being_appended_when_its_process_was_declared_dead_goes_on_in_it(
    house: House, node: Node, world: World
) -> None:
    run_id = await node.run("slow", {"gate": "g"})
    await asyncio.wait_for(world.arrival("g").wait(), 20)
    node.store.gate = asyncio.Event()
    world.gate("g").set()
    await asyncio.wait_for(node.store.waiting.wait(), 20)

    await declared_dead(house, node, await house.node("other"))
    await node.goes_on_as_another()
    await node.janitor.take_over()
    node.store.gate.set()

    await eventually(lambda: node.stands(run_id, "succeeded"))
    assert [key for name, key in world.done if name == "gated"] == [f"{run_id}/hold/1"] * 2


async def test_a_run_that_was_being_loaded_when_its_process_was_declared_dead_goes_on_in_it(
    house: House, node: Node, world: World
) -> None:
    run_id = await node.run("slow", {"gate": "g"})
    await asyncio.wait_for(world.arrival("g").wait(), 20)
    await node.worker.stop()
    node.coordinator.runs.forget(node.coordinator.runs.by_id[run_id])
    world.gate("g").set()
    node.store.gate = asyncio.Event()
    node.coordinator.submit("acme", run_id, TimerDue(at=house.clock.now(), key="none"))
    await asyncio.wait_for(node.store.waiting.wait(), 20)

    await declared_dead(house, node, await house.node("other"))
    await node.goes_on_as_another()
    await node.janitor.take_over()
    node.store.gate.set()

    await eventually(lambda: node.stands(run_id, "succeeded"))


async def one_more_and_the_owner(house: House, node: Node) -> tuple[Node, Node]:
    """Two that live when `node` is silent, and of which the second declares it dead."""
    late, owner = await house.node("late"), await house.node("owner")
    house.clock.forward(seconds=61)
    for one in (late, owner):
        assert await one.store.heartbeat(one.epoch, now=house.clock.now())
    assert await owner.store.declare_dead(silent_seconds=4, now=house.clock.now()) == [node.epoch]
    return late, owner


async def test_an_input_that_was_taken_for_a_run_which_another_took_over_is_its_owners_at_once(
    house: House, node: Node, world: World
) -> None:
    run_id = await node.run("slow", {"gate": "g"})
    await asyncio.wait_for(world.arrival("g").wait(), 20)
    await node.door.cancel("acme", run_id, by="ann", reason="enough")
    late, owner = await one_more_and_the_owner(house, node)

    [row] = await late.store.claim_inputs(late.epoch, limit=10, now=house.clock.now())
    await owner.janitor.take_over()
    late.inputs.take_soon([row])
    await eventually(lambda: _let_go(late))

    await owner.inputs.start()
    world.gate("g").set()
    await eventually(lambda: owner.stands(run_id, "cancelled"))


async def test_a_timer_that_was_taken_for_a_run_which_another_took_over_is_its_owners_at_once(
    house: House, node: Node
) -> None:
    run_id = await node.run("waiting")
    await node.settled()
    late, owner = await one_more_and_the_owner(house, node)

    [timer] = await late.store.due_timers(late.epoch, limit=10, now=house.clock.now())
    await owner.janitor.take_over()
    late.coordinator.submit("acme", run_id, TimerDue(at=timer.due, key=timer.key))
    await late.settled()

    await owner.later()
    assert await owner.status(run_id) == "succeeded"


async def _let_go(node: Node) -> bool:
    return not node.inputs._taken and not node.coordinator.runs.by_id
