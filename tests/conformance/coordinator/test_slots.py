"""Runs beyond a cap wait for a slot, in fair order, and lose nothing while they wait."""

from __future__ import annotations

import asyncio

import pytest

from consumers.admission import LOOKS, Admission
from consumers.worker import Worker
from contracts import run_events as ev
from engine.answers import Ignored
from engine.recording import Caps
from engine.run.inputs import Admitted, PlanStuck, TimerDue
from engine.store import Appended
from tests.conformance.coordinating import House, Node, World, eventually


async def test_runs_beyond_the_cap_queue_and_are_admitted_in_fair_order(house: House, world: World) -> None:
    node = await house.node("capped", caps=Caps(workflow=1))
    runs = []
    for tenant, gate in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("b", "b2")):
        runs.append((gate, tenant, await node.run("slow", {"gate": gate}, tenant=tenant)))
        house.clock.forward(seconds=1)
    await asyncio.wait_for(world.arrival("a1").wait(), 20)
    await asyncio.wait_for(world.arrival("b1").wait(), 20)
    queue = await node.store.queued_runs(node.epoch, limit=10)
    names = {run_id: gate for gate, _, run_id in runs}
    assert [names[one.run_id] for one in queue] == ["a2", "b2", "a3"]
    for gate, _, _ in runs:
        world.gate(gate).set()
    await node.settled()
    for _ in range(3):
        await node.admit()
    assert [await node.status(run_id, tenant) for _, tenant, run_id in runs] == ["succeeded"] * 5
    assert world.most_at_once == 2


async def test_a_freed_slot_is_offered_where_somebody_waits_and_nobody_is_asked_for_elsewhere(
    house: House, world: World
) -> None:
    node = await house.node("capped", caps=Caps(workflow=1))
    node.coordinator.freed_slot = node.janitor.slot_freed
    node.coordinator.run_queued = node.janitor.run_queued
    offers = 0

    async def looking() -> int:
        nonlocal offers
        offers += 1
        return await admit()

    admit = node.janitor.admit
    node.janitor.admit = looking  # type: ignore[method-assign]
    await node.janitor.start()
    try:

        async def has_looked() -> bool:
            return offers > 0

        await eventually(has_looked)
        began = offers
        for _ in range(20):
            await node.run("quick")
            await node.settled()
        alone = offers - began
        held = [await node.run("slow", {"gate": gate}) for gate in ("a", "b", "c")]
        for gate in ("a", "b", "c"):
            world.gate(gate).set()
        await eventually(lambda: node.stands(held[-1], "succeeded"))
    finally:
        await node.janitor.stop()
    assert alone < 20
    assert [await node.status(run_id) for run_id in held] == ["succeeded"] * 3


@pytest.mark.parametrize("caps", [Caps(workflow=2), Caps(tenant=2), Caps(workflow=5, tenant=2)], ids=str)
async def test_no_more_are_offered_a_slot_than_are_free(house: House, world: World, caps: Caps) -> None:
    """Each offer is a decision and a commit: of thousands that wait a few are asked for each slot."""
    node = await house.node("capped", caps=caps)
    gates = [f"g{number}" for number in range(8)]
    runs = [await node.run("slow", {"gate": gate}) for gate in gates]
    for gate in gates[:2]:
        await asyncio.wait_for(world.arrival(gate).wait(), 20)
    assert await node.janitor.admit() == 0
    world.gate("g0").set()
    await eventually(lambda: node.stands(runs[0], "succeeded"))
    assert await node.janitor.admit() == 1
    await asyncio.wait_for(world.arrival("g2").wait(), 20)
    assert await node.janitor.admit() == 0
    for gate in gates:
        world.gate(gate).set()
    for _ in gates:
        await node.settled()
        await node.admit()
    assert [await node.status(run_id) for run_id in runs] == ["succeeded"] * len(runs)
    assert world.most_at_once == 2


