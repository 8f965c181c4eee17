"""What becomes of a delivery to a module: it finds its handler, is tried again in place, and is settled after its
commit.

Not the handling itself (`contracts.sdk.handling`) and not the consumers (`contracts.sdk.module`, which hands each
delivery over). While the database is away a delivery waits, at a growing pace. What cannot be read is rejected into
the dead letters at once; what fails again and again follows after `max_attempts`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from contracts.envelope import Envelope, parse
from contracts.manifest import EventModel, Module
from contracts.problems import ContractUnknown, DuplicateMismatch, EnvelopeInvalid, PayloadInvalid
from contracts.registry import Registry
from contracts.sdk.call import CommandHandler, Early, FactHandler, HandlerBroken, OutsideHandler, Unanswered
from contracts.sdk.database import DatabaseUnavailable
from contracts.sdk.handling import Handling
from contracts.sdk.outbox import Relay, Stored
from contracts.sdk.pacing import Pace
from contracts.sdk.places import places
from contracts.sdk.queries import QueryDesk, QueryHandler
from contracts.sdk.settling import Settling
from contracts.sdk.tally import Tally
from contracts.sdk.tracing import Tracing
from contracts.sdk.transport import Delivery
from contracts.shapes import Shape
from contracts.traceparent import read

log = logging.getLogger("unwind.module")

RETRY_SECONDS = (0.1, 0.4, 1.6, 5.0)
"""Pauses before a handler that raised is tried again in place."""
EARLY_SECONDS = (0.1, 0.4, 1.6)
"""Pauses before a command that came before a fact it follows on is obeyed again."""


class Poison(Exception):
    """A message that failed as often as is allowed."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A fact of another module and who takes it in."""

    module: Module
    shape: Shape[EventModel]
    handler: FactHandler


@dataclass(frozen=True, slots=True)
class Handlers:
    """Who handles which message type, one each."""

    commands: dict[str, CommandHandler] = field(default_factory=dict)
    outside: dict[str, OutsideHandler] = field(default_factory=dict)
    queries: dict[str, QueryHandler] = field(default_factory=dict)
    subscriptions: dict[str, Subscription] = field(default_factory=dict)

    def registering(self, table: dict[str, Any], kind: str) -> Callable[[Any], Any]:
        """The decorator that enters a handler of `kind` into one of the tables."""

        def register(handler: Any) -> Any:
            if any(kind in known for known in (self.commands, self.outside, self.queries, self.subscriptions)):
                raise ValueError(f"{kind} has a handler already; one per type")
            table[kind] = handler
            return handler

        return register

    def missing(self, registry: Registry) -> list[str]:
        """The commands and queries that are declared and have no handler."""
        obeyed = self.commands.keys() | self.outside.keys()
        return sorted((registry.commands.keys() - obeyed) | (registry.queries.keys() - self.queries.keys()))


