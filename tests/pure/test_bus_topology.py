"""The engine's queues, derived from manifests."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from contracts.manifest import Command, CommandModel, Event, EventModel, FailureModel, Module
from contracts.notices import UNWIND
from contracts.registry import Registry
from contracts.sdk.transport import EVENTS_EXCHANGE, Topology
from engine.bus.topology import engine_topology, module_topology, queues


class OrderPlacedV1(EventModel):
    order: str


class ShipOrderV1(CommandModel):
    order: str


class OrderShippedV1(EventModel):
    order: str


class ShipOrderFailedV1(FailureModel):
    pass


SHOP = Module(
    name="shop",
    version="1.0.0",
    events=(Event(OrderPlacedV1),),
    commands=(Command(ShipOrderV1, success=OrderShippedV1, failures=(ShipOrderFailedV1,), coverage="retriable"),),
)


@pytest.fixture
def topology() -> Topology:
    return engine_topology(Registry((SHOP, UNWIND)))


def test_facts_go_to_intake_and_outcomes_of_commands_to_replies_each_to_one_queue(topology: Topology) -> None:
    bound = {b.key: b.queue for b in topology.bindings if b.exchange == EVENTS_EXCHANGE}
    assert bound["shop.OrderPlacedV1"] == queues.intake
    assert bound["unwind.RunParkedV1"] == queues.intake
    assert bound["shop.OrderShippedV1"] == bound["shop.ShipOrderFailedV1"] == queues.replies
    counts = Counter((b.exchange, b.key) for b in topology.bindings)
    assert set(counts.values()) == {1}
    assert set(bound) == set(Registry((SHOP, UNWIND)).events)


def test_every_queue_is_versioned_limited_and_has_somewhere_to_put_its_dead_letters(topology: Topology) -> None:
    exchanges = {exchange.name for exchange in topology.exchanges}
    for queue in topology.queues:
        assert re.fullmatch(r"unwind\.[a-z]+\.v[1-9]", queue.name)
        assert queue.delivery_limit > 0
        assert queue.dead_letter_exchange in exchanges or queue.name == queues.dead


def test_what_nobody_is_bound_for_reaches_the_unrouted_queue(topology: Topology) -> None:
    alternates = {exchange.name: exchange.alternate for exchange in topology.exchanges}
    assert alternates["unwind.events"] == alternates["unwind.commands"] == "unwind.unrouted"
    assert [b.queue for b in topology.bindings if b.exchange == "unwind.unrouted"] == [queues.unrouted]
    assert [b.queue for b in topology.bindings if b.exchange == "unwind.dead"] == [queues.dead]


def test_intake_takes_every_queue_but_the_dead_letters(topology: Topology) -> None:
    assert {name for name, _ in queues.taken} == {queue.name for queue in topology.queues} - {queues.dead}
    assert dict(queues.taken)[queues.replies] is False


def test_a_module_gets_its_own_versioned_queue_for_the_commands_it_obeys() -> None:
    topology = module_topology(SHOP)
    assert [queue.name for queue in topology.queues] == ["shop.commands.v1"]
    assert [(b.exchange, b.key) for b in topology.bindings] == [("unwind.commands", "shop.ShipOrderV1")]
