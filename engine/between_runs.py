"""What runs say to one another, as inputs in the commit of the run that says it: start a child or the run that unwinds
one, go on as another run, recall a child, report to a parent. Their owner takes them like any other input
(`consumers.inputs`); `engine.recording` asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid5

from contracts.envelope import Envelope
from contracts.notices import UNWIND
from contracts.run_events import RunContinued, RunEnded
from engine import notes
from engine.run import react as fx
from engine.run.children import child_id, child_scope
from engine.run.inputs import CancelAsked, Input, StepDone, StepLost, TerminateAsked
from engine.run.state import RunState, Step
from engine.store import NewInput
from engine.store.keys import Erased, SubjectKeys, TenantKeys
from engine.store.mapper import seal_blob

RUNS: Final = "engine"
"""Who has said what a run says to another."""


def start(
    workflow: str,
    effect: fx.Send,
    step: Step,
    state: RunState,
    keys: TenantKeys,
    subject: SubjectKeys | Erased | None,
    at: datetime,
    ordinal: int,
) -> NewInput:
    """A child, or the run that unwinds one, for the step `effect` speaks of."""
    name, visit, attempt = effect.step, effect.visit, effect.attempt
    what = f"{name}/undo" if effect.undo else name
    run_id = child_id(state.run_id, what, visit, attempt, at)
    parent = {"run_id": str(state.run_id), "step": name, "visit": visit, "attempt": attempt, "undo": effect.undo}
    depth = int((state.trigger or {}).get("depth") or 0) + 1
    marks: tuple[str, ...] = ()
    if effect.undo:
        child = step.output["run_id"]
        key = notes.successor_key(child) if attempt == 1 else f"unwind/{child}/{attempt}"
        kind, data, scope = "unwind", {"run_id": child, "reason": ""}, None
    else:
        key = f"child/{state.run_id}/{name}/{visit}/{attempt}"
        kind, data, scope = "child", step.input, child_scope(step.key, attempt)
        marks = tuple(mark.removeprefix("/input") for mark in step.marks)
    asked = {"kind": kind, "key": key, "input": data, "parent": parent, "depth": depth, "scope": scope}
    return _start(run_id, workflow, asked, marks, state, keys, subject, at, ordinal)


def go_on(
    event: RunContinued, state: RunState, keys: TenantKeys, subject: SubjectKeys | Erased | None, ordinal: int
) -> NewInput:
    trigger = state.trigger or {}
    asked = {
        "kind": "continue",
        "key": notes.continued_key(state.run_id),
        "input": event.data,
        "parent": trigger.get("parent"),
        "depth": trigger.get("depth") or 0,
        "scope": None,
    }
    marks = tuple(mark.removeprefix("/data") for mark in event.marks)
    return _start(UUID(event.run_id), state.workflow, asked, marks, state, keys, subject, event.at, ordinal)


def recall(state: RunState, keys: TenantKeys, name: str, visit: int, at: datetime, *, at_once: bool) -> NewInput:
    """Cancels the child of an open step; `at_once` terminates it."""
    step = state.step(name, visit)
    assert step is not None
    assert step.began is not None
    run_id = child_id(state.run_id, name, visit, step.attempt, step.began)
    given = (
        TerminateAsked(at=at, by=RUNS, reason=f"run {state.run_id}, which started it, was terminated")
        if at_once
        else CancelAsked(at=at, by=RUNS, reason=f"run {state.run_id}, which started it, is being unwound")
    )
    return stop(run_id, given, keys)


def stop(run_id: UUID, given: CancelAsked | TerminateAsked, keys: TenantKeys) -> NewInput:
    """What one run wants of another, as an input of that one."""
    body = seal_blob(keys, "input", str(run_id), notes.encode(given))
    return NewInput(kind="note", run_id=run_id, name="note", body=body)


def report(ended: RunEnded, state: RunState, keys: TenantKeys, subject: SubjectKeys | Erased | None) -> NewInput:
    """How a child ended, as the outcome of its parent's step; or how what it did was undone."""
    assert state.trigger is not None
    parent = state.trigger["parent"]
    place = {"step": parent["step"], "visit": parent["visit"], "attempt": parent["attempt"], "undo": parent["undo"]}
    given: Input
    if ended.status == ("compensated" if parent["undo"] else "succeeded"):
        given = StepDone(at=ended.at, output={"run_id": str(state.run_id), "output": ended.output}, **place)
    else:
        code = str((ended.error or {}).get("code") or ended.status)
        message = f"run {state.run_id} of {state.workflow} ended {ended.status}"
        given = StepLost(at=ended.at, error={"code": code, "message": message}, retryable=False, **place)
    run_id = parent["run_id"]
    body = seal_blob(keys, "input", run_id, notes.encode(given), subject)
    return NewInput(kind="note", run_id=UUID(run_id), name="note", body=body)


def _start(
    run_id: UUID,
    workflow: str,
    asked: Mapping[str, Any],
    marks: tuple[str, ...],
    state: RunState,
    keys: TenantKeys,
    subject: SubjectKeys | Erased | None,
    at: datetime,
    ordinal: int,
) -> NewInput:
    """A start by this run, as `engine.notes.start_of` reads it."""
    envelope = Envelope(
        id=asked["key"],
        source=UNWIND.source,
        type=notes.START_TYPE,
        tenantid=state.tenant,
        time=at,
        data={
            "workflow": workflow,
            "initiator": state.initiator,
            "run_id": str(run_id),
            "by": str(state.run_id),
            "marks": list(marks),
            "subject": state.subject,
            "permissions": (state.trigger or {}).get("permissions"),
            **asked,
        },
        correlationid=state.correlation_id,
        causationid=str(uuid5(state.run_id, str(ordinal))),
        traceparent=state.traceparent,
    )
    body = seal_blob(keys, "input", str(run_id), envelope.to_json(), subject)
    return NewInput(kind="start", run_id=run_id, workflow=workflow, body=body)
