"""From the bus to the engine: takes deliveries, checks them, and acknowledges each only after the commit that makes it
safe.

An event ends as the start of one run in the same commit (the common case), as the reply that a run in memory here waits
for, in the commit of what the run makes of it, as an arrival with one input row per target, as an arrival that waits
for whoever may want it, as a duplicate that is simply acknowledged, or as a dead letter with its whole envelope. A
delivery is never held while a step runs.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from consumers.burying import bury, claims_of
from consumers.inputs import RUNS_IN_DECISION, answer_of, new_run_id
from consumers.turns import Turns
from contracts import envelope as wire
from contracts.envelope import Envelope
from contracts.modules.tenancy import STANDINGS
from contracts.problems import (
    DuplicateMismatch,
    EnvelopeInvalid,
    PayloadOverQuota,
    Problem,
    TenantOffboarded,
    Unavailable,
)
from contracts.registry import Checked, Registry
from contracts.sdk.settling import Settling
from contracts.sdk.transport import Consumer, Delivery, Transport
from engine.answers import Refused, Result
from engine.clock import Clock
from engine.coordinator import Coordinator
from engine.guards.breaches import payload_breach
from engine.guards.quotas import check_payload
from engine.logs import logger
from engine.metrics import Metrics
from engine.notes import event_start_key
from engine.run.inputs import Begin
from engine.run.limits import Breach
from engine.store import Appended, Arrival, Await, Commit, Duplicate, Fenced, NewInput, Start, Store
from engine.store.keys import SubjectKeys, TenantKeys, Vault
from engine.store.mapper import arrival_ident, seal_blob
from engine.tracing import RunTracing
from engine.triggers import Plans

PAUSE_SECONDS: Final = 0.5
"""After which a delivery is taken again that met a database that was away, or a process that had been declared dead."""
OTHERS_SECONDS: Final = 60.0
"""So long after deliveries of several tenants it is taken that others' are behind those of one."""


class CannotBeStored(Problem):
    """The message is well formed and fits its contract, and yet the database refuses to keep it."""

    code = "cannot_be_stored"
    title = "The message cannot be stored"
    status = 422
    exit_code = 2


