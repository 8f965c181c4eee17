"""A tenant whose events come faster than its runs end: others' are neither behind those that wait here nor behind those
that the broker still holds, and nothing is lost or begun twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consumers.intake import Intake
from contracts.envelope import Envelope
from contracts.modules import billing
from contracts.sdk import open_transport
from contracts.sdk.transport import EVENTS_EXCHANGE, Message, Published, Transport
from engine.bus.topology import engine_topology, queues
from tests.conformance.coordinating import Node, World, eventually

PAID = "billing.FirstPaymentReceivedV1"
PREFETCH = 16
RUNS = 2
STORM = 5 * PREFETCH


class Gate:
    """The intake of a node with room for two runs, over a real bus."""

    def __init__(self, node: Node, transport: Transport) -> None:
        self.node, self.transport = node, transport
        store: Any = node.store
        self.intake = Intake(
            transport, queues.intake, store, node.vault, node.registry, node.plans, node.coordinator, node.clock,
            node.metrics, prefetch=PREFETCH, runs_in_decision=RUNS,
        )  # fmt: skip
        node.coordinator.runs.on_room = self.intake.pump

    async def send(self, tenant: str, *payments: str) -> None:
        messages = [
            Message(
                EVENTS_EXCHANGE,
                PAID,
                Envelope(
                    id=payment,
                    source=billing.MODULE.source,
                    type=PAID,
                    tenantid=tenant,
                    time=datetime(2026, 1, 1, tzinfo=UTC),
                    data={"customer_id": "c-1", "payment_id": payment, "amount_minor": 100, "currency": "EUR"},
                ).to_json(),
            )
            for payment in payments
        ]
        assert set(await self.transport.publish(messages)) == {Published.CONFIRMED}

    def kept(self) -> list[str]:
        """The payments of which a commit has kept the message, in order."""
        return [c.arrival.event_id for batch in self.node.store.batches for c in batch if c.arrival is not None]

    async def keeps(self, *payments: str) -> None:
        async def said() -> bool:
            return set(payments) <= set(self.kept())

        await eventually(said)


@pytest.fixture
async def gate(node: Node, tmp_path: Path) -> AsyncIterator[Gate]:
    transport = open_transport(f"embedded://{tmp_path / 'bus.db'}", name="gate")
    await transport.start()
    await transport.declare(engine_topology(node.registry))
    gate = Gate(node, transport)
    await gate.intake.start()
    yield gate
    await gate.intake.stop()
    await transport.stop()


async def begun(world: World, payment: str) -> None:
    async def entered() -> bool:
        return world.arrival(payment).is_set()

    await eventually(entered)


async def test_a_storm_keeps_nobody_elses_run_from_beginning(gate: Gate, node: Node, world: World) -> None:
    await gate.send("globex", "small-0")
    await begun(world, "small-0")
    await gate.send("acme", "large")
    await begun(world, "large")
    storm = [f"large-{number}" for number in range(STORM)]
    await gate.send("acme", *storm)
    await gate.send("globex", "small-1")
    # No run has ended: what the broker held behind the storm is seen because the storm is set aside.
    await gate.keeps(*storm[: STORM - PREFETCH])
    world.gate("large").set()
    world.gate("small-0").set()

    async def in_turn() -> bool:
        """Runs of the storm end, one after the other, until the small tenant has its turn."""
        for payment in [one for one in storm if world.arrival(one).is_set()]:
            world.gate(payment).set()
        return world.arrival("small-1").is_set()

    await eventually(in_turn)
    assert sum(world.arrival(payment).is_set() for payment in storm) <= PREFETCH + RUNS
    await everything_ends(gate, node, world, [*storm, "small-1"])


async def test_a_tenant_alone_is_not_set_aside(gate: Gate, node: Node, world: World) -> None:
    storm = [f"large-{number}" for number in range(STORM)]
    await gate.send("acme", *storm)
    await begun(world, "large-1")
    for payment in storm[: STORM // 2]:
        await begun(world, payment)
        world.gate(payment).set()
    assert not any(commit.inputs for batch in node.store.batches for commit in batch)
    await everything_ends(gate, node, world, storm)


async def everything_ends(gate: Gate, node: Node, world: World, payments: list[str]) -> None:
    """Each payment began one run and no more, and none is left."""
    for payment in payments:
        world.gate(payment).set()
    await gate.keeps(*payments)

    await node.inputs.start()

    async def done() -> bool:
        return all(world.arrival(payment).is_set() for payment in payments)

    await eventually(done)
    await node.settled()
    assert len(world.done) == sum(entered.is_set() for entered in world.entered.values())
    census = await node.store.census()
    assert census.runs == {}
