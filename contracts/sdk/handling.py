"""How a module obeys one command: the handled key, the effect and the answer in one commit, once per key.

    fresh key      -> handler -> success or irrecoverable: remembered, answered; retryable: rolled back, answered only
    known key      -> the remembered answer again, the same bytes under the same event id
    tombstone      -> refused: an undo came before the order it undoes
    undo           -> gets what the order left behind as its receipt; for an unknown key it leaves a tombstone

It also takes facts in once per event id. It knows no broker: `contracts.sdk.deliveries` feeds it and settles them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4, uuid5

import orjson

from contracts.envelope import Envelope, parse
from contracts.manifest import EventModel, FailureModel, Module, UndoModel
from contracts.problems import DuplicateMismatch
from contracts.registry import CommandEntry
from contracts.sdk.call import (
    IDS,
    UNDO_SUFFIX,
    Answering,
    Before,
    Call,
    CommandHandler,
    Early,
    FactHandler,
    HandlerBroken,
    OutsideHandler,
    PutOff,
    Refused,
    Retryable,
)
from contracts.sdk.database import Lent, Tx
from contracts.sdk.outbox import Outbox, Outgoing, Stored
from contracts.sdk.tally import Tally
from contracts.sdk.transport import EVENTS_EXCHANGE
from contracts.shapes import Shape


def make_envelope(
    module: Module,
    model: EventModel,
    *,
    event_id: str,
    tenant: str,
    caused_by: Envelope | None = None,
    correlation_id: str | None = None,
    subject: str | None = None,
) -> Envelope:
    """An envelope of this module around one event; the story (correlation, trace) is inherited from the cause."""
    return Envelope(
        id=event_id,
        source=module.source,
        type=module.type_of(model),
        tenantid=tenant,
        time=datetime.now(UTC),
        data=model.model_dump(mode="json"),
        subject=subject,
        correlationid=caused_by.correlationid or caused_by.id if caused_by is not None else correlation_id or event_id,
        causationid=caused_by.id if caused_by is not None else None,
        traceparent=caused_by.traceparent if caused_by is not None else None,
    )


def outgoing(envelope: Envelope, *, reply: bool = False) -> Outgoing:
    return Outgoing(
        event_id=envelope.id,
        exchange=EVENTS_EXCHANGE,
        routing_key=envelope.type,
        body=envelope.to_json(),
        reply=reply,
    )


class Handling:
    """The rules above, over one module's database. `before` and `answering` are the seams where rehearsals script
    failures: the first runs outside the transaction and may raise, the second may change what is sent.
    """

    def __init__(self, module: Module, outbox: Outbox, tally: Tally) -> None:
        self.before: Before | None = None
        self.answering: Answering | None = None
        self._module = module
        self._tally = tally
        self._outbox = outbox
        self._sql = outbox.sql
        self._database = outbox.database
        self._locks: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}

    async def obey(
        self, entry: CommandEntry, handler: CommandHandler, envelope: Envelope, delivery: int, *, patient: bool = False
    ) -> list[Stored]:
        """What is to be handed to the relay. Raises `PayloadInvalid` and `DuplicateMismatch` (dead letters),
        `DatabaseUnavailable`, `Unanswered`, and whatever the handler raises; `Early` only where the caller is `patient`
        and asks again.
        """
        command = entry.shape.read(envelope.data)
        call = self._call(envelope, delivery)
        if self.before is not None and await self._is_fresh(call):
            try:
                await self.before(call, entry.command)
            except (Retryable, Refused) as failure:
                return await self._fail(entry, call, failure, patient=patient)
        try:
            async with self._database.transaction() as tx:
                known = await self._claim(tx, entry, call)
                if known is not None:
                    return await self._answer_known(tx, entry, call, known)
                if isinstance(command, UndoModel):
                    command = await self._with_receipt(tx, command, call)
                lent = Lent(tx)
                try:
                    event = await handler(command, call, lent)
                except Refused as failure:
                    # The refusal is remembered in the transaction that claimed the key: copies wait for it and agree.
                    await lent.take_back()
                    call.facts.clear()
                    event = _outcome(entry, failure)
                if type(event) in entry.command.failures:
                    assert isinstance(event, FailureModel)
                    raise Retryable(event.code, event.message, outcome=event)
                return await self._remember(tx, entry, call, event)
        except Retryable as failure:
            return await self._fail(entry, call, failure, patient=patient)

    async def perform(
        self, entry: CommandEntry, handler: OutsideHandler, envelope: Envelope, delivery: int, *, patient: bool = False
    ) -> list[Stored]:
        """The same for an effect outside the database (a mail, an HTTP call): done first, remembered after, so at
        least once; the call's key is what makes the far side see it once.
        """
        command = entry.shape.read(envelope.data)
        call = self._call(envelope, delivery)
        async with self.alone(call.tenant, call.key):
            async with self._database.transaction() as tx:
                row = await tx.row(self._sql["find_handled"], call.tenant, call.key)
                if row is not None:
                    return await self._answer_known(tx, entry, call, self._same_order(entry, call, row))
            try:
                if self.before is not None:
                    await self.before(call, entry.command)
                event = await handler(command, call)
                if type(event) in entry.command.failures:
                    assert isinstance(event, FailureModel)
                    raise Retryable(event.code, event.message, outcome=event)
            except (Retryable, Refused) as failure:
                return await self._fail(entry, call, failure, patient=patient)
            async with self._database.transaction() as tx:
                known = await self._claim(tx, entry, call)
                if known is not None:
                    return await self._answer_known(tx, entry, call, known)
                return await self._remember(tx, entry, call, event)

    async def take_in(
        self, shape: Shape[EventModel], handler: FactHandler, envelope: Envelope, delivery: int
    ) -> list[Stored]:
        """A fact, once per (tenant, source, event id)."""
        fact = shape.read(envelope.data)
        call = Call(envelope=envelope, module=self._module, key=f"{envelope.source}/{envelope.id}", delivery=delivery)
        async with self._database.transaction() as tx:
            fresh = await tx.run(self._sql["claim_event"], call.tenant, envelope.source, envelope.id, datetime.now(UTC))
            if not fresh:
                return []
            await handler(fact, call, tx)
            stored = await self._outbox.put(tx, self._facts(call))
            await tx.run(self._sql["forget_attempts"], call.tenant, envelope.id)
        return stored

    async def begin_attempt(self, envelope: Envelope) -> int:
        """Counts, durably, that a delivery that came before is begun again. The first delivery is not counted."""
        async with self._database.transaction() as tx:
            row = await tx.row(self._sql["begin_attempt"], envelope.tenantid, envelope.id)
        assert row is not None
        return int(row["attempts"])

    def _call(self, envelope: Envelope, delivery: int) -> Call:
        return Call(envelope=envelope, module=self._module, key=envelope.subject or envelope.id, delivery=delivery)

    async def _is_fresh(self, call: Call) -> bool:
        async with self._database.transaction() as tx:
            return await tx.row(self._sql["find_handled"], call.tenant, call.key) is None

    async def _claim(self, tx: Tx, entry: CommandEntry, call: Call) -> dict[str, Any] | None:
        """None: the key is ours. Otherwise what is remembered under it."""
        now = datetime.now(UTC)
        claimed = await tx.run(
            self._sql["claim_key"],
            call.tenant,
            call.key,
            call.envelope.id,
            entry.type,
            _digest(call.envelope),
            "handling",
            now,
        )
        if claimed:
            return None
        row = await tx.row(self._sql["find_handled"], call.tenant, call.key)
        assert row is not None
        return self._same_order(entry, call, row)

    def _same_order(self, entry: CommandEntry, call: Call, row: Any) -> dict[str, Any]:
        known = dict(row)
        # An undo may be told more when it is sent again (a receipt that arrived late); a do never changes.
        changed = bytes(known["digest"]) != _digest(call.envelope) and not issubclass(entry.command.model, UndoModel)
        if known["outcome"] != "tombstone" and (known["type"] != entry.type or changed):
            raise DuplicateMismatch(
                f"key {call.key} was used for another {known['type']}; give every order a key of its own",
                field="subject",
            )
        return known

    async def _answer_known(self, tx: Tx, entry: CommandEntry, call: Call, known: dict[str, Any]) -> list[Stored]:
        if known["outcome"] == "tombstone":
            self._tally.add("tombstoned")
            refusals = entry.command.irrecoverable
            if not refusals:
                return []
            why = "it was undone, or closed as not done, before it came"
            refusal = _failure(refusals[0], "undone_before_done", why)
            envelope = self._reply(call, refusal, str(uuid5(IDS, f"{call.envelope.id}/undone")))
            return await self._outbox.put(tx, [outgoing(envelope, reply=True)])
        self._tally.add("resent")
        again = Outgoing(
            event_id=known["reply_id"],
            exchange=EVENTS_EXCHANGE,
            routing_key=known["reply_type"],
            body=bytes(known["reply"]),
            reply=True,
        )
        return await self._outbox.put(tx, [again])

    async def _with_receipt(self, tx: Tx, command: Any, call: Call) -> Any:
        """The undo with what the order left behind, as this module remembers it; a tombstone when it remembers
        nothing.
        """
        if not call.key.endswith(UNDO_SUFFIX):
            return command
        undone = call.key.removesuffix(UNDO_SUFFIX)
        await tx.run(
            self._sql["claim_key"],
            call.tenant,
            undone,
            call.envelope.id,
            self._module.type_of(type(command.input)),
            b"",
            "tombstone",
            datetime.now(UTC),
        )
        row = await tx.row(self._sql["find_handled"], call.tenant, undone)
        assert row is not None
        if row["outcome"] != "success":
            return command
        call.receipt_known = True
        if command.receipt is not None:
            return command
        data = parse(bytes(row["reply"])).data
        return type(command).model_validate_json(orjson.dumps({**command.model_dump(mode="json"), "receipt": data}))

    async def _remember(self, tx: Tx, entry: CommandEntry, call: Call, event: EventModel) -> list[Stored]:
        if type(event) not in entry.command.outcomes:
            declared = ", ".join(model.__name__ for model in entry.command.outcomes)
            raise HandlerBroken(
                f"the handler of {entry.type} answered {type(event).__name__}; declared outcomes are {declared}"
            )
        facts = self._facts(call)
        # Derived from the command's id: every delivery of it is answered under one event id.
        reply = self._reply(call, event, str(uuid5(IDS, f"{call.envelope.id}/reply")))
        answer = outgoing(reply, reply=True)
        messages = [*facts, answer]
        if self.answering is not None:
            messages = self.answering(call, messages)
        outcome = "failure" if isinstance(event, FailureModel) else "success"
        remembered = (call.tenant, call.key, outcome, reply.id, reply.type, answer.body)
        stored = await self._outbox.remember(tx, remembered, messages)
        if call.delivery > 1:
            await tx.run(self._sql["forget_attempts"], call.tenant, call.envelope.id)
        return stored

    async def _fail(
        self, entry: CommandEntry, call: Call, failure: Retryable | Refused, *, patient: bool
    ) -> list[Stored]:
        """In a transaction of its own: the one that failed is rolled back, effects, facts and all."""
        if patient and isinstance(failure, Early):
            raise failure
        call.facts.clear()
        event = _outcome(entry, failure)
        async with self._database.transaction() as tx:
            if isinstance(failure, Refused):
                known = await self._claim(tx, entry, call)
                if known is not None:
                    return await self._answer_known(tx, entry, call, known)
                return await self._remember(tx, entry, call, event)
            # A fresh id: the next attempt's answer is another one, and must not look like a repeat of this.
            reply = self._reply(call, event, str(uuid4()))
            return await self._outbox.put(tx, [outgoing(reply, reply=True)])

    def _reply(self, call: Call, event: EventModel, event_id: str) -> Envelope:
        return make_envelope(self._module, event, event_id=event_id, tenant=call.tenant, caused_by=call.envelope)

    def _facts(self, call: Call) -> list[Outgoing]:
        return [
            outgoing(
                make_envelope(
                    self._module,
                    fact,
                    event_id=str(
                        uuid5(IDS, f"{self._module.name}/{call.envelope.source}/{call.envelope.id}/fact/{number}")
                    ),
                    tenant=call.tenant,
                    caused_by=call.envelope,
                    subject=subject,
                )
            )
            for number, (fact, subject) in enumerate(call.facts)
        ]

    @asynccontextmanager
    async def alone(self, tenant: str, key: str) -> AsyncIterator[None]:
        """Of those in this process that work on this order, or ask about it, one at a time."""
        name = (tenant, key)
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(name)
            if users > 1:
                self._locks[name] = (lock, users - 1)


def _outcome(entry: CommandEntry, failure: Retryable | Refused) -> FailureModel:
    """What the failure is answered with: the outcome it brings, or the first that the command declares for its kind."""
    if failure.outcome is not None:
        return failure.outcome
    final = isinstance(failure, Refused)
    declared = entry.command.irrecoverable if final else entry.command.failures
    if not declared:
        kind = "irrecoverable failure" if final else "failure"
        raise HandlerBroken(f"{entry.type} declares no {kind} to answer {failure}") from failure
    seconds = failure.seconds if isinstance(failure, PutOff) else None
    return _failure(declared[0], failure.code, failure.message, seconds)


def _failure(model: type[FailureModel], code: str, message: str, put_off_seconds: float | None = None) -> FailureModel:
    return model(code=code, message=message, put_off_seconds=put_off_seconds)


def _digest(envelope: Envelope) -> bytes:
    return hashlib.sha256(orjson.dumps(envelope.data, option=orjson.OPT_SORT_KEYS)).digest()
