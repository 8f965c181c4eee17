"""The events of a run, the only truth about it: frozen facts with fixed topics, folded by `engine.run.evolve`.

Every class has a `TOPIC` that never changes and a `VERSION` of its shape; an older stored shape is lifted by
`upcast_v<n>_v<n+1>` before it is built, a newer one is refused. Fields are JSON-native or `datetime`. `marks` are JSON
pointers, from the event's root (such as `/data/email`), to personal values; sealing puts those in the data subject's
own frame and every read model shows them redacted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Any, ClassVar, Literal

from contracts.values import value

Json = Any
"""JSON-native: dict, list, str, int, float, bool, None."""

RunStatus = Literal[
    "queued",
    "running",
    "waiting",
    "parked",
    "compensating",
    "succeeded",
    "failed",
    "compensated",
    "compensation_failed",
    "cancelled",
    "timed_out",
    "skipped",
]
IncidentReason = Literal[
    "step_failed",
    "fate_unknown",
    "undo_failed",
    "saga_raised",
    "saga_changed",
    "saga_stuck",
    "run_timed_out",
    "no_progress",
    "cap_exceeded",
    "subject_erased",
]
TERMINAL: frozenset[str] = frozenset(
    {"succeeded", "failed", "compensated", "compensation_failed", "cancelled", "timed_out", "skipped"}
)


@value(kw_only=True)
class RunEvent:
    """What all run events share: when it happened (engine time, UTC) and which of its values are personal."""

    TOPIC: ClassVar[str] = ""
    VERSION: ClassVar[int] = 1

    at: datetime
    marks: tuple[str, ...] = ()


@value(kw_only=True)
class RunStarted(RunEvent):
    """The run exists. `trigger` is {kind: event|manual|hook|schedule|rerun|unwind, id, type, source}; `data` its
    payload; `scope` heads every idempotency key.
    """

    TOPIC: ClassVar[str] = "run.started"

    workflow: str
    workflow_version: int
    trigger: Mapping[str, Json]
    data: Json
    scope: str
    initiator: str
    correlation_id: str
    causation_id: str | None = None
    traceparent: str | None = None
    subject: str | None = None
    """Data subject whose key seals the personal values of this run."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Searchable run attributes declared by the saga; personal ones are hashed before they are indexed."""
    deadline: datetime | None = None
    queued: bool = False
    """True when no slot was free: the run waits for admission before its first step."""


@value(kw_only=True)
class ResultInherited(RunEvent):
    """What a rerun knows of one operation of the run before it (`trigger.id`). `fate` of what was done: it `stands`,
    and is used again; nobody knows (`unknown`), or it is done `again`, under the same key; it was undone or never
    happened (`closed`), or an operator wants a second effect (`repeat`), so that the step gets a new key.
    """

    TOPIC: ClassVar[str] = "result.inherited"

    name: str
    visit: int
    kind: Literal["step", "sleep", "fact", "approval", "value"]
    what: str
    """The step's action, the fact's type or the approval's role."""
    digest: str
    """The hash of the step's input, or the key of the fact."""
    fate: Literal["stands", "unknown", "again", "closed", "repeat"]
    key: str = ""
    """The step's idempotency key."""
    undoable: bool = True
    """False when an operator supplied the step's output: it has no undo."""
    value: Json = None


@value(kw_only=True)
class StepReused(RunEvent):
    """A step of a rerun whose effect stands: nothing is performed. Its output is the receipt of the run before, which
    this run's undo receives.
    """

    TOPIC: ClassVar[str] = "step.reused"

    step: str
    visit: int
    key: str
    action: str
    kind: Literal["local", "command"]
    input: Json
    input_hash: str
    output: Json
    undo: str | None = None
    on_failure: Literal["compensate", "continue", "park"] = "compensate"
    timeout_seconds: float = 30.0


@value(kw_only=True)
class ResultReused(RunEvent):
    """A sleep, wait or approval that the run before a rerun has been through."""

    TOPIC: ClassVar[str] = "result.reused"

    name: str
    visit: int
    kind: Literal["sleep", "fact", "approval"]
    what: str
    digest: str
    value: Json = None


@value(kw_only=True)
class RunHeld(RunEvent):
    """Something woke the run and was recorded, but no slot was free to go on: it is queued for admission."""

    TOPIC: ClassVar[str] = "run.held"


@value(kw_only=True)
class RunAdmitted(RunEvent):
    """A slot was granted to a queued run."""

    TOPIC: ClassVar[str] = "run.admitted"


