"""Counts what was appended: the one place where run events become metrics, and where a run that wants a person gets a
log line. A tally notes what there is to count, which
takes no time of a run that goes on; `flush` counts it later, and moves a counter once per tally rather than once per
event.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from contracts import run_events as ev
from contracts.run_events import RunEvent
from engine.logs import logger
from engine.metrics import Metrics
from engine.run.state import RunState, Step

_log = logger("runs")


class Tally:
    """What some appends did; `flush` adds it to the metrics."""

    __slots__ = (
        "_appends",
        "_commits",
        "_ended",
        "_events",
        "_incidents",
        "_noted",
        "_started",
        "_steps",
        "_took",
        "_undos",
    )

    def __init__(self) -> None:
        self._appends: list[tuple[int, float]] = []
        self._noted: list[tuple[Sequence[RunEvent], RunState]] = []
        self._commits: defaultdict[str, int] = defaultdict(int)
        self._events = 0
        self._steps: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._took: list[tuple[str, float]] = []
        self._undos: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._started: defaultdict[str, int] = defaultdict(int)
        self._ended: list[tuple[str, str, float]] = []
        self._incidents: defaultdict[str, int] = defaultdict(int)

    def append(self, commits: int, seconds: float) -> None:
        """One batch was answered."""
        self._appends.append((commits, seconds))

    def commit(self, outcome: str) -> None:
        self._commits[outcome] += 1

    def events(self, events: Sequence[RunEvent], state: RunState) -> None:
        """`state` is the one after `events`."""
        self._noted.append((events, state))

    def _count(self, events: Sequence[RunEvent], state: RunState) -> None:
        self._events += len(events)
        for event in events:
            match event:
                case ev.StepSucceeded():
                    step = _step(state, event.step, event.visit)
                    self._steps[step.action, "succeeded"] += 1
                    if step.began is not None:
                        self._took.append((step.action, _seconds(step.began, event.at)))
                case ev.StepScheduled():
                    pass
                case ev.StepFailed():
                    outcome = "ambiguous" if event.ambiguous else "failed" if event.final else "retried"
                    self._steps[_step(state, event.step, event.visit).action, outcome] += 1
                case ev.StepSkipped():
                    self._steps[_step(state, event.step, event.visit).action, "skipped"] += 1
                case ev.RunStarted():
                    self._started[state.workflow] += 1
                case ev.RunEnded():
                    seconds = _seconds(state.started_at, event.at) if state.started_at is not None else 0.0
                    self._ended.append((state.workflow, event.status, seconds))
                case ev.IncidentOpened():
                    self._incidents[event.reason] += 1
                    _log.warning(
                        "run_parked",
                        tenant_id=state.tenant,
                        run_id=state.run_id,
                        correlation_id=state.correlation_id,
                        workflow=state.workflow,
                        step_id=event.step,
                        reason=event.reason,
                    )
                case ev.UndoSucceeded() | ev.UndoFailed():
                    outcome = "succeeded" if isinstance(event, ev.UndoSucceeded) else "failed"
                    self._undos[_step(state, event.step, event.visit).undo or "", outcome] += 1
                case _:
                    pass

    def flush(self, metrics: Metrics) -> None:
        for commits, seconds in self._appends:
            metrics.append_duration.observe(seconds)
            metrics.append_batch.observe(commits)
        metrics.appends.of("ok").inc(len(self._appends))
        for events, state in self._noted:
            self._count(events, state)
        for outcome, times in self._commits.items():
            metrics.commits.of(outcome).inc(times)
        metrics.events.inc(self._events)
        for labels, times in self._steps.items():
            metrics.steps.of(*labels).inc(times)
        for action, seconds in self._took:
            metrics.step_duration.of(action).observe(seconds)
        for labels, times in self._undos.items():
            metrics.undos.of(*labels).inc(times)
        for workflow, times in self._started.items():
            metrics.runs_started.of(workflow).inc(times)
        for workflow, status, seconds in self._ended:
            metrics.runs_ended.of(workflow, status).inc()
            metrics.run_duration.of(workflow, status).observe(seconds)
        for reason, times in self._incidents.items():
            metrics.incidents.of(reason).inc(times)


def _step(state: RunState, name: str, visit: int) -> Step:
    step = state.step(name, visit)
    assert step is not None
    return step


def _seconds(since: datetime, until: datetime) -> float:
    return max(0.0, (until - since).total_seconds())
