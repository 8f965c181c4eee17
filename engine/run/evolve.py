"""What is true after an event: the fold. Total over every event a stream can hold, and the only place that changes a
`RunState`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from typing import Any

from contracts import run_events as ev
from contracts.pointers import resolve, segments
from contracts.run_events import RunEvent
from engine.run.state import Completion, Incident, Inherited, RunState, Step, Wait

SHORTEST_TAINT = 4
"""Personal texts shorter than this are masked only where a schema marks them: `DE` would taint everything."""


def evolve(state: RunState, event: RunEvent) -> RunState:
    """The state after `event`; `state` itself is left as it was."""
    new = state.copy()
    apply(new, event)
    return new


def fold(state: RunState, events: Iterable[RunEvent]) -> RunState:
    """The state after all of `events`, with one copy."""
    new = state.copy()
    for event in events:
        apply(new, event)
    return new


def apply(state: RunState, event: RunEvent) -> None:
    """Evolves `state` in place: for callers that own their copy (`decide`, `fold`)."""
    _APPLY[type(event)](state, event)
    state.version += 1
    if event.marks:
        state.personal |= frozenset(personal_texts(event))


def personal_texts(event: RunEvent) -> Iterator[str]:
    """The texts that the event's marks name, long enough to be recognised elsewhere."""
    for mark in event.marks:
        field, *rest = segments(mark)
        value = resolve(getattr(event, field), tuple(rest))
        yield from (text for _, text in texts(value, "") if len(text) >= SHORTEST_TAINT)


