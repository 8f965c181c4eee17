"""What is true about one run now: the fold of its events. A value: only `engine.run.evolve` fills it, and only on a
copy of its own.

`steps` and `waits` are keyed by (name, visit); `completions` lists what a saga's coroutine is fed, in the order the log
has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Literal
from uuid import UUID

from contracts.run_events import TERMINAL, RunStatus
from contracts.values import value
from engine.run.children import STARTS

Key = tuple[str, int]
"""(name, visit)."""


@dataclass(slots=True)
class Step:
    """One visit of one step. `open`: an attempt is under way; `backoff`: the next waits for its timer; `parked`: for
    an operator.
    """

    name: str
    visit: int
    key: str
    action: str
    kind: Literal["local", "command"]
    input: Any
    input_hash: str
    undo: str | None
    on_failure: str
    retry: Mapping[str, Any] | None
    timeout_seconds: float
    marks: tuple[str, ...] = ()
    status: Literal["open", "backoff", "parked", "succeeded", "failed", "skipped", "cancelled"] = "open"
    attempt: int = 1
    deadline: datetime | None = None
    began: datetime | None = None
    """When the current attempt's intent was recorded."""
    output: Any = None
    output_marks: tuple[str, ...] = ()
    error: Mapping[str, Any] | None = None
    ambiguous: bool = False
    completed: int = 0
    """Version of the event that completed it; unwinding goes from the highest to the lowest."""
    undo_status: Literal["", "open", "backoff", "parked", "done"] = ""
    undo_attempt: int = 0
    undo_deadline: datetime | None = None
    undo_error: Mapping[str, Any] | None = None
    doubt: Literal["", "retryable", "final"] = ""
    """Set while somebody is asked whether the current attempt happened: may another one follow if it did not?"""
    progress: Any = None
    """How far its attempts have come, as the action itself has recorded it; None once it has succeeded."""
    put_off: int = 0
    """How many of its attempts were put off: nothing was tried."""
    undo_put_off: int = 0

    @property
    def is_child(self) -> bool:
        """Whether another run is what the step waits for."""
        return self.action.startswith(STARTS)

    def copy(self) -> Step:
        return Step(*_values_of_step(self))


@dataclass(slots=True)
class Wait:
    """An open or settled sleep, wait for a fact, or approval."""

    name: str
    visit: int
    kind: Literal["sleep", "fact", "approval"]
    due: datetime | None
    asked: Mapping[str, Any]
    open: bool = True
    matched: str | None = None
    """Id of the event that answered it."""


@value()
class Completion:
    """What a saga's coroutine receives for the operation (name, visit): a value, or an error to be raised."""

    name: str
    visit: int
    ok: bool
    value: Any


@value()
class Inherited:
    """What a rerun knows of one operation of the run before it: `contracts.run_events.ResultInherited`. `marks` point
    into `value`, from `/value`.
    """

    name: str
    visit: int
    kind: Literal["step", "sleep", "fact", "approval", "value"]
    what: str
    digest: str
    fate: Literal["stands", "unknown", "again", "closed", "repeat"]
    key: str = ""
    undoable: bool = True
    value: Any = None
    marks: tuple[str, ...] = ()


@value()
class Incident:
    id: str
    reason: str
    detail: str
    step: str | None
    visit: int | None


@dataclass(slots=True)
class RunState:
    """The whole run. `version` counts its events; `recorded` maps every operation asked so far to (kind, what, hash)
    for the check on replay.
    """

    run_id: UUID
    tenant: str
    version: int = 0
    workflow: str = ""
    workflow_version: int = 0
    trigger: Mapping[str, Any] | None = None
    data: Any = None
    data_marks: tuple[str, ...] = ()
    scope: str = ""
    initiator: str = ""
    correlation_id: str = ""
    causation_id: str | None = None
    traceparent: str | None = None
    subject: str | None = None
    attributes: Mapping[str, str] | None = None
    started_at: datetime | None = None
    deadline: datetime | None = None
    allowed: timedelta | None = None
    """How long the run may take, parks not counted."""
    queued: bool = False
    steps: dict[Key, Step] | None = None
    waits: dict[Key, Wait] | None = None
    recorded: dict[Key, tuple[str, str, str]] | None = None
    completions: list[Completion] | None = None
    incidents: dict[str, Incident] | None = None
    inherited: dict[Key, Inherited] | None = None
    """What a rerun was told of the run before it; None: the run is no rerun."""
    business_state: str | None = None
    state_before_park: str | None = None
    cause: str | None = None
    """Why it is unwinding; None while it goes forward."""
    cause_error: Mapping[str, Any] | None = None
    continued: str | None = None
    """The run that goes on after this one; None: nobody does."""
    ended: str | None = None
    end_output: Any = None
    timed_out: bool = False
    parked_at: datetime | None = None
    """Since when an incident is open: the run's deadline stands still meanwhile."""
    personal: frozenset[str] = frozenset()
    """Texts that were marked personal anywhere in this run; the same text elsewhere is treated as personal too."""

    @property
    def status(self) -> RunStatus:
        """Terminal, else compensating, queued, running while an attempt is under way, parked when an incident is all
        that is left to move it, else waiting, also for a child.
        """
        if self.ended is not None:
            assert self.ended in TERMINAL
            return self.ended  # type: ignore[return-value]
        if self.queued:
            return "queued"
        assert self.steps is not None
        if self.cause is not None:
            undoing = any(step.undo_status == "open" for step in self.steps.values())
            return "parked" if self.incidents and not undoing else "compensating"
        for step in reversed(self.steps.values()):  # the one under way is mostly the last
            if step.status == "open" and not step.is_child:
                return "running"
        return "parked" if self.incidents else "waiting"

    @property
    def is_open(self) -> bool:
        return self.version > 0 and self.ended is None

    @property
    def due(self) -> datetime | None:
        """When the run's deadline must be looked at: never while it is parked or being unwound."""
        return None if self.incidents or self.cause is not None or self.timed_out else self.deadline

    @property
    def holds_slot(self) -> bool:
        """One slot per run while any branch is active; waiting, backoff, park and compensation hold none."""
        return self.version > 0 and self.status == "running"

    def copy(self) -> RunState:
        """A copy that may be evolved without the original seeing it. Steps and waits are copied when they change
        (`evolve`), not here.
        """
        new = RunState(*_values_of_run(self))
        if self.version:
            new.steps = dict(self.steps or {})
            new.waits = dict(self.waits or {})
            new.recorded = dict(self.recorded or {})
            new.completions = list(self.completions or ())
            new.incidents = dict(self.incidents or {})
            if self.inherited is not None:
                new.inherited = dict(self.inherited)
        return new

    def step(self, name: str, visit: int) -> Step | None:
        return (self.steps or {}).get((name, visit))

    def open_steps(self) -> list[Step]:
        return [step for step in (self.steps or {}).values() if step.status == "open"]

    def waits_called(self, name: str) -> list[Wait]:
        """Every visit of the wait `name`."""
        return [wait for wait in (self.waits or {}).values() if wait.name == name]

    def open_waits(self) -> list[Wait]:
        return [wait for wait in (self.waits or {}).values() if wait.open]


# Positional rebuilding is several times cheaper than `dataclasses.replace` or `copy.copy`; both run for every decision.
_values_of_run = attrgetter(*RunState.__dataclass_fields__)
_values_of_step = attrgetter(*Step.__dataclass_fields__)
