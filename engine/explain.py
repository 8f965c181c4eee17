"""Why a run is not moving, and what became of an event, in one sentence a person would say, with every recorded reason.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from contracts.envelope import format_time
from engine.run.children import STARTS
from engine.run.state import RunState, Step, Wait
from engine.store import DeadLetter, Journaled


@dataclass(frozen=True, slots=True)
class Explanation:
    """`sentence` first; `branches` says the same for each open branch; `wakes` are the rows that will move the run."""

    status: str
    sentence: str
    branches: tuple[str, ...]
    wakes: Mapping[str, Sequence[Mapping[str, Any]]]


def explain_run(
    state: RunState,
    wakes: Mapping[str, Sequence[Mapping[str, Any]]],
    now: datetime,
    *,
    held: tuple[str, datetime, str] | None = None,
    spent: tuple[str, int, str | None, datetime] | None = None,
) -> Explanation:
    """`wakes` are the store's rows for this run (`Work.wakes`); `held` says who has paused its tenant, when and why;
    `spent`, which budget is: the quota, how much it is, of which workflow alone, and until when.
    """
    branches = tuple(_branches(state, now))
    if state.ended is not None:
        sentence = f"The run has ended: {state.ended}."
    elif state.queued and held is not None:
        by, since, reason = held
        why = f" ({reason})" if reason else ""
        sentence = f"The run is held: {by} has paused its tenant since {format_time(since)}{why}."
    elif state.queued and spent is not None:
        quota, limit, workflow, until = spent
        whose = "the tenant" if workflow is None else f"workflow {workflow}"
        again = f"it goes on at {format_time(until)}, or once the quota is raised"
        sentence = f"The run is held: the quota {quota} of {whose}, {limit}, is spent; {again}."
    elif state.queued:
        sentence = "The run is queued: no slot is free for it yet."
    elif not branches:
        sentence = "The run is about to be decided by its owner."
    else:
        sentence = branches[0] if len(branches) == 1 else f"{len(branches)} branches are open: {branches[0]}"
    return Explanation(state.status, sentence, branches, wakes)


def _branches(state: RunState, now: datetime) -> list[str]:
    if state.ended is not None:
        return []
    found = [f"Parked ({incident.reason}): {incident.detail}" for incident in (state.incidents or {}).values()]
    for step in (state.steps or {}).values():
        said = _step(step, now)
        if said:
            found.append(said)
    found.extend(_wait(wait, now) for wait in state.open_waits())
    return found


def _step(step: Step, now: datetime) -> str | None:
    if step.undo_status == "open":
        return f"The undo of step {step.name!r} ({step.undo}) is under way, attempt {step.undo_attempt}."
    if step.undo_status == "backoff":
        return f"The undo of step {step.name!r} failed and is tried again{_when(step.undo_deadline, now)}."
    if step.doubt and step.status == "open":
        return f"It is asked whether step {step.name!r} ({step.action}, attempt {step.attempt}) happened."
    if step.status == "open":
        if step.is_child:
            return f"It waits in {step.name!r} for a run of {step.action.removeprefix(STARTS)!r} that it started."
        whom = "an outcome from its module" if step.kind == "command" else "its action to finish"
        limit = f", at the latest{_when(step.deadline, now)}" if step.deadline is not None else ""
        return f"Step {step.name!r} ({step.action}, attempt {step.attempt}) waits for {whom}{limit}."
    if step.status == "backoff":
        code = (step.error or {}).get("code", "failed")
        return f"Step {step.name!r} failed ({code}) and is tried again{_when(step.deadline, now)}."
    return None


def _wait(wait: Wait, now: datetime) -> str:
    limit = f", at the latest{_when(wait.due, now)}" if wait.due is not None else ""
    match wait.kind:
        case "sleep":
            return f"It sleeps in {wait.name!r}{_when(wait.due, now)}."
        case "approval":
            return f"It waits for someone with role {wait.asked['role']!r} to decide {wait.name!r}{limit}."
        case "fact":
            return f"It waits in {wait.name!r} for {wait.asked['event']} with its {wait.asked['key_name']} key{limit}."


def _when(due: datetime | None, now: datetime) -> str:
    if due is None:
        return ""
    seconds = (due - now).total_seconds()
    late = " (overdue)" if seconds < 0 else ""
    return f" at {format_time(due)}{late}"


@dataclass(frozen=True, slots=True)
class WorkflowStart:
    """A workflow that the event starts, or started: its run, or why there is none. `version` None: it is not installed
    any more.
    """

    workflow: str
    version: int | None
    run_id: UUID | None
    said: str


@dataclass(frozen=True, slots=True)
class WakenRun:
    """A run that the event was given to, in its wait `wait`."""

    run_id: UUID
    wait: str
    said: str


@dataclass(frozen=True, slots=True)
class EventExplanation:
    """What became of one event. `command_id` is the command that it answers, if its type is an outcome; `keys` are the
    names of the correlation keys by which waiting runs could be woken; `letters` are dead letters of the same id, as
    (id, reason, state).
    """

    source: str | None
    type: str | None
    received_at: datetime | None
    command_id: str | None
    correlation_id: str | None
    sentence: str
    starts: tuple[WorkflowStart, ...]
    woke: tuple[WakenRun, ...]
    said: tuple[str, ...]
    keys: tuple[str, ...]
    letters: tuple[tuple[UUID, str, str], ...]


MATCHED: Final = "matched: "


def explain_event(
    source: str | None,
    journaled: Journaled | None,
    started: Mapping[str, UUID],
    triggers: Mapping[str, int],
    letters: Sequence[DeadLetter],
    *,
    keys: Sequence[str] = (),
    answers: str | None = None,
    correlation_id: str | None = None,
) -> EventExplanation:
    """`journaled` is the arrival while the journal keeps it; `started` the runs that its start keys name, by workflow;
    `triggers` the versions of the workflows that its type starts today; `answers` the command whose outcome its type
    is.
    """
    outcomes = journaled.outcomes if journaled is not None else ()
    pending = journaled.pending if journaled is not None else ()
    said = tuple(outcome for outcome in outcomes if not outcome.startswith(MATCHED))
    refused = next((outcome for outcome in said if outcome.startswith("refused: ")), None)
    starts = []
    for workflow in sorted({*started, *triggers, *(row.workflow for row in pending if row.workflow is not None)}):
        version, run_id = triggers.get(workflow), started.get(workflow)
        if run_id is not None:
            why = "It started this run; a repeat of it starts no other."
        elif any(row.kind == "start" and row.workflow in (workflow, None) for row in pending):
            why = "The start is recorded and waits for a process that runs this workflow."
        elif refused is not None:
            why = f"The start was {refused}."
        elif journaled is None:
            why = "It starts this workflow, and has not come here."
        else:
            why = "It starts this workflow today and did not when it came: it was not installed then."
        starts.append(WorkflowStart(workflow, version, run_id, why))
    woke = []
    for outcome in outcomes:
        if outcome.startswith(MATCHED):
            run, _, wait = outcome.removeprefix(MATCHED).partition(" ")
            name, _, visit = wait.rpartition("/")
            waiting = any(
                row.kind == "fact" and str(row.run_id) == run and (row.name, str(row.visit)) == (name, visit)
                for row in pending
            )
            how = "It is recorded for this run and waits for its owner." if waiting else "It was given to this wait."
            woke.append(WakenRun(UUID(run), name, how))
    return EventExplanation(
        source,
        journaled.type if journaled is not None else None,
        journaled.received_at if journaled is not None else None,
        journaled.causation_id if journaled is not None and answers is not None else None,
        correlation_id,
        _event_sentence(journaled, starts, woke, said, letters, keys, answers),
        tuple(starts),
        tuple(woke),
        said,
        tuple(keys),
        tuple((letter.id, letter.reason, letter.state) for letter in letters),
    )


def _event_sentence(
    journaled: Journaled | None,
    starts: Sequence[WorkflowStart],
    woke: Sequence[WakenRun],
    said: Sequence[str],
    letters: Sequence[DeadLetter],
    keys: Sequence[str],
    answers: str | None,
) -> str:
    begun = [one for one in starts if one.run_id is not None]
    told = [f"It started run {one.run_id} of {one.workflow}." for one in begun]
    told += [f"It woke run {one.run_id}, which waited in {one.wait!r}." for one in woke]
    if answers is not None and journaled is not None:
        told.append(f"It is an outcome of {answers}.")
    told += [f"{outcome[:1].upper()}{outcome[1:]}." for outcome in said]
    if told:
        return " ".join(told)
    if journaled is None:
        if letters:
            return f"It became a dead letter ({letters[0].reason}): nothing was started or woken by it."
        return "Nothing of it is known any more."
    waiting = [one.said for one in starts]
    if waiting:
        return waiting[0]
    by = f" by its {', '.join(keys)}" if keys else ", and it has no key that a run could wait for"
    return f"It started nothing: no workflow here is started by {journaled.type}. No run was waiting for it{by}."
