"""A module as a service: what a developer writes handlers with, in a process of its own or as a task among others.

    service = Service(MODULE, transport=open_transport(url), database=open_database(database_url))

    @service.handles(CreateUserV1)
    async def create_user(command: CreateUserV1, call: Call, tx: Tx) -> UserCreatedV1: ...

    asyncio.run(service.run())      # until SIGTERM or SIGINT, then it drains

Deliveries become tasks that the service owns, so that a lost connection cancels no transaction. A delivery is settled
after its commit. While the bus or the database is away the service waits, at a growing pace, and loses nothing. What
cannot be read is rejected into the dead letters; what fails again and again follows after `max_attempts`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from contracts.envelope import Envelope, parse
from contracts.manifest import CommandModel, EventModel, Module, QueryModel
from contracts.problems import ContractUnknown, DuplicateMismatch, EnvelopeInvalid, PayloadInvalid, Unavailable
from contracts.registry import Registry
from contracts.sdk.database import Database, DatabaseUnavailable, Tx
from contracts.sdk.handling import (
    Answering,
    Before,
    CommandHandler,
    FactHandler,
    HandlerBroken,
    Handling,
    OutsideHandler,
    Unanswered,
    make_envelope,
    outgoing,
)
from contracts.sdk.outbox import Outbox, Relay, Stored
from contracts.sdk.pacing import Pace
from contracts.sdk.queries import QueryDesk, QueryHandler
from contracts.sdk.tally import Tally
from contracts.sdk.topology import module_queue, module_topology, query_queue
from contracts.sdk.transport import Consumer, Delivery, Transport
from contracts.shapes import Shape

log = logging.getLogger("unwind.module")

CommandHandlerT = TypeVar("CommandHandlerT", bound=CommandHandler)
OutsideHandlerT = TypeVar("OutsideHandlerT", bound=OutsideHandler)
QueryHandlerT = TypeVar("QueryHandlerT", bound=QueryHandler)
FactHandlerT = TypeVar("FactHandlerT", bound=FactHandler)

RETRY_SECONDS = (0.1, 0.4, 1.6, 5.0)
"""Pauses before a handler that raised is tried again in place."""


class Poison(Exception):
    """A message that failed as often as is allowed."""


@dataclass(frozen=True, slots=True)
class _Subscription:
    module: Module
    shape: Shape[EventModel]
    handler: FactHandler


class Service:
    """One module at work. `transport` is started, and stopped, by the service unless it is `ready` already."""

    def __init__(
        self,
        module: Module,
        *,
        transport: Transport,
        database: Database,
        schemas: Sequence[str] = (),
        prefetch: int = 32,
        max_attempts: int = 5,
        drain_seconds: float = 15.0,
        relay_lease_seconds: float = 10.0,
    ) -> None:
        self.module = module
        self.transport = transport
        self.database = database
        self.tally = Tally()
        self._registry = Registry((module,))
        self._schemas = tuple(schemas)
        self._prefetch = prefetch
        self._max_attempts = max_attempts
        self._drain_seconds = drain_seconds
        self._outbox = Outbox(database, lease_seconds=relay_lease_seconds)
        self._handling = Handling(module, self._outbox, self.tally)
        self._desk = QueryDesk(module, database, transport)
        self.relay = Relay(
            self._outbox, transport, self.tally, name=module.name, poll_seconds=min(1.0, relay_lease_seconds)
        )
        self._commands: dict[str, CommandHandler] = {}
        self._outside: dict[str, OutsideHandler] = {}
        self._queries: dict[str, QueryHandler] = {}
        self._subscriptions: dict[str, _Subscription] = {}
        self._consumers: dict[str, Consumer] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._background: list[asyncio.Task[None]] = []
        self._alone = asyncio.Lock()
        self._busy = asyncio.Semaphore(prefetch)
        self._draining = False
        self._owns_transport = False
        self._ready = asyncio.Event()

    # ------------------------------------------------------------------------------------------------ what it does

    def handles(self, model: type[CommandModel]) -> Callable[[CommandHandlerT], CommandHandlerT]:
        """`async def handler(command, call, tx) -> outcome`: effect, answer and memory commit together."""
        return _registering(self._commands, self._command_type(model))

    def performs(self, model: type[CommandModel]) -> Callable[[OutsideHandlerT], OutsideHandlerT]:
        """`async def handler(command, call) -> outcome`, for an effect that no transaction can hold: done at least
        once, under `call.key`, and remembered after.
        """
        return _registering(self._outside, self._command_type(model))

    def answers(self, model: type[QueryModel]) -> Callable[[QueryHandlerT], QueryHandlerT]:
        """`async def handler(query, question, tx) -> answer`."""
        kind = self.module.type_of(model)
        self._registry.query(kind)
        return _registering(self._queries, kind)

    def on(self, module: Module, model: type[EventModel]) -> Callable[[FactHandlerT], FactHandlerT]:
        """`async def handler(fact, call, tx)`: a fact of `module`, taken in once per event id."""
        kind = module.type_of(model)

        def register(handler: FactHandlerT) -> FactHandlerT:
            if kind in self._subscriptions:
                raise ValueError(f"{kind} has a handler already; one per type")
            self._subscriptions[kind] = _Subscription(module, Shape(kind, model), handler)
            return handler

        return register

    def rehearse(self, before: Before, answering: Answering) -> None:
        """Lets failures be scripted: `before` runs ahead of each fresh command and may raise, `answering` may change
        what is sent. Not for production.
        """
        self._handling.before = before
        self._handling.answering = answering

    async def publish(
        self,
        fact: EventModel,
        *,
        tenant: str,
        caused_by: Envelope | None = None,
        correlation_id: str | None = None,
        subject: str | None = None,
        event_id: str | None = None,
        tx: Tx | None = None,
    ) -> str:
        """Publishes a fact and answers its event id. It is durable when this returns (in `tx`, when that commits) and
        sent soon after, also by the next process when this one dies. The same `event_id` is the same fact.
        """
        self._registry.event(self.module.type_of(fact))
        envelope = make_envelope(
            self.module,
            fact,
            event_id=event_id or str(uuid4()),
            tenant=tenant,
            caused_by=caused_by,
            correlation_id=correlation_id,
            subject=subject,
        )
        if tx is not None:
            # Only the caller knows when its transaction commits; the relay finds the row when the claim runs out.
            await self._outbox.put(tx, [outgoing(envelope)], held=False)
            return envelope.id
        async with self.database.transaction() as own:
            stored = await self._outbox.put(own, [outgoing(envelope)])
        self.relay.hand_over(stored)
        return envelope.id

    # ------------------------------------------------------------------------------------------------ its life

    @property
    def ready(self) -> bool:
        """Takes deliveries, and bus and consumers are alive."""
        return (
            self._ready.is_set()
            and not self._draining
            and self.transport.ready
            and all(consumer.alive for consumer in self._consumers.values())
        )

    async def until_ready(self) -> None:
        """Returns when the service takes deliveries for the first time."""
        await self._ready.wait()

    @property
    def outbox(self) -> Outbox:
        return self._outbox

    async def start(self) -> None:
        """Waits for bus and database, however long they take, then takes deliveries. Raises `TopologyMismatch` and
        what is wrong with the schema: no waiting helps there.
        """
        self._check_complete()
        schemas = (self._outbox.sql["schema"], *self._schemas)
        await self._eventually("its database", lambda: self.database.open(schemas))
        if not self.transport.ready:
            self._owns_transport = True
            await self._eventually("the bus", self.transport.start)
        await self._eventually("the bus", self._declare)
        self._background.append(asyncio.create_task(self.relay.run(), name=f"{self.module.name}-relay"))
        await self._eventually("the bus", self._consume)
        self._background.append(asyncio.create_task(self._watch(), name=f"{self.module.name}-watch"))
        self._ready.set()
        log.info("module %s is ready", self.module.name)

    async def stop(self) -> None:
        """Takes nothing new, finishes what it holds, sends what is committed. Twice is fine."""
        if self._draining:
            return
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._drain_seconds)
        if self._background:
            await self.relay.drained(self._drain_seconds)
        await asyncio.sleep(0)  # let the acknowledgements of the last tasks leave before their channel does
        for consumer in self._consumers.values():
            await consumer.stop()
        late = [*self._tasks, *self._background]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if self._owns_transport:
            await self.transport.stop()
        await self.database.close()
        self._ready.clear()
        log.info("module %s has stopped", self.module.name)

    async def run(self) -> None:
        """Works until SIGTERM or SIGINT, then drains. A second signal ends the process at once."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()

        def on_signal() -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            stopping.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        starting = asyncio.create_task(self.start(), name=f"{self.module.name}-start")
        signalled = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait((starting, signalled), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                await signalled
        finally:
            starting.cancel()
            signalled.cancel()
            await asyncio.gather(starting, signalled, return_exceptions=True)
            await self.stop()

    # ------------------------------------------------------------------------------------------------ deliveries

    def _on_delivery(self, consumer: asyncio.Future[Consumer], delivery: Delivery) -> None:
        if self._draining:
            return  # left unsettled: it returns to the queue when the consumer stops
        task = asyncio.create_task(self._settle(consumer, delivery), name=f"{self.module.name}-delivery")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle(self, consumer: asyncio.Future[Consumer], delivery: Delivery) -> None:
        try:
            await self._handle(delivery)
        except (EnvelopeInvalid, ContractUnknown, PayloadInvalid, DuplicateMismatch, HandlerBroken, Poison) as reason:
            self.tally.add("dead")
            log.error(
                "%s: a delivery with key %s becomes a dead letter: %s", self.module.name, delivery.routing_key, reason
            )
            (await consumer).reject(delivery, requeue=False)
        else:
            self.tally.add("handled")
            (await consumer).ack([delivery])

    async def _handle(self, delivery: Delivery) -> None:
        envelope = parse(delivery.body, delivery.headers)
        if envelope.type in self._queries:
            entry = self._registry.query(envelope.type)
            async with self._busy:
                await self._desk.answer(entry, self._queries[envelope.type], envelope, delivery)
            return
        pace = Pace()
        failures = 0
        began_before = 0
        if delivery.redelivered or delivery.delivery_count:
            began_before = await self._count_attempt(envelope)
        while True:
            try:
                stored = await self._work(envelope, delivery.delivery_count + 1, alone=began_before > 1)
                self.relay.hand_over(stored)
                return
            except Unanswered as reason:
                log.info("%s: %s is left unanswered: %s", self.module.name, envelope.type, reason)
                return
            except DatabaseUnavailable as error:
                log.warning("%s: %s waits for the database: %s", self.module.name, envelope.type, error)
                await pace.pause()
            except (EnvelopeInvalid, ContractUnknown, PayloadInvalid, DuplicateMismatch, HandlerBroken):
                raise
            except Exception as error:
                failures += 1
                if failures >= self._max_attempts:
                    raise Poison(f"{type(error).__name__} {failures} times over: {error}") from error
                log.warning("%s: the handler of %s failed", self.module.name, envelope.type, exc_info=error)
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1])

    async def _count_attempt(self, envelope: Envelope) -> int:
        """How often a delivery of it was begun and not finished. A message that ends the process each time is given up
        long before its innocent neighbours reach the broker's limit.
        """
        pace = Pace()
        while True:
            try:
                attempts = await self._handling.begin_attempt(envelope)
            except DatabaseUnavailable:
                await pace.pause()
                continue
            if attempts > self._max_attempts:
                raise Poison(f"begun {attempts} times and never finished")
            return attempts

    async def _work(self, envelope: Envelope, delivery: int, *, alone: bool) -> list[Stored]:
        if not alone:
            async with self._busy:
                return await self._dispatch(envelope, delivery)
        # A suspect takes every place first, so that a crash it causes is counted against it alone.
        async with self._alone:
            taken = 0
            try:
                while taken < self._prefetch:
                    await self._busy.acquire()
                    taken += 1
                return await self._dispatch(envelope, delivery)
            finally:
                for _ in range(taken):
                    self._busy.release()

    async def _dispatch(self, envelope: Envelope, delivery: int) -> list[Stored]:
        kind = envelope.type
        if kind in self._commands:
            return await self._handling.obey(self._registry.command(kind), self._commands[kind], envelope, delivery)
        if kind in self._outside:
            return await self._handling.perform(self._registry.command(kind), self._outside[kind], envelope, delivery)
        subscription = self._subscriptions.get(kind)
        if subscription is None:
            raise ContractUnknown(f"{kind}: module {self.module.name} has no handler for it", message_type=kind)
        if envelope.source != subscription.module.source:
            raise EnvelopeInvalid("source", f"must be {subscription.module.source}, the one publisher of {kind}")
        return await self._handling.take_in(subscription.shape, subscription.handler, envelope, delivery)

    # ------------------------------------------------------------------------------------------------ plumbing

    def _command_type(self, model: type[CommandModel]) -> str:
        kind = self.module.type_of(model)
        self._registry.command(kind)
        if kind in self._commands or kind in self._outside:
            raise ValueError(f"{kind} has a handler already; one per type")
        return kind

    def _check_complete(self) -> None:
        obeyed = self._commands.keys() | self._outside.keys()
        missing = sorted(
            (self._registry.commands.keys() - obeyed) | (self._registry.queries.keys() - self._queries.keys())
        )
        if missing:
            raise ContractUnknown(
                f"module {self.module.name} declares {', '.join(missing)} but handles none of them; add the handlers"
            )

    async def _declare(self) -> None:
        await self.transport.declare(
            module_topology(
                self.module.name,
                commands=self._commands.keys() | self._outside.keys(),
                queries=self._queries.keys(),
                listens_to=self._subscriptions.keys(),
            )
        )

    async def _consume(self) -> None:
        for queue in (module_queue(self.module.name), query_queue(self.module.name)):
            known = self._consumers.get(queue)
            if (queue == query_queue(self.module.name) and not self._queries) or (known is not None and known.alive):
                continue
            # Deliveries may come before `consume` answers with the consumer that settles them.
            consumer: asyncio.Future[Consumer] = asyncio.get_running_loop().create_future()
            try:
                self._consumers[queue] = await self.transport.consume(
                    queue, partial(self._on_delivery, consumer), prefetch=self._prefetch
                )
            except BaseException:
                consumer.cancel()
                raise
            consumer.set_result(self._consumers[queue])

    async def _watch(self) -> None:
        """Consumes again when a consumer died under a living connection (its queue was deleted, say)."""
        # Draining ends it as well as cancelling does: a consumer that `stop` has stopped is not lost, and the client
        # library may swallow a cancellation that comes while it declares.
        while not self._draining:
            await asyncio.sleep(1.0)
            if self._draining or not self.transport.ready:
                continue
            if not all(consumer.alive for consumer in self._consumers.values()):
                log.warning("module %s lost a consumer; it consumes again", self.module.name)
                try:
                    await self._declare()
                    if not self._draining:
                        await self._consume()
                except Unavailable as error:
                    log.warning("module %s cannot consume yet: %s", self.module.name, error)

    async def _eventually(self, what: str, attempt: Callable[[], Awaitable[None]]) -> None:
        pace = Pace()
        while True:
            try:
                return await attempt()
            except Unavailable as error:
                log.warning("module %s waits for %s: %s", self.module.name, what, error)
                await pace.pause()


def _registering(table: dict[str, Any], kind: str) -> Callable[[Any], Any]:
    def register(handler: Any) -> Any:
        if kind in table:
            raise ValueError(f"{kind} has a handler already; one per type")
        table[kind] = handler
        return handler

    return register
