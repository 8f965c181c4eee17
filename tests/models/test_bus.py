"""Each bus against two dictionaries: whatever is published, taken, settled, given back and refused in whatever order,
every message is where it must be, once, and with the right count of deliveries.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from contracts.sdk.embedded import EmbeddedTransport
from contracts.sdk.rabbit import RabbitTransport
from contracts.sdk.transport import (
    Binding,
    Consumer,
    Delivery,
    Exchange,
    Message,
    Published,
    Queue,
    Topology,
    Transport,
)
from scripts.simulation.bus import SimBus, SimTransport, Straight

T = TypeVar("T")

LIMIT = 2
"""How often a message may come back."""

ROUTES: dict[str, tuple[str, ...]] = {"a.x": ("one",), "x.b": ("two",), "a.b": ("one", "two"), "x.x": ()}
PATIENCE_SECONDS = 20.0
MET: Counter[str] = Counter()


class Holder:
    """A consumer and what it holds. `at` is its queue."""

    def __init__(self, at: str, prefetch: int) -> None:
        self.at, self.prefetch = at, prefetch
        self.held: dict[bytes, Delivery] = {}
        self.settled: list[Delivery] = []
        self.consumer: Consumer | None = None

    @property
    def open(self) -> bool:
        return self.consumer is not None


class BusMachine(RuleBasedStateMachine):
    """Two queues that share a dead-letter queue. `counts` is the model: the messages of each queue, held or not, with
    how often each came back; `dead` those that must be in the dead-letter queue, with the reason.
    """

    opens: ClassVar[Callable[[], Transport]]
    on: ClassVar[asyncio.AbstractEventLoop]

    def __init__(self) -> None:
        super().__init__()
        mark = uuid.uuid4().hex[:8]
        self.name: Callable[[str], str] = lambda plain: f"{plain}.{mark}"
        self.counts: dict[str, dict[bytes, int]] = {"one": {}, "two": {}}
        self.fresh: dict[str, list[bytes]] = {"one": [], "two": []}
        self.dead: dict[tuple[str, bytes], str] = {}
        self.buried: dict[tuple[str, bytes], str] = {}
        self.holders: list[Holder] = []
        self.wrong: list[str] = []
        self.numbers = iter(range(1, 1_000_000))
        self.changed = asyncio.Event()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return type(self).on.run_until_complete(work)

    def inside(self, work: Callable[..., None], *given: Any, **more: Any) -> None:
        """On the loop, as a consumer's own code settles."""

        async def call() -> None:
            work(*given, **more)

        self.do(call())

    @initialize()
    def begin(self) -> None:
        name = self.name
        self.transport = type(self).opens()
        self.do(self.transport.start())
        queues = [
            Queue(name=name(queue), dead_letter_exchange=name("dead"), delivery_limit=LIMIT) for queue in self.counts
        ]
        self.do(
            self.transport.declare(
                Topology(
                    exchanges=(Exchange(name=name("events")), Exchange(name=name("dead"))),
                    queues=(Queue(name=name("graves")), *queues),
                    bindings=(
                        Binding(queue=name("graves"), exchange=name("dead"), key="#"),
                        Binding(queue=name("one"), exchange=name("events"), key="a.*"),
                        Binding(queue=name("two"), exchange=name("events"), key="#.b"),
                    ),
                )
            )
        )
        self.graves = self.do(self.transport.consume(name("graves"), self.bury, prefetch=200))
        for queue in ("one", "two"):
            self.consume(queue, 2)

    def teardown(self) -> None:
        if hasattr(self, "transport"):
            self.do(self.transport.stop())

    # -------------------------------------------------------------------------------------------------- what is heard

    def bury(self, delivery: Delivery) -> None:
        self.graves.ack([delivery])
        queue = str(delivery.headers["x-first-death-queue"]).split(".")[0]
        if (queue, delivery.body) in self.buried:
            self.wrong.append(f"{delivery.body!r} of {queue} was buried twice")
        self.buried[queue, delivery.body] = str(delivery.headers["x-first-death-reason"])
        self.changed.set()

    def take(self, holder: Holder, delivery: Delivery) -> None:
        body, known = delivery.body, self.counts[holder.at]
        if body not in known:
            self.wrong.append(f"{body!r} came again to {holder.at}, where it was settled")
        elif any(body in other.held for other in self.holders if other.at == holder.at):
            self.wrong.append(f"{body!r} of {holder.at} was given to two")
        elif (delivery.delivery_count, delivery.redelivered) != (known[body], known[body] > 0):
            self.wrong.append(f"{body!r} came back {known[body]} times and says {delivery.delivery_count}")
        if body in self.fresh[holder.at]:
            alone = sum(one.at == holder.at for one in self.holders) == 1
            if alone and self.fresh[holder.at][0] != body:
                self.wrong.append(f"{body!r} overtook {self.fresh[holder.at][0]!r} in {holder.at}")
            self.fresh[holder.at].remove(body)
        holder.held[body] = delivery
        self.changed.set()

    def settle(self) -> None:
        """Waits until every consumer has what it can have, and the dead-letter queue what belongs there."""

        async def watch() -> None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not self.wrong and not self.at_rest():
                    self.changed.clear()
                    await self.changed.wait()

        try:
            self.do(watch())
        except TimeoutError:
            held = {holder.at: sorted(holder.held) for holder in self.holders}
            self.wrong.append(f"held {held} of {self.counts}; buried {self.buried}, to bury {self.dead}")
        assert not self.wrong

    def at_rest(self) -> bool:
        for queue, messages in self.counts.items():
            held = sum(len(holder.held) for holder in self.holders if holder.at == queue)
            room = sum(holder.prefetch for holder in self.holders if holder.at == queue and holder.open)
            if held != min(room, len(messages)):
                return False
        return self.buried == self.dead

    # -------------------------------------------------------------------------------------------------- what is done

    @rule(key=st.sampled_from(sorted(ROUTES)), many=st.integers(1, 3))
    def messages_are_published(self, key: str, many: int) -> None:
        bodies = [b"m%d" % next(self.numbers) for _ in range(many)]
        for queue in ROUTES[key]:
            self.counts[queue] |= dict.fromkeys(bodies, 0)
            self.fresh[queue] += bodies
        told = self.do(self.transport.publish([Message(self.name("events"), key, body) for body in bodies]))
        assert told == [Published.CONFIRMED if ROUTES[key] else Published.UNROUTABLE] * many
        MET["published"] += many
        self.settle()

    @rule(queue=st.sampled_from(("one", "two")), prefetch=st.integers(1, 3))
    def a_consumer_begins(self, queue: str, prefetch: int) -> None:
        if sum(holder.open for holder in self.holders) < 4:
            self.consume(queue, prefetch)

    def consume(self, queue: str, prefetch: int) -> None:
        holder = Holder(queue, prefetch)
        self.holders.append(holder)
        work = self.transport.consume(self.name(queue), lambda one: self.take(holder, one), prefetch=prefetch)
        holder.consumer = self.do(work)
        self.settle()

    @precondition(lambda self: any(holder.open for holder in self.holders))
    @rule(data=st.data())
    def a_consumer_stops(self, data: st.DataObject) -> None:
        """What it held comes again, and that counts."""
        holder = data.draw(st.sampled_from([one for one in self.holders if one.open]))
        consumer, holder.consumer = holder.consumer, None
        assert consumer is not None
        holder.settled += holder.held.values()
        lost, holder.held = list(holder.held), {}
        for body in lost:
            self.came_back(holder.at, body)
        self.do(consumer.stop())
        MET["stopped with messages"] += bool(lost)
        self.settle()
        self.inside(consumer.ack, holder.settled)  # late: it means nothing
        self.settle()

    @precondition(lambda self: any(holder.held for holder in self.holders))
    @rule(data=st.data())
    def some_are_acknowledged(self, data: st.DataObject) -> None:
        holder, bodies = self.some(data)
        assert holder.consumer is not None
        for body in bodies:
            del self.counts[holder.at][body]
        MET["acknowledged"] += len(bodies)
        self.inside(holder.consumer.ack, self.put_down(holder, bodies))
        self.settle()

    @precondition(lambda self: any(holder.held for holder in self.holders))
    @rule(data=st.data(), requeue=st.sampled_from((True, True, False)), twice=st.booleans())
    def one_is_refused(self, data: st.DataObject, requeue: bool, twice: bool) -> None:
        holder, bodies = self.some(data)
        assert holder.consumer is not None
        [delivery] = self.put_down(holder, bodies[:1])
        if requeue:
            self.came_back(holder.at, delivery.body)
        else:
            del self.counts[holder.at][delivery.body]
            self.dead[holder.at, delivery.body] = "rejected"
        MET["given back" if requeue else "refused"] += 1
        self.inside(holder.consumer.reject, delivery, requeue=requeue)
        if twice and not requeue:
            self.inside(holder.consumer.ack, [delivery])  # it was settled: this means nothing
        self.settle()

    def came_back(self, queue: str, body: bytes) -> None:
        self.counts[queue][body] += 1
        if self.counts[queue][body] > LIMIT:
            del self.counts[queue][body]
            self.dead[queue, body] = "delivery_limit"
            MET["over the limit"] += 1

    def some(self, data: st.DataObject) -> tuple[Holder, list[bytes]]:
        holder = data.draw(st.sampled_from([one for one in self.holders if one.held]))
        number = data.draw(st.integers(1, len(holder.held)))
        return holder, sorted(holder.held)[:number]

    @staticmethod
    def put_down(holder: Holder, bodies: list[bytes]) -> list[Delivery]:
        found = [holder.held.pop(body) for body in bodies]
        holder.settled += found
        return found


