"""What must be done about an event: the reasons to wake and the messages that follow from it, derived from the log
alone, so that they can be rebuilt.

`react` says it as values; the coordinator turns them into rows of the same commit (timers, subscriptions, awaits,
outbox) and, after the commit, into local attempts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from contracts import run_events as ev
from contracts.run_events import RunEvent
from contracts.values import value
from engine.run.state import RunState, Step


@value()
class Perform:
    """Carry out a local attempt after the commit. `undo` attempts carry the receipt. With `ask` it is not made again:
    whoever can say is asked what became of it.
    """

    step: str
    visit: int
    attempt: int
    undo: bool = False
    ask: bool = False


@value()
class Send:
    """Send a command and await one of its outcomes. The command id follows from `key`, so a repeated send is the same
    command.
    """

    step: str
    visit: int
    attempt: int
    undo: bool = False


@value()
class SetTimer:
    key: str
    due: datetime


@value()
class ClearTimer:
    key: str


@value()
class Subscribe:
    name: str
    visit: int
    event: str
    key_name: str
    key_value: str
    look_back: datetime


@value()
class Unsubscribe:
    name: str
    visit: int


@value()
class Settled:
    """A command's outcome is no longer awaited."""

    key: str


@value()
class Recall:
    """Stop the child that the open step waits for: cancel it, since the run that started it is being unwound; with
    `at_once` terminate it, since that run was terminated.
    """

    step: str
    visit: int
    at_once: bool = False


@value()
class Continue:
    """Start the run that goes on after this one."""

    event: ev.RunContinued


@value()
class Report:
    """Tell the run that started this one how it ended."""

    event: ev.RunEnded


@value()
class Notify:
    """Publish one of the engine's own notices (`contracts.notices`); `fields` hold no payload."""

    notice: str
    fields: Mapping[str, Any]


APPROVAL = "a person's decision"
"""What an open approval is subscribed to: no message has this type, but the row is the run's reason to wake."""

Effect = (
    Perform | Send | SetTimer | ClearTimer | Subscribe | Unsubscribe | Settled | Recall | Continue | Report | Notify
)


def react(event: RunEvent, state: RunState) -> list[Effect]:
    """What `event` asks for, given the state after it."""
    reaction = _REACT.get(type(event))
    return reaction(event, state) if reaction is not None else []


def _attempt(step: str, visit: int, attempt: int, kind: str, deadline: datetime | None, undo: bool) -> list[Effect]:
    """A local attempt is timed by the process that owns the run; an outcome from elsewhere needs a timer that outlives
    it.
    """
    if kind == "local":
        return [Perform(step, visit, attempt, undo)]
    effects: list[Effect] = [Send(step, visit, attempt, undo)]
    if deadline is not None:
        effects.append(SetTimer(f"{'undo-' if undo else ''}deadline/{step}/{visit}/{attempt}", deadline))
    return effects


def _scheduled(event: ev.StepScheduled, state: RunState) -> list[Effect]:
    return _attempt(event.step, event.visit, 1, event.kind, event.deadline, False)


def _attempted(event: ev.StepAttempted, state: RunState) -> list[Effect]:
    step = state.step(event.step, event.visit)
    assert step is not None
    return [
        ClearTimer(f"retry/{event.step}/{event.visit}/{event.attempt - 1}"),
        *_attempt(event.step, event.visit, event.attempt, step.kind, event.deadline, False),
    ]


def _settled(
    event: ev.StepSucceeded | ev.StepFailed | ev.StepCancelled | ev.StepSkipped, state: RunState
) -> list[Effect]:
    step = state.step(event.step, event.visit)
    assert step is not None
    effects: list[Effect] = []
    if step.kind == "command":
        effects.append(ClearTimer(f"deadline/{step.name}/{step.visit}/{step.attempt}"))
        if step.status != "backoff" and not _will_park(event, step, state):
            effects.append(Settled(step.key))
    if isinstance(event, ev.StepFailed) and event.retry_at is not None:
        effects.append(SetTimer(f"retry/{step.name}/{step.visit}/{event.attempt}", event.retry_at))
    elif step.attempt > 1 or step.error is not None or isinstance(event, ev.StepCancelled):
        # An answer may come while the step waits for another attempt.
        effects.append(ClearTimer(f"retry/{step.name}/{step.visit}/{step.attempt}"))
    return effects


