"""The one door, on both stores: group commit, one owner per run, takeover, lost answers, races, slots, memory."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import projections
from contracts import run_events as ev
from contracts.envelope import Envelope
from engine.coordinator import Ignored, NotOurs
from engine.interrupt import Interrupter
from engine.recording import Caps, command_id
from engine.run.inputs import Admitted, CancelAsked, PlanStuck, RetryAsked, TimerDue
from engine.store import Appended, Arrival, Commit, Duplicate, Fenced
from engine.store.mapper import arrival_ident, seal_blob
from tests.conformance import coordinating
from tests.conformance.coordinating import House, Node, World, eventually
from tests.conformance.store_postgres_database import SharedDatabase


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(coordinating, "WORLD", made)
    return made


@pytest.fixture(scope="module")
def shared(postgres_server_url: str) -> Iterator[SharedDatabase]:
    made = SharedDatabase(postgres_server_url, Path(projections.__file__).parent / "sql" / "postgres")
    asyncio.run(made.create())
    yield made
    asyncio.run(made.drop())


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Callable[[], Awaitable[None]] | None]:
    """Where the store is, and how it is emptied."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path / 'store.db'}", None
    shared: SharedDatabase = request.getfixturevalue("shared")
    return shared.url, shared.wipe


@pytest.fixture
async def house(database: tuple[str, Callable[[], Awaitable[None]] | None], tmp_path: Path) -> AsyncIterator[House]:
    url, wipe = database
    if wipe is not None:
        await wipe()
    made = House(url, tmp_path / "keys.json")
    yield made
    await made.stop()


@pytest.fixture
async def node(house: House) -> Node:
    return await house.node()


def topics(log: list[ev.RunEvent]) -> list[str]:
    return [event.TOPIC for event in log]


QUICK = ["run.started", *["step.scheduled", "step.succeeded"] * 3, "run.ended"]


# -------------------------------------------------------------------------------------------------------- group commit


async def test_runs_that_are_decided_together_are_committed_together(node: Node) -> None:
    runs = [await node.begin("quick") for _ in range(40)]
    await node.settled()
    assert {type(heard.result()) for _, heard in runs} == {Appended}
    assert [await node.status(run_id) for run_id, _ in runs] == ["succeeded"] * 40
    # Four transitions of forty runs: one append each, and a few for what fell between two turns.
    assert len(node.store.batches) <= 8
    assert max(len(batch) for batch in node.store.batches) == 40


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


