"""Who says what comes next: a plan answers `next(state)`, whoever authored it. Pure: no clock, no randomness, no I/O.

A code-first saga (`engine.plan.code`) answers by being driven with recorded results (`engine.plan.replay`); any other
author of plans answers the same question with the same operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Protocol

from contracts.calls import ActionSpec, RetryPolicy
from contracts.values import value
from engine.run.limits import Breach
from engine.run.state import RunState

OnFailure = Literal["compensate", "continue", "park"]


@value()
class StepAsked:
    """A step the plan wants to run. `undo` names the compensating action, None: nothing to undo."""

    name: str
    visit: int
    spec: ActionSpec
    input: Any
    input_hash: str
    undo: str | None
    on_failure: OnFailure
    retry: RetryPolicy | None
    timeout_seconds: float


@value()
class SleepAsked:
    """A pause: for `seconds`, or `until` an instant."""

    name: str
    visit: int
    seconds: float | None
    until: datetime | None


@value()
class WaitAsked:
    """A wait for the fact `event` whose correlation key `key_name` is `key_value`; None after `timeout_seconds`."""

    name: str
    visit: int
    event: str
    key_name: str
    key_value: str
    timeout_seconds: float | None


@value()
class ApprovalAsked:
    name: str
    visit: int
    title: str
    role: str
    context: Any
    timeout_seconds: float | None


@value()
class StateAsked:
    """A named business state is entered. Answered at once."""

    name: str
    visit: int


@value()
class ValueAsked:
    """An instant, a UUID or a random number that must be the same on every replay. Answered at once."""

    name: str
    visit: int
    kind: Literal["now", "uuid", "random"]


Operation = StepAsked | SleepAsked | WaitAsked | ApprovalAsked | StateAsked | ValueAsked


def recorded_form(operation: Operation) -> tuple[str, str, str]:
    """What the log keeps of an operation, to tell whether it is asked for again: (kind, what, digest)."""
    match operation:
        case StepAsked():
            return ("step", operation.spec.name, operation.input_hash)
        case SleepAsked():
            return ("sleep", "", "")
        case WaitAsked():
            return ("fact", operation.event, operation.key_value)
        case ApprovalAsked():
            return ("approval", operation.role, "")
        case StateAsked():
            return ("state", operation.name, "")
        case ValueAsked():
            return ("value", "", "")


@value()
class Ask:
    """Operations not recorded yet, in the order asked. Empty: the plan waits for what is recorded and open. `breaches`,
    here and below: the quotas that the plan has met on the way to this answer.
    """

    operations: tuple[Operation, ...]
    breaches: tuple[Breach, ...] = ()


@value()
class Finished:
    output: Any
    breaches: tuple[Breach, ...] = ()


@value()
class Continued:
    """The plan goes on in another run, which starts with `data`."""

    data: Any
    breaches: tuple[Breach, ...] = ()


@value()
class GaveUp:
    """The plan says that the run has failed (`fail`), or let a failed step's error through: unwind."""

    code: str
    message: str
    breaches: tuple[Breach, ...] = ()


@value()
class Raised:
    """The plan itself is broken: park. `detail` is the error and where it came from, without values."""

    detail: str


@value()
class Diverged:
    """The plan no longer fits what is recorded: park, with a readable diff."""

    diff: str


Next = Ask | Finished | Continued | GaveUp | Raised | Diverged


class Plan(Protocol):
    """One version of one workflow."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def on_failure(self) -> OnFailure:
        """What a run-level failure (its deadline) does."""

    @property
    def parked_state(self) -> str | None:
        """The business state shown while the run is parked."""

    def unwound_state(self, cause: str) -> str | None:
        """The business state in which a run that was unwound for `cause` ends; None: whichever it was in."""

    @property
    def timeout_seconds(self) -> float | None: ...

    def next(self, state: RunState) -> Next: ...

    def action(self, name: str) -> ActionSpec | None:
        """The declared action of that name; None when no installed module or connector brings it."""

    def forget(self, state: RunState) -> None:
        """Drops whatever is cached for this run; the next answer is derived from its recorded results."""

    def attributes(self, data: Any) -> Mapping[str, str]:
        """Searchable attributes of a run started with `data`."""
