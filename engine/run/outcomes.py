"""An attempt has ended, or nobody knows whether it has: a step is done, its attempt is lost, its fate is learned by
asking, its time is up. What follows goes forward (`engine.run.forward`) or back (`engine.run.unwind`).

Only `engine.run.decide` calls this; attempts to undo have the same life in `engine.run.unwind`.
"""

from __future__ import annotations

from contracts import run_events as ev
from engine.run.draft import Draft
from engine.run.forward import advance, park, resume_parked
from engine.run.inputs import FateLearned, StepDone, StepLost, StepMoved
from engine.run.retry import next_attempt_at
from engine.run.state import Step
from engine.run.unwind import park_undo, unwind


def step_done(run: Draft, given: StepDone) -> str | None:
    step = run.state.step(given.step, given.visit)
    if step is None:
        return f"no step {given.step!r} (visit {given.visit}) was asked for"
    if step.status not in ("open", "backoff", "parked"):
        return f"step {given.step!r} is {step.status} already"
    incident = run.incident_of(step) if step.status == "parked" else None
    spec = run.plan.action(step.action)
    marks = run.marks(given.output, spec.output_marks if spec else (), "/output")
    run.emit(
        ev.StepSucceeded(
            at=run.at,
            step=step.name,
            visit=step.visit,
            attempt=given.attempt or step.attempt,
            output=given.output,
            cost=given.cost,
            marks=marks,
        )
    )
    if incident is None:
        _go_on(run)
    else:
        # What an operator was asked to look into has answered itself.
        run.emit(ev.IncidentResolved(at=run.at, incident=incident.id, how="redrive", by="engine"))
        resume_parked(run)
    return None


def step_moved(run: Draft, given: StepMoved) -> str | None:
    step = run.state.step(given.step, given.visit)
    if step is None:
        return f"no step {given.step!r} (visit {given.visit}) was asked for"
    if step.status != "open" or step.attempt != given.attempt or step.doubt:
        return f"attempt {given.attempt} of step {given.step!r} is not under way"
    run.emit(
        ev.StepProgressed(
            at=run.at,
            step=step.name,
            visit=step.visit,
            attempt=given.attempt,
            progress=given.progress,
            marks=run.marks(given.progress, (), "/progress"),
        )
    )
    return None


def step_lost(run: Draft, given: StepLost) -> str | None:
    step = run.state.step(given.step, given.visit)
    if step is None:
        return f"no step {given.step!r} (visit {given.visit}) was asked for"
    if step.status != "open":
        return f"step {given.step!r} is {step.status}"
    if given.attempt and given.attempt != step.attempt:
        return f"attempt {given.attempt} of step {given.step!r} is over; attempt {step.attempt} is under way"
    _attempt_failed(run, step, given)
    return None


def _attempt_failed(run: Draft, step: Step, lost: StepLost) -> None:
    """An unknown fate is asked about first where somebody can say. Then retries; then the step's own policy. An answer
    that says it can never work skips the retries, and unwinds where the policy would have parked.
    """
    if lost.ambiguous and not lost.irrecoverable and run.may_ask(step):
        run.doubt(step, lost.error, retryable=lost.retryable)
        return
    _failed(run, step, lost)


def _failed(run: Draft, step: Step, lost: StepLost) -> None:
    retry_at = None
    again = lost.retryable and not lost.irrecoverable
    if run.state.cause is None and again:
        retry_at = next_attempt_at(run, step, lost.error)
    final = retry_at is None
    run.emit(
        ev.StepFailed(
            at=run.at,
            step=step.name,
            visit=step.visit,
            attempt=step.attempt,
            error=lost.error,
            final=final,
            ambiguous=lost.ambiguous or (final and again and run.may_still_happen(step)),
            irrecoverable=lost.irrecoverable,
            retry_at=retry_at,
            marks=run.taint(lost.error, (), "/error"),
        )
    )
    if not final:
        return
    if run.state.cause is not None:
        unwind(run)
    elif step.on_failure == "continue":
        advance(run)
    elif step.on_failure == "park" and not lost.irrecoverable:
        park(run, "step_failed", _blame(step.name, lost.error), step=step)
    else:
        unwind(run, "failed", by="engine", error=lost.error)


def fate_learned(run: Draft, given: FateLearned) -> str | None:
    step = run.state.step(given.step, given.visit)
    if step is None or not step.doubt or step.status != "open" or given.attempt != step.attempt:
        return f"nobody asks any more what became of attempt {given.attempt} of step {given.step!r}"
    back = run.state.cause is not None
    if given.happened:
        return step_done(
            run, StepDone(at=run.at, step=step.name, visit=step.visit, attempt=step.attempt, output=given.output)
        )
    if given.happened is None:
        why = f"nobody could say whether step {step.name!r} ({step.action}) happened: {given.detail}"
        if back:
            park_undo(run, step, f"{why}; look, then retry (ask again), skip (nothing is left to undo) or abandon")
        else:
            park(run, "fate_unknown", f"{why}; retry asks again", step=step)
        return None
    retryable, error = step.doubt == "retryable", step.error or {}
    run.emit(
        ev.StepCleared(
            at=run.at, step=step.name, visit=step.visit, attempt=step.attempt, closing=back and given.closing
        )
    )
    if not back:
        # It may still happen: the order can lie in a queue. Who unwinds asks once more, with `closing`.
        _failed(
            run,
            step,
            StepLost(
                at=run.at,
                step=step.name,
                visit=step.visit,
                attempt=step.attempt,
                error=error,
                retryable=retryable,
                ambiguous=True,
            ),
        )
    elif given.closing:
        unwind(run)
    else:
        run.doubt(step, error, retryable=False)  # it was asked before unwinding began
    return None


def attempt_timer(run: Draft, kind: str, name: str, visit: int, attempt: int) -> str | None:
    step = run.state.step(name, visit)
    if step is None or step.attempt != attempt:
        return f"attempt {attempt} of step {name!r} is over"
    if kind == "retry":
        if step.status != "backoff":
            return f"step {name!r} is {step.status}"
        if run.state.queued:
            return "the run is queued; the step is tried again once a slot is free"
        if run.hold:
            run.emit(ev.RunHeld(at=run.at))
        else:
            run.attempt(step, attempt + 1)
        return None
    if step.status != "open" or step.doubt:
        return f"step {name!r} is {'in doubt' if step.doubt else step.status}"
    error = {"code": "timeout", "message": f"no outcome within {step.timeout_seconds:g} s"}
    _attempt_failed(
        run, step, StepLost(at=run.at, step=name, visit=visit, attempt=attempt, error=error, ambiguous=True)
    )
    return None


def _go_on(run: Draft) -> None:
    """Forward, or further back, whichever way the run is going."""
    if run.state.cause is None:
        advance(run)
    else:
        unwind(run)


def _blame(step: str, error: object) -> str:
    if isinstance(error, dict):
        return f"step {step!r}: {error.get('code', 'failed')}: {error.get('message', '')}"
    return f"step {step!r} failed"
