"""What the engine itself tells the world, as the manifest of module `unwind`: published on `unwind.events` like any
module's facts.

Redacted by construction: a notice names runs, steps, states, codes and counts. It never carries a payload, an error's
text, an approval's title or a personal run attribute; whoever may see those asks the API for the run. `subject` of a
notice's envelope is the run's id.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from contracts.manifest import Event, EventModel, Module
from contracts.version import __version__


class RunNotice(EventModel):
    """What every notice about a run says first."""

    run_id: str
    workflow: str
    workflow_version: int


class RunStateEnteredV1(RunNotice):
    """A run entered a named business state, such as Active."""

    state: str
    previous: str | None = None


class RunParkedV1(RunNotice):
    """A branch of a run stopped and waits for an operator: retry, skip, redrive or abandon. `step` is absent when the
    saga itself is to blame.
    """

    incident: str
    reason: str
    step: str | None = None
    code: str | None = None


class RunResumedV1(RunNotice):
    """An operator answered an incident."""

    incident: str
    how: Literal["retry", "skip", "abandon", "cancel", "redrive"]
    by: str


class ApprovalRequestedV1(RunNotice):
    """A run waits for a person of that role to decide."""

    name: str
    role: str
    due: datetime | None = None


class ApprovalDecidedV1(RunNotice):
    """A person decided, or nobody did in time."""

    name: str
    outcome: Literal["approved", "refused", "timed_out"]
    by: str | None = None


class CompensationStartedV1(RunNotice):
    """A run unwinds: from here on only undos happen."""

    cause: Literal["failed", "cancelled", "timed_out", "abandoned"]
    by: str


class RunEndedV1(RunNotice):
    """The last word about a run that someone may have to act on; plain success is told by the read models alone.

    `left` names steps whose effects were not undone; `attributes` are the run's declared ones that are not personal.
    """

    status: Literal["succeeded", "failed", "compensated", "compensation_failed", "cancelled", "timed_out", "skipped"]
    code: str | None = None
    left: list[str] = Field(default_factory=list)
    attributes: dict[str, str] = Field(default_factory=dict)


class SignatureRefusedV1(EventModel):
    """Somebody knocked at a webhook endpoint with a wrong signature or token, `count` times within a minute."""

    endpoint: str
    count: int


class WorkflowQuotaBreachedV1(EventModel):
    """A full quota of the tenant was met: by a start, which was refused or queued, by a run that asked for more than it
    may, or by an outbound request. Said once per quota and window: the hour, or the day or month (UTC) that the quota
    is for. `value` is what would have become of it, at least. `workflow` is null when the quota is the whole tenant's.
    """

    tenant: str
    cap: Literal[
        "concurrent_runs", "open_runs", "daily_runs",
        "daily_cost_micros", "monthly_cost_micros",
        "steps", "depth", "run_seconds", "payload_bytes", "outbound_requests",
    ]  # fmt: skip
    value: int
    limit: int
    workflow: str | None = None
    window: str


class OutletDisabledV1(EventModel):
    """Nothing more is delivered to an outlet until somebody enables it again: it has taken nothing for too long
    (`failing`), or has said that it is gone for good (`gone`, an answer 410).
    """

    outlet: str
    reason: Literal["failing", "gone"]
    since: datetime


_RUN_KEYS = {"run": "/run_id", "workflow": "/workflow"}

UNWIND = Module(
    name="unwind",
    version=__version__,
    events=(
        Event(RunStateEnteredV1, keys={**_RUN_KEYS, "state": "/state"}),
        Event(RunParkedV1, keys={**_RUN_KEYS, "incident": "/incident"}),
        Event(RunResumedV1, keys={**_RUN_KEYS, "incident": "/incident"}),
        Event(ApprovalRequestedV1, keys=_RUN_KEYS),
        Event(ApprovalDecidedV1, keys=_RUN_KEYS),
        Event(CompensationStartedV1, keys=_RUN_KEYS),
        Event(RunEndedV1, keys=_RUN_KEYS),
        Event(SignatureRefusedV1, keys={"endpoint": "/endpoint"}),
        Event(WorkflowQuotaBreachedV1, keys={"cap": "/cap"}),
        Event(OutletDisabledV1, keys={"outlet": "/outlet"}),
    ),
)
