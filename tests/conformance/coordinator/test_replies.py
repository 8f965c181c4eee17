"""A reply to a run that is in memory travels with what the run makes of it; any other is kept by itself, and the store
finds who waits for it. Either way it is kept once, heard once, and acknowledged after its commit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from consumers.intake import Intake
from contracts.envelope import Envelope
from contracts.modules import identity
from contracts.sdk import open_transport
from contracts.sdk.transport import EVENTS_EXCHANGE, Message, Published, Transport
from engine.bus.topology import engine_topology, queues
from engine.recording import command_id
from engine.run.inputs import CancelAsked, TerminateAsked
from engine.store import Commit
from tests.conformance.coordinating import House, Node, eventually, takeover, topics

SAID = datetime(2026, 1, 1, tzinfo=UTC)
ASKED = ["run.started", "step.scheduled"]
ANSWERED = [*ASKED, "step.succeeded", "run.ended"]


class Desk:
    """Replies to the runs of a node, over a real bus."""

    def __init__(self, node: Node, transport: Transport) -> None:
        self.node, self.transport = node, transport
        store: Any = node.store
        self.intake = Intake(
            transport, queues.replies, store, node.vault, node.registry, node.plans, node.coordinator, node.clock,
            node.metrics, runs_in_decision=None,
        )  # fmt: skip

    async def answer(self, run_id: UUID, step: str = "create-0", *, user: str = "u-1", event: str = "e-1") -> None:
        command = command_id(f"{run_id}/{step}/1")
        envelope = Envelope(
            id=event,
            source=identity.MODULE.source,
            type="identity.UserCreatedV1",
            tenantid="acme",
            time=SAID,
            data={"user_id": user, "email": "u@example.org", "name": "U", "state": "active"},
            causationid=command,
        )
        message = Message(EVENTS_EXCHANGE, envelope.type, envelope.to_json())
        assert await self.transport.publish([message]) == [Published.CONFIRMED]

    async def heard(self, outcome: str, times: int = 1) -> None:
        """Until so many deliveries have come to that."""
        line = f'unwind_deliveries_total{{queue="{queues.replies}",result="{outcome}"}} {times}.0'

        async def said() -> bool:
            return line in self.node.metrics.render()[0].decode()

        await eventually(said)
        await self.node.settled()

    def kept(self) -> list[Commit]:
        """The commits that had a message with them, in order."""
        return [commit for batch in self.node.store.batches for commit in batch if commit.arrival is not None]


@pytest.fixture
async def desk(node: Node, tmp_path: Path) -> AsyncIterator[Desk]:
    transport = open_transport(f"embedded://{tmp_path / 'bus.db'}", name="desk")
    await transport.start()
    await transport.declare(engine_topology(node.registry))
    desk = Desk(node, transport)
    await desk.intake.start()
    yield desk
    await desk.intake.stop()
    await transport.stop()


async def asked(node: Node, users: int = 1) -> UUID:
    """A run that has sent its commands."""
    run_id = await node.run("asking", {"users": users})
    await node.settled()
    return run_id


async def test_a_reply_is_kept_by_the_commit_of_what_the_run_makes_of_it(desk: Desk, node: Node) -> None:
    run_id = await asked(node)
    await desk.answer(run_id)
    await desk.heard("accepted")
    assert topics(await node.log(run_id)) == ANSWERED
    [commit] = desk.kept()
    assert (commit.stream, [event.topic for event in commit.events]) == (run_id, ["step.succeeded", "run.ended"])
    assert await node.store.claim_inputs(node.epoch, limit=10) == []
    assert await node.store.arrival("acme", identity.MODULE.source, "e-1") is not None


async def test_a_reply_that_comes_again_is_a_duplicate_and_heard_once(desk: Desk, node: Node) -> None:
    run_id = await asked(node, users=2)
    for _ in range(3):
        await desk.answer(run_id)
    await desk.heard("duplicate", 2)
    assert topics(await node.log(run_id)) == [*ASKED, "step.scheduled", "step.succeeded"]


async def test_another_reply_under_a_known_id_becomes_a_dead_letter(desk: Desk, node: Node) -> None:
    run_id = await asked(node, users=2)
    await desk.answer(run_id)
    await desk.heard("accepted")
    await desk.answer(run_id, "create-1", user="u-2")
    await desk.heard("dead")
    assert topics(await node.log(run_id)) == [*ASKED, "step.scheduled", "step.succeeded"]
    await desk.answer(run_id, "create-1", user="u-2", event="e-2")
    await desk.heard("accepted", 2)
    assert await node.status(run_id) == "succeeded"


async def test_replies_that_come_together_are_each_kept(desk: Desk, node: Node) -> None:
    run_id = await asked(node, users=5)
    for number in range(5):
        await desk.answer(run_id, f"create-{number}", user=f"u-{number}", event=f"e-{number}")
    await desk.heard("accepted", 5)
    assert await node.status(run_id) == "succeeded"
    assert {commit.stream for commit in desk.kept()} == {run_id}
    for number in range(5):
        assert await node.store.arrival("acme", identity.MODULE.source, f"e-{number}") is not None


async def test_a_reply_to_a_run_that_is_not_in_memory_is_found_by_the_store(desk: Desk, node: Node) -> None:
    run_id = await asked(node)
    node.coordinator.runs.forget(node.coordinator.runs.by_id[run_id])
    await desk.answer(run_id)
    await desk.heard("accepted")
    await eventually(lambda: node.stands(run_id, "succeeded"))
    [commit] = desk.kept()
    assert commit.stream is None


async def test_a_reply_to_a_run_that_another_process_has_taken_over_is_heard_there(
    house: House, desk: Desk, node: Node
) -> None:
    run_id = await asked(node)
    other = await takeover(house)
    await desk.answer(run_id)

    async def fenced() -> bool:
        return node.suspicions > 0

    async def claimed() -> bool:
        other.inputs.take_soon(await other.store.claim_inputs(other.epoch, limit=10, now=node.clock.now()))
        return await other.stands(run_id, "succeeded")

    # The process that was declared dead keeps nothing; under its next epoch it keeps the reply for whoever has the run.
    await eventually(fenced)
    assert topics(await other.log(run_id)) == ASKED
    node.coordinator.epoch = node.epoch = await node.store.register("node", ("worker",), now=node.clock.now())
    await eventually(claimed)
    assert topics(await other.log(run_id)) == ANSWERED


async def test_a_reply_that_the_run_makes_nothing_of_is_kept_by_itself(desk: Desk, node: Node) -> None:
    run_id = await asked(node)
    hot = node.coordinator.runs.by_id[run_id]
    met: list[int] = []

    def until_they_meet(number: int) -> bool:
        met.extend([number] * len(hot.mailbox))
        return not met

    node.store.lose = until_they_meet
    node.coordinator.submit("acme", run_id, TerminateAsked(at=node.clock.now(), by="ann"))
    await desk.answer(run_id)
    await desk.heard("accepted")
    assert await node.status(run_id) == "cancelled"
    assert [commit.stream for commit in desk.kept()] == [None]
    assert await node.store.arrival("acme", identity.MODULE.source, "e-1") is not None


async def test_a_reply_on_a_stale_state_is_decided_again_and_kept(house: House, desk: Desk, node: Node) -> None:
    run_id = await asked(node, users=2)
    twin = await house.node("twin")
    twin.coordinator.epoch = node.epoch
    twin.coordinator.submit("acme", run_id, CancelAsked(at=house.clock.now(), by="twin"))
    await twin.settled()
    await desk.answer(run_id)
    await desk.heard("accepted")
    assert "compensation.started" in topics(await node.log(run_id))
    assert "step.succeeded" in topics(await node.log(run_id))
    assert await node.store.arrival("acme", identity.MODULE.source, "e-1") is not None


async def test_a_lost_answer_neither_doubles_nor_loses_a_reply(desk: Desk, node: Node) -> None:
    run_id = await asked(node)
    node.store.lose = lambda number, next_one=len(node.store.batches) + 1: number == next_one  # type: ignore[misc]
    await desk.answer(run_id)
    await desk.heard("accepted")
    assert topics(await node.log(run_id)) == ANSWERED
    await desk.answer(run_id)
    await desk.heard("duplicate")
    assert topics(await node.log(run_id)) == ANSWERED


async def test_a_reply_that_cannot_be_kept_parks_no_run_and_becomes_a_dead_letter(desk: Desk, node: Node) -> None:
    run_id = await asked(node)
    node.store.refuse = lambda commit: commit.arrival is not None
    await desk.answer(run_id)
    await desk.heard("dead")
    assert topics(await node.log(run_id)) == ASKED
    node.store.refuse = lambda commit: False
    await desk.answer(run_id, event="e-2")
    await desk.heard("accepted")
    assert await node.status(run_id) == "succeeded"


async def test_a_reply_is_kept_though_what_follows_from_it_cannot_be(desk: Desk, node: Node) -> None:
    run_id = await asked(node)
    node.store.refuse = lambda commit: any(event.topic == "step.succeeded" for event in commit.events)
    await desk.answer(run_id)
    await desk.heard("accepted")

    async def stopped() -> bool:
        return topics(await node.log(run_id))[-1] == "incident.opened"

    await eventually(stopped)
    assert await node.store.arrival("acme", identity.MODULE.source, "e-1") is not None
