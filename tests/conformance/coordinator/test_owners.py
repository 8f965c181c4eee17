"""A run has one owner: takeover, what reaches the owner from elsewhere, and what it keeps in memory."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest

from consumers.projector import VIEWS, Projector
from contracts import run_events as ev
from contracts.envelope import Envelope
from contracts.tenant_events import RunsRepaired, tenant_stream
from engine.answers import Ignored, NotOurs
from engine.interrupt import Interrupter
from engine.recording import command_id
from engine.run.inputs import CancelAsked
from engine.store import Appended, Arrival, Commit, Fenced
from engine.store.mapper import arrival_ident, seal_blob
from engine.store.people import Session, User
from tests.conformance.coordinating import House, Node, World, eventually, takeover, topics

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


async def test_a_takeover_asks_again_what_became_of_an_attempt_and_never_makes_it_again(
    house: House, node: Node, world: World
) -> None:
    run_id = await node.run("printing")
    await asyncio.wait_for(world.arrival("looking").wait(), 20)
    world.arrival("looking").clear()
    other = await takeover(house)
    await asyncio.wait_for(world.arrival("looking").wait(), 20)
    world.gate("looking").set()
    await other.settled()
    await node.settled()
    state = await other.state(run_id)
    assert (state.status, state.end_output) == ("succeeded", {"found": f"{run_id}/print/1"})
    assert topics(await other.log(run_id)).count("step.doubted") == 1
    assert [name for name, _ in world.done].count("looking") == 2


# ------------------------------------------------------------------------------------------ what comes from elsewhere


async def test_an_operators_word_reaches_the_owner_as_a_durable_input(house: House, node: Node) -> None:
    run_id = await node.run("waiting")
    await node.settled()
    await node.inputs.start()
    web = await house.node("web")
    await web.door.cancel("acme", run_id, by="ann", reason="enough")
    node.inputs.wake()
    await eventually(lambda: node.stands(run_id, "cancelled"))
    ended = (await node.log(run_id))[-1]
    assert isinstance(ended, ev.RunEnded)
    assert await node.store.wakes("acme", run_id) == await web.store.wakes("acme", run_id)
    assert not (await node.store.wakes("acme", run_id)).get("inputs")


async def ended_of_many_and_one(house: House, node: Node, many: int) -> list[str]:
    """So many runs of one tenant and then one of another are cancelled at once by another process; whose they were, in
    the order in which they ended.
    """
    runs = [(await node.run("waiting", tenant=tenant), tenant) for tenant in (*["acme"] * many, "globex")]
    await node.settled()
    other = await house.node("other")
    for run_id, tenant in runs:
        await other.door.cancel(tenant, run_id, by="ann", reason="enough")
    head = await node.store.head(0)
    await node.inputs.start()
    for run_id, tenant in runs:
        await eventually(partial(node.stands, run_id, "cancelled", tenant))
    ended = [one.tenant for one in await node.store.read(0, after=head, limit=1_000) if one.topic == "run.ended"]
    assert len(ended) == len(runs)
    return ended


async def test_a_tenant_with_many_inputs_leaves_room_for_another_with_one(house: House, node: Node) -> None:
    assert (await ended_of_many_and_one(house, node, 12)).index("globex") <= 1


async def test_who_has_more_inputs_than_are_claimed_at_once_holds_up_nobody(house: House) -> None:
    node = await house.node("claiming", input_batch=4)
    assert (await ended_of_many_and_one(house, node, 40)).index("globex") < 20


async def test_what_another_process_leaves_for_a_run_is_taken_without_a_poll_where_it_can_be_told(
    house: House, node: Node
) -> None:
    run_id = await node.run("waiting")
    await node.settled()
    await node.inputs.start()
    other = await house.node("other")
    await other.door.cancel("acme", run_id, by="ann", reason="enough")
    await eventually(lambda: node.stands(run_id, "cancelled"))


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
    await eventually(lambda: node.stands(run_id, "succeeded"))
    assert (await node.state(run_id)).end_output["user_id"] == "u-1"


async def test_arrivals_are_forgotten_when_the_journal_no_longer_reaches_back_to_them(node: Node) -> None:
    keys = await node.vault.keys_for("acme")
    for event_id in ("old", "new"):
        arrival = Arrival(
            source="/modules/billing",
            event_id=event_id,
            type="billing.PaidV1",
            body_hash=b"hash",
            body=seal_blob(keys, "arrival", arrival_ident("/modules/billing", event_id), b"{}"),
            received_at=node.clock.now(),
        )
        recorded: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        node.coordinator.record(Commit(tenant="acme", stream=None, arrival=arrival), recorded.set_result)
        assert isinstance(await asyncio.wait_for(recorded, 20), Appended)
        node.clock.forward(days=20)
    await node.janitor.forget_arrivals()
    kept = [await node.store.arrival("acme", "/modules/billing", event_id) is not None for event_id in ("old", "new")]
    assert kept == [False, True]


async def test_sessions_are_forgotten_a_week_after_their_end(node: Node) -> None:
    user = User(id=UUID(int=1), email="ann@example.org", name="Ann", created_at=node.clock.now())
    await node.store.add_user(user)
    for name in (b"old", b"new"):
        now = node.clock.now()
        await node.store.add_session(
            Session(
                digest=name,
                user_id=user.id,
                tenant="acme",
                created_at=now,
                last_seen_at=now,
                expires_at=now + timedelta(hours=12),
                address="192.0.2.7",
                agent="Firefox",
            )
        )
        node.clock.forward(days=4)
    await node.janitor.forget_past_people()
    assert [one.digest for one in await node.store.sessions(user.id)] == [b"new"]


async def test_of_all_processes_that_live_the_oldest_archives(house: House, node: Node) -> None:
    other = await house.node("other")
    await node.run("quick")
    await node.settled()
    projector = Projector(node.store, node.vault, node.mapper, VIEWS, house.clock, node.metrics)
    await projector.catch_up()
    house.clock.forward(days=2)
    for one in (node, other):
        assert await one.store.heartbeat(one.epoch, now=house.clock.now())
    await other.janitor.archive()
    assert await node.store.archive_months() == []
    await node.janitor.archive()
    assert [month.runs for month in await node.store.archive_months()] == [1]


async def test_a_long_local_attempt_is_nobodys_to_repair(house: House, node: Node, world: World) -> None:
    await node.run("slow", {"gate": "long"})
    await asyncio.wait_for(world.arrival("long").wait(), 20)
    other = await house.node("other")
    house.clock.forward(seconds=120)
    for one in (node, other):
        await one.janitor.repair()
        assert one.metrics.stuck_runs.of()._value.get() == 0
        assert "unwind_tenant_stuck_runs{" not in one.metrics.render()[0].decode()
    assert len([key for name, key in world.done if name == "gated"]) == 1
    world.gate("long").set()
    await node.settled()


async def test_a_run_that_lost_its_reason_to_wake_is_counted_repaired_and_told_of_once(
    house: House, node: Node, world: World
) -> None:
    run_id = await node.run("slow", {"gate": "lost"})
    await asyncio.wait_for(world.arrival("lost").wait(), 20)
    world.arrival("lost").clear()
    await node.worker.stop()  # the attempt is gone, and nobody has heard of it
    node.coordinator.runs.by_id[run_id].performing = 0
    house.clock.forward(seconds=120)
    other = await house.node("other")
    await other.janitor.repair()
    assert other.metrics.stuck_runs.of()._value.get() == 0
    await node.janitor.repair()
    assert 'unwind_tenant_stuck_runs{tenant="acme"} 1.0' in node.metrics.render()[0].decode()
    await asyncio.wait_for(world.arrival("lost").wait(), 20)
    assert [key for name, key in world.done if name == "gated"] == [f"{run_id}/hold/1"] * 2
    await node.janitor.repair()
    assert "unwind_tenant_stuck_runs{" not in node.metrics.render()[0].decode()
    keys = await node.vault.keys_for("acme")
    stream = tenant_stream("acme")
    told = node.mapper.decode_all(keys, stream, await node.store.load("acme", stream))
    assert told == [RunsRepaired(at=house.clock.now(), runs=1, run_ids=(str(run_id),))]
    world.gate("lost").set()
    await node.settled()
    assert await node.status(run_id) == "succeeded"


async def test_a_run_that_cannot_be_read_is_counted_as_stuck_and_told_of_once(
    house: House, node: Node, world: World
) -> None:
    run_id = await node.run("slow", {"gate": "unread"})
    await asyncio.wait_for(world.arrival("unread").wait(), 20)
    house.clock.forward(seconds=10)
    other = await house.node("other")
    other.store.broken = {run_id}
    await other.janitor.take_over()
    await other.settled()
    house.clock.forward(seconds=60)
    for _ in range(3):
        await other.janitor.repair()
        await other.settled()
        assert other.metrics.stuck_runs.of()._value.get() == 1
    assert other.metrics.stuck_runs_repaired.of()._value.get() == 1
    assert len(await other.store.load("acme", tenant_stream("acme"))) == 1
    world.gate("unread").set()


# --------------------------------------------------------------------------------------------------------------- memory


async def test_runs_that_left_memory_are_loaded_when_something_comes_for_them(node: Node) -> None:
    node.coordinator.runs.limit = 2
    runs = [await node.run("waiting") for _ in range(6)]
    await node.settled()
    assert sum(node.coordinator.owns(run_id) for run_id in runs) == 2
    await node.janitor.repair()
    assert node.metrics.runs_hot.of()._value.get() == 2
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


async def after_takeovers(house: House, times: int) -> Node:
    """The node that has taken over last."""
    other = await takeover(house)
    for _ in range(times - 1):
        other = await takeover(house)
    await other.settled()
    return other


async def test_a_run_that_only_waits_is_not_parked_however_often_its_owners_die(house: House, node: Node) -> None:
    run_id = await node.run("waiting")
    await node.settled()
    last = await after_takeovers(house, 5)
    assert await last.status(run_id) == "waiting"
    await last.later(seconds=61)
    assert await last.status(run_id) == "succeeded"


async def test_a_run_whose_owners_die_while_they_work_on_it_is_parked(house: House, node: Node, world: World) -> None:
    run_id = await node.run("slow", {"gate": "g"})
    await asyncio.wait_for(world.arrival("g").wait(), 20)
    for _ in range(3):
        world.entered.clear()
        last = await takeover(house)
        await asyncio.wait_for(world.arrival("g").wait(), 20)

    async def parked() -> bool:
        incidents = (await last.state(run_id)).incidents or {}
        return [incident.reason for incident in incidents.values()] == ["no_progress"]

    await eventually(parked)
    world.gate("g").set()
