"""Going back: running siblings settle first, ambiguous steps are undone next, then completed ones, newest first, one
at a time.

An undo gets the receipt that do left behind, and a key of its own (the step's plus `/undo`). It is retried like a step;
when its attempts are used up the run parks and later undos wait. Only abandoning such a run ends it as
`compensation_failed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from contracts import run_events as ev
from engine.run.draft import Draft
from engine.run.inputs import StepDone, StepLost
from engine.run.retry import next_undo_at
from engine.run.state import Incident, RunState, Step

Cause = Literal["failed", "cancelled", "timed_out", "abandoned"]
_STATUS: Mapping[str, Any] = {
    "cancelled": "cancelled",
    "timed_out": "timed_out",
    "failed": "compensated",
    "abandoned": "compensated",
}


def unwind(
    run: Draft, cause: Cause | None = None, *, by: str = "engine", error: Mapping[str, Any] | None = None
) -> None:
    """Starts unwinding (with `cause`), or takes it one step further. Ends the run when nothing is left to undo."""
    if cause is not None:
        run.plan.forget(run.state)
        run.emit(
            ev.CompensationStarted(at=run.at, cause=cause, by=by, error=error, marks=run.taint(error, (), "/error"))
        )
    _settle_siblings(run)
    if run.state.open_steps() or any(step.undo_status in ("open", "backoff", "parked") for step in _steps(run.state)):
        return
    following = next_undo(run.state)
    if following is not None:
        if _may_be_undone(run, following):
            run.attempt_undo(following, 1)
        elif run.may_ask(following):
            run.doubt(following, following.error or {}, retryable=False)
        else:
            _ask_whether_it_happened(run, following)
        return
    assert run.state.cause is not None
    entered = run.plan.unwound_state(run.state.cause)
    if entered is not None and run.state.business_state not in (None, entered):
        run.emit(ev.StateEntered(at=run.at, name=entered, visit=0, previous=run.state.business_state))
    undone = any(step.undo_status == "done" for step in _steps(run.state))
    status = _STATUS[run.state.cause]
    nothing = status == "compensated" and not undone and (run.state.trigger or {}).get("kind") != "unwind"
    end(run, "failed" if nothing else status, by=by, error=run.state.cause_error)


def _settle_siblings(run: Draft) -> None:
    """Steps that wait for another attempt, or for an operator, will get none. Those under way settle by their outcome
    or their own timeout.
    """
    for step in _steps(run.state):
        if step.status in ("backoff", "parked"):
            ambiguous = step.ambiguous or (step.status == "backoff" and run.may_still_happen(step))
            run.emit(ev.StepCancelled(at=run.at, step=step.name, visit=step.visit, ambiguous=ambiguous))
    for incident in list((run.state.incidents or {}).values()):
        if incident.reason != "undo_failed":
            run.emit(ev.IncidentResolved(at=run.at, incident=incident.id, how="cancel", by="engine"))


def next_undo(state: RunState) -> Step | None:
    """The step to undo now: any ambiguous one first, then the newest completion."""
    waiting = [
        step
        for step in _steps(state)
        if step.undo is not None and step.undo_status == "" and (step.status == "succeeded" or step.ambiguous)
    ]
    return max(waiting, key=lambda step: (step.status != "succeeded", step.completed), default=None)


def _may_be_undone(run: Draft, step: Step) -> bool:
    """An ambiguous step is undone without a receipt only where its action says that this is safe (`tombstone`)."""
    if step.status == "succeeded":
        return True
    spec = run.plan.action(step.action)
    return spec is None or spec.ambiguous == "tombstone"


def _ask_whether_it_happened(run: Draft, step: Step) -> None:
    park_undo(
        run,
        step,
        f"nobody knows whether step {step.name!r} ({step.action}) happened; look, then retry (undo it without a "
        "receipt), skip (nothing is left to undo) or abandon",
    )


def park_undo(run: Draft, step: Step, detail: str) -> None:
    run.emit(
        ev.IncidentOpened(
            at=run.at,
            incident=f"{run.state.run_id}/{run.state.version + 1}",
            reason="undo_failed",
            step=step.name,
            visit=step.visit,
            detail=detail[:4000],
            marks=run.taint(detail[:4000], (), "/detail"),
        )
    )


def undo_done(run: Draft, given: StepDone) -> str | None:
    step = run.state.step(given.step, given.visit)
    if step is None or step.undo_status not in ("open", "backoff", "parked"):
        return f"no undo of step {given.step!r} is under way"
    incident = run.incident_of(step)
    if incident is not None:
        # What an operator was asked to look into has answered itself.
        run.emit(ev.IncidentResolved(at=run.at, incident=incident.id, how="redrive", by="engine"))
    run.emit(
        ev.UndoSucceeded(
            at=run.at,
            step=step.name,
            visit=step.visit,
            attempt=given.attempt or step.undo_attempt,
            output=given.output,
            marks=run.taint(given.output, (), "/output"),
        )
    )
    unwind(run)
    return None


def undo_lost(run: Draft, given: StepLost) -> str | None:
    step = run.state.step(given.step, given.visit)
    if step is None or step.undo_status != "open":
        return f"no undo of step {given.step!r} is under way"
    if given.attempt and given.attempt != step.undo_attempt:
        return f"attempt {given.attempt} of the undo of step {given.step!r} is over"
    _undo_attempt_failed(run, step, given)
    return None


def _undo_attempt_failed(run: Draft, step: Step, lost: StepLost) -> None:
    retry_at = None if lost.irrecoverable or not lost.retryable else next_undo_at(run, step, lost.error)
    run.emit(
        ev.UndoFailed(
            at=run.at,
            step=step.name,
            visit=step.visit,
            attempt=step.undo_attempt,
            error=lost.error,
            final=retry_at is None,
            retry_at=retry_at,
            marks=run.taint(lost.error, (), "/error"),
        )
    )
    if retry_at is None:
        why = f"{lost.error.get('code', 'failed')}: {lost.error.get('message', '')}"
        park_undo(run, step, f"undo of step {step.name!r}: {why}")


def undo_again(run: Draft, step: Step) -> None:
    """An operator's retry: the undo once more; or, while nobody could say whether there is anything to undo, the
    question.
    """
    if step.doubt and run.may_ask(step):
        run.doubt(step, step.error or {}, retryable=False)
    else:
        run.attempt_undo(step, step.undo_attempt + 1)


def undo_skipped(run: Draft, step: Step, output: Any, incident: Incident, by: str) -> None:
    """An operator says that nothing is left to undo, or has undone it by hand."""
    run.emit(ev.IncidentResolved(at=run.at, incident=incident.id, how="skip", by=by))
    run.emit(
        ev.UndoSucceeded(
            at=run.at,
            step=step.name,
            visit=step.visit,
            attempt=step.undo_attempt,
            output=output,
            marks=run.taint(output, (), "/output"),
        )
    )
    unwind(run)


def undo_retry(run: Draft, kind: str, name: str, visit: int, attempt: int) -> str | None:
    """A timer of an undo: its backoff is over, or its attempt has taken too long."""
    step = run.state.step(name, visit)
    if step is None or step.undo_attempt != attempt:
        return f"attempt {attempt} of the undo of step {name!r} is over"
    if kind == "undo-retry":
        if step.undo_status != "backoff":
            return f"the undo of step {name!r} is {step.undo_status or 'not begun'}"
        run.attempt_undo(step, attempt + 1)
        return None
    if step.undo_status != "open":
        return f"the undo of step {name!r} is {step.undo_status or 'not begun'}"
    error = {"code": "timeout", "message": "no outcome in time"}
    _undo_attempt_failed(
        run, step, StepLost(at=run.at, step=name, visit=visit, attempt=attempt, error=error, ambiguous=True)
    )
    return None


def end(run: Draft, status: Any, *, by: str, error: Mapping[str, Any] | None) -> None:
    """The last event; `left` names every step whose effect stands or may stand although an undo was declared."""
    run.plan.forget(run.state)
    left = tuple(
        f"{step.name}/{step.visit}"
        for step in _steps(run.state)
        if step.undo is not None
        and step.undo_status != "done"
        and (step.status in ("succeeded", "open") or step.ambiguous)
    )
    marks = run.taint(error, (), "/error")
    run.emit(ev.RunEnded(at=run.at, status=status, error=error, left=left, by=by, marks=marks))


def _steps(state: RunState) -> list[Step]:
    return list((state.steps or {}).values())
