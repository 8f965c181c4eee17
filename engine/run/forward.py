"""Going forward: start, ask the plan what comes next, record each request as an intent, park when it cannot go on."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from hashlib import blake2b

from contracts import run_events as ev
from contracts.pointers import resolve, segments
from contracts.run_events import IncidentReason
from engine.plan import (
    ApprovalAsked,
    Ask,
    Continued,
    Diverged,
    Finished,
    GaveUp,
    Operation,
    Raised,
    SleepAsked,
    StateAsked,
    StepAsked,
    ValueAsked,
    WaitAsked,
)
from engine.run.children import child_id
from engine.run.draft import Draft
from engine.run.inputs import Begin
from engine.run.limits import limits_of, seconds_allowed
from engine.run.rerun import reuse, step_key, unlike_before
from engine.run.state import Step
from engine.run.unwind import unwind


def start(run: Draft, given: Begin) -> None:
    """The first event, and the plan's first requests unless the run must queue for a slot."""
    plan = run.plan
    unwinds = given.trigger.get("kind") == "unwind"
    timeout = None if unwinds else seconds_allowed(plan.timeout_seconds, limits_of(given.trigger))
    attributes = plan.attributes(given.data)
    run.emit(
        ev.RunStarted(
            at=run.at,
            workflow=plan.name,
            workflow_version=plan.version,
            trigger=given.trigger,
            data=given.data,
            scope=given.scope or str(given.run_id),
            initiator=given.initiator,
            correlation_id=given.correlation_id,
            causation_id=given.causation_id,
            traceparent=given.traceparent,
            subject=given.subject,
            attributes=attributes,
            deadline=run.at + timedelta(seconds=timeout) if timeout else None,
            queued=given.queued and not unwinds,
            marks=_start_marks(given, attributes),
        )
    )
    if unwinds:
        for step in given.adopted:
            run.emit(replace(step, at=run.at))
        unwind(run, "abandoned", by=given.initiator, error={"code": "undone", "message": "what the run did is undone"})
        return
    for one in given.inherited:
        run.emit(
            ev.ResultInherited(
                at=run.at,
                name=one.name,
                visit=one.visit,
                kind=one.kind,
                what=one.what,
                digest=one.digest,
                fate=one.fate,
                key=one.key,
                undoable=one.undoable,
                value=one.value,
                marks=one.marks,
            )
        )
    if not given.queued:
        advance(run)


def _start_marks(given: Begin, attributes: Mapping[str, str]) -> tuple[str, ...]:
    """What is personal in the trigger's data, and the attributes that repeat such a value."""
    if not given.marks:
        return ()
    personal = {str(resolve(given.data, segments(mark))) for mark in given.marks}
    repeated = tuple(f"/attributes/{name}" for name, value in attributes.items() if value in personal)
    return tuple("/data" + mark for mark in given.marks) + repeated


def advance(run: Draft) -> None:
    """Asks the plan until it waits, ends, or cannot go on. New steps begin only with a slot: under `hold` the run
    queues instead.
    """
    while True:
        if run.state.queued or any(i.step is None for i in (run.state.incidents or {}).values()):
            return
        if run.stuck is not None:
            park(run, "saga_stuck", run.stuck)
            return
        answer = run.plan.next(run.state)
        match answer:
            case Ask(operations, breaches):
                if run.hold and any(isinstance(op, StepAsked) for op in operations):
                    run.plan.forget(run.state)
                    run.emit(ev.RunHeld(at=run.at))
                    return
                run.breaches += breaches
                unlike = unlike_before(run.state, operations)
                if unlike is not None:
                    park(run, "saga_changed", unlike)
                    return
                at_once = False
                for operation in operations:
                    at_once = reuse(run, operation) or _begin(run, operation) or at_once
                if not at_once:
                    return
            case Finished(output, breaches):
                run.breaches += breaches
                run.emit(
                    ev.RunEnded(
                        at=run.at,
                        status="succeeded",
                        output=output,
                        by="engine",
                        marks=run.taint(output, (), "/output"),
                    )
                )
                return
            case Continued(data, breaches):
                run.breaches += breaches
                following = child_id(run.state.run_id, "continue", 1, 1, run.at)
                run.emit(
                    ev.RunContinued(at=run.at, run_id=str(following), data=data, marks=run.taint(data, (), "/data"))
                )
                run.emit(ev.RunEnded(at=run.at, status="succeeded", by="engine"))
                return
            case GaveUp(code, message, breaches):
                run.breaches += breaches
                unwind(run, "failed", by="saga", error={"code": code, "message": message})
                return
            case Raised(detail):
                park(run, "saga_raised", detail)
                return
            case Diverged(diff):
                park(run, "saga_changed", diff)
                return