@value(kw_only=True)
class StepScheduled(RunEvent):
    """Intent, recorded before the effect. `key` is the idempotency key `<scope>/<step>/<visit>`, the same for every
    attempt.
    """

    TOPIC: ClassVar[str] = "step.scheduled"

    step: str
    visit: int
    key: str
    action: str
    kind: Literal["local", "command"]
    input: Json
    input_hash: str
    deadline: datetime | None = None
    """When this attempt has taken too long."""
    undo: str | None = None
    """Name of the compensating action or command; None: nothing to undo."""
    on_failure: Literal["compensate", "continue", "park"] = "compensate"
    retry: Mapping[str, Json] | None = None
    """A retry policy of this step's own (fields of `contracts.calls.RetryPolicy`); None: the action's."""
    timeout_seconds: float = 30.0
    """How long one attempt may take."""


@value(kw_only=True)
class StepAttempted(RunEvent):
    """Intent of a further attempt (2, 3, ...), after its backoff or an operator's retry."""

    TOPIC: ClassVar[str] = "step.attempted"

    step: str
    visit: int
    attempt: int
    deadline: datetime | None = None


@value(kw_only=True)
class StepProgressed(RunEvent):
    """The attempt under way has come so far. A takeover or a retry goes on from `progress`, the last that was recorded;
    it is the action's own and no result.
    """

    TOPIC: ClassVar[str] = "step.progressed"

    step: str
    visit: int
    attempt: int
    progress: Json


@value(kw_only=True)
class StepSucceeded(RunEvent):
    TOPIC: ClassVar[str] = "step.succeeded"

    step: str
    visit: int
    attempt: int
    output: Json
    """The step's result, and the receipt that its undo receives."""
    cost: float = 0.0


@value(kw_only=True)
class StepFailed(RunEvent):
    """One attempt failed. `retry_at` is set when another follows; `final` when retries are over; `ambiguous` when the
    effect may have happened.
    """

    TOPIC: ClassVar[str] = "step.failed"

    step: str
    visit: int
    attempt: int
    error: Mapping[str, Json]
    """{code, message, stack?, retry_after_seconds?, put_off_seconds?}; never a payload."""
    final: bool
    ambiguous: bool = False
    irrecoverable: bool = False
    retry_at: datetime | None = None


@value(kw_only=True)
class StepDoubted(RunEvent):
    """Nobody knows whether this attempt had its effect, and whoever can say is asked: the intent of the question.
    `retryable` says whether another attempt may follow if it did not.
    """

    TOPIC: ClassVar[str] = "step.doubted"

    step: str
    visit: int
    attempt: int
    error: Mapping[str, Json]
    """Why nobody knows: {code, message, stack?}; never a payload."""
    retryable: bool = True


@value(kw_only=True)
class StepCleared(RunEvent):
    """The answer to a doubt: the effect had not happened. `closing` says that it never will: whoever answered refuses
    the order from now on, so there is nothing to undo.
    """

    TOPIC: ClassVar[str] = "step.cleared"

    step: str
    visit: int
    attempt: int
    closing: bool


@value(kw_only=True)
class StepSkipped(RunEvent):
    """An operator supplied the output instead of the effect; it has no undo."""

    TOPIC: ClassVar[str] = "step.skipped"

    step: str
    visit: int
    output: Json
    by: str
    reason: str


@value(kw_only=True)
class StepCancelled(RunEvent):
    """A sibling that was still open when unwinding began was told to stop and is settled; `ambiguous` says its effect
    may have happened.
    """

    TOPIC: ClassVar[str] = "step.cancelled"

    step: str
    visit: int
    ambiguous: bool


@value(kw_only=True)
class SleepStarted(RunEvent):
    TOPIC: ClassVar[str] = "sleep.started"

    name: str
    visit: int
    due: datetime


@value(kw_only=True)
class SleepEnded(RunEvent):
    TOPIC: ClassVar[str] = "sleep.ended"

    name: str
    visit: int


@value(kw_only=True)
class WaitStarted(RunEvent):
    """Waits for a fact: `event` type whose correlation key named `key_name` equals `key_value`. `look_back` bounds how
    early the fact may have come.
    """

    TOPIC: ClassVar[str] = "wait.started"

    name: str
    visit: int
    event: str
    key_name: str
    key_value: str
    look_back: datetime
    due: datetime | None = None