class Deliveries:
    """The deliveries that a module holds, `prefetch` of them at once. Each is a task of its own, so that a lost
    connection cancels no transaction.
    """

    def __init__(
        self,
        registry: Registry,
        handlers: Handlers,
        *,
        name: str,
        handling: Handling,
        desk: QueryDesk,
        relay: Relay,
        tally: Tally,
        prefetch: int,
        max_attempts: int,
    ) -> None:
        self._registry = registry
        self._handlers = handlers
        self._name = name
        self._handling = handling
        self._desk = desk
        self._relay = relay
        self._tally = tally
        self._prefetch = prefetch
        self._max_attempts = max_attempts
        self.tracing: Tracing | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._alone = asyncio.Lock()
        self._busy = asyncio.Semaphore(prefetch)
        self._draining = False

    def take(self, settling: Settling, delivery: Delivery) -> None:
        if self._draining:
            return  # left unsettled: it returns to the queue when the consumer stops
        task = asyncio.create_task(self._settle(settling, delivery), name=f"{self._name}-delivery")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, deadline_seconds: float) -> None:
        """Takes nothing new and lets what is in hand end."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=deadline_seconds)

    async def abandon(self) -> None:
        """Ends what is still in hand: unsettled, so it comes again."""
        late = list(self._tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _settle(self, settling: Settling, delivery: Delivery) -> None:
        try:
            await self._handle(delivery)
        except (EnvelopeInvalid, ContractUnknown, PayloadInvalid, DuplicateMismatch, HandlerBroken, Poison) as reason:
            self._tally.add("dead")
            log.error(
                "%s: a delivery with key %s becomes a dead letter: %s",
                self._name,
                delivery.routing_key,
                reason,
                extra=self._places_of(delivery),
            )
            settling.reject(delivery)
        else:
            self._tally.add("handled")
            settling.ack(delivery)

    async def _handle(self, delivery: Delivery) -> None:
        envelope = parse(delivery.body, delivery.headers)
        if self.tracing is None:
            await self._obey(envelope, delivery)
            return
        began, parent = datetime.now(UTC), read(envelope.traceparent)
        context, failed = self.tracing.fresh(parent), True
        try:
            # What is answered and said goes on from here.
            await self._obey(replace(envelope, traceparent=context.traceparent), delivery)
            failed = False
        finally:
            self.tracing.record(
                f"handle {envelope.type}",
                context,
                began=began,
                ended=datetime.now(UTC),
                parent=parent,
                kind="consumer",
                failed=failed,
                tenant=envelope.tenantid,
            )

    async def _obey(self, envelope: Envelope, delivery: Delivery) -> None:
        asked = self._handlers.queries.get(envelope.type)
        if asked is not None:
            async with self._busy:
                await self._desk.answer(self._registry.query(envelope.type), asked, envelope, delivery)
            return
        pace = Pace()
        failures = early = 0
        began_before = 0
        if delivery.redelivered or delivery.delivery_count:
            began_before = await self._count_attempt(envelope)
        while True:
            try:
                stored = await self._work(
                    envelope, delivery.delivery_count + 1, alone=began_before > 1, patient=early < len(EARLY_SECONDS)
                )
                self._relay.hand_over(stored)
                return
            except Early:
                # Not in hand meanwhile: what it follows on may need the place.
                early += 1
                await asyncio.sleep(EARLY_SECONDS[early - 1])
            except Unanswered as reason:
                log.info(
                    "%s: %s is left unanswered: %s", self._name, envelope.type, reason, extra=self._places(envelope)
                )
                return
            except DatabaseUnavailable as error:
                log.warning(
                    "%s: %s waits for the database: %s", self._name, envelope.type, error, extra=self._places(envelope)
                )
                await pace.pause()
            except (EnvelopeInvalid, ContractUnknown, PayloadInvalid, DuplicateMismatch, HandlerBroken):
                raise
            except Exception as error:
                failures += 1
                if failures >= self._max_attempts:
                    raise Poison(f"{type(error).__name__} {failures} times over") from error
                log.warning(
                    "%s: the handler of %s raised %s",
                    self._name,
                    envelope.type,
                    type(error).__name__,
                    extra=self._places(envelope, error),
                )
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1])

    def _places(self, envelope: Envelope, error: BaseException | None = None) -> dict[str, Any]:
        return places(envelope, command=envelope.type in self._registry.commands, error=error)

    def _places_of(self, delivery: Delivery) -> dict[str, Any]:
        try:
            return self._places(parse(delivery.body, delivery.headers))
        except EnvelopeInvalid:
            return {}

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

    async def _work(self, envelope: Envelope, delivery: int, *, alone: bool, patient: bool) -> list[Stored]:
        if not alone:
            async with self._busy:
                return await self._dispatch(envelope, delivery, patient=patient)
        # A suspect takes every place first, so that a crash it causes is counted against it alone.
        async with self._alone:
            taken = 0
            try:
                while taken < self._prefetch:
                    await self._busy.acquire()
                    taken += 1
                return await self._dispatch(envelope, delivery, patient=patient)
            finally:
                for _ in range(taken):
                    self._busy.release()

    async def _dispatch(self, envelope: Envelope, delivery: int, *, patient: bool) -> list[Stored]:
        kind, handlers, handling = envelope.type, self._handlers, self._handling
        if kind in handlers.commands:
            return await handling.obey(
                self._registry.command(kind), handlers.commands[kind], envelope, delivery, patient=patient
            )
        if kind in handlers.outside:
            return await handling.perform(
                self._registry.command(kind), handlers.outside[kind], envelope, delivery, patient=patient
            )
        subscription = handlers.subscriptions.get(kind)
        if subscription is None:
            raise ContractUnknown(f"{kind}: module {self._name} has no handler for it", message_type=kind)
        if envelope.source != subscription.module.source:
            raise EnvelopeInvalid("source", f"must be {subscription.module.source}, the one publisher of {kind}")
        return await handling.take_in(subscription.shape, subscription.handler, envelope, delivery)