def _begin(run: Draft, operation: Operation) -> bool:
    """Records one request. True when it is answered at once, so that the plan can be asked again."""
    at = run.at
    match operation:
        case StepAsked():
            run.emit(
                ev.StepScheduled(
                    at=at,
                    step=operation.name,
                    visit=operation.visit,
                    key=step_key(run.state, operation),
                    action=operation.spec.name,
                    kind=operation.spec.kind,
                    input=operation.input,
                    input_hash=operation.input_hash,
                    deadline=run.deadline(operation.timeout_seconds),
                    undo=operation.undo,
                    on_failure=operation.on_failure,
                    retry=asdict(operation.retry) if operation.retry is not None else None,
                    timeout_seconds=operation.timeout_seconds,
                    marks=run.marks(operation.input, operation.spec.input_marks, "/input"),
                )
            )
            return False
        case SleepAsked():
            due = operation.until if operation.until is not None else at + timedelta(seconds=operation.seconds or 0.0)
            run.emit(ev.SleepStarted(at=at, name=operation.name, visit=operation.visit, due=due))
            return False
        case WaitAsked():
            assert run.state.started_at is not None
            run.emit(
                ev.WaitStarted(
                    at=at,
                    name=operation.name,
                    visit=operation.visit,
                    event=operation.event,
                    key_name=operation.key_name,
                    key_value=operation.key_value,
                    look_back=_look_back(run, operation),
                    due=_due(at, operation.timeout_seconds),
                    marks=run.taint(operation.key_value, (), "/key_value"),
                )
            )
            return False
        case ApprovalAsked():
            run.emit(
                ev.ApprovalRequested(
                    at=at,
                    name=operation.name,
                    visit=operation.visit,
                    title=operation.title,
                    role=operation.role,
                    context=operation.context,
                    due=_due(at, operation.timeout_seconds),
                    marks=run.taint(operation.context, (), "/context"),
                )
            )
            return False
        case StateAsked():
            run.emit(
                ev.StateEntered(at=at, name=operation.name, visit=operation.visit, previous=run.state.business_state)
            )
            return True
        case ValueAsked():
            run.emit(ev.ValueRecorded(at=at, name=operation.name, visit=operation.visit, value=_value(run, operation)))
            return True


def _due(at: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else at + timedelta(seconds=seconds)


def _look_back(run: Draft, operation: WaitAsked) -> datetime:
    """A first wait may be answered by what came since the run started; the same wait in a loop only by what came after
    its last match.
    """
    assert run.state.started_at is not None
    return run.state.started_at if operation.visit == 1 else run.at


def _value(run: Draft, operation: ValueAsked) -> str | float:
    """Derived from the run's id and the operation's name, so that no dice are needed below the door."""
    seed = f"{run.state.run_id}/{operation.name}/{operation.visit}"
    match operation.kind:
        case "now":
            return run.at.isoformat(timespec="microseconds").replace("+00:00", "Z")
        case "uuid":
            return str(uuid.uuid5(run.state.run_id, seed))
        case "random":
            return int.from_bytes(blake2b(seed.encode(), digest_size=7).digest()) / (1 << 56)


def park(run: Draft, reason: IncidentReason, detail: str, *, step: Step | None = None) -> None:
    """Stops this branch for an operator and undoes nothing; siblings go on to their next wait."""
    plan = run.plan
    plan.forget(run.state)
    first = not run.state.incidents
    run.emit(
        ev.IncidentOpened(
            at=run.at,
            incident=f"{run.state.run_id}/{run.state.version + 1}",
            reason=reason,
            detail=detail[:4000],
            marks=run.taint(detail[:4000], (), "/detail"),
            step=step.name if step else None,
            visit=step.visit if step else None,
        )
    )
    if first and plan.parked_state is not None:
        run.emit(ev.StateEntered(at=run.at, name=plan.parked_state, visit=0, previous=run.state.business_state))


def attempt_held(run: Draft) -> None:
    """Makes the attempts that came due, or that an operator asked for, while no slot was free."""
    for step in list((run.state.steps or {}).values()):
        due = step.status == "backoff" and step.deadline is not None and step.deadline <= run.at
        if due or (step.status == "parked" and run.incident_of(step) is None):
            try_again(run, step)


def try_again(run: Draft, step: Step) -> None:
    """The next attempt; or, where nobody could say what became of the last one, the same question once more."""
    if step.doubt:
        run.doubt(step, step.error or {}, retryable=step.doubt == "retryable")
    else:
        run.attempt(step, step.attempt + 1)


def resume_parked(run: Draft) -> None:
    """After an operator's repair: back to the business state before the park, and on, when nothing else is parked."""
    state = run.state
    if (
        not state.incidents
        and run.plan.parked_state is not None
        and state.state_before_park is not None
        and state.business_state == run.plan.parked_state
    ):
        run.emit(ev.StateEntered(at=run.at, name=state.state_before_park, visit=0, previous=state.business_state))
    if state.cause is None:
        run.plan.forget(run.state)
        advance(run)
    else:
        unwind(run)
