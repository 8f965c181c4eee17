"""What goes out over HTTP, as pydantic models: a route answers with its model and nothing that it does not declare.
Payloads (`data`, `input`, `output`) are any JSON, redacted.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from consumers.web.asked import Instant
from contracts.run_events import RunStatus
from projections.effects import State

Json = Any


class Told(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Problem(Told):
    """RFC 9457. `code` is stable; `field` names what is to blame."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None


class Published(Told):
    id: str
    source: str
    type: str
    tenant: str
    correlation_id: str | None
    as_of: str


class RunBegun(Told):
    """`duplicate`: the key was known, and `run_id` is the original run."""

    run_id: str
    tenant: str
    workflow: str
    duplicate: bool
    correlation_id: str | None = None
    as_of: str


class Accepted(Told):
    """What was asked is recorded; the run's owner acts on it."""

    run_id: str
    accepted: bool = True
    as_of: str


class Backfilled(Told):
    """One page: of `found` past events, `started` begin a run, `known` had begun one. No `next`: the span is done."""

    found: int
    started: int
    known: int
    next: int | None
    as_of: str


class BulkRecorded(Told):
    """It stands in the audit, under this id."""

    bulk_id: str
    as_of: str


class Follower(Told):
    """`run_id` is the new run, `follows` the one before it. `duplicate`: it was asked for before."""

    run_id: str
    follows: str
    duplicate: bool
    as_of: str


class Run(Told):
    run_id: str
    tenant: str
    workflow: str
    workflow_version: int
    status: RunStatus
    business_state: str | None = Field(description="The state that the saga itself named last, such as Active")
    trigger: dict[str, Json]
    initiator: str
    correlation_id: str
    causation_id: str | None
    trace_id: str | None = Field(description="The W3C trace of the message or request that began it")
    attributes: dict[str, Json]
    started_at: Instant
    updated_at: Instant
    ended_at: Instant | None
    deadline: Instant | None
    parked: str | None = Field(description="Why it waits for an operator")
    error_code: str | None
    error_message: str | None
    steps: int
    attempts: int
    undone: int
    cost: float
    version: int = Field(description="Number of its events")


class Captured(Told):
    """What a run may do: the permissions of whoever triggered it, as they were then."""

    hash: str
    held: list[str]


class RunDetail(Run):
    data: Json = Field(description="What the trigger brought, redacted")
    output: Json = None
    error: Json = None
    left: list[str] = Field(description="Steps whose effects were not undone")
    permissions: Captured | None = Field(
        None,
        description="As captured when it was triggered; null: a fact or a signature did, and it does all that its "
        "workflow does",
    )
    followed_by: str | None = Field(None, description="The run that ran this one once more, or undid what it did")
    as_of: str


class Runs(Told):
    items: list[Run]
    next: str | None = None
    as_of: str


class Entry(Told):
    version: int
    topic: str
    position: int
    event: dict[str, Json]


class Timeline(Told):
    items: list[Entry]
    next: str | None = None
    as_of: str


class Attempt(Told):
    attempt: int
    started_at: Instant
    ended_at: Instant | None
    error: Json
    retry_at: Instant | None


class Undo(Told):
    action: str
    status: Literal["none", "open", "backoff", "parked", "done"]
    attempts: list[Attempt]
    output: Json


class Step(Told):
    step: str
    visit: int
    key: str = Field(description="Idempotency key, the same for every attempt")
    action: str
    kind: str
    status: Literal["open", "backoff", "parked", "succeeded", "failed", "skipped", "cancelled"]
    input: Json
    output: Json
    progress: Json = Field(description="What its action has recorded last of how far it has come")
    error: Json
    cost: float
    started_at: Instant
    ended_at: Instant | None
    duration_seconds: float | None
    ambiguous: bool
    reused: bool = Field(description="Not performed: the run before this rerun has had the effect")
    attempts: list[Attempt]
    undo: Undo | None


class Steps(Told):
    items: list[Step]
    as_of: str