async def test_a_drain_waits_for_what_is_queued_and_performed(node: Node, world: World) -> None:
    run_id = await node.run("slow", {"gate": "g"})
    await asyncio.wait_for(world.arrival("g").wait(), 20)
    draining = asyncio.create_task(node.coordinator.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    world.gate("g").set()
    await asyncio.wait_for(draining, 20)
    assert await node.status(run_id) == "succeeded"


# --------------------------------------------------------------------------------------------------- owner and takeover


async def test_a_run_has_one_owner_and_others_leave_its_inputs_alone(house: House, node: Node) -> None:
    run_id = await node.run("waiting")
    await node.settled()
    other = await house.node("other")
    heard: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    other.coordinator.submit("acme", run_id, CancelAsked(at=house.clock.now(), by="ann"), heard.set_result)
    assert await asyncio.wait_for(heard, 20) == NotOurs()
    assert await node.status(run_id) == "waiting"
    assert not other.coordinator.owns(run_id)


async def test_after_a_takeover_the_former_owner_cannot_write(house: House, node: Node) -> None:
    run_id = await node.run("waiting")
    await node.settled()
    other = await takeover(house)
    heard: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    node.coordinator.submit("acme", run_id, CancelAsked(at=house.clock.now(), by="late"), heard.set_result)
    assert await asyncio.wait_for(heard, 20) == Fenced()
    assert node.suspicions == 1
    assert not node.coordinator.owns(run_id)
    await other.later(seconds=60)
    assert await other.status(run_id) == "succeeded"
    assert not await node.store.heartbeat(node.epoch, now=house.clock.now())


async def test_a_takeover_makes_open_local_attempts_again_under_the_same_key(
    house: House, node: Node, world: World
) -> None:
    run_id = await node.run("slow", {"gate": "g"})
    await asyncio.wait_for(world.arrival("g").wait(), 20)
    world.arrival("g").clear()
    other = await takeover(house)
    await asyncio.wait_for(world.arrival("g").wait(), 20)
    assert [key for name, key in world.done if name == "gated"] == [f"{run_id}/hold/1"] * 2
    # Both attempts end now; only the owner's outcome counts, once.
    world.gate("g").set()
    await other.settled()
    await node.settled()
    log = await other.log(run_id)
    assert [event.step for event in log if isinstance(event, ev.StepSucceeded)] == ["before", "hold", "after"]
    assert [key for name, key in world.done if name == "note"] == [f"{run_id}/before/1", f"{run_id}/after/1"]


async def takeover(house: House) -> Node:
    """Another process finds all others silent and takes their runs."""
    house.clock.forward(seconds=10)
    other = await house.node("other")
    await other.janitor.take_over()
    await eventually(lambda: _loaded(other))
    return other


async def _loaded(node: Node) -> bool:
    return not node.coordinator._loads


async def test_a_process_declared_dead_lets_go_of_everything_it_holds(house: House, node: Node) -> None:
    run_id = await node.run("waiting")
    await node.settled()
    node.coordinator.fenced()
    assert not node.coordinator.owns(run_id)
    assert node.coordinator.active == 0


# --------------------------------------------------------------------------------------------------------- lost answers


@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_a_lost_answer_neither_doubles_nor_loses(node: Node, world: World, number: int) -> None:
    node.store.lose = lambda n: n == number
    run_id = await node.run("quick")
    await node.settled()
    assert topics(await node.log(run_id)) == QUICK
    assert [key for _, key in world.done] == [f"{run_id}/{name}/1" for name in ("one", "two", "three")]


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


# ---------------------------------------------------------------------------------------------------------------- slots


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
    await eventually(lambda: _is(node, flaky, "queued"))
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
    await eventually(lambda: _is(node, waiting, "queued"))
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


async def _is(node: Node, run_id: object, status: str) -> bool:
    return await node.status(run_id) == status  # type: ignore[arg-type]


async def _heard(heard: list[object], count: int) -> bool:
    return len(heard) >= count


# ------------------------------------------------------------------------------------------ what comes from elsewhere


async def test_an_operators_word_reaches_the_owner_as_a_durable_input(house: House, node: Node) -> None:
    run_id = await node.run("waiting")
    await node.settled()
    await node.inputs.start()
    web = await house.node("web")
    await web.door.cancel("acme", run_id, by="ann", reason="enough")
    node.inputs.wake()
    await eventually(lambda: _is(node, run_id, "cancelled"))
    ended = (await node.log(run_id))[-1]
    assert isinstance(ended, ev.RunEnded)
    assert await node.store.wakes("acme", run_id) == await web.store.wakes("acme", run_id)
    assert not (await node.store.wakes("acme", run_id)).get("inputs")


async def test_a_reply_that_came_before_its_step_began_is_matched_when_it_does(node: Node) -> None:
    run_id = await node.run("inviting")
    await node.settled()
    command = command_id(f"{run_id}/invite/1")
    envelope = Envelope(
        id="early-1",
        source="/modules/identity",
        type="identity.UserCreatedV1",
        tenantid="acme",
        time=node.clock.now(),
        data={"user_id": "u-1", "email": "ann@example.org", "name": "Ann", "state": "active"},
        subject="u-1",
        correlationid="c",
        causationid=command,
    )
    body = envelope.to_json()
    keys = await node.vault.keys_for("acme")
    arrival = Arrival(
        source=envelope.source,
        event_id=envelope.id,
        type=envelope.type,
        body_hash=b"hash",
        body=seal_blob(keys, "arrival", arrival_ident(envelope.source, envelope.id), body),
        received_at=node.clock.now(),
        causation_id=command,
    )
    recorded: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    node.coordinator.record(Commit(tenant="acme", stream=None, arrival=arrival), recorded.set_result)
    assert isinstance(await asyncio.wait_for(recorded, 20), Appended)
    await node.later(seconds=60)
    await eventually(lambda: _is(node, run_id, "succeeded"))
    assert (await node.state(run_id)).end_output["user_id"] == "u-1"


# --------------------------------------------------------------------------------------------------------------- memory


async def test_runs_that_left_memory_are_loaded_when_something_comes_for_them(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.coordinator.HOT_RUNS", 2)
    runs = [await node.run("waiting") for _ in range(6)]
    await node.settled()
    assert sum(node.coordinator.owns(run_id) for run_id in runs) == 2
    await node.later(seconds=60)
    assert [await node.status(run_id) for run_id in runs] == ["succeeded"] * 6


async def test_a_finished_run_leaves_memory(node: Node) -> None:
    run_id = await node.run("quick")
    await node.settled()
    assert not node.coordinator.owns(run_id)
    heard: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    node.coordinator.submit("acme", run_id, CancelAsked(at=node.clock.now(), by="late"), heard.set_result)
    assert await asyncio.wait_for(heard, 20) == Ignored("the run has ended")


async def test_a_run_whose_log_cannot_be_read_harms_no_other(house: House, node: Node) -> None:
    runs = [await node.run("waiting") for _ in range(3)]
    await node.settled()
    house.clock.forward(seconds=10)
    other = await house.node("other")
    other.store.broken = {runs[1]}
    await other.janitor.take_over()
    await other.settled()
    await other.later(seconds=60)
    assert [await other.status(run_id) for run_id in (runs[0], runs[2])] == ["succeeded", "succeeded"]
    assert await other.status(runs[1]) == "waiting"
    assert other.coordinator.failed() is None


@pytest.mark.timeout(60, method="thread")
async def test_a_saga_that_does_not_yield_is_parked_while_others_go_on(node: Node) -> None:
    before = signal.getsignal(signal.SIGALRM)
    node.coordinator.interrupter = Interrupter(0.1)
    assert node.coordinator.interrupter.install()
    try:
        stuck, _ = await node.begin("endless")
        good, _ = await node.begin("quick")
        await node.settled()
    finally:
        node.coordinator.interrupter.end()
        signal.signal(signal.SIGALRM, before)
    assert await node.status(good) == "succeeded"
    state = await node.state(stuck)
    assert [one.reason for one in (state.incidents or {}).values()] == ["saga_stuck"]
    # What happened is in the log all the same.
    assert (state.status, topics(await node.log(stuck))[-2:]) == ("parked", ["step.succeeded", "incident.opened"])
