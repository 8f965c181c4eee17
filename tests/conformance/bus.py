"""What every bus must keep, told once: the suite both transports pass. Subclasses bring a `bus` fixture that opens
connections to one bus."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from contracts.problems import Problem
from contracts.sdk.transport import (
    Binding,
    Delivery,
    Difference,
    Exchange,
    Message,
    Published,
    Queue,
    Topology,
    TopologyMismatch,
    Transport,
)

PATIENCE_SECONDS = 20.0


class Bus(Protocol):
    """One bus under test."""

    async def open(self) -> Transport:
        """A started connection of its own, as another process would have."""


class Inbox:
    """A handler that keeps what it gets and lets a test wait for it."""

    def __init__(self, then: Callable[[Delivery], None] | None = None) -> None:
        self.deliveries: list[Delivery] = []
        self._then = then
        self._came = asyncio.Event()

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self._then is not None:
            self._then(delivery)
        self._came.set()

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.deliveries]

    async def wait(self, count: int, within_seconds: float = PATIENCE_SECONDS) -> list[Delivery]:
        async with asyncio.timeout(within_seconds):
            while len(self.deliveries) < count:
                self._came.clear()
                await self._came.wait()
        return self.deliveries


class Names:
    """Names of one test's own, so that tests may share a broker."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex[:10]

    def __call__(self, name: str) -> str:
        return f"{name}.{self.mark}"

    def plain(self, **queue: Any) -> Topology:
        """One exchange, one queue that takes everything, and their dead letters."""
        return Topology(
            exchanges=(Exchange(name=self("events")), Exchange(name=self("dead"))),
            queues=(
                Queue(name=self("dead.v1")),
                Queue(name=self("intake.v1"), dead_letter_exchange=self("dead"), **queue),
            ),
            bindings=(
                Binding(queue=self("intake.v1"), exchange=self("events"), key="#"),
                Binding(queue=self("dead.v1"), exchange=self("dead"), key="#"),
            ),
        )

    def message(self, body: bytes, key: str = "billing.PaidV1", **fields: Any) -> Message:
        return Message(self("events"), key, body, **fields)


async def receive(transport: Transport, queue: str, count: int) -> list[Delivery]:
    """Takes and settles `count` messages, then stops."""
    inbox = Inbox()
    consumer = await transport.consume(queue, inbox, prefetch=count)
    try:
        deliveries = list((await inbox.wait(count))[:count])
        consumer.ack(deliveries)
    finally:
        await consumer.stop()
    return deliveries


async def a_round_trip(transport: Transport, name: Names) -> None:
    """Everything asked of the bus before this has been done when it returns."""
    queue = name(f"barrier.{uuid.uuid4().hex[:6]}")
    await transport.declare(Topology(queues=(Queue(name=queue, transient=True),)))
    assert await transport.publish([Message("", queue, b"here")]) == [Published.CONFIRMED]
    await receive(transport, queue, 1)


