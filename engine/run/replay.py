"""Deriving a recorded run once more: each recorded event is either what an input led to or follows from the one before,
so the inputs can be told from the log, and `decide` asked again with today's code. Pure: nothing is performed.

What a decision recorded must be what it is now, event by event and field by field. At the first difference it stops:
what comes after rests on another past.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from contracts import run_events as ev
from contracts.pointers import ERASED_VALUE, resolve, segments
from contracts.run_events import RunEvent
from contracts.values import value
from engine.plan import Plan
from engine.run import inputs as given_
from engine.run.decide import decide
from engine.run.evolve import fold, inherited
from engine.run.inputs import Input
from engine.run.state import Inherited, RunState

Decide = Callable[..., Any]
"""`engine.run.decide.decide`, or the same with a limit on its time."""


@value()
class Difference:
    """At `version` the log goes on with `recorded`, and today's code with `derived` (empty: it ignores the input, or
    nothing is known that would lead there). Both are the events of one decision.
    """

    version: int
    recorded: tuple[RunEvent, ...]
    derived: tuple[RunEvent, ...]


@value()
class Replayed:
    """`events` of the log were derived again in so many `decisions`; of `recorded` in all. `difference` is None when
    all were. `erased` is the version of the first event that an erasure has emptied: what follows from it cannot be
    derived, so the replay ends before it.
    """

    recorded: int
    events: int
    decisions: int
    difference: Difference | None = None
    erased: int | None = None


def replay(
    run_id: UUID, tenant: str, log: Sequence[RunEvent], plan: Plan, *, ask: Decide = decide
) -> Iterator[Replayed]:
    """Derives `log`, the history of one run, again: yields after every decision how far it came, and last what came of
    the whole. `plan` must not be the one that drives the live run: it is asked about the past.
    """
    state = RunState(run_id, tenant)
    at = decisions = 0
    legible = next((place for place, event in enumerate(log) if is_erased(event)), len(log))
    while at < len(log):
        derived = derive(state, log[at:], plan, ask)
        recorded = derived.matched or tuple(_decision(log[at:]))
        if at + len(recorded) > legible:
            yield Replayed(len(log), at, decisions, erased=legible + 1)
            return
        if not derived.matched:
            yield Replayed(len(log), at, decisions, Difference(at + 1, recorded, derived.instead))
            return
        state = fold(state, recorded)
        at += len(recorded)
        decisions += 1
        yield Replayed(len(log), at, decisions)


@value()
class Derived:
    """`matched` are the events of one decision, as recorded; when none of the inputs leads there, it is empty and
    `instead` is what the likeliest one leads to.
    """

    matched: tuple[RunEvent, ...]
    instead: tuple[RunEvent, ...] = ()


def derive(state: RunState, rest: Sequence[RunEvent], plan: Plan, ask: Decide = decide) -> Derived:
    """One decision: whether an input that may have caused what `rest` begins with leads to exactly these events."""
    instead: tuple[RunEvent, ...] | None = None
    for given, how in _causes(state, rest):
        events = ask(state, given, plan, **how).events
        if events and tuple(rest[: len(events)]) == tuple(events):
            return Derived(tuple(events))
        plan.forget(state)  # it has been driven where the run did not go
        if instead is None:
            instead = tuple(events)
    return Derived((), instead or ())


_BEGINNINGS: Final = (
    ev.RunStarted, ev.RunAdmitted, ev.StepSucceeded, ev.StepCleared, ev.SleepEnded, ev.WaitMatched, ev.WaitTimedOut,
    ev.ApprovalDecided, ev.ApprovalTimedOut,
)  # fmt: skip
"""Events that never follow from another of the same decision."""


def _decision(rest: Sequence[RunEvent]) -> Iterator[RunEvent]:
    """What was recorded by the decision that `rest` begins with, as far as can be told: its events have one time."""
    yield rest[0]
    for event in rest[1:]:
        if event.at != rest[0].at or isinstance(event, _BEGINNINGS):
            return
        yield event


# ------------------------------------------------------------------------------------------------------------------
# what may have caused it


def _causes(state: RunState, rest: Sequence[RunEvent]) -> Iterator[tuple[Input, Mapping[str, Any]]]:
    """Inputs that may have led to `rest`, the likeliest first, each with the circumstances of its decision."""
    circumstances: list[Mapping[str, Any]] = [{}]
    for event in _decision(rest):
        if isinstance(event, ev.RunHeld):
            circumstances.insert(0, {"hold": True})
            break
        if isinstance(event, ev.IncidentOpened) and event.reason == "saga_stuck":
            # A saga that did not yield is a circumstance, too, and asking it once more would take its second again.
            circumstances.insert(0, {"stuck": event.detail})
            break
    for given in _cause(rest[0], state, rest):
        for how in circumstances:
            yield given, how


def _cause(first: RunEvent, state: RunState, rest: Sequence[RunEvent]) -> Iterator[Input]:
    """The inputs whose decision may begin with `first`; none for an event that only ever follows from another."""
    at = first.at
    match first:
        case ev.RunStarted():
            yield given_.Begin(
                at=at,
                run_id=state.run_id,
                tenant=state.tenant,
                trigger=first.trigger,
                data=first.data,
                initiator=first.initiator,
                correlation_id=first.correlation_id,
                marks=_below("/data", first.marks),
                subject=first.subject,
                causation_id=first.causation_id,
                traceparent=first.traceparent,
                scope=first.scope,
                queued=first.queued,
                inherited=tuple(_inherited(rest[1:])),
                adopted=tuple(_adopted(rest[1:])) if first.trigger.get("kind") == "unwind" else (),
            )
        case ev.RunAdmitted():
            yield given_.Admitted(at=at)
        case ev.RunHeld():
            for step in (state.steps or {}).values():
                if step.status == "backoff":
                    yield given_.TimerDue(at=at, key=f"retry/{step.name}/{step.visit}/{step.attempt}")
        case ev.StepAttempted(step=name, visit=visit, attempt=attempt):
            yield given_.TimerDue(at=at, key=f"retry/{name}/{visit}/{attempt - 1}")
        case ev.StepSucceeded(step=name, visit=visit, attempt=attempt, output=output, cost=cost):
            yield given_.StepDone(at=at, step=name, visit=visit, attempt=attempt, output=output, cost=cost)
        case ev.StepProgressed(step=name, visit=visit, attempt=attempt, progress=progress):
            yield given_.StepMoved(at=at, step=name, visit=visit, attempt=attempt, progress=progress)
        case ev.StepFailed() | ev.StepDoubted():
            yield from _lost(first)
        case ev.StepCleared(step=name, visit=visit, attempt=attempt):
            for closing in (first.closing, not first.closing):
                yield given_.FateLearned(
                    at=at, step=name, visit=visit, attempt=attempt, happened=False, closing=closing
                )
        case ev.SleepEnded(name=name, visit=visit):
            yield given_.TimerDue(at=at, key=f"sleep/{name}/{visit}")
        case ev.WaitTimedOut(name=name, visit=visit):
            yield given_.TimerDue(at=at, key=f"wait/{name}/{visit}")
        case ev.ApprovalTimedOut(name=name, visit=visit):
            yield given_.TimerDue(at=at, key=f"approval/{name}/{visit}")
        case ev.WaitMatched(name=name, visit=visit, event_id=event_id, data=data):
            marks = _below("/data", first.marks)
            yield given_.FactMatched(at=at, name=name, visit=visit, event_id=event_id, data=data, marks=marks)
        case ev.ApprovalDecided(name=name, approved=approved, by=by, comment=comment):
            yield given_.Decided(at=at, name=name, approved=approved, by=by, comment=comment)
        case ev.IncidentOpened(reason="run_timed_out") | ev.CompensationStarted(cause="timed_out"):
            yield given_.TimerDue(at=at, key="run/deadline")
        case ev.IncidentOpened(step=None, reason=reason, detail=detail):
            yield given_.PlanStuck(at=at, reason=reason, detail=detail)
        case ev.IncidentOpened():
            yield from _nobody_could_say(first, state)
        case ev.IncidentResolved():
            yield from _operator(first, state, rest)
        case ev.CompensationStarted(by=by):
            yield given_.CancelAsked(at=at, by=by, reason=_message(first))
        case ev.UndoScheduled(step=name, visit=visit, attempt=attempt):
            yield given_.TimerDue(at=at, key=f"undo-retry/{name}/{visit}/{attempt - 1}")
        case ev.UndoSucceeded():
            yield _undone(first)
        case ev.UndoFailed():
            yield from _lost(first)
        case ev.RunEnded(by=by):
            if state.cause is not None:
                yield given_.AbandonAsked(at=at, by=by)
            yield given_.TerminateAsked(at=at, by=by, reason=_message(first))


def _adopted(rest: Sequence[RunEvent]) -> Iterator[ev.StepReused]:
    for event in rest:
        if not isinstance(event, ev.StepReused):
            return
        yield event


def _inherited(rest: Sequence[RunEvent]) -> Iterator[Inherited]:
    for event in rest:
        if not isinstance(event, ev.ResultInherited):
            return
        yield inherited(event)


def _lost(event: ev.StepFailed | ev.StepDoubted | ev.UndoFailed) -> Iterator[Input]:
    """Whether another attempt was allowed is recorded only where it was asked about; else both are possible."""
    for retryable in (event.retryable,) if isinstance(event, ev.StepDoubted) else (True, False):
        yield given_.StepLost(
            at=event.at,
            step=event.step,
            visit=event.visit,
            attempt=event.attempt,
            error=event.error,
            retryable=retryable,
            ambiguous=isinstance(event, ev.StepDoubted) or (isinstance(event, ev.StepFailed) and event.ambiguous),
            irrecoverable=isinstance(event, ev.StepFailed) and event.irrecoverable,
            undo=isinstance(event, ev.UndoFailed),
        )


def _nobody_could_say(event: ev.IncidentOpened, state: RunState) -> Iterator[Input]:
    """Why nobody could say what became of an attempt stands in the detail, within the engine's own words."""
    step = state.step(event.step or "", event.visit or 1)
    _, _, said = event.detail.partition(" happened: ")
    ends = said.rfind("; retry asks again") if state.cause is None else said.rfind("; look, then retry")
    if step is not None and ends >= 0:
        yield given_.FateLearned(
            at=event.at,
            step=step.name,
            visit=step.visit,
            attempt=step.attempt,
            happened=None,
            closing=state.cause is not None,
            detail=said[:ends],
        )