def _doubted(event: ev.StepDoubted, state: RunState) -> list[Effect]:
    step = state.step(event.step, event.visit)
    assert step is not None
    effects: list[Effect] = [Perform(event.step, event.visit, event.attempt, ask=True)]
    if step.kind == "command":
        effects.append(ClearTimer(f"deadline/{event.step}/{event.visit}/{event.attempt}"))
    return effects


def _cleared(event: ev.StepCleared, state: RunState) -> list[Effect]:
    """Without `closing` the attempt's failure follows, and settles it."""
    step = state.step(event.step, event.visit)
    assert step is not None
    return [Settled(step.key)] if event.closing and step.kind == "command" else []


def _will_park(event: RunEvent, step: Step, state: RunState) -> bool:
    """A parked step may be tried again: its command is still awaited, under the one id that all its attempts share."""
    final = isinstance(event, ev.StepFailed) and event.final and not event.irrecoverable
    return final and step.on_failure == "park" and state.cause is None


def _sleep_started(event: ev.SleepStarted, state: RunState) -> list[Effect]:
    return [SetTimer(f"sleep/{event.name}/{event.visit}", event.due)]


def _sleep_ended(event: ev.SleepEnded, state: RunState) -> list[Effect]:
    return [ClearTimer(f"sleep/{event.name}/{event.visit}")]


def _wait_started(event: ev.WaitStarted, state: RunState) -> list[Effect]:
    effects: list[Effect] = [
        Subscribe(event.name, event.visit, event.event, event.key_name, event.key_value, event.look_back)
    ]
    if event.due is not None:
        effects.append(SetTimer(f"wait/{event.name}/{event.visit}", event.due))
    return effects


def _wait_settled(event: ev.WaitMatched | ev.WaitTimedOut, state: RunState) -> list[Effect]:
    return [Unsubscribe(event.name, event.visit), ClearTimer(f"wait/{event.name}/{event.visit}")]


def _approval_requested(event: ev.ApprovalRequested, state: RunState) -> list[Effect]:
    asked = Notify("ApprovalRequestedV1", {"name": event.name, "role": event.role, "due": event.due})
    row = Subscribe(event.name, event.visit, APPROVAL, "approval", event.name, event.at)
    timer = [SetTimer(f"approval/{event.name}/{event.visit}", event.due)] if event.due is not None else []
    return [asked, row, *timer]


def _approval_settled(event: ev.ApprovalDecided | ev.ApprovalTimedOut, state: RunState) -> list[Effect]:
    if isinstance(event, ev.ApprovalTimedOut):
        fields = {"name": event.name, "outcome": "timed_out", "by": None}
    else:
        fields = {"name": event.name, "outcome": "approved" if event.approved else "refused", "by": event.by}
    return [
        Notify("ApprovalDecidedV1", fields),
        Unsubscribe(event.name, event.visit),
        ClearTimer(f"approval/{event.name}/{event.visit}"),
    ]


def _state_entered(event: ev.StateEntered, state: RunState) -> list[Effect]:
    return [Notify("RunStateEnteredV1", {"state": event.name, "previous": event.previous})]


def _incident_opened(event: ev.IncidentOpened, state: RunState) -> list[Effect]:
    return [Notify("RunParkedV1", {"incident": event.incident, "reason": event.reason, "step": event.step})]


def _incident_resolved(event: ev.IncidentResolved, state: RunState) -> list[Effect]:
    return [Notify("RunResumedV1", {"incident": event.incident, "how": event.how, "by": event.by})]