class Effect(Told):
    """One side effect that a run intended: its key, what is known of it, what it cost."""

    key: str
    tenant: str
    run_id: str
    workflow: str
    step: str
    visit: int
    action: str
    kind: str
    state: State = Field(
        description="unknown: it may have happened; not_undone: an undo was tried and waits for an operator"
    )
    attempts: int
    cost: float
    undo: str | None
    undo_attempts: int
    since: Instant
    settled_at: Instant | None


class Effects(Told):
    items: list[Effect]
    next: str | None = None
    as_of: str


class Explanation(Told):
    run_id: str
    status: RunStatus
    sentence: str
    branches: list[str]
    wakes: dict[str, list[dict[str, Json]]] = Field(description="Every recorded reason that will move the run")


class EventStart(Told):
    workflow: str
    version: int | None = Field(description="The version that such an event starts today")
    run_id: str | None
    said: str


class EventWake(Told):
    run_id: str
    wait: str
    said: str


class EventAnswer(Told):
    run_id: str
    step: str
    undo: bool


class EventLetter(Told):
    id: str
    reason: str
    state: str


class EventExplanation(Told):
    event_id: str
    tenant: str
    source: str | None
    type: str | None = Field(description="Null when the journal does not hold it")
    received_at: str | None
    sentence: str
    starts: list[EventStart] = Field(description="Workflows that it started, or that its type starts, and why not")
    woke: list[EventWake] = Field(description="Waits that it was given to")
    answered: EventAnswer | None = Field(description="The step whose command it is an outcome of")
    said: list[str] = Field(description="What else the journal says: ignored or refused, and why")
    keys: list[str] = Field(description="Names of the correlation keys by which runs could wait for it")
    dead_letters: list[EventLetter] = Field(description="Dead letters that named this id")


class Happened(Told):
    topic: str
    event: dict[str, Json]


class Difference(Told):
    """One decision, as recorded and as it would be now; what comes after it is not compared."""

    version: int = Field(description="The first of its events, as numbered in the timeline")
    recorded: list[Happened]
    derived: list[Happened] = Field(description="Empty: nothing is known that would lead to these events now")


class Replay(Told):
    run_id: str
    status: RunStatus
    workflow: str
    workflow_version: int
    same: bool = Field(description="No decision came out otherwise")
    recorded: int = Field(description="Events of the run")
    events: int = Field(description="Those of them that were derived again")
    decisions: int
    erased: int | None = Field(description="The first event that an erasure has emptied; the replay ends before it")
    difference: Difference | None


class Approval(Told):
    run_id: str
    tenant: str
    name: str
    visit: int
    workflow: str
    title: str
    role: str
    context: Json
    requested_at: Instant
    due: Instant | None
    state: str
    decided_by: str | None
    comment: str | None
    decided_at: Instant | None


class Approvals(Told):
    items: list[Approval]
    next: str | None = None
    as_of: str


class DeadLetter(Told):
    id: str
    tenant: str
    reason: str
    detail: str
    source: str
    routing_key: str
    event_id: str | None
    type: str | None
    state: str
    created_at: Instant
    settled_at: Instant | None
    settled_by: str | None


class DeadLetters(Told):
    items: list[DeadLetter]
    next: str | None = None


class DeadLetterDetail(DeadLetter):
    attempts: list[dict[str, Json]]
    headers: dict[str, Json]
    size: int = Field(description="Bytes of the message as received")
    sha256: str = Field(description="Digest of the message as received; a redrive sends these bytes")
    envelope: Json = Field(description="The message, redacted")


class Settled(Told):
    """`changed` False: it was settled before, and nothing happened."""

    id: str
    changed: bool
    state: str


class Node(Told):
    """A message or a run, and what it led to."""

    kind: Literal["request", "event", "run", "step", "undo", "fact"]
    id: str
    name: str
    status: str | None = None
    at: Instant | None = None
    run_id: str | None = None
    children: list[Node] = Field(default_factory=list)


class Story(Told):
    """Everything of one correlation id as a tree, from what began it to its last step."""

    correlation_id: str
    roots: list[Node]
    runs: int
    as_of: str
