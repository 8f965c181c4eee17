"""Settlements of one subscription: they gather, none is lost before the consumer is known, the last leave at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from contracts.sdk.settling import ACKS_AT_ONCE, Settling
from contracts.sdk.transport import Delivery


class Broker:
    """What reaches the broker, a list per frame."""

    alive = True

    def __init__(self) -> None:
        self.acked: list[list[int]] = []
        self.rejected: list[int] = []
        self.told = asyncio.Event()

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.acked.append([delivery.tag for delivery in deliveries])
        self.told.set()

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        assert not requeue
        self.rejected.append(delivery.tag)

    async def stop(self) -> None:
        raise AssertionError("settling stops no consumer")


def deliveries(many: int) -> list[Delivery]:
    return [Delivery(tag, b"{}", {}, "x", "k", False, 0) for tag in range(many)]


async def test_acknowledgements_wait_a_moment_for_others_and_travel_together() -> None:
    broker, settling = Broker(), Settling(500)
    settling.attach(broker)
    for delivery in deliveries(3):
        settling.ack(delivery)
    async with asyncio.timeout(10):
        await broker.told.wait()
    assert broker.acked == [[0, 1, 2]]


async def test_many_wait_for_no_others_nor_do_half_of_what_the_broker_hands_out() -> None:
    loop = asyncio.get_running_loop()
    for prefetch, many in ((500, ACKS_AT_ONCE), (8, 4), (1, 1)):
        broker, settling = Broker(), Settling(prefetch)
        settling.attach(broker)
        for delivery in deliveries(many):
            settling.ack(delivery)
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn
        assert broker.acked == [list(range(many))], prefetch


async def test_what_is_settled_before_the_consumer_is_known_is_kept_for_it() -> None:
    broker, settling = Broker(), Settling(8)
    first, second, third = deliveries(3)
    settling.ack(first)
    settling.reject(second)
    settling.ack(third)
    assert (broker.acked, broker.rejected) == ([], [])
    settling.attach(broker)
    assert (broker.acked, broker.rejected) == ([[0, 2]], [1])


async def test_who_stops_settles_at_once_and_what_was_settled_is_not_settled_again() -> None:
    broker, settling = Broker(), Settling(100)
    settling.attach(broker)
    settling.ack(deliveries(1)[0])
    settling.flush()
    settling.flush()
    assert broker.acked == [[0]]
