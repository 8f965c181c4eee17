"""What follows from an input: the story of a run, told as one match. Pure; the coordinator loads, calls this, and
appends what it answers.

A run goes forward by asking its plan what comes next (`engine.run.forward`). A step that fails is tried again while
its policy allows; then the run is unwound, goes on, or is parked for an operator (`engine.run.outcomes`). Unwinding
(`engine.run.unwind`) undoes ambiguous steps first, then completed ones, newest first, one at a time. A finished run
takes nothing: whatever comes late is ignored, with a reason.
"""

from __future__ import annotations

import re
from math import ceil, inf

from contracts import run_events as ev
from contracts.run_events import IncidentReason, RunEvent
from contracts.values import value
from engine.plan import Plan
from engine.run import inputs as given_
from engine.run.draft import Draft
from engine.run.forward import advance, attempt_held, park, resume_parked, start, try_again
from engine.run.inputs import Input
from engine.run.limits import Breach, limits_of
from engine.run.outcomes import attempt_timer, fate_learned, step_done, step_lost, step_moved
from engine.run.state import RunState
from engine.run.unwind import end, undo_again, undo_done, undo_lost, undo_retry, undo_skipped, unwind


@value()
class Decision:
    """What must be appended, and the state once it is. `ignored` says why an input changed nothing; `breaches` are the
    quotas that the run has met with it.
    """

    events: tuple[RunEvent, ...]
    state: RunState
    ignored: str | None = None
    breaches: tuple[Breach, ...] = ()


def decide(state: RunState, given: Input, plan: Plan, *, hold: bool = False, stuck: str | None = None) -> Decision:
    """The events that follow from `given`. With `hold`, no slot is free: what happened is recorded, but no new step
    begins (`RunHeld`). With `stuck`, the plan did not answer: what happened is recorded, and the run is parked.
    """
    if state.ended is not None:
        return Decision((), state, f"the run has ended ({state.ended})")
    if not state.version and not isinstance(given, given_.Begin):
        return Decision((), state, "the run has not begun")
    run = Draft(state, plan, given, hold, stuck)
    ignored = _hear(run, given)
    if not run.events:
        return Decision((), run.state, ignored or "it changes nothing")
    return Decision(tuple(run.events), run.state, None, run.breaches)


def _hear(run: Draft, given: Input) -> str | None:
    match given:
        case given_.Begin():
            if run.state.version:
                return "the run has begun already"
            start(run, given)
        case given_.Admitted():
            if not run.state.queued:
                return "the run is not queued"
            run.emit(ev.RunAdmitted(at=run.at))
            attempt_held(run)
            advance(run)
        case given_.StepDone(undo=True):
            return undo_done(run, given)
        case given_.StepLost(undo=True):
            return undo_lost(run, given)
        case given_.StepDone():
            return step_done(run, given)
        case given_.StepLost():
            return step_lost(run, given)
        case given_.StepMoved():
            return step_moved(run, given)
        case given_.FateLearned():
            return fate_learned(run, given)
        case given_.TimerDue():
            return _timer_due(run, given.key)
        case given_.FactMatched():
            return _fact_matched(run, given)
        case given_.Decided():
            return _decided(run, given)
        case given_.CancelAsked():
            if run.state.cause is not None:
                return "the run is being unwound already"
            unwind(run, "cancelled", by=given.by, error={"code": "cancelled", "message": given.reason})
        case given_.TerminateAsked():
            end(run, "cancelled", by=given.by, error={"code": "terminated", "message": given.reason})
        case given_.AbandonAsked():
            return _abandoned(run, given)
        case given_.RetryAsked():
            return _retry(run, given)
        case given_.SkipAsked():
            return _skip(run, given)
        case given_.PlanStuck():
            if run.state.cause is not None:
                return "the run is being unwound; its saga is not asked any more"
            known: dict[str, IncidentReason] = {"no_progress": "no_progress", "subject_erased": "subject_erased"}
            park(run, known.get(given.reason, "saga_stuck"), given.detail)
        case _:
            raise TypeError(f"{type(given).__name__} is not an input of a run")
    return None


# ------------------------------------------------------------------------------------------------------------------
# a wait has ended


TIMER = re.compile(
    r"(?:(?P<kind>retry|deadline|undo-retry|undo-deadline)|(?P<wait>sleep|wait|approval))"
    r"/(?P<name>.+?)/(?P<visit>\d+)(?(kind)/(?P<attempt>\d+))",
    re.DOTALL,
)
"""The key of a timer: of an attempt at a step, or of a wait."""


def _timer_due(run: Draft, key: str) -> str | None:
    if key == "run/deadline":
        return _run_timed_out(run)
    timer = TIMER.fullmatch(key)
    if timer is None:
        return f"no timer is called {key!r}"
    kind, name, visit = timer["kind"] or timer["wait"], timer["name"], int(timer["visit"])
    match kind:
        case "retry" | "deadline":
            return attempt_timer(run, kind, name, visit, int(timer["attempt"]))
        case "undo-retry" | "undo-deadline":
            return undo_retry(run, kind, name, visit, int(timer["attempt"]))
        case _:
            return _wait_over(run, kind, name, visit)


