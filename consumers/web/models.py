"""What goes in and out over HTTP, as pydantic models: the border of the API and the source of its OpenAPI document.

Requests refuse unknown fields and are read strictly; answers say what a field means where its name does not. Payloads
(`data`, `input`, `output`) are any JSON, redacted in answers.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from contracts.run_events import RunStatus

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Remark = Annotated[str, StringConstraints(max_length=1_000, pattern=r"^[^\x00]*$")]
TenantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Json = Any


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Told(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


# ------------------------------------------------------------------------------------------------------------- queries


class Query(BaseModel):
    """Query parameters are texts; they are read leniently, unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: TenantName | None = Field(None, description="The tenant that a platform token acts for, as X-Tenant")


class Reading(Query):
    as_of: str | None = Field(
        None, max_length=200, description="Wait until the read model has seen this position (from Unwind-As-Of)"
    )


class Listing(Reading):
    limit: int = Field(25, ge=1, le=200)
    cursor: str | None = Field(None, max_length=400, description="`next` of the page before")


class RunsQuery(Listing):
    status: str | None = Field(None, max_length=200, description="One status, or several with commas")
    workflow: Text | None = None
    correlation_id: Text | None = None
    business_state: Text | None = None
    attribute: str | None = Field(
        None, max_length=400, pattern=r"^[^\x00:]+:[^\x00]*$", description="`name:value` of a declared run attribute"
    )

    @field_validator("status")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        known = RunStatus.__args__  # type: ignore[attr-defined]
        unknown = [status for status in (value or "").split(",") if status and status not in known]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} is no run status; known are {', '.join(known)}")
        return value

    @property
    def statuses(self) -> tuple[str, ...]:
        return tuple(status for status in (self.status or "").split(",") if status)


class TimelineQuery(Listing):
    limit: int = Field(100, ge=1, le=1000)


class ApprovalsQuery(Listing):
    state: Literal["open", "approved", "rejected", "timed_out", "closed", "any"] = "open"
    run_id: str | None = Field(None, max_length=64)


class DeadLettersQuery(Query):
    state: Literal["dead", "redriven", "discarded", "any"] = "dead"
    limit: int = Field(25, ge=1, le=200)
    cursor: str | None = Field(None, max_length=64)


class SpanQuery(Reading):
    from_day: date | None = Field(None, description="First UTC day; 30 days ago unless given")
    to_day: date | None = Field(None, description="Last UTC day; today unless given")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.from_day and self.to_day and self.from_day > self.to_day:
            raise ValueError("from_day must not be after to_day")
        return self


class StatsQuery(SpanQuery):
    workflow: Text | None = None


class AuditQuery(Listing):
    run_id: str | None = Field(None, max_length=64, description="Entries of one run (or other stream)")
    topic: Text | None = None
    actor: Text | None = None


class VerifyQuery(Reading):
    against_log: bool = Field(False, description="Also compare every event of the log with the chain")


# ------------------------------------------------------------------------------------------------------------ requests


class PublishEvent(Asked):
    """Either a whole CloudEvents envelope (`specversion` and all), or just `type` and `data`: the rest is filled in."""

    type: Text
    data: dict[str, Json] = Field(default_factory=dict)
    id: Text | None = Field(None, description="The dedup key; the Idempotency-Key header does the same")
    source: Text | None = None
    time: Instant | None = None
    subject: Text | None = None
    tenantid: TenantName | None = None
    correlationid: Text | None = None
    causationid: Text | None = None
    traceparent: Text | None = None
    dataschema: Text | None = None
    specversion: Literal["1.0"] | None = None
    datacontenttype: Literal["application/json"] | None = None


class StartRun(Asked):
    input: dict[str, Json] = Field(default_factory=dict, description="The run's data, as its workflow expects it")
    correlation_id: Text | None = Field(None, description="Ties the run to a story that began elsewhere")


class OrderCommand(Asked):
    """Exactly one of `action` and `type` names the command."""

    action: Text | None = Field(None, description="Such as identity.create_user")
    type: Text | None = Field(None, description="Such as identity.CreateUserV1")
    data: dict[str, Json] = Field(default_factory=dict)
    correlation_id: Text | None = None

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.action is None) == (self.type is None):
            raise ValueError("name the command by action or by type, one of them")
        return self


class Reason(Asked):
    reason: Remark = ""


class RetryRun(Asked):
    step: Text | None = Field(None, description="Only this parked step; otherwise everything that is parked")


class SkipStep(Asked):
    step: Text
    output: Json = Field(None, description="What the run goes on with; must fit the action's declared outcome")
    reason: Remark = ""


class Decide(Asked):
    approved: bool
    comment: Remark = ""


class RegisterTenant(Asked):
    tenant: TenantName = Field(description="The new tenant's id")
    name: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
    owner_email: Annotated[str, StringConstraints(min_length=3, max_length=320, pattern=r"^[^\x00\s@]+@[^\x00\s@]+$")]
    owner_name: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
    edition: Literal["free", "standard", "enterprise"] = "standard"
    trial: bool = True


# ------------------------------------------------------------------------------------------------------------- answers


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


class RunDetail(Run):
    data: Json = Field(description="What the trigger brought, redacted")
    output: Json = None
    error: Json = None
    left: list[str] = Field(description="Steps whose effects were not undone")
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
    error: Json
    cost: float
    started_at: Instant
    ended_at: Instant | None
    duration_seconds: float | None
    ambiguous: bool
    attempts: list[Attempt]
    undo: Undo | None


class Steps(Told):
    items: list[Step]
    as_of: str


class Explanation(Told):
    run_id: str
    status: RunStatus
    sentence: str
    branches: list[str]
    wakes: dict[str, list[dict[str, Json]]] = Field(description="Every recorded reason that will move the run")


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


class UsageDay(Told):
    day: date
    runs_started: int
    runs_ended: int
    runs_failed: int
    steps: int
    attempts: int
    undos: int
    approvals: int
    cost: float


class TenantUsage(Told):
    tenant: str
    open_runs: int
    total_runs: int
    days: list[UsageDay]


class Usage(Told):
    items: list[TenantUsage]
    as_of: str


class WorkflowStats(Told):
    tenant: str
    workflow: str
    started: int
    ended: int
    by_status: dict[str, int]
    success_rate: float | None
    average_seconds: float | None
    p50_seconds: float | None
    p95_seconds: float | None
    longest_seconds: float | None
    cost: float


class Statistics(Told):
    items: list[WorkflowStats]
    as_of: str


class AuditEntry(Told):
    tenant: str
    number: int
    position: int
    stream: str
    kind: str
    version: int
    topic: str
    actor: str
    details: dict[str, Json]
    recorded_at: Instant
    hash: str


class AuditEntries(Told):
    items: list[AuditEntry]
    next: str | None = None
    as_of: str


class AuditHead(Told):
    tenant: str
    number: int
    hash: str
    as_of: str


class AuditVerdict(Told):
    tenant: str
    holds: bool
    entries: int
    head: str
    position: int
    broken: str | None


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


class Workflow(Told):
    name: str
    version: int
    versions: list[int]
    events: list[str]
    hook: str | None
    attributes: list[str]


class Workflows(Told):
    items: list[Workflow]