class Intake:
    """One consumer of one queue. `prefetch` bounds what is unacknowledged. With more than `runs_in_decision` deliveries
    wait, and the broker's prefetch holds the rest back; None takes at once: replies must never wait behind starts.
    """

    def __init__(
        self,
        transport: Transport,
        queue: str,
        store: Store,
        vault: Vault,
        registry: Registry,
        plans: Plans,
        coordinator: Coordinator,
        clock: Clock,
        metrics: Metrics,
        *,
        prefetch: int = 500,
        runs_in_decision: int | None = RUNS_IN_DECISION,
        tracing: RunTracing | None = None,
        leaves: Callable[[str], bool] = lambda tenant: False,
        payload_bytes: Callable[[str], int | None] = lambda tenant: None,
        breached: Callable[[str, Breach], None] = lambda tenant, breach: None,
        weight: Callable[[str], int] = lambda tenant: 1,
    ) -> None:
        """`breached` hears of what is larger than the `payload_bytes` of its tenant. `weight` is how many turns a
        tenant has.
        """
        self._tracing = tracing
        self._payload_bytes, self._breached = payload_bytes, breached
        self._leaves = leaves
        self._transport, self._queue, self._store, self._vault = transport, queue, store, vault
        self._registry, self._plans, self._door, self._clock, self._metrics = (
            registry,
            plans,
            coordinator,
            clock,
            metrics,
        )
        self._log = logger("intake")
        self._prefetch, self._limit = prefetch, runs_in_decision
        self._consumer: Consumer | None = None
        self._again: deque[Delivery] = deque()
        self._waiting: Turns[tuple[Delivery, Envelope, Checked]] = Turns(weight)
        self._last = ""
        self._others_until = 0.0
        self._settling = Settling(prefetch)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._consumer = await self._transport.consume(self._queue, self._deliver, prefetch=self._prefetch)
        self._settling.attach(self._consumer)

    async def stop(self) -> None:
        """Takes nothing more; what is unsettled goes back to the queue."""
        self._settling.flush()
        if self._consumer is not None:
            await self._consumer.stop()
        self._again.clear()
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def alive(self) -> bool:
        return self._consumer is not None and self._consumer.alive

    def pump(self) -> None:
        """Takes waiting deliveries, tenants in turn, while there is room for runs in decision."""
        while self._again and self._has_room():
            self._take(self._again.popleft())
        while (tenant := self._next()) is not None:
            self._provide(*self._waiting.take_of(tenant))

    def _next(self) -> str | None:
        """Whose turn it is, of the tenants that have room."""
        if not self._waiting:
            return None
        if self._has_room():
            return next(self._waiting.tenants())
        assert self._limit is not None
        for tenant in self._waiting.tenants():
            if self._door.has_room(tenant, self._limit):
                return tenant
        return None

    def _has_room(self) -> bool:
        """For whoever comes."""
        return self._limit is None or self._door.active < self._limit

    def _deliver(self, delivery: Delivery) -> None:
        if not self._again and not self._waiting and self._has_room():
            self._take(delivery)
            return
        read = self._read(delivery)
        if read is not None:
            self._wait(delivery, *read)

    def _wait(self, delivery: Delivery, envelope: Envelope, checked: Checked) -> None:
        """Until there is room. When so many wait that the broker holds others back, and most of them are one tenant's,
        his are set aside: the broker gives the next, and whoever is behind is seen.
        """
        tenant = envelope.tenantid
        self._waiting.add(tenant, (delivery, envelope, checked))
        mine, all_ = self._waiting.of(tenant), len(self._waiting)
        if mine == 1:
            self.pump()
        elif all_ * 2 >= self._prefetch and mine * 4 > all_ * 3 and self._others_until > self._time():
            for _ in range(mine - self._prefetch // 8):
                self._provide(*self._waiting.take_of(tenant), aside=True)

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()

    def _take(self, delivery: Delivery) -> None:
        read = self._read(delivery)
        if read is not None:
            self._provide(delivery, *read)

    def _read(self, delivery: Delivery) -> tuple[Envelope, Checked] | None:
        """None when it is settled with that: no event, or none that can be taken."""
        if delivery.routing_key in self._registry.queries:
            # A question that no module was bound for. Whoever asked it waits for a moment only, and asks again.
            self._metrics.deliveries.of(self._queue, "ignored").inc()
            self._settling.ack(delivery)
            return None
        try:
            envelope = wire.parse(delivery.body, delivery.headers, delivery.content_type)
            _check_publisher(envelope, delivery)
            checked = self._registry.check_event(envelope)
        except Problem as problem:
            self._spawn(self._bury(delivery, problem))
            return None
        if envelope.tenantid != self._last:
            self._others_until = self._time() + OTHERS_SECONDS if self._last else 0.0
            self._last = envelope.tenantid
        return envelope, checked

    def _provide(self, delivery: Delivery, envelope: Envelope, checked: Checked, *, aside: bool = False) -> None:
        """What says how a tenant stands is noted before it is taken."""
        if envelope.type in STANDINGS:
            self._spawn(self._note_standing(delivery, envelope, checked, aside=aside))
        else:
            self._with_keys(delivery, envelope, checked, aside=aside)

    async def _note_standing(self, delivery: Delivery, envelope: Envelope, checked: Checked, *, aside: bool) -> None:
        """Sign-in asks it (`engine.guards.sessions`). The revision says which of two is later."""
        said = envelope.data
        try:
            await self._store.note_standing(envelope.tenantid, str(said["state"]), int(said.get("revision", 0)))
        except Unavailable:
            self._take_later(delivery)
            return
        self._with_keys(delivery, envelope, checked, aside=aside)

    def _with_keys(self, delivery: Delivery, envelope: Envelope, checked: Checked, *, aside: bool) -> None:
        """With the keys of its tenant and subject."""
        keys = self._vault.cached(envelope.tenantid)
        subject = keys.subject(checked.subject) if keys is not None and checked.subject is not None else None
        if keys is None or (checked.marks and checked.subject is not None and subject is None):
            self._spawn(self._fetch_keys(delivery, envelope, checked, aside=aside))
        else:
            self._accept(delivery, envelope, checked, keys, subject if checked.marks else None, aside=aside)

    async def _fetch_keys(self, delivery: Delivery, envelope: Envelope, checked: Checked, *, aside: bool) -> None:
        try:
            keys = await self._vault.keys_for(envelope.tenantid)
            subject = (
                await self._vault.subject_keys(envelope.tenantid, checked.subject)
                if checked.marks and checked.subject
                else None
            )
        except Unavailable:
            self._take_later(delivery)
            return
        except TenantOffboarded as gone:
            await self._bury(delivery, gone)
            return
        self._accept(delivery, envelope, checked, keys, subject, aside=aside)

    def _accept(
        self,
        delivery: Delivery,
        envelope: Envelope,
        checked: Checked,
        keys: TenantKeys,
        subject: SubjectKeys | None,
        *,
        aside: bool,
    ) -> None:
        """What is set `aside` is kept with a row for each run that it starts; they begin when it is their turn."""
        targets = () if self._leaves(envelope.tenantid) else self._plans.started_by(envelope.type)
        if any(plan.name not in self._plans.platforms for plan in targets):
            try:
                check_payload(self._payload_bytes(envelope.tenantid), len(delivery.body), envelope.data, field="data")
            except PayloadOverQuota as over:
                self._breached(envelope.tenantid, payload_breach(over))
                self._spawn(self._bury(delivery, over))
                return
        now = self._clock.now()
        body = delivery.body if not _is_binary(delivery) else envelope.to_json()
        arrival = Arrival(
            source=envelope.source,
            event_id=envelope.id,
            type=envelope.type,
            body_hash=hashlib.blake2b(body, digest_size=32).digest(),
            body=seal_blob(keys, "arrival", arrival_ident(envelope.source, envelope.id), body, subject),
            received_at=now,
            keys=_hashes(keys, envelope, checked),
            causation_id=envelope.causationid,
        )
        asked = self._door.awaited(envelope.tenantid, envelope.causationid, envelope.type) if not targets else None
        if asked is not None:
            self._answer(delivery, envelope, checked, arrival, *asked, now)
            return
        if len(targets) == 1 and not aside:
            plan = targets[0]
            traceparent = envelope.traceparent if self._tracing is None else self._tracing.arrival(envelope).traceparent
            given = Begin(
                at=now,
                run_id=new_run_id(),
                tenant=envelope.tenantid,
                trigger={"kind": "event", "id": envelope.id, "type": envelope.type, "source": envelope.source},
                data=checked.payload,
                initiator=envelope.source,
                correlation_id=envelope.correlationid or envelope.id,
                marks=checked.marks,
                subject=checked.subject if subject is not None else None,
                causation_id=envelope.id,
                traceparent=traceparent,
            )
            start = Start(
                key=event_start_key(plan.name, envelope.source, envelope.id),
                workflow=plan.name,
                workflow_version=plan.version,
            )
            self._door.begin(
                plan,
                given,
                start,
                keys,
                subject,
                arrival=arrival,
                done=lambda result: self._answered(delivery, envelope, result, now),
            )
            return
        inputs = tuple(
            NewInput(kind="start", run_id=new_run_id(), workflow=plan.name, arrival=(envelope.source, envelope.id))
            for plan in targets
        )
        self._door.record(
            Commit(tenant=envelope.tenantid, stream=None, arrival=arrival, inputs=inputs),
            lambda result: self._answered(delivery, envelope, result, now),
        )

    def _answer(
        self,
        delivery: Delivery,
        envelope: Envelope,
        checked: Checked,
        arrival: Arrival,
        run_id: UUID,
        asked: Await,
        now: datetime,
    ) -> None:
        """A reply to a run that is in memory here: the commit of what the run makes of it keeps it too. When the run
        makes nothing of it, or is no longer here, the reply is kept by itself and the store finds who waits for it.
        """
        given = answer_of(self._plans, envelope, checked.payload, asked.step, asked.visit, at=now, settles=())

        def done(result: Result) -> None:
            match result:
                case Appended() | Duplicate() | Fenced():
                    if self._tracing is not None and isinstance(result, Appended):
                        self._tracing.given(envelope, run_id, None, now)
                    self._answered(delivery, envelope, result, now)
                case _:
                    self._door.record(
                        Commit(tenant=envelope.tenantid, stream=None, arrival=arrival),
                        lambda kept: self._answered(delivery, envelope, kept, now),
                    )

        self._door.submit(envelope.tenantid, run_id, given, done, arrival=arrival)

    def _answered(self, delivery: Delivery, envelope: Envelope, result: Result, began: datetime) -> None:
        if self._tracing is not None:
            self._tracing.taken(envelope, self._queue, result, began)
        match result:
            case Appended():
                self._metrics.deliveries.of(self._queue, "accepted").inc()
                self._settling.ack(delivery)
            case Refused(reason, problem):
                unfit = CannotBeStored(f"{reason}; correct it and send it under a new id")
                self._spawn(self._bury(delivery, problem or unfit))
            case Duplicate(mismatch=True):
                problem = DuplicateMismatch(
                    f"event {envelope.id} of {envelope.source} came before with another body; "
                    "give each fact its own id",
                    field="id",
                )
                self._spawn(self._bury(delivery, problem))
            case Duplicate():
                self._metrics.duplicates.of("arrival").inc()
                self._metrics.deliveries.of(self._queue, "duplicate").inc()
                self._settling.ack(delivery)
            case Fenced():
                self._take_later(delivery)  # by then this process is another
            case _:
                self._settling.ack(delivery)

    # ----------------------------------------------------------------------------------------------------------
    # settling

    def _take_later(self, delivery: Delivery) -> None:
        """Keeps it unacknowledged. Given back, it would come again at once and count against its delivery limit: an
        outage of the database would make dead letters of good messages.
        """
        self._again.append(delivery)
        asyncio.get_running_loop().call_later(PAUSE_SECONDS, self.pump)

    async def _bury(self, delivery: Delivery, problem: Problem) -> None:
        """Keeps the whole message, sealed, before the broker may forget it."""
        try:
            letter = await bury(self._store, self._vault, self._clock, delivery, problem)
        except Unavailable:
            self._take_later(delivery)
            return
        claims = claims_of(delivery)
        self._log.warning(
            "dead_letter",
            letter_id=letter,
            tenant_id=claims.get("tenantid"),
            event_id=claims.get("id"),
            message_type=claims.get("type"),
            queue=self._queue,
            reason=problem.code,
        )
        self._metrics.dead_letters.of(problem.code).inc()
        self._metrics.deliveries.of(self._queue, "dead").inc()
        self._settling.ack(delivery)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _check_publisher(envelope: Envelope, delivery: Delivery) -> None:
    """A broker user named after a module may only speak for that module."""
    if (
        delivery.user_id is not None
        and delivery.user_id.startswith("module-")
        and delivery.user_id != f"module-{envelope.module}"
    ):
        raise EnvelopeInvalid(
            "source",
            f"must be that of {delivery.user_id.removeprefix('module-')}, the module this broker user belongs to",
        )


def _is_binary(delivery: Delivery) -> bool:
    return any(
        name in delivery.headers for name in ("ce-specversion", "cloudEvents:specversion", "cloudEvents_specversion")
    )


def _hashes(keys: TenantKeys, envelope: Envelope, checked: Checked) -> tuple[tuple[str, bytes], ...]:
    """The correlation keys that may be waited on: those declared, and the envelope's own two."""
    if not checked.keys and envelope.subject is None and envelope.correlationid is None:
        return ()
    named = dict(checked.keys)
    if envelope.subject is not None:
        named.setdefault("subject", envelope.subject)
    if envelope.correlationid is not None:
        named.setdefault("correlationid", envelope.correlationid)
    return tuple((name, keys.index_hash(name, value)) for name, value in named.items())
