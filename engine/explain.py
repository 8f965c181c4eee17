"""Why a run is not moving, in one sentence a person would say, and every recorded reason that will move it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from contracts.envelope import format_time
from engine.run.state import RunState, Step, Wait


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
) -> Explanation:
    """`wakes` are the store's rows for this run (`Work.wakes`); `held` says who has paused its tenant, when and why."""
    branches = tuple(_branches(state, now))
    if state.ended is not None:
        sentence = f"The run has ended: {state.ended}."
    elif state.queued and held is not None:
        by, since, reason = held
        why = f" ({reason})" if reason else ""
        sentence = f"The run is held: {by} has paused its tenant since {format_time(since)}{why}."
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