def texts(value: Any, pointer: str) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, with its pointer under `pointer`."""
    if isinstance(value, str):
        yield pointer, value
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from texts(child, f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from texts(child, f"{pointer}/{index}")


def _run_started(state: RunState, event: ev.RunStarted) -> None:
    state.workflow = event.workflow
    state.workflow_version = event.workflow_version
    state.trigger = event.trigger
    state.data = event.data
    state.data_marks = event.marks
    state.scope = event.scope
    state.initiator = event.initiator
    state.correlation_id = event.correlation_id
    state.causation_id = event.causation_id
    state.traceparent = event.traceparent
    state.subject = event.subject
    state.attributes = event.attributes
    state.started_at = event.at
    state.deadline = event.deadline
    state.allowed = None if event.deadline is None else event.deadline - event.at
    state.queued = event.queued
    state.steps, state.waits, state.recorded, state.completions, state.incidents = {}, {}, {}, [], {}


def inherited(event: ev.ResultInherited) -> Inherited:
    """What the event tells a rerun, as a value."""
    return Inherited(
        event.name, event.visit, event.kind, event.what, event.digest, event.fate, event.key, event.undoable,
        event.value, event.marks,
    )  # fmt: skip


def _result_inherited(state: RunState, event: ev.ResultInherited) -> None:
    if state.inherited is None:
        state.inherited = {}
    state.inherited[event.name, event.visit] = inherited(event)


def _step_reused(state: RunState, event: ev.StepReused) -> None:
    assert state.steps is not None
    assert state.recorded is not None
    state.steps[event.step, event.visit] = Step(
        name=event.step,
        visit=event.visit,
        key=event.key,
        action=event.action,
        kind=event.kind,
        input=event.input,
        input_hash=event.input_hash,
        undo=event.undo,
        on_failure=event.on_failure,
        retry=None,
        timeout_seconds=event.timeout_seconds,
        marks=tuple(mark for mark in event.marks if mark.startswith("/input")),
        status="succeeded",
        attempt=0,
        output=event.output,
        output_marks=tuple(mark for mark in event.marks if mark.startswith("/output")),
        completed=state.version + 1,
    )
    state.recorded[event.step, event.visit] = ("step", event.action, event.input_hash)
    _complete(state, event.step, event.visit, True, event.output)


def _result_reused(state: RunState, event: ev.ResultReused) -> None:
    assert state.recorded is not None
    state.recorded[event.name, event.visit] = (event.kind, event.what, event.digest)
    _complete(state, event.name, event.visit, True, event.value)


def _run_held(state: RunState, event: ev.RunHeld) -> None:
    state.queued = True


def _run_admitted(state: RunState, event: ev.RunAdmitted) -> None:
    state.queued = False


def _step_scheduled(state: RunState, event: ev.StepScheduled) -> None:
    key = (event.step, event.visit)
    assert state.steps is not None
    assert state.recorded is not None
    state.steps[key] = Step(
        event.step,
        event.visit,
        event.key,
        event.action,
        event.kind,
        event.input,
        event.input_hash,
        event.undo,
        event.on_failure,
        event.retry,
        event.timeout_seconds,
        event.marks,
        "open",
        1,
        event.deadline,
        event.at,
    )
    state.recorded[key] = ("step", event.action, event.input_hash)


def _change(state: RunState, name: str, visit: int) -> Step:
    """This step, as a copy already put in place of the shared one."""
    assert state.steps is not None
    step = state.steps[name, visit].copy()
    state.steps[name, visit] = step
    return step


def _step_attempted(state: RunState, event: ev.StepAttempted) -> None:
    step = _change(state, event.step, event.visit)
    step.status, step.attempt, step.deadline, step.began = "open", event.attempt, event.deadline, event.at
    step.doubt = ""


def _step_progressed(state: RunState, event: ev.StepProgressed) -> None:
    step = _change(state, event.step, event.visit)
    step.progress = event.progress


def _step_succeeded(state: RunState, event: ev.StepSucceeded) -> None:
    step = _change(state, event.step, event.visit)
    step.status, step.output, step.output_marks, step.completed = (
        "succeeded",
        event.output,
        event.marks,
        state.version + 1,
    )
    step.ambiguous, step.doubt, step.progress = False, "", None
    _complete(state, event.step, event.visit, True, event.output)


def _step_failed(state: RunState, event: ev.StepFailed) -> None:
    step = _change(state, event.step, event.visit)
    step.error, step.deadline, step.doubt = event.error, None, ""
    step.ambiguous = step.ambiguous or event.ambiguous
    step.put_off += "put_off_seconds" in event.error
    if not event.final:
        step.status = "backoff"
        step.deadline = event.retry_at
        return
    step.status, step.completed = "failed", state.version + 1
    if step.on_failure == "continue":
        _complete(state, event.step, event.visit, False, event.error)


def _step_doubted(state: RunState, event: ev.StepDoubted) -> None:
    step = _change(state, event.step, event.visit)
    step.status, step.error, step.deadline, step.ambiguous = "open", event.error, None, True
    step.doubt = "retryable" if event.retryable else "final"
    if step.undo_status == "parked":
        step.undo_status = ""


def _step_cleared(state: RunState, event: ev.StepCleared) -> None:
    step = _change(state, event.step, event.visit)
    step.doubt = ""
    if event.closing:
        step.status, step.ambiguous, step.completed = "cancelled", False, state.version + 1


def _step_skipped(state: RunState, event: ev.StepSkipped) -> None:
    step = _change(state, event.step, event.visit)
    step.status, step.output, step.undo = "skipped", event.output, None
    step.output_marks, step.doubt = event.marks, ""
    _complete(state, event.step, event.visit, True, event.output)


def _step_cancelled(state: RunState, event: ev.StepCancelled) -> None:
    step = _change(state, event.step, event.visit)
    step.status, step.ambiguous, step.completed = "cancelled", event.ambiguous, state.version + 1
    step.doubt = ""


def _complete(state: RunState, name: str, visit: int, ok: bool, value: Any) -> None:
    assert state.completions is not None
    state.completions.append(Completion(name, visit, ok, value))


def _wait(state: RunState, wait: Wait, what: str, digest: str = "") -> None:
    assert state.waits is not None
    assert state.recorded is not None
    state.waits[wait.name, wait.visit] = wait
    state.recorded[wait.name, wait.visit] = (wait.kind, what, digest)


def _settle_wait(state: RunState, name: str, visit: int, value: Any, matched: str | None = None) -> None:
    assert state.waits is not None
    wait = copy(state.waits[name, visit])
    wait.open, wait.matched = False, matched
    state.waits[name, visit] = wait
    _complete(state, name, visit, True, value)


def _sleep_started(state: RunState, event: ev.SleepStarted) -> None:
    _wait(state, Wait(event.name, event.visit, "sleep", event.due, {}), "")


def _sleep_ended(state: RunState, event: ev.SleepEnded) -> None:
    _settle_wait(state, event.name, event.visit, None)


def _wait_started(state: RunState, event: ev.WaitStarted) -> None:
    asked = {
        "event": event.event,
        "key_name": event.key_name,
        "key_value": event.key_value,
        "look_back": event.look_back,
    }
    _wait(state, Wait(event.name, event.visit, "fact", event.due, asked), event.event, event.key_value)


def _wait_matched(state: RunState, event: ev.WaitMatched) -> None:
    _settle_wait(state, event.name, event.visit, event.data, event.event_id)


def _wait_timed_out(state: RunState, event: ev.WaitTimedOut) -> None:
    _settle_wait(state, event.name, event.visit, None)


def _approval_requested(state: RunState, event: ev.ApprovalRequested) -> None:
    asked = {"title": event.title, "role": event.role, "context": event.context}
    _wait(state, Wait(event.name, event.visit, "approval", event.due, asked), event.role)


def _approval_decided(state: RunState, event: ev.ApprovalDecided) -> None:
    _settle_wait(
        state,
        event.name,
        event.visit,
        {"approved": event.approved, "by": event.by, "comment": event.comment, "timed_out": False},
    )


def _approval_timed_out(state: RunState, event: ev.ApprovalTimedOut) -> None:
    _settle_wait(state, event.name, event.visit, {"approved": False, "by": None, "comment": "", "timed_out": True})


def _state_entered(state: RunState, event: ev.StateEntered) -> None:
    state.business_state = event.name
    if event.visit:  # asked for by the saga; visit 0 is the engine's own, around a park
        assert state.recorded is not None
        state.recorded[f"state:{event.name}", event.visit] = ("state", event.name, "")
        _complete(state, f"state:{event.name}", event.visit, True, None)


def _value_recorded(state: RunState, event: ev.ValueRecorded) -> None:
    assert state.recorded is not None
    state.recorded[event.name, event.visit] = ("value", "", "")
    _complete(state, event.name, event.visit, True, event.value)


def _incident_opened(state: RunState, event: ev.IncidentOpened) -> None:
    assert state.incidents is not None
    if not state.incidents:
        state.state_before_park, state.parked_at = state.business_state, event.at
    state.incidents[event.incident] = Incident(event.incident, event.reason, event.detail, event.step, event.visit)
    if event.reason == "run_timed_out":
        state.timed_out = True
    if event.step is not None and event.visit is not None:
        step = _change(state, event.step, event.visit)
        if event.reason == "undo_failed":
            step.undo_status = "parked"
            if step.doubt:
                step.status = "cancelled"
        else:
            step.status = "parked"


def _incident_resolved(state: RunState, event: ev.IncidentResolved) -> None:
    assert state.incidents is not None
    resolved = state.incidents.pop(event.incident, None)
    if resolved is None or state.deadline is None:
        return
    assert state.parked_at is not None
    assert state.allowed is not None
    if resolved.reason == "run_timed_out":
        # Its time was up; the operator who lets it go on gives it its whole time again.
        state.deadline, state.parked_at, state.timed_out = event.at + state.allowed, event.at, False
    elif not state.incidents:
        state.deadline += event.at - state.parked_at


def _compensation_started(state: RunState, event: ev.CompensationStarted) -> None:
    assert state.waits is not None
    state.cause, state.cause_error, state.queued = event.cause, event.error, False
    for key, wait in state.waits.items():
        if wait.open:
            closed = copy(wait)
            closed.open = False
            state.waits[key] = closed


def _undo_scheduled(state: RunState, event: ev.UndoScheduled) -> None:
    step = _change(state, event.step, event.visit)
    step.undo_status, step.undo_attempt, step.undo_deadline = "open", event.attempt, event.deadline


def _undo_succeeded(state: RunState, event: ev.UndoSucceeded) -> None:
    step = _change(state, event.step, event.visit)
    step.undo_status, step.undo_deadline, step.undo_error = "done", None, None


def _undo_failed(state: RunState, event: ev.UndoFailed) -> None:
    step = _change(state, event.step, event.visit)
    step.undo_put_off += "put_off_seconds" in event.error
    step.undo_status, step.undo_error, step.undo_deadline = (
        "parked" if event.final else "backoff",
        event.error,
        event.retry_at,
    )


def _run_continued(state: RunState, event: ev.RunContinued) -> None:
    state.continued = event.run_id


def _run_ended(state: RunState, event: ev.RunEnded) -> None:
    state.ended, state.end_output, state.queued = event.status, event.output, False


_APPLY: dict[type[RunEvent], Callable[[RunState, Any], None]] = {
    ev.RunStarted: _run_started,
    ev.ResultInherited: _result_inherited,
    ev.StepReused: _step_reused,
    ev.ResultReused: _result_reused,
    ev.RunHeld: _run_held,
    ev.RunAdmitted: _run_admitted,
    ev.StepScheduled: _step_scheduled,
    ev.StepAttempted: _step_attempted,
    ev.StepProgressed: _step_progressed,
    ev.StepSucceeded: _step_succeeded,
    ev.StepFailed: _step_failed,
    ev.StepDoubted: _step_doubted,
    ev.StepCleared: _step_cleared,
    ev.StepSkipped: _step_skipped,
    ev.StepCancelled: _step_cancelled,
    ev.SleepStarted: _sleep_started,
    ev.SleepEnded: _sleep_ended,
    ev.WaitStarted: _wait_started,
    ev.WaitMatched: _wait_matched,
    ev.WaitTimedOut: _wait_timed_out,
    ev.ApprovalRequested: _approval_requested,
    ev.ApprovalDecided: _approval_decided,
    ev.ApprovalTimedOut: _approval_timed_out,
    ev.StateEntered: _state_entered,
    ev.ValueRecorded: _value_recorded,
    ev.IncidentOpened: _incident_opened,
    ev.IncidentResolved: _incident_resolved,
    ev.CompensationStarted: _compensation_started,
    ev.UndoScheduled: _undo_scheduled,
    ev.UndoSucceeded: _undo_succeeded,
    ev.UndoFailed: _undo_failed,
    ev.RunContinued: _run_continued,
    ev.RunEnded: _run_ended,
}
