"""From a decision to a commit: seals the events, and turns what `react` asks for into rows of the same transaction.

Everything that must become true with the events is in the commit: timers, subscriptions, awaits, commands and notices
in the outbox, the row in open_runs.
Local attempts need no row: the recorded intent and the run's owner suffice; they are answered separately, to be
carried out after the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from contracts.calls import cost_micros
from contracts.envelope import Envelope
from contracts.notices import UNWIND
from contracts.run_events import RunAdmitted, RunEvent, RunStarted, StepAttempted, StepScheduled, StepSucceeded
from contracts.sdk.transport import COMMANDS_EXCHANGE, EVENTS_EXCHANGE
from engine import between_runs
from engine.plan import Plan
from engine.run import react as fx
from engine.run.react import react
from engine.run.state import RunState
from engine.store import (
    Arrival,
    Await,
    Changed,
    Closed,
    Commit,
    Cost,
    NewInput,
    Opened,
    OutboxMessage,
    Recorded,
    Start,
    Subscription,
    Timer,
)
from engine.store.keys import Erased, SubjectKeys, TenantKeys
from engine.store.mapper import Mapper, seal_blob
from engine.tracing import RunTracing

COMMAND_IDS = UUID("6f3c0a52-54c1-4f0e-9d5b-1f6a0b7a3c11")
"""Namespace of command ids: a command's id follows from its idempotency key, so that every send of it is the same
command.
"""


def command_id(key: str) -> str:
    """The id of the command that carries out the step (or undo) with this idempotency key."""
    return str(uuid5(COMMAND_IDS, key))


@dataclass(slots=True)
class Caps:
    """How many slots a workflow and a tenant may hold at once; None is unbounded. `refuse`: a start that gets none is
    refused; otherwise it waits for one. `budget`: what begins a step must ask whether a budget is spent.
    """

    workflow: int | None = None
    tenant: int | None = None
    refuse: bool = False
    budget: bool = False


class Rows:
    """What the effects of one decision become, apart from local attempts; collected, then frozen into a `Commit`. Most
    decisions bring none.
    """

    __slots__ = (
        "awaits",
        "awaits_dropped",
        "inputs",
        "outbox",
        "subscriptions",
        "subscriptions_dropped",
        "timers",
        "timers_cleared",
    )

    def __init__(self) -> None:
        self.timers: dict[str, Timer] = {}
        self.timers_cleared: list[str] = []
        self.subscriptions: list[Subscription] = []
        self.subscriptions_dropped: list[tuple[str, int]] = []
        self.awaits: list[Await] = []
        self.awaits_dropped: list[str] = []
        self.outbox: list[OutboxMessage] = []
        self.inputs: list[NewInput] = []
        """For other runs: children, or the run that started this one."""

    def frozen(self, *, ended: bool) -> dict[str, Any]:
        """The fields of the `Commit`. A run that ends takes its reasons to wake with it."""
        found: dict[str, Any] = {"outbox": tuple(self.outbox), "inputs": tuple(self.inputs)}
        if not ended:
            found |= {
                "timers": tuple(self.timers.values()),
                "timers_cleared": tuple(self.timers_cleared),
                "subscriptions": tuple(self.subscriptions),
                "subscriptions_dropped": tuple(self.subscriptions_dropped),
                "awaits": tuple(self.awaits),
                "awaits_dropped": tuple(self.awaits_dropped),
            }
        return found


_BEGINS = frozenset((RunStarted, RunAdmitted, StepScheduled, StepAttempted))


def cost_of(workflow: str, events: Sequence[RunEvent], *, bounded: bool) -> Cost | None:
    """What these events have cost; `bounded` where a budget may forbid what they begin. None: neither, as mostly."""
    micros, begins = 0, False
    for event in events:
        kind = type(event)
        if kind is StepSucceeded:
            spent: float = event.cost  # type: ignore[attr-defined]
            if spent:
                micros += cost_micros(spent)
        elif bounded and kind in _BEGINS:
            begins = begins or not (kind is RunStarted and event.queued)  # type: ignore[attr-defined]
    return Cost(workflow, micros, begins) if micros or begins else None


def record(
    before: RunState,
    events: Sequence[RunEvent],
    state: RunState,
    plan: Plan,
    mapper: Mapper,
    keys: TenantKeys,
    subject: SubjectKeys | Erased | None,
    caps: Callable[[], Caps],
    *,
    input_keys: tuple[str, ...] = (),
    settled: tuple[int, ...] = (),
    start: Start | None = None,
    arrival: Arrival | None = None,
    bare: bool = False,
    bounded: bool = False,
    tracing: RunTracing | None = None,
) -> tuple[Commit, list[fx.Perform]]:
    """The commit of one run's decisions, from `before` to `state`, and the local attempts to make after it. `caps` is
    asked only when the run takes a slot; `bare` says what `Closed` does, of the commits before this one; `bounded` says
    that a budget may forbid what begins here. With `tracing` messages carry the span that they follow from, else the
    context that began the run.
    """
    stream, version = state.run_id, before.version
    rows: Rows | None = None
    perform: list[fx.Perform] = []
    recorded: list[Recorded] = []
    for ordinal, event in enumerate(events, version + 1):
        recorded.append(mapper.encode(keys, stream, ordinal, event, subject))
        for effect in react(event, state):
            if isinstance(effect, fx.Perform):
                perform.append(effect)
                continue
            if rows is None:
                rows = Rows()
            _add(rows, effect, state, plan, keys, subject, event, ordinal, tracing)
    return (
        Commit(
            tenant=state.tenant,
            stream=stream,
            expected=version,
            events=tuple(recorded),
            start=start,
            arrival=arrival,
            input_keys=input_keys,
            settled=settled,
            open_run=_open_run(before, state, caps, bare=bare and not input_keys),
            cost=cost_of(state.workflow, events, bounded=bounded),
            **(rows.frozen(ended=state.ended is not None) if rows is not None else {}),
        ),
        perform,
    )


def _open_run(
    before: RunState, after: RunState, caps: Callable[[], Caps], *, bare: bool
) -> Opened | Changed | Closed | None:
    """How the run's row changes: slots are rows, so a slot moves in the same commit as the event that takes or frees
    it.
    """
    if after.ended is not None:
        return Closed(bare=bare)
    status = after.status
    if before.version == 0:
        return Opened(status=status, slot=after.holds_slot, deadline=after.due)
    if status == before.status and after.due == before.due:
        return None
    slot = after.holds_slot
    takes = slot and not before.holds_slot
    cap = caps() if takes else None
    return Changed(
        status=status,
        slot=slot,
        deadline=after.due,
        takes_slot=takes,
        workflow_cap=cap.workflow if cap is not None else None,
        tenant_cap=cap.tenant if cap is not None else None,
    )


def _add(
    rows: Rows,
    effect: fx.Effect,
    state: RunState,
    plan: Plan,
    keys: TenantKeys,
    subject: SubjectKeys | Erased | None,
    event: RunEvent,
    ordinal: int,
    tracing: RunTracing | None,
) -> None:
    match effect:
        case fx.Send():
            _send(rows, effect, state, plan, keys, subject, event.at, ordinal, tracing)
        case fx.SetTimer(key, due):
            rows.timers[key] = Timer(key=key, due=due)
        case fx.ClearTimer(key):
            if rows.timers.pop(key, None) is None:
                rows.timers_cleared.append(key)
        case fx.Subscribe():
            rows.subscriptions.append(
                Subscription(
                    name=effect.name,
                    visit=effect.visit,
                    type=effect.event,
                    key_name=effect.key_name,
                    key_hash=keys.index_hash(effect.key_name, effect.key_value),
                    look_back=effect.look_back,
                )
            )
        case fx.Unsubscribe(name, visit):
            rows.subscriptions_dropped.append((name, visit))
        case fx.Settled(key):
            rows.awaits_dropped.append(command_id(key))
        case fx.Recall(name, visit, at_once):
            rows.inputs.append(between_runs.recall(state, keys, name, visit, event.at, at_once=at_once))
        case fx.Continue(continued):
            rows.inputs.append(between_runs.go_on(continued, state, keys, subject, ordinal))
        case fx.Report(ended):
            rows.inputs.append(between_runs.report(ended, state, keys, subject))
        case fx.Notify(notice, fields):
            rows.outbox.append(_notice(notice, fields, state, keys, event.at, ordinal, tracing))


def _send(
    rows: Rows,
    effect: fx.Send,
    state: RunState,
    plan: Plan,
    keys: TenantKeys,
    subject: SubjectKeys | Erased | None,
    at: datetime,
    ordinal: int,
    tracing: RunTracing | None,
) -> None:
    """A command is one message however often it is sent: id and body follow from what was recorded."""
    step = state.step(effect.step, effect.visit)
    assert step is not None
    name = step.undo if effect.undo else step.action
    key = step.key + "/undo" if effect.undo else step.key
    spec = plan.action(name or "")
    if spec is not None and spec.run is not None:
        rows.inputs.append(between_runs.start(spec.run, effect, step, state, keys, subject, at, ordinal))
        if effect.attempt == 1:
            # No message answers it: it is the reason to wake until the child reports.
            what = f"{effect.step}/undo" if effect.undo else effect.step
            rows.awaits.append(Await(command_id=command_id(key), step=what, visit=effect.visit, types=()))
        return
    if spec is None or spec.command is None:
        # The command's module is not installed here: the attempt's deadline turns it into a failure.
        return
    data: Mapping[str, Any] = step.input
    if effect.undo:
        receipt = step.output if step.status == "succeeded" else None
        data = {"input": step.input, "receipt": receipt, "cause": state.cause}
    identity = command_id(key)
    traceparent = state.traceparent
    if tracing is not None:
        traceparent = tracing.attempt(state, effect.step, effect.visit, effect.attempt, undo=effect.undo).traceparent
    envelope = Envelope(
        id=identity,
        source=UNWIND.source,
        type=spec.command,
        tenantid=state.tenant,
        time=at,
        data=data,
        subject=key,
        correlationid=state.correlation_id,
        causationid=str(uuid5(state.run_id, str(ordinal))),
        traceparent=traceparent,
    )
    message_id = f"{identity}/{effect.attempt}"
    body = seal_blob(keys, "outbox", message_id, envelope.to_json(), subject)
    rows.outbox.append(
        OutboxMessage(message_id=message_id, exchange=COMMANDS_EXCHANGE, routing_key=spec.command, body=body)
    )
    if effect.attempt == 1:
        rows.awaits.append(
            Await(
                command_id=identity,
                step=effect.step + ("/undo" if effect.undo else ""),
                visit=effect.visit,
                types=spec.outcomes,
            )
        )


def _notice(
    notice: str,
    fields: Mapping[str, Any],
    state: RunState,
    keys: TenantKeys,
    at: datetime,
    ordinal: int,
    tracing: RunTracing | None,
) -> OutboxMessage:
    """One of the engine's own facts; its id follows from the place in the log, so a rebuilt outbox says the same."""
    identity = str(uuid5(state.run_id, f"{ordinal}/{notice}"))
    data = {
        "run_id": str(state.run_id),
        "workflow": state.workflow,
        "workflow_version": state.workflow_version,
        **fields,
    }
    envelope = Envelope(
        id=identity,
        source=UNWIND.source,
        type=f"unwind.{notice}",
        tenantid=state.tenant,
        time=at,
        data=data,
        subject=str(state.run_id),
        correlationid=state.correlation_id,
        causationid=str(uuid5(state.run_id, str(ordinal))),
        traceparent=state.traceparent if tracing is None else tracing.here(state).traceparent,
    )
    body = seal_blob(keys, "outbox", identity, envelope.to_json())
    return OutboxMessage(message_id=identity, exchange=EVENTS_EXCHANGE, routing_key=envelope.type, body=body)
