"""Gives runs what is waiting for them: pending input rows, those a commit has just brought about and those found by
polling.

A row is a start (a workflow to begin from an arrival), a fact (a wait matched), a reply (an outcome of a command) or a
note (what an operator or another process wants of a run). It is settled by the commit that answers it, so a crash in
between only means that it is taken again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import datetime
from math import isfinite
from typing import Any, Final
from uuid import UUID

import uuid_utils

from consumers.turns import Turns
from contracts import envelope as wire
from contracts.calls import waits
from contracts.pointers import resolve, segments
from contracts.problems import NotFound, Problem, TenantOffboarded, Unavailable
from contracts.registry import Registry
from engine import notes, reruns
from engine.answers import Ignored, NotOurs, Refused, Result
from engine.clock import Clock
from engine.coordinator import Coordinator
from engine.endless import Endless
from engine.logs import logger
from engine.metrics import Metrics
from engine.run.inputs import Begin, FactMatched, Input, StepDone, StepLost
from engine.store import Commit, Fenced, InputRow, Start, Store
from engine.store.keys import Erased, Vault
from engine.store.mapper import Mapper, open_input
from engine.tracing import RunTracing
from engine.triggers import Plans

POLL_SECONDS: Final = 0.5
HEARS_SECONDS: Final = 3_600.0
BATCH: Final = 500
"""Rows claimed at once. Of a tenant of whom half as many wait here no more are claimed: the store gives the oldest
first, and others' would be behind all of his.
"""
AT_ONCE: Final = 100
"""Rows in hand at once. One event may wake ten thousand runs: they are given what is theirs little by little, tenants
in turn, so that whoever else comes meanwhile is not behind all of them.
"""
RUNS_IN_DECISION: Final = 200
"""With more than these the intake begins no run of whoever has his share of them."""
LEASE_SECONDS: Final = 30.0
"""As the store's: a row that was given so long ago is claimed again, and no longer counted as in hand."""


def new_run_id() -> UUID:
    """Time-ordered, so that the log's index grows at one end."""
    return UUID(str(uuid_utils.uuid7()))