@value(kw_only=True)
class WaitMatched(RunEvent):
    TOPIC: ClassVar[str] = "wait.matched"

    name: str
    visit: int
    event_id: str
    data: Json


@value(kw_only=True)
class WaitTimedOut(RunEvent):
    TOPIC: ClassVar[str] = "wait.timed_out"

    name: str
    visit: int


@value(kw_only=True)
class ApprovalRequested(RunEvent):
    TOPIC: ClassVar[str] = "approval.requested"

    name: str
    visit: int
    title: str
    role: str
    context: Json = None
    due: datetime | None = None


@value(kw_only=True)
class ApprovalDecided(RunEvent):
    TOPIC: ClassVar[str] = "approval.decided"

    name: str
    visit: int
    approved: bool
    by: str
    comment: str = ""


@value(kw_only=True)
class ApprovalTimedOut(RunEvent):
    TOPIC: ClassVar[str] = "approval.timed_out"

    name: str
    visit: int


@value(kw_only=True)
class StateEntered(RunEvent):
    """A named business state of the saga, such as Active; each one is also a notice and an audit entry."""

    TOPIC: ClassVar[str] = "state.entered"

    name: str
    visit: int
    previous: str | None = None


@value(kw_only=True)
class ValueRecorded(RunEvent):
    """A recorded answer to `run.now`, `run.uuid` or `run.random`, so that driving the saga again sees the same."""

    TOPIC: ClassVar[str] = "value.recorded"

    name: str
    visit: int
    value: Json


@value(kw_only=True)
class IncidentOpened(RunEvent):
    """A branch stopped and waits for an operator. `step` is None when the saga itself is to blame (it raised, changed,
    or did not yield).
    """

    TOPIC: ClassVar[str] = "incident.opened"

    incident: str
    reason: IncidentReason
    detail: str
    step: str | None = None
    visit: int | None = None


@value(kw_only=True)
class IncidentResolved(RunEvent):
    TOPIC: ClassVar[str] = "incident.resolved"

    incident: str
    how: Literal["retry", "skip", "abandon", "cancel", "redrive"]
    by: str


@value(kw_only=True)
class CompensationStarted(RunEvent):
    """From here on only undos happen. `cause` decides the terminal status: failed -> compensated, cancelled ->
    cancelled, timed_out -> timed_out.
    """

    TOPIC: ClassVar[str] = "compensation.started"

    cause: Literal["failed", "cancelled", "timed_out", "abandoned"]
    by: str
    error: Mapping[str, Json] | None = None


@value(kw_only=True)
class UndoScheduled(RunEvent):
    """Intent of one undo attempt. `receipt` is what do left behind, None when do was ambiguous. `key` is the step's
    key plus `/undo`.
    """

    TOPIC: ClassVar[str] = "undo.scheduled"

    step: str
    visit: int
    key: str
    action: str
    kind: Literal["local", "command"]
    input: Json
    receipt: Json
    cause: str = "failed"
    attempt: int = 1
    deadline: datetime | None = None


@value(kw_only=True)
class UndoSucceeded(RunEvent):
    TOPIC: ClassVar[str] = "undo.succeeded"

    step: str
    visit: int
    attempt: int
    output: Json = None


@value(kw_only=True)
class UndoFailed(RunEvent):
    TOPIC: ClassVar[str] = "undo.failed"

    step: str
    visit: int
    attempt: int
    error: Mapping[str, Json]
    final: bool
    retry_at: datetime | None = None


@value(kw_only=True)
class RunContinued(RunEvent):
    """The saga goes on in another run, which starts with `data`; this one ends. What it did is not undone any more."""

    TOPIC: ClassVar[str] = "run.continued"

    run_id: str
    """The run that goes on."""
    data: Json


@value(kw_only=True)
class RunEnded(RunEvent):
    """The last event of the stream; nothing may follow. `left` names steps whose effects were not undone."""

    TOPIC: ClassVar[str] = "run.ended"

    status: Literal["succeeded", "failed", "compensated", "compensation_failed", "cancelled", "timed_out", "skipped"]
    output: Json = None
    error: Mapping[str, Json] | None = None
    left: tuple[str, ...] = ()
    by: str = ""


def all_run_events() -> tuple[type[RunEvent], ...]:
    """Every concrete run event, in the order of this file; the closed topic registry is made from it."""
    return tuple(
        value
        for value in globals().values()
        if isinstance(value, type) and issubclass(value, RunEvent) and value is not RunEvent
    )
