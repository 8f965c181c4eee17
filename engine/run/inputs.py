"""Everything that can happen to a run, as values: the one door accepts these and nothing else.

Each carries `at`, the engine's time when it was heard, so that deciding needs no clock. Inputs that come from outside
also carry `dedup`, the key under which the store remembers that they were answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Any
from uuid import UUID

from contracts.run_events import StepReused
from contracts.values import value
from engine.run.state import Inherited


@value(kw_only=True)
class Input:
    """`settles` are ids of input rows that the answering commit deletes."""

    at: datetime
    dedup: str | None = None
    settles: tuple[int, ...] = ()


@value(kw_only=True)
class Begin(Input):
    """Start a run. `data` is the trigger's payload, `marks` its personal values (pointers from the payload's root)."""

    run_id: UUID
    tenant: str
    trigger: Mapping[str, Any]
    data: Any
    initiator: str
    correlation_id: str
    marks: tuple[str, ...] = ()
    subject: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    scope: str | None = None
    queued: bool = False
    inherited: tuple[Inherited, ...] = ()
    """A rerun's: what is known of the run before it."""
    adopted: tuple[StepReused, ...] = ()
    """Of a run that unwinds another: the steps of that one that stand, in the order of their completion."""


@value(kw_only=True)
class StepDone(Input):
    """An attempt of a step, or of its undo, ended well. `attempt` 0: whichever is current (a module's reply does not
    know it).
    """

    step: str
    visit: int
    attempt: int = 0
    output: Any = None
    cost: float = 0.0
    undo: bool = False


@value(kw_only=True)
class StepMoved(Input):
    """The attempt under way has recorded how far it has come."""

    step: str
    visit: int
    attempt: int
    progress: Any


@value(kw_only=True)
class StepLost(Input):
    """An attempt of a step, or of its undo, ended badly, or nobody knows how (`ambiguous`)."""

    step: str
    visit: int
    attempt: int = 0
    error: Mapping[str, Any] = field(default_factory=dict)
    retryable: bool = True
    ambiguous: bool = False
    irrecoverable: bool = False
    undo: bool = False


@value(kw_only=True)
class FateLearned(Input):
    """Who was asked about an attempt of unknown fate has answered: it `happened`, with `output`; it did not; or (None)
    nobody could say, and `detail` why. `closing`: it was asked for the last time, the order is refused from now on.
    """

    step: str
    visit: int
    attempt: int
    happened: bool | None
    closing: bool
    output: Any = None
    detail: str = ""


@value(kw_only=True)
class TimerDue(Input):
    """A recorded timer came due; `key` says which (`retry/<step>/<visit>/<attempt>`, `wait/<name>/<visit>`,
    `run/deadline`, ...).
    """

    key: str


@value(kw_only=True)
class FactMatched(Input):
    name: str
    visit: int
    event_id: str
    data: Any
    marks: tuple[str, ...] = ()


@value(kw_only=True)
class Decided(Input):
    """An approver's answer to the open approval `name`."""

    name: str
    approved: bool
    by: str
    comment: str = ""


@value(kw_only=True)
class CancelAsked(Input):
    """Stop and unwind."""

    by: str
    reason: str = ""


@value(kw_only=True)
class TerminateAsked(Input):
    """Close at once, undo nothing, list what is left."""

    by: str
    reason: str = ""


@value(kw_only=True)
class RetryAsked(Input):
    """Try what is parked again: one step, or every open incident."""

    by: str
    step: str | None = None


@value(kw_only=True)
class SkipAsked(Input):
    """Go on as if the parked step had answered `output`."""

    by: str
    step: str
    output: Any
    reason: str = ""


@value(kw_only=True)
class AbandonAsked(Input):
    """Give a parked run up: unwind it; or, when an undo is parked, end it with what is left."""

    by: str
    reason: str = ""


@value(kw_only=True)
class Admitted(Input):
    """A slot is asked for; the commit grants it or is Limited."""


@value(kw_only=True)
class PlanStuck(Input):
    """The saga did not yield within its second, or takeovers made no progress."""

    reason: str
    detail: str
