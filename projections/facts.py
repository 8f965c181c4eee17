"""What the read models must know of a run besides the event at hand: its start, its counters, and its status.

A small mutable fold of redacted events, kept in the projector's memory while the run is open and folded again from the
log when it is not there. Its `status` says exactly what `engine.run.state.RunState.status` says (a test walks both).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from contracts.calls import cost_micros
from engine.run.children import STARTS

_Event = Mapping[str, Any]


class RunFacts:
    """One run. `first` is the version of its first event in the batch at hand: 1 means that it started there."""

    __slots__ = (
        "attempts", "business_state", "cause", "children", "cost_micros", "ended", "ended_at", "error", "first",
        "incidents", "missing", "open_steps", "open_undos", "parked", "position", "queued", "run_id", "started",
        "steps", "tenant", "undone", "updated_at", "version",
    )  # fmt: skip

    def __init__(self, run_id: UUID, tenant: str) -> None:
        self.run_id = run_id
        self.tenant = tenant
        self.first = 1
        self.version = 0
        self.position = 0
        self.started: _Event = {}
        """The redacted `run.started`, without its data."""
        self.queued = False
        self.cause: str | None = None
        self.ended: str | None = None
        self.ended_at: str | None = None
        self.updated_at = ""
        self.business_state: str | None = None
        self.error: _Event | None = None
        self.missing: dict[tuple[str, int], _Event | None] = {}
        """Errors of steps that the run has had to go without, as yet."""
        self.parked: str | None = None
        """What the oldest open incident says."""
        self.incidents: dict[str, str] = {}
        self.open_steps: set[tuple[str, int]] = set()
        self.open_undos: set[tuple[str, int]] = set()
        self.children: set[tuple[str, int]] = set()
        """Steps that other runs are the outcome of."""
        self.steps = 0
        self.undone = 0
        self.attempts = 0
        self.cost_micros = 0

    @property
    def workflow(self) -> str:
        return str(self.started["workflow"])

    @property
    def status(self) -> str:
        if self.ended is not None:
            return self.ended
        if self.queued:
            return "queued"
        if self.cause is not None:
            return "parked" if self.incidents and not self.open_undos else "compensating"
        if self.open_steps:
            return "running"
        return "parked" if self.incidents else "waiting"

    def take(self, version: int, position: int, topic: str, event: _Event) -> None:
        """The next event of the stream."""
        self.version = version
        self.position = position
        self.updated_at = event["at"]
        step = _TAKE.get(topic)
        if step is not None:
            step(self, event)


def _run_started(run: RunFacts, event: _Event) -> None:
    run.started = {name: value for name, value in event.items() if name != "data"}
    run.queued = bool(event.get("queued"))


def _run_held(run: RunFacts, event: _Event) -> None:
    run.queued = True


def _run_admitted(run: RunFacts, event: _Event) -> None:
    run.queued = False


def _step_scheduled(run: RunFacts, event: _Event) -> None:
    if event["action"].startswith(STARTS):  # waiting for a child is not running
        run.children.add((event["step"], event["visit"]))
    else:
        run.open_steps.add((event["step"], event["visit"]))
    run.steps += 1
    run.attempts += 1


def _step_reused(run: RunFacts, event: _Event) -> None:
    run.steps += 1


def _step_attempted(run: RunFacts, event: _Event) -> None:
    if (event["step"], event["visit"]) not in run.children:
        run.open_steps.add((event["step"], event["visit"]))
    run.attempts += 1


def _step_succeeded(run: RunFacts, event: _Event) -> None:
    run.open_steps.discard((event["step"], event["visit"]))
    run.missing.pop((event["step"], event["visit"]), None)
    cost = event.get("cost")
    if cost:
        run.cost_micros += cost_micros(cost)


def _step_failed(run: RunFacts, event: _Event) -> None:
    run.open_steps.discard((event["step"], event["visit"]))
    run.error = event.get("error")
    if event.get("final"):
        run.missing[event["step"], event["visit"]] = run.error


def _step_doubted(run: RunFacts, event: _Event) -> None:
    run.open_steps.add((event["step"], event["visit"]))


def _step_cleared(run: RunFacts, event: _Event) -> None:
    if event["closing"]:
        run.open_steps.discard((event["step"], event["visit"]))


def _step_closed(run: RunFacts, event: _Event) -> None:
    run.open_steps.discard((event["step"], event["visit"]))
    run.missing.pop((event["step"], event["visit"]), None)


def _state_entered(run: RunFacts, event: _Event) -> None:
    run.business_state = event["name"]


def _incident_opened(run: RunFacts, event: _Event) -> None:
    detail = event.get("detail")
    run.incidents[event["incident"]] = f"{event['reason']}: {detail}" if detail else event["reason"]
    run.parked = next(iter(run.incidents.values()))
    step, visit = event.get("step"), event.get("visit")
    if step is not None and visit is not None:
        run.open_steps.discard((step, visit))
        if event["reason"] == "undo_failed":
            run.open_undos.discard((step, visit))


def _incident_resolved(run: RunFacts, event: _Event) -> None:
    run.incidents.pop(event["incident"], None)
    run.parked = next(iter(run.incidents.values()), None)


def _compensation_started(run: RunFacts, event: _Event) -> None:
    run.cause = event["cause"]
    run.queued = False
    if event.get("error"):
        run.error = event["error"]


def _undo_scheduled(run: RunFacts, event: _Event) -> None:
    run.open_undos.add((event["step"], event["visit"]))


def _undo_succeeded(run: RunFacts, event: _Event) -> None:
    run.open_undos.discard((event["step"], event["visit"]))
    run.undone += 1


def _undo_failed(run: RunFacts, event: _Event) -> None:
    run.open_undos.discard((event["step"], event["visit"]))
    run.error = event.get("error")


def _run_ended(run: RunFacts, event: _Event) -> None:
    run.ended = event["status"]
    run.ended_at = event["at"]
    run.queued = False
    if run.ended == "succeeded":
        # Marked, when a step failed that its saga could do without.
        run.error = next(reversed(run.missing.values()), None)
    elif event.get("error"):
        run.error = event["error"]


_TAKE: Mapping[str, Callable[[RunFacts, _Event], None]] = {
    "run.started": _run_started,
    "run.held": _run_held,
    "run.admitted": _run_admitted,
    "step.scheduled": _step_scheduled,
    "step.reused": _step_reused,
    "step.attempted": _step_attempted,
    "step.succeeded": _step_succeeded,
    "step.failed": _step_failed,
    "step.doubted": _step_doubted,
    "step.cleared": _step_cleared,
    "step.skipped": _step_closed,
    "step.cancelled": _step_closed,
    "state.entered": _state_entered,
    "incident.opened": _incident_opened,
    "incident.resolved": _incident_resolved,
    "compensation.started": _compensation_started,
    "undo.scheduled": _undo_scheduled,
    "undo.succeeded": _undo_succeeded,
    "undo.failed": _undo_failed,
    "run.ended": _run_ended,
}