def play(machine: type[BusMachine], examples: int, steps: int) -> None:
    MET.clear()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    fates = ("published", "acknowledged", "refused", "given back", "over the limit", "stopped with messages")
    assert not [fate for fate in fates if not MET[fate]], MET


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.mark.timeout(600)
def test_the_bus_of_a_simulated_world_is_the_dictionaries(loop: asyncio.AbstractEventLoop) -> None:
    class Machine(BusMachine):
        on = loop

        @staticmethod
        def opens() -> Transport:
            return SimTransport(SimBus(), Straight())

    play(Machine, examples=80, steps=40)


@pytest.mark.embedded
@pytest.mark.timeout(600)
def test_the_embedded_bus_is_the_dictionaries(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    numbers = iter(range(1_000))

    class Machine(BusMachine):
        on = loop

        @staticmethod
        def opens() -> Transport:
            return EmbeddedTransport(tmp_path / f"{next(numbers)}.db")

    play(Machine, examples=5, steps=40)


@pytest.mark.timeout(600)
def test_rabbitmq_is_the_dictionaries(rabbitmq_url: str, loop: asyncio.AbstractEventLoop) -> None:
    class Machine(BusMachine):
        on = loop

        @staticmethod
        def opens() -> Transport:
            return RabbitTransport(rabbitmq_url)

    play(Machine, examples=6, steps=30)
