"""What becomes of an input or a commit that was handed in at the one door: the store's own outcomes, and what the
coordinator can say beside them. `engine.coordinator` gives these answers; consumers acknowledge, settle or
bury by them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from contracts.problems import Problem
from engine.store import Outcome


@dataclass(frozen=True, slots=True)
class Ignored:
    """The input changed nothing, and why; it is settled all the same."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotOurs:
    """Another live process owns the run, or it is closed; whoever owns it will find the input."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The database will never store this; `reason` says why. A run goes no further and is parked, a start or an arrival
    is for whoever handed it in to bury. With a `problem` it could be stored, and that forbids it now.
    """

    reason: str
    problem: Problem | None = None


Answer = Outcome | Refused
"""Of a commit."""
Result = Answer | Ignored | NotOurs
"""Of an input."""
Done = Callable[[Result], None]