def _operator(event: ev.IncidentResolved, state: RunState, rest: Sequence[RunEvent]) -> Iterator[Input]:
    """What an operator asked for, told from what followed; or the outcome that an operator was to look into."""
    incident = (state.incidents or {}).get(event.incident)
    following = rest[1] if len(rest) > 1 else None
    at, by = event.at, event.by
    match event.how:
        case "retry":
            yield given_.RetryAsked(at=at, by=by)
            if incident is not None:
                yield given_.RetryAsked(at=at, by=by, step=incident.step)
        case "skip" if incident is not None and isinstance(following, ev.StepSkipped):
            step, output = following.step, following.output
            yield given_.SkipAsked(at=at, by=by, step=step, output=output, reason=following.reason)
        case "skip" if incident is not None and isinstance(following, ev.UndoSucceeded):
            yield given_.SkipAsked(at=at, by=by, step=following.step, output=following.output)
        case "abandon":
            started = next((one for one in rest if isinstance(one, ev.CompensationStarted)), None)
            yield given_.AbandonAsked(at=at, by=by, reason="" if started is None else _message(started))
        case "redrive" if isinstance(following, ev.UndoSucceeded):
            yield _undone(following)


def _undone(event: ev.UndoSucceeded) -> Input:
    return given_.StepDone(
        at=event.at, step=event.step, visit=event.visit, attempt=event.attempt, output=event.output, undo=True
    )


def _message(event: ev.CompensationStarted | ev.RunEnded) -> str:
    return str((event.error or {}).get("message", ""))


def _below(prefix: str, marks: Sequence[str]) -> tuple[str, ...]:
    """The marks of one field, as pointers from its root."""
    return tuple(mark.removeprefix(prefix) for mark in marks if mark.startswith(prefix))


def is_erased(event: RunEvent) -> bool:
    """Whether an erasure has taken a marked value out of it."""
    places = (segments(mark) for mark in event.marks)
    return any(resolve(getattr(event, parts[0], None), parts[1:]) == ERASED_VALUE for parts in places if parts)
