"""A module as a service: what a developer writes handlers with, in a process of its own or as a task among others.

    service = Service(MODULE, transport=open_transport(url), database=open_database(database_url))

    @service.handles(CreateUserV1)
    async def create_user(command: CreateUserV1, call: Call, tx: Tx) -> UserCreatedV1: ...

    asyncio.run(service.run())      # until SIGTERM or SIGINT, then it drains

What becomes of one delivery is told in `contracts.sdk.deliveries`. While the bus or the database is away the service
waits, at a growing pace, and loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar
from uuid import uuid4

from contracts.envelope import Envelope
from contracts.manifest import CommandModel, EventModel, Module, QueryModel
from contracts.problems import ContractUnknown, Unavailable
from contracts.registry import Registry
from contracts.sdk.call import Answering, Before, CommandHandler, FactHandler, OutsideHandler
from contracts.sdk.database import Database, Tx
from contracts.sdk.deliveries import Deliveries, Handlers, Subscription
from contracts.sdk.handling import Handling, make_envelope, outgoing
from contracts.sdk.outbox import Outbox, Relay
from contracts.sdk.pacing import Pace
from contracts.sdk.queries import QueryDesk, QueryHandler
from contracts.sdk.settling import Settling
from contracts.sdk.tally import Tally
from contracts.sdk.topology import module_queue, module_topology, query_queue
from contracts.sdk.tracing import Tracing
from contracts.sdk.transport import Consumer, Transport
from contracts.shapes import Shape

log = logging.getLogger("unwind.module")

CommandHandlerT = TypeVar("CommandHandlerT", bound=CommandHandler)
OutsideHandlerT = TypeVar("OutsideHandlerT", bound=OutsideHandler)
QueryHandlerT = TypeVar("QueryHandlerT", bound=QueryHandler)
FactHandlerT = TypeVar("FactHandlerT", bound=FactHandler)


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
        self._drain_seconds = drain_seconds
        self._outbox = Outbox(database, lease_seconds=relay_lease_seconds)
        self._handling = Handling(module, self._outbox, self.tally)
        self.relay = Relay(
            self._outbox, transport, self.tally, name=module.name, poll_seconds=min(1.0, relay_lease_seconds)
        )
        self._handlers = Handlers()
        self._deliveries = Deliveries(
            self._registry,
            self._handlers,
            name=module.name,
            handling=self._handling,
            desk=QueryDesk(module, database, transport, self._handling.alone),
            relay=self.relay,
            tally=self.tally,
            prefetch=prefetch,
            max_attempts=max_attempts,
        )
        self._consumers: dict[str, Consumer] = {}
        self._settling: dict[str, Settling] = {}
        self._background: list[asyncio.Task[None]] = []
        self._draining = False
        self._owns_transport = False
        self._ready = asyncio.Event()

    # ------------------------------------------------------------------------------------------------ what it does

    def handles(self, model: type[CommandModel]) -> Callable[[CommandHandlerT], CommandHandlerT]:
        """`async def handler(command, call, tx) -> outcome`: effect, answer and memory commit together."""
        return self._handlers.registering(self._handlers.commands, self._command_type(model))

    def performs(self, model: type[CommandModel]) -> Callable[[OutsideHandlerT], OutsideHandlerT]:
        """`async def handler(command, call) -> outcome`, for an effect that no transaction can hold: done at least
        once, under `call.key`, and remembered after.
        """
        return self._handlers.registering(self._handlers.outside, self._command_type(model))

    def answers(self, model: type[QueryModel]) -> Callable[[QueryHandlerT], QueryHandlerT]:
        """`async def handler(query, question, tx) -> answer`."""
        kind = self.module.type_of(model)
        self._registry.query(kind)
        return self._handlers.registering(self._handlers.queries, kind)

    def on(self, module: Module, model: type[EventModel]) -> Callable[[FactHandlerT], FactHandlerT]:
        """`async def handler(fact, call, tx)`: a fact of `module`, taken in once per event id."""
        kind = module.type_of(model)
        enter = self._handlers.registering(self._handlers.subscriptions, kind)

        def register(handler: FactHandlerT) -> FactHandlerT:
            enter(Subscription(module, Shape(kind, model), handler))
            return handler

        return register

    def trace(self, tracing: Tracing) -> None:
        """Sends spans of what it takes and says to `tracing`, in the traces that messages carry. Call it before
        `start`; whoever made `tracing` stops it.
        """
        self._deliveries.tracing = tracing
        self.relay.tracing = tracing

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
        missing = self._handlers.missing(self._registry)
        if missing:
            raise ContractUnknown(
                f"module {self.module.name} declares {', '.join(missing)} but handles none of them; add the handlers"
            )
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
        await self._deliveries.drain(self._drain_seconds)
        if self._background:
            await self.relay.drained(self._drain_seconds)
        for settling in self._settling.values():
            settling.flush()
        await asyncio.sleep(0)  # let the last acknowledgements leave before their channel does
        for consumer in self._consumers.values():
            await consumer.stop()
        await self._deliveries.abandon()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
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

    # ------------------------------------------------------------------------------------------------ plumbing

    def _command_type(self, model: type[CommandModel]) -> str:
        kind = self.module.type_of(model)
        self._registry.command(kind)
        return kind

    async def _declare(self) -> None:
        await self.transport.declare(
            module_topology(
                self.module.name,
                commands=self._handlers.commands.keys() | self._handlers.outside.keys(),
                queries=self._handlers.queries.keys(),
                listens_to=self._handlers.subscriptions.keys(),
            )
        )

    async def _consume(self) -> None:
        queues = [module_queue(self.module.name)]
        if self._handlers.queries:
            queues.append(query_queue(self.module.name))
        for queue in queues:
            known = self._consumers.get(queue)
            if known is not None and known.alive:
                continue
            settling = Settling(self._prefetch)
            consumer = await self.transport.consume(
                queue, partial(self._deliveries.take, settling), prefetch=self._prefetch
            )
            settling.attach(consumer)
            self._consumers[queue], self._settling[queue] = consumer, settling

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
