"""What goes out over HTTP about a tenant or the platform as a whole: use, statistics, audit, workflows, pauses, tenants
and data subjects. Runs and what belongs to them are in `consumers.web.told`.
"""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import Field

from consumers.web.asked import Instant
from consumers.web.told import Json, Told
from contracts.quotas import Quotas
from contracts.run_events import RunStatus
from engine.store import HookScheme


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


class AccountDay(Told):
    day: date
    decide_seconds: float = Field(description="CPU seconds of deciding and sealing, from samples")
    project_seconds: float = Field(description="CPU seconds of writing read models, shared out by events")
    rows: int = Field(description="Events of runs appended to the log")
    sends: int = Field(description="Messages that runs put into the outbox")
    actions: int = Field(description="Local attempts begun")


class TenantAccount(Told):
    """What one tenant used over the span."""

    tenant: str
    cpu_seconds: float
    rows: int
    sends: int
    actions: int
    days: list[AccountDay]


class Accounting(Told):
    items: list[TenantAccount]


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


class Workflow(Told):
    name: str
    version: int
    versions: list[int]
    events: list[str]
    hook: str | None
    attributes: list[str]


class Workflows(Told):
    items: list[Workflow]


class Policies(Told):
    tenant: str
    approvals_own: str


class TenantQuotas(Told):
    """`own` null: the tenant has none of its own. `holding` is what bounds it. `tenant` `*` is everybody."""

    tenant: str
    own: Quotas | None
    holding: Quotas


class CapUse(Told):
    """One quota: `limit` null: none. `used` null: it bounds a single run. `ends_at` is when counting begins anew, null
    for what is counted as it is now. `breached`: it was met in the window under way, and that was said.
    """

    cap: str
    workflow: str | None
    limit: int | None
    used: int | None
    ends_at: Instant | None
    breached: bool


class QuotaUse(Told):
    """Of the tenant first, then of each workflow that has quotas of its own and is named or in use."""

    tenant: str
    items: list[CapUse]


class QuotasPut(TenantQuotas):
    """`changed` false: they were so before."""

    changed: bool


class Held(Told):
    """`tenant` `*` is everybody."""

    tenant: str
    by: str
    since: Instant
    reason: str


class MaintenanceHeld(Told):
    by: str
    since: Instant
    reason: str


class Pauses(Told):
    items: list[Held]
    maintenance: MaintenanceHeld | None


class Released(Told):
    """`changed` false: nothing was held."""

    tenant: str
    changed: bool


class Hook(Told):
    """`old_secret_until`: the secret before the present one is taken until then."""

    tenant: str
    name: str
    path: str
    workflow: str
    scheme: HookScheme
    fields: dict[str, Json]
    id_pointer: str | None
    created_at: Instant
    created_by: str
    rotated_at: Instant | None
    old_secret_until: Instant | None


class Hooks(Told):
    items: list[Hook]


class HookSecret(Hook):
    """The endpoint with its secret, which is told this once and never again."""

    secret: str


class HookRemoved(Told):
    tenant: str
    name: str


class ArchiveMonth(Told):
    """`dropped`: its events are gone for good."""

    month: str
    runs: int
    events: int
    dropped: bool


class ArchiveMonths(Told):
    items: list[ArchiveMonth]
    run_days: int = Field(description="Days after its end that a run is archived; 0: never")


class RunsArchived(Told):
    """`events` is null when they were only counted."""

    before: Instant
    runs: int
    events: int | None


class ArchivedEvent(Told):
    position: int
    tenant: str
    run_id: str
    version: int
    topic: str
    recorded_at: Instant
    event: dict[str, Json] | None = Field(description="null: its tenant was offboarded, and nobody can read it")


class ArchivedEvents(Told):
    items: list[ArchivedEvent]
    next: int | None


class MonthDropped(Told):
    month: str
    runs: int
    events: int


class Offboarded(Told):
    """What was let go of a tenant."""

    tenant: str
    runs: int
    arrivals: int
    letters: int
    tokens: int
    keys: int


class Erasure(Told):
    """`keys` is how many were dropped: 0 for a subject that is unknown, or erased already."""

    scope: str
    runs: int
    arrivals: int
    keys: int


class AppliedErasures(Told):
    items: list[Erasure]


class Tenant(Told):
    tenant: str
    state: str
    name: str | None
    edition: str | None
    owner_id: str | None
    steps_completed: list[str]
    revision: int
    """Counts the tenant's transitions."""
    holds: list[str]
    """The causes for which it is suspended, or will be."""


class PastErasure(Told):
    tenant: str
    scope: str
    runs: int
    by: str
    at: Instant


class PastErasures(Told):
    items: list[PastErasure]
    next: str | None
    as_of: str


class Egress(Told):
    """What outbound calls of the tenant, or of all without rules of their own (`*`), may do. `requests` and `seconds`
    null: the installation's usual rate.
    """

    tenant: str
    allow: list[str]
    requests: int | None
    seconds: float | None


class Secret(Told):
    """All that is ever told of a secret; its value is not."""

    tenant: str
    name: str
    kind: Literal["api_key", "basic", "oauth2"]
    version: int
    hosts: list[str]
    created_at: Instant
    changed_at: Instant
    changed_by: str


class Secrets(Told):
    items: list[Secret]


class Token(Told):
    """What is told of a token; its text is not. `tenant` null: the platform's."""

    prefix: str
    name: str
    tenant: str | None
    roles: list[str]
    made_by: str | None = Field(description="Who made it, as the audit names him; null: that was not noted")
    made_with: str | None = Field(description="The prefix of the token that it was made with; null: with none")
    created_at: Instant
    expires_at: Instant | None
    revoked_at: Instant | None
    last_used_at: Instant | None


class Tokens(Told):
    items: list[Token]


class NewToken(Token):
    token: str = Field(description="Told this once and never again")


class TokenRevoked(Told):
    prefix: str
    revoked: bool


class SubjectValue(Told):
    """A personal value, opened, and where in the run's history it stands."""

    version: int
    topic: str
    place: str
    value: Json


class SubjectRun(Told):
    run_id: str
    workflow: str
    status: RunStatus
    started_at: Instant
    ended_at: Instant | None
    values: list[SubjectValue]


class SubjectExport(Told):
    tenant: str
    subject: str
    scope: str
    runs: list[SubjectRun]