class Inputs:
    """Takes rows addressed to runs that this process owns or may claim."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        mapper: Mapper,
        registry: Registry,
        plans: Plans,
        coordinator: Coordinator,
        clock: Clock,
        metrics: Metrics,
        tracing: RunTracing | None = None,
        *,
        poll_seconds: float = POLL_SECONDS,
        at_once: int = AT_ONCE,
        runs_in_decision: int = RUNS_IN_DECISION,
        batch: int = BATCH,
        leaves: Callable[[str], bool] = lambda tenant: False,
        weight: Callable[[str], int] = lambda tenant: 1,
    ) -> None:
        """No run of a tenant that `leaves` starts, but for those that another run starts. Events begin runs as long as
        not a quarter more than `runs_in_decision` are in decision: they came before what the intake has waiting.
        `weight` is how many turns a tenant has.
        """
        self._leaves = leaves
        self._tracing, self._poll, self._at_once, self._batch = tracing, poll_seconds, at_once, batch
        self._many = batch // 2
        self._limit = runs_in_decision + runs_in_decision // 4
        self._store, self._vault, self._mapper = store, vault, mapper
        self._registry, self._plans = registry, plans
        self._door, self._clock, self._metrics = coordinator, clock, metrics
        self._log = logger("inputs")
        self._taken: set[int] = set()
        self._waiting: Turns[InputRow] = Turns(weight)
        self._starts: Turns[InputRow] = Turns(weight)
        self._start_next = False
        self._in_hand: dict[int, float] = {}
        self._giving: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._wake = asyncio.Event()
        self._work = Endless()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """May be called again after `stop`: what was claimed and never given comes again with its lease."""
        self._taken.clear()
        self._in_hand.clear()
        self._giving = None
        self._work.begin("inputs", self._poll_forever())
        self._work.begin("inputs-heard", self._hear_forever())

    async def stop(self) -> None:
        await self._work.end()
        self._waiting.clear()
        self._starts.clear()
        tasks = [*self._tasks, *([self._giving] if self._giving is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def pump(self) -> None:
        """There may be room for runs in decision."""
        if self._starter() is not None:
            self._room.set()

    def wake(self) -> None:
        """Something was written that may be for us."""
        self._wake.set()

    def failed(self) -> BaseException | None:
        giving = self._giving
        if giving is not None and giving.done() and not giving.cancelled() and giving.exception() is not None:
            return giving.exception()
        return self._work.failed()

    def take_soon(self, rows: Sequence[InputRow]) -> None:
        """Takes rows that a commit of this process has just brought about, or that were claimed."""
        for row in rows:
            if row.id not in self._taken:
                self._taken.add(row.id)
                begins = row.kind == "start" and row.arrival is not None
                (self._starts if begins else self._waiting).add(row.tenant, row)
        giving = self._giving
        if (self._waiting or self._starts) and (giving is None or (giving.done() and giving.exception() is None)):
            self._giving = asyncio.create_task(self._give_all(), name="give-inputs")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hear_forever(self) -> None:
        """Another process that leaves inputs says so, where the store can hear it: nobody waits for the next poll."""
        while True:
            if await self._store.wait_for_inputs(HEARS_SECONDS):
                self._wake.set()

    async def _poll_forever(self) -> None:
        while True:
            try:
                many = [tenant for tenant, rows in self._counts().items() if rows >= self._many]
                rows = await self._store.claim_inputs(
                    self._door.epoch, limit=self._batch, but=many, now=self._clock.database_now()
                )
                self.take_soon(rows)
                while self._waiting_of_few() >= self._batch:
                    await self._for_room()
            except Unavailable:
                rows = []
            if len(rows) < self._batch:
                try:
                    async with asyncio.timeout(self._poll):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            self._wake.clear()

    def _waiting_of_few(self) -> int:
        """Rows of tenants of whom more would be claimed."""
        return sum(rows for rows in self._counts().values() if rows < self._many)

    def _counts(self) -> dict[str, int]:
        """Rows that wait here, by tenant."""
        found = dict(self._starts.counts())
        for tenant, rows in self._waiting.counts():
            found[tenant] = found.get(tenant, 0) + rows
        return found

    async def _give_all(self) -> None:
        """Gives what waits, one row of each tenant in turn, while there is room."""
        while self._waiting or self._starts:
            row = self._next()
            if row is None:
                await self._for_room()
                continue
            if self._waiting.of(row.tenant) + self._starts.of(row.tenant) == self._many - 1:
                self._wake.set()  # more of this tenant may be claimed
            self._in_hand[row.id] = asyncio.get_running_loop().time()
            try:
                await self._give(row)
            except (Unavailable, NotFound):
                # The database is away, and the row comes again with its lease; or this process does not run the
                # workflow, and it is left to one that does.
                self._let_go(row)
            except Problem as problem:
                self._refuse(row, problem)

    def _next(self) -> InputRow | None:
        """The row whose turn it is: by turns one that begins a run, if there is room for it, and one of the others."""
        if len(self._in_hand) >= self._at_once:
            return None
        self._start_next = not self._start_next
        starter = self._starter() if self._start_next or not self._waiting else None
        if starter is not None:
            return self._starts.take_of(starter)
        return self._waiting.take() if self._waiting else None

    def _starter(self) -> str | None:
        """Whose turn it is to begin a run, of the tenants that have room."""
        for tenant in self._starts.tenants():
            if self._door.has_room(tenant, self._limit):
                return tenant
        return None

    async def _for_room(self) -> None:
        """Returns when a row was answered, or after a moment; what was never answered is in hand for a lease."""
        self._room.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._room.wait()
        old = asyncio.get_running_loop().time() - LEASE_SECONDS
        self._in_hand = {row: since for row, since in self._in_hand.items() if since > old}

    def _let_go(self, row: InputRow) -> None:
        self._taken.discard(row.id)
        self._in_hand.pop(row.id, None)
        self._room.set()

    async def _give(self, row: InputRow) -> None:
        keys = await self._vault.ready(row.tenant, [row.body] if row.body is not None else [])
        body = open_input(keys, row)
        if body is None or isinstance(body, Erased):
            self._settle(row)
            return
        if row.kind == "start":
            await self._begin(row, body)
            return
        given = notes.decode(body, settles=(row.id,)) if row.kind == "note" else self._read(row, body)
        assert row.run_id is not None
        if self._tracing is not None and row.kind != "note":
            self._trace(self._tracing, row, row.run_id, wire.parse(body), given.at)
        self._door.submit(row.tenant, row.run_id, given, lambda result: self._answered(row, result))

    def _trace(
        self, tracing: RunTracing, row: InputRow, run_id: UUID, envelope: wire.Envelope, began: datetime
    ) -> None:
        tracing.given(envelope, run_id, (row.name or "", row.visit) if row.kind == "fact" else None, began)

    def _read(self, row: InputRow, body: bytes) -> Input:
        """The envelope of a fact or a reply, checked again by the contracts this process knows."""
        envelope = wire.parse(body)
        checked = self._registry.check_event(envelope)
        if row.kind == "fact":
            return FactMatched(
                at=self._clock.now(),
                dedup=_dedup(row.kind, row.name or "", row.visit, envelope),
                settles=(row.id,),
                name=row.name or "",
                visit=row.visit,
                event_id=envelope.id,
                data=checked.payload,
                marks=checked.marks,
            )
        return answer_of(
            self._plans,
            envelope,
            checked.payload,
            row.name or "",
            row.visit,
            at=self._clock.now(),
            settles=(row.id,),
        )

    async def _begin(self, row: InputRow, body: bytes) -> None:
        envelope = wire.parse(body)
        plan = self._plans.latest(row.workflow or "")
        saga = self._plans.saga(plan.name)
        started = notes.start_of(envelope, saga)
        if started is not None and started.trigger["kind"] in reruns.KINDS:
            started = await reruns.told(self._store, self._vault, self._mapper, row.tenant, started)
        if started is None:
            checked = self._registry.check_event(envelope)
            started = notes.Started(
                trigger={"kind": "event", "id": envelope.id, "type": envelope.type, "source": envelope.source},
                data=checked.payload,
                marks=checked.marks,
                subject=checked.subject or envelope.subject,
                initiator=envelope.source,
                key=notes.event_start_key(plan.name, envelope.source, envelope.id),
            )
        if self._leaves(row.tenant) and "depth" not in started.trigger:
            raise TenantOffboarded(f"tenant {row.tenant} is being offboarded: no run of it starts", field="tenant")
        traceparent = envelope.traceparent
        if self._tracing is not None and envelope.type != notes.START_TYPE:
            traceparent = self._tracing.arrival(envelope).traceparent
        keys = await self._vault.keys_for(row.tenant)
        subject = (
            await self._vault.subject_keys(row.tenant, started.subject) if started.subject and started.marks else None
        )
        given = Begin(
            at=self._clock.now(),
            settles=(row.id,),
            run_id=row.run_id or new_run_id(),
            tenant=row.tenant,
            trigger=started.trigger,
            data=started.data,
            initiator=started.initiator,
            correlation_id=envelope.correlationid or envelope.id,
            marks=started.marks,
            subject=started.subject if subject is not None else None,
            causation_id=envelope.id,
            traceparent=traceparent,
            scope=started.scope,
            inherited=started.inherited,
            adopted=started.adopted,
        )
        start = Start(key=started.key, workflow=plan.name, workflow_version=plan.version)
        self._door.begin(plan, given, start, keys, subject, done=lambda result: self._answered(row, result))

    def _settle(self, row: InputRow) -> None:
        self._door.record(
            Commit(tenant=row.tenant, stream=None, settled=(row.id,)), lambda result: self._answered(row, result)
        )

    def _answered(self, row: InputRow, result: Result) -> None:
        """Settled rows are gone, a late one leaves its reason in the journal. One that is not ours stays for its owner,
        and may be offered again, as may what this process had in hand when it was declared dead.
        """
        self._in_hand.pop(row.id, None)
        self._room.set()
        if isinstance(result, Refused) and row.kind == "start":
            if result.problem is not None:
                self._refuse(row, result.problem)
            else:
                self._settle(row)
        if isinstance(result, Ignored) and row.arrival is not None:
            self._metrics.ignored.of(row.kind).inc()
            self._spawn(self._remember(row, row.arrival, f"ignored: {result.reason}"))
        if isinstance(result, NotOurs | Fenced) or len(self._taken) > 100_000:
            self._taken.discard(row.id)
        else:
            asyncio.get_running_loop().call_later(30.0, self._taken.discard, row.id)

    def _refuse(self, row: InputRow, problem: Problem) -> None:
        """It was accepted once and is refused now: a contract has changed. Settled, with the reason in the journal."""
        self._settle(row)
        self._log.warning(
            "input_refused",
            tenant_id=row.tenant,
            run_id=row.run_id,
            event_id=row.arrival[1] if row.arrival is not None else None,
            kind=row.kind,
            code=problem.code,
        )
        if row.arrival is not None:
            self._spawn(self._remember(row, row.arrival, f"refused: {problem.code}: {problem.detail}"))

    async def _remember(self, row: InputRow, arrival: tuple[str, str], outcome: str) -> None:
        with suppress(Unavailable):
            await self._store.record_outcome(row.tenant, *arrival, outcome)


def _dedup(kind: str, name: str, visit: int, envelope: wire.Envelope) -> str:
    """The key under which the store remembers that the run has heard it."""
    return f"{kind}/{name}/{visit}/{envelope.source}/{envelope.id}"


def answer_of(
    plans: Plans,
    envelope: wire.Envelope,
    payload: dict[str, Any],
    name: str,
    visit: int,
    *,
    at: datetime,
    settles: tuple[int, ...],
) -> Input:
    """A reply as an input of the run whose await is called `name`: success is the step's output; a failure says whether
    another attempt can help.
    """
    kind, step = envelope.type, name.removesuffix("/undo")
    undo, dedup = step != name, _dedup("reply", name, visit, envelope)
    spec = plans.outcome(kind)
    if spec is None or spec.success == kind:
        cost = 0.0 if spec is None or spec.cost is None or undo else _cost(spec.cost, payload)
        return StepDone(
            at=at, dedup=dedup, settles=settles, step=step, visit=visit, output=payload, cost=cost, undo=undo
        )
    error = {"code": payload.get("code", "failed"), "message": payload.get("message", ""), "outcome": kind}
    error |= waits(put_off_seconds=payload.get("put_off_seconds"))
    return StepLost(
        at=at,
        dedup=dedup,
        settles=settles,
        step=step,
        visit=visit,
        error=error,
        irrecoverable=kind in spec.irrecoverable,
        undo=undo,
    )


def _cost(pointer: str, payload: dict[str, Any]) -> float:
    """What the answer says that it has cost; nothing, where it says no amount."""
    said = resolve(payload, segments(pointer))
    amount = isinstance(said, int | float) and not isinstance(said, bool) and isfinite(said)
    return max(0.0, float(said)) if amount else 0.0
