"""A decision in the making: the events so far and the state they lead to. Private to one call of `decide`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from contracts import run_events as ev
from contracts.pointers import expand_marks
from contracts.run_events import RunEvent
from engine.plan import Plan
from engine.run.evolve import apply, texts
from engine.run.inputs import Input
from engine.run.limits import Breach
from engine.run.state import Incident, RunState, Step


class Draft:
    """Collects events on a state of its own. `hold`: no slot is free, so no new step may begin. `stuck`: why the plan
    must not be asked. `breaches` are the quotas met on the way.
    """

    __slots__ = ("at", "breaches", "events", "hold", "plan", "state", "stuck")

    def __init__(self, state: RunState, plan: Plan, given: Input, hold: bool, stuck: str | None) -> None:
        self.state = state.copy()
        self.plan = plan
        self.at: datetime = given.at
        self.hold = hold
        self.stuck = stuck
        self.events: list[RunEvent] = []
        self.breaches: tuple[Breach, ...] = ()

    def emit(self, event: RunEvent) -> None:
        self.events.append(event)
        apply(self.state, event)

    def incident_of(self, step: Step) -> Incident | None:
        """What an operator is asked about this step, if anything."""
        for incident in (self.state.incidents or {}).values():
            if (incident.step, incident.visit) == (step.name, step.visit):
                return incident
        return None

    def deadline(self, seconds: float) -> datetime | None:
        return self.at + timedelta(seconds=seconds) if seconds > 0 else None

    def attempt(self, step: Step, attempt: int) -> None:
        """Intent of a further attempt of `step`."""
        self.emit(
            ev.StepAttempted(
                at=self.at,
                step=step.name,
                visit=step.visit,
                attempt=attempt,
                deadline=self.deadline(step.timeout_seconds),
            )
        )

    def may_ask(self, step: Step) -> bool:
        """Whether somebody can say what became of an attempt of `step`, and somebody wants to know."""
        spec = self.plan.action(step.action)
        if spec is None or spec.ambiguous != "query" or spec.lacks is not None:
            return False
        return self.state.cause is None or step.undo is not None

    def may_still_happen(self, step: Step) -> bool:
        """Whether a copy of the step's order, still on its way, could succeed after the module has refused another copy
        for a while: it remembers no such refusal. Only an undo, or the question that closes the order, ends that.
        """
        spec = self.plan.action(step.action)
        return step.kind == "command" and step.undo is not None and (spec is None or spec.ambiguous != "park")

    def doubt(self, step: Step, error: Mapping[str, Any], *, retryable: bool) -> None:
        """Intent of a question: did the current attempt of `step` happen?"""
        self.emit(
            ev.StepDoubted(
                at=self.at,
                step=step.name,
                visit=step.visit,
                attempt=step.attempt,
                error=error,
                retryable=retryable,
                marks=self.taint(error, (), "/error"),
            )
        )

    def attempt_undo(self, step: Step, attempt: int) -> None:
        """Intent of an attempt to undo `step`: with the receipt that do left behind, None when nobody knows whether it
        happened.
        """
        assert step.undo is not None
        assert self.state.cause is not None
        spec = self.plan.action(step.undo)
        kind = spec.kind if spec is not None else step.kind
        receipt = step.output if step.status == "succeeded" else None
        marks = tuple("/input" + m.removeprefix("/input") for m in step.marks) + tuple(
            "/receipt" + m.removeprefix("/output") for m in step.output_marks
        )
        self.emit(
            ev.UndoScheduled(
                at=self.at,
                step=step.name,
                visit=step.visit,
                key=step.key + "/undo",
                action=step.undo,
                kind=kind,
                input=step.input,
                receipt=receipt,
                cause=self.state.cause,
                attempt=attempt,
                deadline=self.deadline(spec.timeout_seconds if spec else step.timeout_seconds),
                marks=marks,
            )
        )

    def marks(self, value: Any, patterns: tuple[str, ...], prefix: str) -> tuple[str, ...]:
        """Pointers, under `prefix`, to what is personal in `value`: what its schema marks, and what repeats a personal
        value this run has seen.
        """
        declared = tuple(prefix + mark for mark in expand_marks(patterns, value)) if patterns else ()
        return self.taint(value, declared, prefix)

    def taint(self, value: Any, declared: tuple[str, ...], prefix: str) -> tuple[str, ...]:
        personal = self.state.personal
        if not personal or value is None:
            return declared
        covered = set(declared)
        found = [
            pointer
            for pointer, leaf in texts(value, prefix)
            if pointer not in covered and any(p in leaf for p in personal)
        ]
        return declared + tuple(found) if found else declared
