"""Counts what was appended: the one place where run events become metrics. Called once per commit, after it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from contracts import run_events as ev
from contracts.run_events import RunEvent
from engine.metrics import Metrics
from engine.run.state import RunState


def count(metrics: Metrics, events: Sequence[RunEvent], state: RunState) -> None:
    """`state` is the one after `events`."""
    workflow = state.workflow
    for event in events:
        match event:
            case ev.StepSucceeded():
                step = state.step(event.step, event.visit)
                assert step is not None
                metrics.steps.of(step.action, "succeeded").inc()
                if step.began is not None:
                    metrics.step_duration.of(step.action).observe(_seconds(step.began, event.at))
            case ev.StepFailed():
                step = state.step(event.step, event.visit)
                assert step is not None
                outcome = "ambiguous" if event.ambiguous else "failed" if event.final else "retried"
                metrics.steps.of(step.action, outcome).inc()
            case ev.StepSkipped():
                step = state.step(event.step, event.visit)
                assert step is not None
                metrics.steps.of(step.action, "skipped").inc()
            case ev.RunStarted():
                metrics.runs_started.of(workflow).inc()
            case ev.RunEnded():
                metrics.runs_ended.of(workflow, event.status).inc()
                if state.started_at is not None:
                    metrics.run_duration.of(workflow, event.status).observe(_seconds(state.started_at, event.at))
            case ev.IncidentOpened():
                metrics.incidents.of(event.reason).inc()
            case ev.UndoSucceeded() | ev.UndoFailed():
                step = state.step(event.step, event.visit)
                assert step is not None
                outcome = "succeeded" if isinstance(event, ev.UndoSucceeded) else "failed"
                metrics.undos.of(step.undo or "", outcome).inc()
            case _:
                pass


def _seconds(since: datetime, until: datetime) -> float:
    return max(0.0, (until - since).total_seconds())