@pytest.mark.parametrize("why", ["at the cap", "paused", "spent"])
async def test_who_is_held_keeps_nobody_waiting_however_many_they_are(house: House, world: World, why: str) -> None:
    """More tenants than one look passes by were there before the one that can be let in."""
    node = await house.node("capped")
    held = [f"t{number}" for number in range(2 * LOOKS + 1)]
    shut = {*held, "z"}
    node.coordinator.caps = lambda tenant, workflow: Caps(tenant=0 if tenant in shut else 1)
    runs = [(tenant, await node.run("quick", tenant=tenant)) for tenant in (*held, "z")]
    shut.remove("z")
    if why != "at the cap":
        shut.clear()
    lifted = False
    admission = Admission(
        node.store,
        node.coordinator,
        node.clock,
        paused=lambda tenant, workflow: why == "paused" and tenant in held and not lifted,
        spent=lambda tenant, workflow: why == "spent" and tenant in held and not lifted,
        at_once=2,
    )
    assert [await admission.offer() for _ in range(2)] == [0, 1]
    await eventually(lambda: node.stands(runs[-1][1], "succeeded", "z"))
    assert {await node.status(run_id, tenant) for tenant, run_id in runs[:-1]} == {"queued"}
    shut.clear()
    lifted = True
    while admission.waiting:
        await admission.offer()
        await node.settled()
    assert {await node.status(run_id, tenant) for tenant, run_id in runs} == {"succeeded"}


async def test_actions_of_one_kind_are_performed_side_by_side_up_to_the_limit(node: Node, world: World) -> None:
    worker = Worker(node.coordinator, node.clock, node.metrics, actions_in_flight=2)
    node.coordinator.perform = worker.perform
    gates = ["a", "b", "c", "d"]
    runs = [await node.run("slow", {"gate": gate}) for gate in gates]

    async def all_scheduled() -> bool:
        return all([len(await node.log(run_id)) == 4 for run_id in runs])

    await eventually(all_scheduled)
    for gate in gates:
        world.gate(gate).set()
    await node.settled()
    await worker.stop()
    assert [await node.status(run_id) for run_id in runs] == ["succeeded"] * 4
    assert world.most_at_once == 2


async def test_a_retry_without_a_free_slot_queues_instead_of_asking_again_and_again(house: House, world: World) -> None:
    node = await house.node("capped", caps=Caps(tenant=1))
    world.failing.add("try")
    flaky = await node.run("flaky")
    await node.settled()
    slow = await node.run("slow", {"gate": "g"})
    await asyncio.wait_for(world.arrival("g").wait(), 20)
    before = len(node.store.batches)
    house.clock.forward(seconds=10)
    await node.timers.fire()
    await eventually(lambda: node.stands(flaky, "queued"))
    await node.janitor.admit()
    world.failing.clear()
    world.gate("g").set()
    await node.settled()
    assert len(node.store.batches) - before < 12
    await node.admit()
    assert [await node.status(run_id) for run_id in (flaky, slow)] == ["succeeded", "succeeded"]
    assert world.most_at_once == 1


async def test_what_comes_together_with_a_refused_admission_is_not_lost(house: House, world: World) -> None:
    node = await house.node("capped", caps=Caps(tenant=1))
    slow = await node.run("slow", {"gate": "g"})
    await asyncio.wait_for(world.arrival("g").wait(), 20)
    waiting = await node.run("waiting")
    house.clock.forward(seconds=60)
    node.coordinator.submit("acme", waiting, TimerDue(at=house.clock.now(), key="sleep/nap/1"))
    await eventually(lambda: node.stands(waiting, "queued"))
    heard: list[object] = []
    node.coordinator.submit("acme", waiting, Admitted(at=house.clock.now()), heard.append)
    node.coordinator.submit(
        "acme", waiting, PlanStuck(at=house.clock.now(), reason="no_progress", detail="x"), heard.append
    )
    await eventually(lambda: _heard(heard, 2))
    assert [type(one) for one in heard] == [Ignored, Appended]
    assert isinstance((await node.log(waiting))[-1], ev.IncidentOpened)
    world.gate("g").set()
    await node.settled()
    assert await node.status(slow) == "succeeded"


async def _heard(heard: list[object], count: int) -> bool:
    return len(heard) >= count
