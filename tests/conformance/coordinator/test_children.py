"""Runs that wait for runs, on either store: a slot suffices for a whole family, and all of it is taken back."""

from __future__ import annotations

import pytest

from contracts import run_events as ev
from engine.recording import Caps
from tests.conformance.coordinating import House, World, eventually


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