def _compensation_started(event: ev.CompensationStarted, state: RunState) -> list[Effect]:
    """Waits are over: nothing but undos moves the run from here."""
    effects: list[Effect] = [Notify("CompensationStartedV1", {"cause": event.cause, "by": event.by})]
    for wait in (state.waits or {}).values():
        if wait.kind != "sleep":
            effects.append(Unsubscribe(wait.name, wait.visit))
        prefix = "wait" if wait.kind == "fact" else wait.kind
        effects.append(ClearTimer(f"{prefix}/{wait.name}/{wait.visit}"))
    effects += [Recall(step.name, step.visit) for step in state.open_steps() if step.is_child]
    return effects


def _undo_scheduled(event: ev.UndoScheduled, state: RunState) -> list[Effect]:
    effects = _attempt(event.step, event.visit, event.attempt, event.kind, event.deadline, True)
    return (
        [ClearTimer(f"undo-retry/{event.step}/{event.visit}/{event.attempt - 1}"), *effects]
        if event.attempt > 1
        else effects
    )


def _undo_settled(event: ev.UndoSucceeded | ev.UndoFailed, state: RunState) -> list[Effect]:
    step = state.step(event.step, event.visit)
    assert step is not None
    effects: list[Effect] = [ClearTimer(f"undo-deadline/{step.name}/{step.visit}/{step.undo_attempt}")]
    if isinstance(event, ev.UndoFailed) and event.retry_at is not None:
        effects.append(SetTimer(f"undo-retry/{step.name}/{step.visit}/{event.attempt}", event.retry_at))
    else:
        effects.append(ClearTimer(f"undo-retry/{step.name}/{step.visit}/{step.undo_attempt}"))
    if isinstance(event, ev.UndoSucceeded):
        # A failed undo parks and may be tried again: its command is still awaited.
        effects.append(Settled(step.key + "/undo"))
    return effects


def _run_continued(event: ev.RunContinued, state: RunState) -> list[Effect]:
    return [Continue(event)]


def _run_ended(event: ev.RunEnded, state: RunState) -> list[Effect]:
    """Success is told by the log and the read models alone; an ending that someone may have to act on is also a
    notice. A run that was terminated takes its open children with it.
    """
    reports = state.continued is None and (state.trigger or {}).get("parent")
    effects: list[Effect] = [Report(event)] if reports else []
    if event.status == "succeeded":
        return effects
    if (event.error or {}).get("code") == "terminated":
        effects += [Recall(step.name, step.visit, at_once=True) for step in state.open_steps() if step.is_child]
    return [
        *effects,
        Notify(
            "RunEndedV1",
            {
                "status": event.status,
                "left": list(event.left),
                "code": (event.error or {}).get("code"),
                "attributes": _told(state),
            },
        ),
    ]


def _told(state: RunState) -> dict[str, str]:
    """The run's attributes without those that hold, or repeat, a personal value."""
    return {
        name: value
        for name, value in (state.attributes or {}).items()
        if f"/attributes/{name}" not in state.data_marks and not any(text in value for text in state.personal)
    }


_REACT: dict[type[RunEvent], Callable[[Any, RunState], list[Effect]]] = {
    ev.StepScheduled: _scheduled,
    ev.StepAttempted: _attempted,
    ev.StepSucceeded: _settled,
    ev.StepFailed: _settled,
    ev.StepCancelled: _settled,
    ev.StepDoubted: _doubted,
    ev.StepCleared: _cleared,
    ev.StepSkipped: _settled,
    ev.SleepStarted: _sleep_started,
    ev.SleepEnded: _sleep_ended,
    ev.WaitStarted: _wait_started,
    ev.WaitMatched: _wait_settled,
    ev.WaitTimedOut: _wait_settled,
    ev.ApprovalRequested: _approval_requested,
    ev.ApprovalDecided: _approval_settled,
    ev.ApprovalTimedOut: _approval_settled,
    ev.StateEntered: _state_entered,
    ev.IncidentOpened: _incident_opened,
    ev.IncidentResolved: _incident_resolved,
    ev.CompensationStarted: _compensation_started,
    ev.UndoScheduled: _undo_scheduled,
    ev.UndoSucceeded: _undo_settled,
    ev.UndoFailed: _undo_settled,
    ev.RunContinued: _run_continued,
    ev.RunEnded: _run_ended,
}
