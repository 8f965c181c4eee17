"""What goes in over HTTP, as pydantic models: queries and bodies. Unknown fields are refused; bodies are read strictly.
Answers are in `consumers.web.told`; the OpenAPI document is written from both.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from contracts.quotas import Quotas
from contracts.run_events import RunStatus
from contracts.tenant_events import BulkWord
from engine.store import HookScheme
from projections.effects import State

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Remark = Annotated[str, StringConstraints(max_length=1_000, pattern=r"^[^\x00]*$")]
TenantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Json = Any


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# ------------------------------------------------------------------------------------------------------------- queries


class Query(BaseModel):
    """Query parameters are texts; they are read leniently, unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: TenantName | None = Field(None, description="The tenant that a platform token acts for, as X-Tenant")


class Reading(Query):
    wait_for_position: str | None = Field(
        None,
        max_length=200,
        description="Wait, for at most 5 seconds, until the read model has seen this position: the `as_of` of an "
        "earlier answer, of a write too",
    )
    as_of: str | None = Field(None, max_length=200, description="The same as wait_for_position")


class DropQuery(Query):
    reason: Remark = Field("", description="Why, for the audit")


class ArchivedEventsQuery(Query):
    limit: int = Field(100, ge=1, le=1_000)
    cursor: int | None = Field(None, ge=0, description="`next` of the page before")


class ResumeQuery(Query):
    everyone: bool = Field(False, description="End the pause of all tenants, not that of one")


class Listing(Reading):
    limit: int = Field(25, ge=1, le=200)
    cursor: str | None = Field(None, max_length=400, description="`next` of the page before")


class RunsQuery(Listing):
    status: str | None = Field(None, max_length=200, description="One status, or several with commas")
    workflow: Text | None = None
    correlation_id: Text | None = None
    trace_id: str | None = Field(
        None, pattern=r"^[0-9a-f]{32}$", description="The 32 hex digits of a W3C trace that began runs"
    )
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


class EventQuery(Query):
    source: Text | None = Field(None, description="The publisher, as in /modules/billing; needed where two use one id")


class EffectsQuery(RunsQuery):
    limit: int = Field(25, ge=1, le=100, description="Most runs on a page; each brings all of its effects")
    run_id: str | None = Field(None, max_length=64, description="Only the effects of this run")
    state: State | None = Field(None, description="Only effects of which this is known")


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


class Backfill(Asked):
    since: Instant = Field(description="Events that arrived from then on")
    until: Instant | None = Field(None, description="Events that arrived before; now unless given")
    after: int = Field(0, ge=0, description="`next` of the page before")
    limit: int = Field(500, ge=1, le=1_000, description="Most events of this page")
    dry_run: bool = Field(False, description="Count the events of the whole span, and start nothing")


Count = Annotated[int, Field(ge=0, le=1_000_000_000)]


HookName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
HookSecret = Annotated[str, StringConstraints(min_length=16, max_length=200, pattern=r"^[!-~]+$")]


class AddHook(Asked):
    name: HookName = Field(description="The last part of the address: /hooks/<tenant>/<name>")
    workflow: Text
    scheme: HookScheme = Field("standard", description="How the sender signs")
    fields: dict[Text, Json] = Field(
        default_factory=dict,
        max_length=100,
        description='Fields of the run\'s input: a JSON pointer into the message, {"pointer": ..., "default": ...} or '
        '{"constant": ...}. None: the message is the input',
    )
    id_pointer: Remark | None = Field(
        None, description="Where the message says its id, for schemes that sign none; its body tells it apart otherwise"
    )
    secret: HookSecret | None = Field(None, description="Where the sender has chosen it; one is made otherwise")


class RotateHook(Asked):
    overlap_seconds: int = Field(
        86_400, ge=0, le=2_592_000, description="How long the secret before is still taken, for at most 30 days"
    )
    secret: HookSecret | None = Field(None, description="Where the sender has chosen it; one is made otherwise")


class BulkFilter(Asked):
    """What picked the runs, or the dead letters, of a bulk; `most` bounds how many. Left out: not asked for."""

    status: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")] | None = None
    workflow: Text | None = None
    business_state: Text | None = None
    attribute: Annotated[str, StringConstraints(max_length=400, pattern=r"^[^\x00:]+(:[^\x00]*)?$")] | None = Field(
        None, description="`name:value`; only the name is recorded, for the value may be personal"
    )
    correlation_id: Text | None = None
    error_code: Text | None = None
    started_after: Instant | None = None
    started_before: Instant | None = None
    letter_type: Text | None = None
    letter_reason: Text | None = None
    most: Count | None = None


class BulkAsked(Asked):
    word: BulkWord


class BeginBulk(BulkAsked):
    filter: BulkFilter
    found: Count = Field(description="How many fitted the filter when they were counted")
    step: Text | None = Field(None, description="The only step that is retried, or that a rerun begins with")
    reason: Remark = ""


