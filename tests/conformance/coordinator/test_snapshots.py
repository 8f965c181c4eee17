"""A cold run is loaded from its snapshot and the tail of its log, and is what the whole log folds to; a snapshot of no
use is passed over; a run whose data subject was erased says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

import pytest

from contracts import run_events as ev
from engine import snapshots
from engine.answers import Result
from engine.run.evolve import fold
from engine.run.inputs import Begin
from engine.run.state import RunState
from engine.store import Start, Stored
from engine.store.keys import Erased
from engine.store.mapper import seal_blob
from tests.conformance.coordinating import House, Node, World, eventually, takeover, topics

EVERY = 4


async def resting(house: House, node: Node) -> UUID:
    """A run that waits for another attempt, with a snapshot and events after it."""
    run_id = await node.run("flaky")
    await node.settled()
    for _ in range(2):
        await node.later(minutes=5)
    return run_id


async def opened(node: Node, run_id: UUID) -> RunState:
    await node.settled()
    hot = node.coordinator.runs.by_id[run_id]
    assert hot.state is not None
    return hot.state


@pytest.fixture
async def writing(node: Node, world: World) -> Node:
    node.coordinator._snapshot_every = EVERY
    world.failing.add("try")
    return node


async def test_a_run_is_loaded_from_its_snapshot_and_the_tail_as_from_its_whole_log(
    house: House, writing: Node
) -> None:
    run_id = await resting(house, writing)
    known = await writing.store.snapshot("acme", run_id)
    assert known is not None
    whole = await writing.state(run_id)
    assert 0 < known[0] < whole.version
    other = await takeover(house)
    await other.settled()
    assert run_id not in other.store.loaded_whole
    assert await opened(other, run_id) == whole == await opened(writing, run_id)
    for _ in range(3):
        await other.later(minutes=5)
    assert await other.status(run_id) == "failed"


def changed(body: bytes) -> bytes:
    return body[:-1] + bytes((body[-1] ^ 1,))


@pytest.mark.parametrize("spoil", [changed, lambda body: b"", lambda body: b"\x07nonsense", lambda body: b"\x02\x00"])
async def test_a_broken_snapshot_is_passed_over(house: House, writing: Node, spoil: Callable[[bytes], bytes]) -> None:
    run_id = await resting(house, writing)
    whole = await writing.state(run_id)
    other = await takeover(house, spoil)
    assert await opened(other, run_id) == whole


async def test_a_snapshot_of_another_format_is_passed_over(house: House, writing: Node) -> None:
    run_id = await resting(house, writing)
    whole = await writing.state(run_id)
    keys = await writing.vault.keys_for("acme")
    known = await writing.store.snapshot("acme", run_id)
    assert known is not None
    then = fold(RunState(run_id, "acme"), (await writing.log(run_id))[: known[0]])
    assert snapshots.thaw(snapshots.freeze(then)) == then
    plain = snapshots.freeze(then).replace(snapshots.FORMAT.encode(), b"0.another")
    foreign = seal_blob(keys, "snapshot", f"{run_id}/{known[0]}", plain)
    other = await takeover(house, lambda body: foreign)
    assert await opened(other, run_id) == whole


# ------------------------------------------------------------------------------------------------------ erased subjects


async def personal(node: Node) -> UUID:
    """A run about ann that sleeps."""
    plan = node.plans.latest("waiting")
    run_id = UUID(int=node.clock.now().microsecond + 2**80)
    given = Begin(
        at=node.clock.now(),
        run_id=run_id,
        tenant="acme",
        trigger={"kind": "manual", "id": "1"},
        data={"email": "ann@example.org"},
        marks=("/email",),
        subject="ann",
        initiator="test",
        correlation_id="c",
    )
    start = Start(key=f"manual/{run_id}", workflow=plan.name, workflow_version=plan.version)
    heard: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    keys, subject = await node.vault.keys_for("acme"), await node.vault.subject_keys("acme", "ann")
    node.coordinator.begin(plan, given, start, keys, subject, done=heard.set_result)
    await heard
    await node.settled()
    return run_id


async def test_a_run_whose_subject_was_erased_is_parked_and_says_so_and_no_key_is_made(
    house: House, node: Node
) -> None:
    run_id = await personal(node)
    keys = await node.vault.keys_for("acme")
    scope = keys.subject_scope("ann")
    assert await node.vault.erase("acme", "ann") == 1
    other = await takeover(house)
    await other.settled()
    state = await other.state(run_id)
    [incident] = (state.incidents or {}).values()
    assert (state.status, incident.reason) == ("parked", "subject_erased")
    assert "erased" in incident.detail
    assert state.data == {"email": {"$erased": True}}
    assert await other.store.keys("acme", scopes=(scope,)) == []
    assert isinstance(other.coordinator.runs.by_id[run_id].subject, Erased)


async def test_a_run_of_an_erased_subject_can_be_ended_and_says_it_only_once(house: House, node: Node) -> None:
    run_id = await personal(node)
    await node.vault.erase("acme", "ann")
    other = await takeover(house)
    await other.settled()
    other.coordinator.fenced()
    await other.door.terminate("acme", run_id, by="ann's lawyer")
    await other.inputs.start()
    await other.settled()
    await eventually(lambda: other.stands(run_id, "cancelled"))
    log = await other.log(run_id)
    assert topics(log).count("incident.opened") == 1
    assert isinstance(log[-1], ev.RunEnded)


async def test_what_is_personal_of_an_erased_subject_is_erased_before_it_is_recorded(node: Node) -> None:
    keys = await node.vault.keys_for("acme")
    event = ev.StepSucceeded(
        at=node.clock.now(), step="s", visit=1, attempt=1, output={"email": "ann@example.org"}, marks=("/output/email",)
    )
    recorded = node.mapper.encode(keys, UUID(int=1), 1, event, Erased("acme", keys.subject_scope("ann")))
    stored = Stored(1, recorded.topic, recorded.body, node.clock.now())
    shown = node.mapper.decode(keys, UUID(int=1), stored)
    assert isinstance(shown, ev.StepSucceeded)
    assert shown.output == {"email": {"$erased": True}}


async def test_a_subject_of_whom_the_run_holds_nothing_gets_a_key(node: Node) -> None:
    found = await node.vault.keys_of_run("acme", "bob", [])
    assert not isinstance(found, Erased)