def _wait_over(run: Draft, kind: str, name: str, visit: int) -> str | None:
    wait = (run.state.waits or {}).get((name, visit))
    if wait is None or not wait.open:
        return f"nothing called {name!r} is waiting"
    match kind:
        case "sleep":
            run.emit(ev.SleepEnded(at=run.at, name=name, visit=visit))
        case "wait":
            run.emit(ev.WaitTimedOut(at=run.at, name=name, visit=visit))
        case _:
            run.emit(ev.ApprovalTimedOut(at=run.at, name=name, visit=visit))
    advance(run)
    return None


def _fact_matched(run: Draft, given: given_.FactMatched) -> str | None:
    wait = (run.state.waits or {}).get((given.name, given.visit))
    if wait is None or not wait.open or wait.kind != "fact":
        return f"nothing called {given.name!r} is waiting"
    if wait.due is not None and run.at > wait.due:
        return f"the wait {given.name!r} was over before this was heard"
    if any(other.matched == given.event_id for other in run.state.waits_called(given.name)):
        return f"this fact has answered an earlier wait {given.name!r}"
    marks = run.taint(given.data, tuple("/data" + mark for mark in given.marks), "/data")
    run.emit(
        ev.WaitMatched(
            at=run.at, name=given.name, visit=given.visit, event_id=given.event_id, data=given.data, marks=marks
        )
    )
    advance(run)
    return None


def _decided(run: Draft, given: given_.Decided) -> str | None:
    wait = next((w for w in run.state.open_waits() if w.name == given.name and w.kind == "approval"), None)
    if wait is None:
        return f"no approval called {given.name!r} is open"
    run.emit(
        ev.ApprovalDecided(
            at=run.at,
            name=wait.name,
            visit=wait.visit,
            approved=given.approved,
            by=given.by,
            comment=given.comment,
            marks=run.taint(given.comment, (), "/comment"),
        )
    )
    advance(run)
    return None


def _run_timed_out(run: Draft) -> str | None:
    if run.state.cause is not None or run.state.timed_out:
        return "the run's deadline has been dealt with"
    if run.state.incidents:
        return "the run is parked; its deadline stands still"
    if run.state.deadline is None or run.at < run.state.deadline:
        return "the run's deadline has moved"
    error = {"code": "run_timed_out", "message": "the run did not end before its deadline"}
    most = limits_of(run.state.trigger).get("run_seconds")
    if most is not None and most < (run.plan.timeout_seconds or inf):
        late = (run.at - run.state.deadline).total_seconds()
        run.breaches += (Breach("run_seconds", most + max(1, ceil(late)), most),)
    if run.plan.on_failure == "park":
        park(run, "run_timed_out", error["message"])
    else:
        unwind(run, "timed_out", by="engine", error=error)
    return None


# ------------------------------------------------------------------------------------------------------------------
# an operator has spoken


def _abandoned(run: Draft, given: given_.AbandonAsked) -> str | None:
    state = run.state
    if state.cause is not None:
        if not state.incidents:
            return "the run is being unwound already; abandon it again if an undo parks"
        end(run, "compensation_failed", by=given.by, error=state.cause_error)
        return None
    if not state.incidents:
        return "only a parked run can be abandoned; cancel it instead"
    for incident in list((state.incidents or {}).values()):
        run.emit(ev.IncidentResolved(at=run.at, incident=incident.id, how="abandon", by=given.by))
    unwind(run, "abandoned", by=given.by, error={"code": "abandoned", "message": given.reason})
    return None


def _retry(run: Draft, given: given_.RetryAsked) -> str | None:
    incidents = [i for i in (run.state.incidents or {}).values() if given.step is None or i.step == given.step]
    if not incidents:
        return "nothing is parked" if given.step is None else f"step {given.step!r} is not parked"
    for incident in incidents:
        run.emit(ev.IncidentResolved(at=run.at, incident=incident.id, how="retry", by=given.by))
        step = None if incident.step is None else run.state.step(incident.step, incident.visit or 1)
        if step is None:
            continue
        if incident.reason == "undo_failed":
            undo_again(run, step)
        elif run.hold and not run.state.queued:
            run.emit(ev.RunHeld(at=run.at))
        elif not run.state.queued:
            try_again(run, step)
    resume_parked(run)
    return None


def _skip(run: Draft, given: given_.SkipAsked) -> str | None:
    incident = next((i for i in (run.state.incidents or {}).values() if i.step == given.step), None)
    step = None if incident is None else run.state.step(given.step, incident.visit or 1)
    if incident is None or step is None:
        return f"step {given.step!r} is not parked"
    if incident.reason == "undo_failed":
        undo_skipped(run, step, given.output, incident, given.by)
        return None
    run.emit(ev.IncidentResolved(at=run.at, incident=incident.id, how="skip", by=given.by))
    marks = run.taint(given.output, (), "/output") + run.taint(given.reason, (), "/reason")
    run.emit(
        ev.StepSkipped(
            at=run.at,
            step=given.step,
            visit=incident.visit or 1,
            output=given.output,
            by=given.by,
            reason=given.reason,
            marks=marks,
        )
    )
    resume_parked(run)
    return None