class BusConformance:
    @pytest.fixture
    def name(self) -> Names:
        return Names()

    async def test_a_confirmed_message_survives_its_sender_and_the_connection(self, bus: Bus, name: Names) -> None:
        sender = await bus.open()
        await sender.declare(name.plain())
        assert await sender.publish([name.message(b"kept")]) == [Published.CONFIRMED]
        await sender.stop()
        receiver = await bus.open()
        [delivery] = await receive(receiver, name("intake.v1"), 1)
        assert (delivery.body, delivery.exchange, delivery.routing_key) == (b"kept", name("events"), "billing.PaidV1")
        assert (delivery.redelivered, delivery.delivery_count) == (False, 0)
        assert delivery.content_type == "application/cloudevents+json"

    async def test_a_message_nobody_is_bound_for_is_unroutable_and_its_neighbours_are_confirmed(
        self, bus: Bus, name: Names
    ) -> None:
        transport = await bus.open()
        await transport.declare(
            Topology(
                exchanges=(Exchange(name=name("events")),),
                queues=(Queue(name=name("intake.v1")),),
                bindings=(Binding(queue=name("intake.v1"), exchange=name("events"), key="billing.*"),),
            )
        )
        same = b"the same body"
        fates = await transport.publish(
            [name.message(same), name.message(same, "crm.LostV1"), name.message(same), name.message(b"", "crm.LostV1")]
        )
        assert fates == [Published.CONFIRMED, Published.UNROUTABLE, Published.CONFIRMED, Published.UNROUTABLE]
        assert len(await receive(transport, name("intake.v1"), 2)) == 2

    async def test_an_unroutable_message_that_is_not_mandatory_is_confirmed(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(Topology(exchanges=(Exchange(name=name("events")),)))
        assert await transport.publish([name.message(b"x", mandatory=False)]) == [Published.CONFIRMED]

    async def test_an_exchange_that_does_not_exist_is_unroutable_and_harms_no_other_message(
        self, bus: Bus, name: Names
    ) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        fates = await transport.publish([name.message(b"a"), Message(name("nowhere"), "k", b"b"), name.message(b"c")])
        assert fates == [Published.CONFIRMED, Published.UNROUTABLE, Published.CONFIRMED]
        assert [d.body for d in await receive(transport, name("intake.v1"), 2)] == [b"a", b"c"]

    async def test_a_message_given_back_comes_again_and_is_counted(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        await transport.publish([name.message(b"again")])
        inbox = Inbox()
        consumer = await transport.consume(name("intake.v1"), inbox, prefetch=1)
        consumer.reject((await inbox.wait(1))[0], requeue=True)
        second = (await inbox.wait(2))[1]
        assert (second.body, second.redelivered, second.delivery_count) == (b"again", True, 1)
        assert dict(second.headers) == {}
        consumer.ack([second])

    async def test_a_rejected_message_goes_to_the_dead_letters_with_its_reason(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        await transport.publish([name.message(b"\x00poison\xff", headers={"tenant": "acme"})])
        inbox = Inbox()
        consumer = await transport.consume(name("intake.v1"), inbox, prefetch=1)
        consumer.reject((await inbox.wait(1))[0], requeue=False)
        [dead] = await receive(transport, name("dead.v1"), 1)
        assert (dead.body, dead.routing_key, dead.headers["tenant"]) == (b"\x00poison\xff", "billing.PaidV1", "acme")
        assert dead.headers["x-first-death-reason"] == "rejected"
        assert dead.headers["x-first-death-queue"] == name("intake.v1")
        assert dead.headers["x-death"][0]["queue"] == name("intake.v1")

    async def test_a_message_over_its_delivery_limit_goes_to_the_dead_letters(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain(delivery_limit=2))
        await transport.publish([name.message(b"loops")])
        inbox = Inbox(lambda delivery: consumer.reject(delivery, requeue=True))
        consumer = await transport.consume(name("intake.v1"), inbox, prefetch=1)
        [dead] = await receive(transport, name("dead.v1"), 1)
        assert dead.headers["x-first-death-reason"] == "delivery_limit"
        assert [d.delivery_count for d in inbox.deliveries] == [0, 1, 2]

    async def test_a_queue_keeps_the_order_of_its_sender(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        sent = [b"%d" % i for i in range(1500)]
        assert set(await transport.publish([name.message(b) for b in sent[:500]])) == {Published.CONFIRMED}
        inbox = Inbox(lambda delivery: consumer.ack([delivery]))
        consumer = await transport.consume(name("intake.v1"), inbox, prefetch=100)
        for start in range(500, 1500, 250):
            await transport.publish([name.message(b) for b in sent[start : start + 250]])
        await inbox.wait(1500)
        assert inbox.bodies == sent

    async def test_no_more_than_prefetch_are_unsettled(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        await transport.publish([name.message(b"%d" % i) for i in range(10)])
        inbox = Inbox()
        consumer = await transport.consume(name("intake.v1"), inbox, prefetch=3)
        await inbox.wait(3)
        await a_round_trip(transport, name)
        assert len(inbox.deliveries) == 3
        consumer.ack(inbox.deliveries[:1])
        await inbox.wait(4)
        await a_round_trip(transport, name)
        assert inbox.bodies == [b"0", b"1", b"2", b"3"]

    async def test_settling_some_leaves_exactly_the_others(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        await transport.publish([name.message(b"%d" % i) for i in range(8)])
        inbox = Inbox()
        consumer = await transport.consume(name("intake.v1"), inbox, prefetch=8)
        d = list(await inbox.wait(8))
        consumer.ack([d[1], d[0], d[2], d[5], d[6]])
        await consumer.stop()
        assert [x.body for x in await receive(transport, name("intake.v1"), 3)] == [b"3", b"4", b"7"]

    async def test_competing_consumers_share_and_none_gets_what_another_has(self, bus: Bus, name: Names) -> None:
        transport, other = await bus.open(), await bus.open()
        await transport.declare(name.plain())
        first, second = Inbox(), Inbox()
        consumers = [
            await transport.consume(name("intake.v1"), first, prefetch=5),
            await other.consume(name("intake.v1"), second, prefetch=5),
        ]
        await transport.publish([name.message(b"%d" % i) for i in range(10)])
        await first.wait(5)
        await second.wait(5)
        assert sorted(first.bodies + second.bodies) == [b"%d" % i for i in range(10)]
        consumers[0].ack(first.deliveries)
        consumers[1].ack(second.deliveries)

    async def test_a_stopped_consumer_returns_what_it_had_not_settled(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        await transport.publish([name.message(b"%d" % i) for i in range(3)])
        inbox = Inbox()
        consumer = await transport.consume(name("intake.v1"), inbox, prefetch=3)
        consumer.ack((await inbox.wait(3))[:1])
        await consumer.stop()
        assert not consumer.alive
        await transport.publish([name.message(b"3")])
        again = await receive(transport, name("intake.v1"), 3)
        assert [(d.body, d.redelivered) for d in again] == [(b"1", True), (b"2", True), (b"3", False)]
        assert [d.delivery_count for d in again] == [1, 1, 0]

    async def test_settling_after_stop_changes_nothing_and_stop_twice_is_fine(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        await transport.publish([name.message(b"a"), name.message(b"b")])
        inbox = Inbox()
        consumer = await transport.consume(name("intake.v1"), inbox, prefetch=2)
        await inbox.wait(2)
        await consumer.stop()
        await consumer.stop()
        consumer.ack(inbox.deliveries[:1])
        consumer.reject(inbox.deliveries[1], requeue=False)
        assert [d.body for d in await receive(transport, name("intake.v1"), 2)] == [b"a", b"b"]
        await transport.stop()
        await transport.stop()

    async def test_settling_twice_does_not_settle_another_message(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        await transport.publish([name.message(b"a"), name.message(b"b"), name.message(b"c")])
        inbox = Inbox()
        consumer = await transport.consume(name("intake.v1"), inbox, prefetch=3)
        await inbox.wait(3)
        consumer.ack(inbox.deliveries[:2])
        consumer.ack(inbox.deliveries[:2])
        await consumer.stop()
        assert [d.body for d in await receive(transport, name("intake.v1"), 1)] == [b"c"]

    async def test_a_query_is_answered_over_a_reply_queue_that_ends_with_its_owner(self, bus: Bus, name: Names) -> None:
        asking, answering = await bus.open(), await bus.open()
        await answering.declare(name.plain())
        await asking.declare(Topology(queues=(Queue(name=name("replies"), transient=True),)))
        answers, questions = Inbox(), Inbox()
        await asking.consume(name("replies"), answers, prefetch=10)
        server = await answering.consume(name("intake.v1"), questions, prefetch=1)
        await asking.publish(
            [name.message(b"?", reply_to=name("replies"), correlation_id="q-1", expiration_seconds=30)]
        )
        question = (await questions.wait(1))[0]
        assert (question.reply_to, question.correlation_id) == (name("replies"), "q-1")
        assert question.reply_to is not None
        reply = Message("", question.reply_to, b"!", correlation_id=question.correlation_id, persistent=False)
        assert await answering.publish([reply]) == [Published.CONFIRMED]
        server.ack([question])
        answer = (await answers.wait(1))[0]
        assert (answer.body, answer.correlation_id) == (b"!", "q-1")
        await asking.stop()
        assert await answering.publish([reply]) == [Published.UNROUTABLE]

    async def test_an_expired_message_goes_to_the_dead_letters(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        await transport.publish([name.message(b"old", expiration_seconds=0.05), name.message(b"young")])
        [dead] = await receive(transport, name("dead.v1"), 1)
        assert (dead.body, dead.headers["x-first-death-reason"]) == (b"old", "expired")
        assert [d.body for d in await receive(transport, name("intake.v1"), 1)] == [b"young"]

    @pytest.mark.parametrize(
        "body",
        [b"", bytes(range(256)), b"\x00", b"\xce" * 131_064, b"\xce" * 131_072, bytes(range(256)) * 8192],
        ids=["empty", "every byte", "nul", "one frame", "two frames", "2 MiB"],
    )
    async def test_a_body_arrives_byte_for_byte(self, bus: Bus, name: Names, body: bytes) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        assert await transport.publish([name.message(body), name.message(b"next")]) == [Published.CONFIRMED] * 2
        assert [d.body for d in await receive(transport, name("intake.v1"), 2)] == [body, b"next"]

    async def test_headers_and_properties_arrive_as_they_were_sent(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        headers = {
            "text": "Grüße, 世界",
            "empty": "",
            "yes": True,
            "no": False,
            "none": None,
            "small": -3,
            "large": 2**53,
            "fraction": 0.1,
            "list": ["a", 1, {"deep": [True]}],
            "table": {"a": {"b": "c"}, "n": 1.5},
        }
        await transport.publish(
            [name.message(b"{}", headers=headers, content_type="text/plain", correlation_id="c-1", reply_to="r-1")]
        )
        [delivery] = await receive(transport, name("intake.v1"), 1)
        assert dict(delivery.headers) == headers
        assert (delivery.content_type, delivery.correlation_id, delivery.reply_to) == ("text/plain", "c-1", "r-1")

    async def test_declaring_the_same_again_is_fine_and_keeps_the_messages(self, bus: Bus, name: Names) -> None:
        transport, other = await bus.open(), await bus.open()
        await transport.declare(name.plain())
        await transport.publish([name.message(b"kept")])
        await transport.declare(name.plain())
        await other.declare(name.plain())
        assert [d.body for d in await receive(other, name("intake.v1"), 1)] == [b"kept"]

    async def test_a_queue_with_other_arguments_is_refused_by_name_and_the_connection_stays_usable(
        self, bus: Bus, name: Names
    ) -> None:
        transport = await bus.open()
        await transport.declare(name.plain(delivery_limit=5))
        with pytest.raises(TopologyMismatch, match=name("intake.v1")) as refusal:
            await transport.declare(name.plain(delivery_limit=6))
        assert "v2" in str(refusal.value)
        with pytest.raises(TopologyMismatch, match=name("events")):
            await transport.declare(Topology(exchanges=(Exchange(name=name("events"), kind="fanout"),)))
        assert await transport.publish([name.message(b"still")]) == [Published.CONFIRMED]
        await receive(transport, name("intake.v1"), 1)

    async def test_a_comparison_tells_what_a_declaration_would_find_and_changes_nothing(
        self, bus: Bus, name: Names
    ) -> None:
        transport = await bus.open()
        wanted = name.plain(delivery_limit=5)
        fresh = await transport.compare(wanted)
        assert {f"exchange {name('events')}", f"queue {name('intake.v1')}"} <= set(fresh.adds)
        assert await transport.compare(wanted) == fresh
        await transport.declare(wanted)
        assert await transport.compare(wanted) == Difference()
        [conflict] = (await transport.compare(name.plain(delivery_limit=6))).conflicts
        assert name("intake.v1") in conflict
        assert await transport.publish([name.message(b"still")]) == [Published.CONFIRMED]
        await receive(transport, name("intake.v1"), 1)

    async def test_a_queue_whose_dead_letter_exchange_is_missing_is_refused(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        with pytest.raises(TopologyMismatch, match=name("dead")):
            await transport.declare(
                Topology(queues=(Queue(name=name("intake.v1"), dead_letter_exchange=name("dead")),))
            )
        with pytest.raises(TopologyMismatch, match=name("intake.v1")):
            await transport.consume(name("intake.v1"), Inbox(), prefetch=1)

    async def test_what_no_queue_takes_goes_to_the_alternate_exchange(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(
            Topology(
                exchanges=(
                    Exchange(name=name("unrouted"), kind="fanout"),
                    Exchange(name=name("events"), alternate=name("unrouted")),
                ),
                queues=(Queue(name=name("intake.v1")), Queue(name=name("unrouted.v1"))),
                bindings=(
                    Binding(queue=name("intake.v1"), exchange=name("events"), key="billing.#"),
                    Binding(queue=name("unrouted.v1"), exchange=name("unrouted"), key="#"),
                ),
            )
        )
        assert await transport.publish([name.message(b"a"), name.message(b"b", "crm.LostV1")]) == [
            Published.CONFIRMED,
            Published.CONFIRMED,
        ]
        [lost] = await receive(transport, name("unrouted.v1"), 1)
        assert (lost.body, lost.routing_key) == (b"b", "crm.LostV1")
        assert [d.body for d in await receive(transport, name("intake.v1"), 1)] == [b"a"]

    async def test_topic_patterns_choose_the_queues_and_each_gets_one_copy(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        patterns = {"all": ["#"], "word": ["billing.*"], "end": ["#.PaidV1", "billing.PaidV1"], "deep": ["a.#.z"]}
        await transport.declare(
            Topology(
                exchanges=(Exchange(name=name("events")),),
                queues=tuple(Queue(name=name(q)) for q in patterns),
                bindings=tuple(
                    Binding(queue=name(q), exchange=name("events"), key=k) for q, keys in patterns.items() for k in keys
                ),
            )
        )
        keys = ["billing.PaidV1", "billing.x.PaidV1", "a.z", "a.b.c.z", "billing"]
        assert set(await transport.publish([name.message(k.encode(), k) for k in keys])) == {Published.CONFIRMED}
        expected = {"all": keys, "word": keys[:1], "end": keys[:2], "deep": keys[2:4]}
        for queue, wanted in expected.items():
            assert [d.body.decode() for d in await receive(transport, name(queue), len(wanted))] == wanted

    async def test_a_full_queue_refuses_until_it_is_drained(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain(max_length=3))
        fates = [fate for i in range(10) for fate in await transport.publish([name.message(b"%d" % i)])]
        # Length limits of a broker are soft: a few more may pass, never none refused.
        taken = fates.count(Published.CONFIRMED)
        assert fates == [Published.CONFIRMED] * taken + [Published.REFUSED] * (10 - taken)
        assert 3 <= taken <= 6
        await receive(transport, name("intake.v1"), taken)
        assert await transport.publish([name.message(b"room")]) == [Published.CONFIRMED]

    async def test_concurrent_senders_get_each_their_own_answers(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(
            Topology(
                exchanges=(Exchange(name=name("events")),),
                queues=(Queue(name=name("intake.v1")),),
                bindings=(Binding(queue=name("intake.v1"), exchange=name("events"), key="ok"),),
            )
        )
        wanted = [[i % (n + 2) != 0 for i in range(n * 40)] for n in range(1, 9)]
        answers = await asyncio.gather(
            *(transport.publish([name.message(b"x", "ok" if ok else "no") for ok in batch]) for batch in wanted)
        )
        for batch, fates in zip(wanted, answers, strict=True):
            assert fates == [Published.CONFIRMED if ok else Published.UNROUTABLE for ok in batch]

    async def test_a_handler_that_raises_gives_its_message_back(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain(delivery_limit=1))
        await transport.publish([name.message(b"bad")])

        def fail(delivery: Delivery) -> None:
            raise RuntimeError("a mistake in a handler")

        consumer = await transport.consume(name("intake.v1"), fail, prefetch=1)
        assert [d.body for d in await receive(transport, name("dead.v1"), 1)] == [b"bad"]
        assert consumer.alive

    async def test_nothing_is_sent_by_a_stopped_transport_and_the_answer_is_unknown(
        self, bus: Bus, name: Names
    ) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        assert await transport.publish([]) == []
        assert (transport.ready, transport.blocked) == (True, False)
        await transport.stop()
        assert (transport.ready, transport.blocked) == (False, False)
        assert await transport.publish([name.message(b"x")]) == [Published.UNKNOWN]
        with pytest.raises(Problem):
            await transport.consume(name("intake.v1"), Inbox(), prefetch=1)

    async def test_a_transport_may_be_started_again(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        await transport.stop()
        await transport.start()
        assert await transport.publish([name.message(b"x")]) == [Published.CONFIRMED]
        await receive(transport, name("intake.v1"), 1)

    async def test_what_no_bus_can_carry_is_refused_before_anything_is_sent(self, bus: Bus, name: Names) -> None:
        transport = await bus.open()
        await transport.declare(name.plain())
        with pytest.raises(ValueError, match="routing_key"):
            await transport.publish([name.message(b"a"), name.message(b"b", "k" * 256)])
        with pytest.raises(ValueError, match="headers"):
            await transport.publish([name.message(b"a"), name.message(b"b", headers={"o": object()})])
        assert await transport.publish([name.message(b"c")]) == [Published.CONFIRMED]
        assert [d.body for d in await receive(transport, name("intake.v1"), 1)] == [b"c"]