class AddressBulk(BulkAsked):
    ids: list[Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[0-9A-Fa-f-]+$")]] = Field(
        min_length=1, max_length=100, description="Runs of the tenant, or its dead letters, that are told next"
    )


class EndBulk(BulkAsked):
    filter: BulkFilter
    found: Count
    told: Count
    known: Count = Field(description="Had been told before")
    refused: Count
    failed: Count = Field(description="Could not be asked")
    how: Literal["finished", "cancelled", "failed"]


class OffboardTenant(Asked):
    reason: Remark = ""
    open_runs: Literal["refuse", "cancel", "terminate"] = Field(
        "refuse", description="What becomes of its open runs: cancelled ones are undone"
    )
    force: bool = Field(False, description="Do not ask tenancy whether the tenant is closed")


class ArchiveRuns(Asked):
    before: Instant | None = Field(
        None, description="Runs that ended before; UNWIND_RETENTION__RUN_DAYS ago unless given"
    )
    most: int = Field(1_000, ge=1, le=10_000, description="Most runs of this request")
    dry_run: bool = Field(False, description="Count them, and archive nothing")


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


class ErasuresQuery(Listing):
    cursor: str | None = Field(None, max_length=400, pattern=r"^[A-Za-z0-9_.-]+/[0-9]{1,18}$")


class EraseSubject(Asked):
    """The subject stands in the body: addresses are logged on the way."""

    subject: Text
    open_runs: Literal["refuse", "cancel", "terminate"] = Field(
        "refuse", description="What to do with runs of this subject that are still open"
    )
    reason: Remark = ""


class ExportSubject(Asked):
    subject: Text
    reason: Remark = ""


class ApplyErasures(Asked):
    scopes: list[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]] = Field(max_length=1_000)


class ChangePolicies(Asked):
    approvals_own: Literal["allow", "forbid"] = Field(
        description="Whether somebody who triggered a run may decide on its approvals"
    )


class Pause(Asked):
    reason: Remark = ""
    everyone: bool = Field(False, description="All tenants, not one: needs the platform's word")


class PutEgress(Asked):
    """All of the rules: what is left out is gone."""

    allow: list[Annotated[str, StringConstraints(min_length=1, max_length=300)]] = Field(
        default_factory=list,
        max_length=100,
        description="Private hosts, `host` or `host:port`, and networks in CIDR notation that are open to this tenant",
    )
    requests: int | None = Field(None, ge=1, le=10_000_000, description="Outbound requests in any stretch of `seconds`")
    seconds: float | None = Field(None, ge=1, le=86_400)
    everyone: bool = Field(False, description="The rules of all tenants that have none of their own")


class CreateToken(Asked):
    name: Text = Field(description="Whose token it is; stands in the audit as the actor")
    roles: list[Text] = Field(min_length=1, max_length=20, description="Roles that hold no more than the caller may")
    expires_at: Instant | None = Field(
        None,
        description="From then on it is worthless; null: never, or when the token ends that it is made with, which it "
        "does not outlast",
    )
    platform: bool = Field(False, description="A token of the platform, which reaches every tenant")


class PutSecret(Asked):
    kind: Literal["api_key", "basic", "oauth2"]
    hosts: list[Annotated[str, StringConstraints(min_length=1, max_length=300)]] = Field(
        min_length=1, max_length=20, description="Exact hosts, `host` or `host:port`, that it may be sent to"
    )
    value: dict[str, Json] = Field(
        description="`api_key`: key, header, prefix; `basic`: username, password; `oauth2`: client_id, client_secret, "
        "token_url, scope, refresh_token, client_auth. Never answered again"
    )


class RotateSecret(Asked):
    value: dict[str, Json] = Field(description="A whole value of the kind that the secret has")


class PutQuotas(Quotas):
    """The whole document: what is left out or null is as everybody's, and in everybody's own document without limit."""


class Reason(Asked):
    reason: Remark = ""


class RetryRun(Asked):
    step: Text | None = Field(None, description="Only this parked step; otherwise everything that is parked")


class RerunRun(Asked):
    from_step: Text | None = Field(
        None, description="Do this step and all that was asked for after it again, under the keys they had"
    )
    repeat_effects: list[Text] = Field(
        default_factory=list, max_length=100, description="Steps that get new keys, and so a second effect"
    )
    reason: Remark = ""


class SkipStep(Asked):
    step: Text
    output: Json = Field(None, description="What the run goes on with; must fit the action's declared outcome")
    reason: Remark = ""


class Decide(Asked):
    approved: bool
    comment: Remark = ""


class MoveTenant(Asked):
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]*$")] = Field(
        description="Why; it stands in the record, and in the mail to the owner"
    )


class RegisterTenant(Asked):
    tenant: TenantName = Field(description="The new tenant's id")
    name: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
    owner_email: Annotated[str, StringConstraints(min_length=3, max_length=320, pattern=r"^[^\x00\s@]+@[^\x00\s@]+$")]
    owner_name: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
    edition: Literal["free", "standard", "enterprise"] = "standard"
    trial: bool = True
