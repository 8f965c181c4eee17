"""Runs that wait for runs, on either store: a slot suffices for a whole family, and all of it is taken back."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from contracts import run_events as ev
from engine.answers import Ignored, NotOurs, Result
from engine.between_runs import RUNS
from engine.loading import HELD
from engine.recording import Caps
from engine.run.children import child_id
from engine.run.inputs import CancelAsked, Input, TerminateAsked
from tests.conformance.coordinating import House, Node, World, eventually


@pytest.mark.parametrize("caps", [Caps(tenant=1), Caps(workflow=1)])
async def test_one_slot_suffices_for_runs_that_wait_for_runs(house: House, world: World, caps: Caps) -> None:
    node = await house.node("capped", caps=caps)
    node.coordinator.wrote_inputs = node.inputs.wake
    node.coordinator.freed_slot = node.janitor.slot_freed
    node.coordinator.run_queued = node.janitor.run_queued
    await node.inputs.start()
    await node.janitor.start()
    try:
        parents = [await node.run("family") for _ in range(3)]
        for parent in parents:
            await eventually(lambda run=parent: node.stands(run, "succeeded"))  # type: ignore[misc]
            outputs = [event.output for event in await node.log(parent) if isinstance(event, ev.StepSucceeded)]
            assert [output["output"] for output in outputs] == ["done", "done"]
    finally:
        await node.janitor.stop()


async def test_what_a_family_did_is_taken_back_newest_first(house: House, world: World) -> None:
    node = await house.node("node")
    node.coordinator.wrote_inputs = node.inputs.wake
    await node.inputs.start()
    parent = await node.run("family", {"fails": True})
    await eventually(lambda: node.stands(parent, "compensated"))
    did = [key for what, key in world.done if what == "note"]
    undid = [key.removesuffix("/undo") for what, key in world.done if what == "unnote"]
    assert len(did) == 6
    assert undid == list(reversed(did))


async def descendants(node: Node, parent: UUID, step: str) -> list[UUID]:
    """The child of this step, and the runs in which it has gone on."""
    asked = (await node.state(parent)).step(step, 1)
    assert asked is not None
    assert asked.began is not None
    found = [child_id(parent, step, 1, 1, asked.began)]
    while (following := (await node.state(found[-1])).continued) is not None:
        found.append(UUID(following))
    return found


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_child_that_has_gone_on_as_other_runs_is_stopped_with_its_parent(
    house: House, world: World, at_once: bool
) -> None:
    node = await house.node("node")
    node.coordinator.wrote_inputs = node.inputs.wake
    await node.inputs.start()
    parent = await node.run("guardian")

    async def rests() -> bool:
        wards = await descendants(node, parent, "ward")
        last = await node.state(wards[-1])
        return len(wards) == 3 and last.is_open and last.status == "waiting"

    await eventually(rests)
    *_, last = await descendants(node, parent, "ward")
    asked: Input = (TerminateAsked if at_once else CancelAsked)(at=node.clock.now(), by="ann")
    node.coordinator.submit("acme", parent, asked)
    await eventually(lambda: node.stands(last, "cancelled"))
    await eventually(lambda: node.stands(parent, "cancelled"))
    [end] = [event for event in await node.log(last) if isinstance(event, ev.RunEnded)]
    assert end.by == RUNS
    assert ((end.error or {})["code"], str(parent) in (end.error or {})["message"]) == (
        "terminated" if at_once else "cancelled",
        True,
    )
    undone = [key for what, key in world.done if what == "unnote"]
    assert len(undone) == (0 if at_once else 1)


async def test_a_stop_that_overtakes_the_start_of_its_run_waits_for_it(house: House, world: World) -> None:
    node = await house.node("node")
    never = UUID(int=7)

    async def told() -> Result:
        heard: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        stop = CancelAsked(at=began, by=RUNS, reason="not wanted", settles=(1_000_000,))
        node.coordinator.submit("acme", never, stop, heard.set_result)
        return await heard

    began = node.clock.now()
    assert isinstance(await told(), NotOurs)
    node.clock.forward(seconds=HELD.total_seconds())
    assert isinstance(await told(), Ignored)
