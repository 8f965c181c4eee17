"""All that a process which owns no runs may ask of the engine: the web and the command line stand here.

Nothing is decided behind this door. A start is journaled and handed to whoever runs workers; a word to a run becomes a
durable input of its owner; a message goes to the bus through the outbox. Everything else they do is reading.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson
import uuid_utils

from contracts.envelope import MAX_ENVELOPE_BYTES, Envelope, from_document
from contracts.problems import (
    Conflict,
    NotFound,
    PayloadInvalid,
    PayloadOverQuota,
    Problem,
    TenantOffboarded,
    TooLarge,
    Unavailable,
)
from contracts.registry import Registry
from contracts.run_events import RunEvent
from contracts.sdk.transport import EVENTS_EXCHANGE, Message, Published, Transport
from contracts.tenant_events import LetterDiscarded, LetterRedriven, RunReplayed
from engine import notes
from engine.clock import Clock
from engine.explain import EventExplanation, Explanation, explain_event, explain_run
from engine.guards.breaches import payload_breach
from engine.guards.outbound import Outbound, OutboundRules
from engine.guards.permission_sets import PermissionSets
from engine.guards.quota_use import QuotaUse
from engine.guards.quotas import QuotaBook, bounded, check_payload
from engine.guards.secrets import Secrets
from engine.hooks import Hooks
from engine.interrupt import DECIDE_SECONDS, Interrupter
from engine.outlets import Outlets
from engine.pauses import EVERYONE, Brakes
from engine.people import People
from engine.plan import Plan
from engine.run.decide import Decision
from engine.run.evolve import fold
from engine.run.inputs import AbandonAsked, CancelAsked, Decided, Input, RetryAsked, SkipAsked, TerminateAsked
from engine.run.limits import Breach
from engine.run.replay import Replayed, replay
from engine.run.state import RunState
from engine.store import Appended, Arrival, Commit, DeadLetter, Duplicate, NewInput, OutboxMessage, Store
from engine.store.keys import Erased, Vault
from engine.store.mapper import Mapper, arrival_ident, open_blob, seal_blob
from engine.tenant_log import TenantLog
from engine.triggers import Plans

REPLAYED_PER_TURN: Final = 32
"""Decisions that are derived again before the loop may turn to others."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A start was accepted. `duplicate`: its key was known, and `run_id` is the original run."""

    run_id: UUID
    duplicate: bool


class Door:
    """`on_input` and `on_outbox` are called after something was written that a consumer of this process may take at
    once.
    """

    def __init__(
        self,
        store: Store,
        vault: Vault,
        mapper: Mapper,
        registry: Registry,
        plans: Plans,
        clock: Clock,
        transport: Transport | None,
        epoch: int,
        interrupter: Interrupter | None = None,
        outbound: Outbound | None = None,
    ) -> None:
        self.store, self.vault, self.mapper, self.registry, self.plans = store, vault, mapper, registry, plans
        self.clock, self.transport, self.epoch = clock, transport, epoch
        self.tenants = TenantLog(store, vault, mapper, clock, epoch=lambda: self.epoch)
        self.brakes = Brakes(store, self.tenants, clock)
        self.outbound = OutboundRules(store, self.tenants, clock)
        self.secrets = Secrets(store, vault, self.tenants, clock)
        self.hooks = Hooks(store, vault, self.tenants, clock)
        self.outlets = Outlets(store, vault, self.tenants, clock)
        self.quotas = QuotaBook(store, self.tenants, clock)
        self.people = People(store, self.tenants, clock)
        self.use = QuotaUse(store, self.quotas, clock, outbound)
        self._interrupter = interrupter or Interrupter(DECIDE_SECONDS)
        self.permission_sets = PermissionSets(store)
        self.on_input: Callable[[], None] = lambda: None
        self.on_outbox: Callable[[], None] = lambda: None
        self.leaves: Callable[[str], bool] = lambda tenant: False
        self.payload_bytes: Callable[[str], int | None] = lambda tenant: None
        self.breached: Callable[[str, Breach], None] = lambda tenant, breach: None

    # ---------------------------------------------------------------------------------------------------------- bus

    async def publish(self, envelope: Envelope) -> None:
        """Checks a fact by its contract and sends it, confirmed. Raises the contract's refusals, `TooLarge`,
        `Unavailable`.
        """
        self.registry.check_event(envelope)
        body = envelope.to_json()
        if len(body) > MAX_ENVELOPE_BYTES:
            raise TooLarge(f"the envelope is {len(body)} bytes; send at most {MAX_ENVELOPE_BYTES}", field="data")
        if self.transport is None:
            raise Unavailable("this process has no connection to the bus")
        [answer] = await self.transport.publish([Message(EVENTS_EXCHANGE, envelope.type, body, mandatory=False)])
        if answer is not Published.CONFIRMED:
            raise Unavailable(f"the bus did not confirm the event ({answer.value}); send it again with the same id")

    # ---------------------------------------------------------------------------------------------------------- runs

    async def start_run(
        self,
        tenant: str,
        workflow: str,
        data: Any,
        *,
        key: str,
        kind: str,
        initiator: str,
        correlation_id: str | None = None,
        traceparent: str | None = None,
        start_key: str | None = None,
        permissions: str | None = None,
    ) -> Begun:
        """Accepts a start under a permanent key; the same key again answers with the original run, and refuses another
        content (`Conflict`). `permissions` names what the run may do (`permission_sets`); None: all that its workflow
        does, as when a fact starts it.
        """
        if self.leaves(tenant):
            raise TenantOffboarded(f"tenant {tenant} is being offboarded: no run of it starts", field="tenant")
        saga = self.plans.saga(workflow)
        if not isinstance(data, dict):
            raise PayloadInvalid("the input of a run must be a JSON object", field="input")
        start_key = start_key or f"{kind}/{key}"
        if len(start_key) > 200:
            raise PayloadInvalid("the key is too long; use at most 180 characters", field="key")
        run_id = UUID(str(uuid_utils.uuid7()))
        now = self.clock.now()
        envelope = notes.start_envelope(
            tenant,
            workflow,
            data,
            key=start_key,
            kind=kind,
            initiator=initiator,
            at=now,
            correlation_id=correlation_id,
            traceparent=traceparent,
            run_id=run_id,
            permissions=permissions,
        )
        body = envelope.to_json()
        if len(body) > MAX_ENVELOPE_BYTES:
            raise TooLarge(
                f"the input makes a message of {len(body)} bytes; send at most {MAX_ENVELOPE_BYTES}", field="input"
            )
        if workflow not in self.plans.platforms:
            try:
                check_payload(self.payload_bytes(tenant), len(body), data, field="input")
            except PayloadOverQuota as over:
                self.breached(tenant, payload_breach(over))
                raise
        keys = await self.vault.keys_for(tenant)
        started = notes.start_of(envelope, saga)
        assert started is not None
        subject = await self.vault.subject_keys(tenant, started.subject) if started.subject and started.marks else None
        arrival = Arrival(
            source=envelope.source,
            event_id=envelope.id,
            type=envelope.type,
            body_hash=_content_hash(workflow, data),
            body=seal_blob(keys, "arrival", arrival_ident(envelope.source, envelope.id), body, subject),
            received_at=now,
        )
        row = NewInput(kind="start", run_id=run_id, workflow=workflow, arrival=(envelope.source, envelope.id))
        [outcome] = await self.store.append(
            [Commit(tenant=tenant, stream=None, arrival=arrival, inputs=(row,))],
            epoch=self.epoch,
            now=self.clock.database_now(),
        )
        match outcome:
            case Appended():
                self.on_input()
                return Begun(run_id, duplicate=False)
            case Duplicate(mismatch=True):
                raise Conflict(
                    "this key was used before to start another run with another input; choose a new key", field="key"
                )
            case Duplicate():
                return Begun(await self._original(tenant, envelope.source, start_key), duplicate=True)
            case _:
                raise Unavailable("this process has lost its lease; ask again")

    async def _original(self, tenant: str, source: str, start_key: str) -> UUID:
        """The run that a known key started, or will start as soon as a worker takes it."""
        known = await self.store.started(tenant, start_key)
        if known is not None:
            return known
        body = await self.store.arrival(tenant, source, start_key)
        if body is None:
            raise Unavailable("the original start is being recorded; ask again")
        keys = await self.vault.ready(tenant, [body])
        content = open_blob(keys, "arrival", arrival_ident(source, start_key), body)
        if isinstance(content, Erased):
            raise Conflict("this key's run has been erased", field="key")
        return UUID(from_document(orjson.loads(content)).data["run_id"])

    async def cancel(self, tenant: str, run_id: UUID, *, by: str, reason: str = "") -> None:
        await self._tell(tenant, run_id, CancelAsked(at=self.clock.now(), by=by, reason=reason))

    async def terminate(self, tenant: str, run_id: UUID, *, by: str, reason: str = "") -> None:
        await self._tell(tenant, run_id, TerminateAsked(at=self.clock.now(), by=by, reason=reason))

    async def abandon(self, tenant: str, run_id: UUID, *, by: str, reason: str = "") -> None:
        state = await self.state(tenant, run_id)
        if state.ended is None and not state.incidents:
            raise Conflict("only a parked run can be abandoned; cancel it instead", status_of_run=state.status)
        await self._tell(tenant, run_id, AbandonAsked(at=self.clock.now(), by=by, reason=reason))

    async def retry(self, tenant: str, run_id: UUID, *, by: str, step: str | None = None) -> None:
        await self._parked(tenant, run_id, step)
        await self._tell(tenant, run_id, RetryAsked(at=self.clock.now(), by=by, step=step))

    async def skip(self, tenant: str, run_id: UUID, step: str, output: Any, *, by: str, reason: str) -> None:
        """Goes on as if the parked `step` had answered `output`, which must fit the action's declared outcome; or, when
        its undo is parked, as if that were done.
        """
        state = await self._parked(tenant, run_id, step)
        visit = max(v for name, v in state.steps or {} if name == step)
        asked = state.step(step, visit)
        assert asked is not None
        spec = self.plans.actions.get(asked.action)
        if spec is not None and spec.success is not None and asked.undo_status != "parked":
            output = self.registry.check_event_data(self.registry.event(spec.success), output).payload
        await self._tell(tenant, run_id, SkipAsked(at=self.clock.now(), by=by, step=step, output=output, reason=reason))

    async def decide_approval(
        self, tenant: str, run_id: UUID, name: str, *, approved: bool, by: str, comment: str = ""
    ) -> None:
        state = await self.state(tenant, run_id)
        if not any(wait.kind == "approval" and wait.name == name for wait in state.open_waits()):
            raise Conflict(f"no approval called {name!r} is open on this run", status_of_run=state.status)
        await self._tell(
            tenant, run_id, Decided(at=self.clock.now(), name=name, approved=approved, by=by, comment=comment)
        )

    async def state(self, tenant: str, run_id: UUID) -> RunState:
        """The run as its log has it. Raises `NotFound`, for another tenant's run as for none."""
        return fold(RunState(run_id, tenant), await self.events(tenant, run_id))

    async def events(self, tenant: str, run_id: UUID) -> list[RunEvent]:
        """The run's whole history, opened. Raises `NotFound`."""
        stored = await self.store.load(tenant, run_id)
        if not stored:
            raise NotFound("there is no such run", field="run_id")
        keys = await self.vault.ready(tenant, [one.body for one in stored])
        return self.mapper.decode_all(keys, run_id, stored)

    async def explain(self, tenant: str, run_id: UUID) -> Explanation:
        """Why the run is where it is, and every recorded reason that will move it."""
        state = await self.state(tenant, run_id)
        pauses = await self.brakes.pauses() if state.queued else {}
        own = None if state.workflow in self.plans.platforms else pauses.get(tenant)
        pause = own or pauses.get(EVERYONE)
        held = None if pause is None else (pause.by, pause.since, pause.reason)
        spent = None
        if state.queued and held is None and bounded(state, self.plans.platforms):
            budget = await self.use.spent(tenant, state.workflow)
            if budget is not None:
                spent = (budget.cap, budget.limit or 0, budget.workflow, budget.ends_at or self.clock.now())
        wakes = await self.store.wakes(tenant, run_id)
        return explain_run(state, wakes, self.clock.now(), held=held, spent=spent)

    async def explain_event(self, tenant: str, event_id: str, source: str | None = None) -> EventExplanation:
        """What became of an event of this tenant, from the journal, the start keys and today's triggers; with `source`
        None, of the one among the installed modules' events that has this id. Raises `Conflict` when there are several,
        and `NotFound` when nothing of it is known.
        """
        sources = [source] if source is not None else [module.source for module in self.registry.modules.values()]
        found = {one: await self.store.journaled(tenant, one, event_id) for one in sources}
        known = [one for one, journaled in found.items() if journaled is not None]
        if not known:  # start keys outlive the journal
            known = [one for one in sources if await self._started_by(tenant, one, event_id, self.plans.names)]
        if len(known) > 1:
            raise Conflict(f"events of {', '.join(known)} have this id; name the source", field="source")
        chosen = known[0] if known else source
        journaled = found.get(chosen) if chosen is not None else None
        letters = await self.store.dead_letters_of(tenant, event_id)
        if journaled is None:
            started = {} if chosen is None else await self._started_by(tenant, chosen, event_id, self.plans.names)
            if not started and not letters:
                raise NotFound(
                    "no event of this id is in the journal: it never came, or came before the journal begins",
                    field="event_id",
                )
            return explain_event(chosen, None, started, {}, letters)
        assert chosen is not None
        if journaled.type == notes.START_TYPE:
            run_id = await self.store.started(tenant, event_id)
            envelope = await self._envelope(tenant, chosen, event_id, journaled.body)
            workflow = str(envelope.data["workflow"]) if envelope is not None else "a workflow"
            started = {} if run_id is None else {workflow: run_id}
            return explain_event(chosen, journaled, started, {}, letters)
        triggers = {plan.name: plan.version for plan in self.plans.started_by(journaled.type)}
        started = await self._started_by(tenant, chosen, event_id, {*self.plans.names, *triggers})
        spec = self.plans.outcome(journaled.type) if journaled.causation_id is not None else None
        envelope = await self._envelope(tenant, chosen, event_id, journaled.body)
        return explain_event(
            chosen,
            journaled,
            started,
            triggers,
            letters,
            keys=() if envelope is None else self._keys_of(envelope),
            answers=None if spec is None else spec.command,
            correlation_id=None if envelope is None else envelope.correlationid,
        )

    def _keys_of(self, envelope: Envelope) -> list[str]:
        """The names of the correlation keys by which runs could wait for the event."""
        try:
            names = list(self.registry.check_event(envelope).keys)
        except Problem:  # its contract has changed since it came
            names = []
        also = {"subject": envelope.subject, "correlationid": envelope.correlationid}
        return names + [name for name, value in also.items() if value is not None and name not in names]

    async def _started_by(self, tenant: str, source: str, event_id: str, workflows: Iterable[str]) -> dict[str, UUID]:
        keys = {name: notes.event_start_key(name, source, event_id) for name in workflows}
        found = {name: await self.store.started(tenant, key) for name, key in keys.items()}
        return {name: run_id for name, run_id in found.items() if run_id is not None}

    async def _envelope(self, tenant: str, source: str, event_id: str, body: bytes) -> Envelope | None:
        """None: erased."""
        keys = await self.vault.ready(tenant, [body])
        content = open_blob(keys, "arrival", arrival_ident(source, event_id), body)
        return None if isinstance(content, Erased) else from_document(orjson.loads(content))

    async def replay(self, tenant: str, run_id: UUID, *, by: str) -> tuple[RunState, Replayed]:
        """The run as its log has it, and whether today's code decides it like that; nothing is performed, and the audit
        names who asked. Raises `NotFound`, and `Conflict` where the version that it runs on is not installed.
        """
        log = await self.events(tenant, run_id)
        state = fold(RunState(run_id, tenant), log)
        plan = self.plans.apart(state.workflow, state.workflow_version)
        if plan is None:
            raise Conflict(
                f"workflow {state.workflow!r} version {state.workflow_version} is not installed; install the version "
                "that decided this run",
                field="workflow_version",
            )
        account = Replayed(len(log), 0, 0)
        for account in replay(run_id, tenant, log, plan, ask=self._ask_about_the_past):
            if account.decisions % REPLAYED_PER_TURN == 0:
                await asyncio.sleep(0)
        same = account.difference is None
        await self.tenants.record(tenant, RunReplayed(at=self.clock.now(), run_id=str(run_id), same=same, by=by))
        return state, account

    def _ask_about_the_past(self, state: RunState, given: Input, plan: Plan, **how: Any) -> Decision:
        self._interrupter.begin()
        try:
            return self._interrupter.ask(state, given, plan, **how)
        finally:
            self._interrupter.end()

    async def _parked(self, tenant: str, run_id: UUID, step: str | None) -> RunState:
        state = await self.state(tenant, run_id)
        if state.ended is not None:
            raise Conflict(f"the run has ended ({state.ended})", status_of_run=state.status)
        parked = [incident.step for incident in (state.incidents or {}).values()]
        if not parked:
            raise Conflict("nothing of this run is parked", status_of_run=state.status)
        if step is not None and step not in parked:
            names = ", ".join(name for name in parked if name) or "the saga itself"
            raise Conflict(f"step {step!r} is not parked; parked is {names}", status_of_run=state.status, field="step")
        return state

    async def _tell(self, tenant: str, run_id: UUID, given: Input) -> None:
        """Leaves a durable word for the run's owner. Raises `NotFound`, or `Conflict` when the run has ended."""
        if await self.store.open_run(tenant, run_id) is None:
            state = await self.state(tenant, run_id)
            raise Conflict(f"the run has ended ({state.ended})", status_of_run=state.status)
        keys = await self.vault.keys_for(tenant)
        body = seal_blob(keys, "input", str(run_id), notes.encode(given))
        note = NewInput(kind="note", run_id=run_id, name="note", body=body)
        await self.store.append(
            [Commit(tenant=tenant, stream=None, inputs=(note,))], epoch=self.epoch, now=self.clock.database_now()
        )
        self.on_input()

    # ----------------------------------------------------------------------------------------------------------
    # dead letters

    async def redrive(self, tenant: str | None, letter_id: UUID, *, by: str) -> bool:
        """Sends a dead letter again, byte for byte, to where it was going. False, and nothing sent, when it was
        settled before.
        """
        letter = await self._letter(tenant, letter_id)
        if letter.state != "dead":
            return False
        keys = await self.vault.ready(letter.tenant, [letter.envelope])
        body = open_blob(keys, "dead_letter", str(letter.id), letter.envelope)
        if isinstance(body, Erased):
            raise Conflict("the letter's content has been erased; discard it")
        message_id = f"redrive/{letter.id}"
        message = OutboxMessage(
            message_id=message_id,
            exchange=letter.source or EVENTS_EXCHANGE,
            routing_key=letter.routing_key,
            body=seal_blob(keys, "outbox", message_id, body),
        )
        # Sent first: a crash in between sends it twice, which dedup makes one; settled first, it could be lost.
        told = LetterRedriven(at=self.clock.now(), letter=str(letter.id), by=by)
        await self.tenants.record(letter.tenant, told, outbox=(message,))
        await self.store.settle_dead_letter(letter_id, state="redriven", by=by, now=self.clock.database_now())
        self.on_outbox()
        return True

    async def discard(self, tenant: str | None, letter_id: UUID, *, by: str) -> bool:
        """Gives a dead letter up; it stays listed as discarded. False when it was settled before."""
        letter = await self._letter(tenant, letter_id)
        if letter.state != "dead":
            return False
        told = LetterDiscarded(at=self.clock.now(), letter=str(letter.id), by=by)
        await self.tenants.record(letter.tenant, told)
        return await self.store.settle_dead_letter(letter_id, state="discarded", by=by, now=self.clock.database_now())

    async def _letter(self, tenant: str | None, letter_id: UUID) -> DeadLetter:
        letter = await self.store.dead_letter(tenant, letter_id)
        if letter is None:
            raise NotFound("there is no such dead letter", field="id")
        return letter

    async def letter_body(self, tenant: str | None, letter_id: UUID) -> bytes:
        """The message as received, opened: for the operator who must see what cannot be read otherwise."""
        letter = await self._letter(tenant, letter_id)
        keys = await self.vault.ready(letter.tenant, [letter.envelope])
        body = open_blob(keys, "dead_letter", str(letter.id), letter.envelope)
        if isinstance(body, Erased):
            raise Conflict("the letter's content has been erased")
        return body


def _content_hash(workflow: str, data: Any) -> bytes:
    return hashlib.blake2b(orjson.dumps([workflow, data], option=orjson.OPT_SORT_KEYS), digest_size=32).digest()
