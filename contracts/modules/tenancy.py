"""Contract of the tenancy module, which owns the life of a tenant.

    Registered -> Provisioning -> Active <-> Suspended
                   |      ^         |            |
                   v      |         v            v
             ProvisioningFailed -> Decommissioned

Every command travels under the tenant it is about (`tenantid` of its envelope). A transition the table does not know is
answered with `TenantTransitionRefusedV1`, which no retry will change.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from contracts.manifest import (
    AnswerModel,
    Command,
    CommandModel,
    Event,
    EventModel,
    FailureModel,
    Module,
    Personal,
    Query,
    QueryModel,
    UndoModel,
)
from contracts.modules.faults import rehearsal, rehearsal_permission

TenantState = Literal["Registered", "Provisioning", "Active", "ProvisioningFailed", "Suspended", "Decommissioned"]
Edition = Literal["free", "standard", "enterprise"]

PROVISIONING_STEPS: Final = ("subscription", "entitlements", "owner", "activation_mail")
"""What must have succeeded before a tenant may become Active."""

ONBOARDING: Final = "tenant-onboarding"
"""The workflow whose runs provision a tenant: when one is parked, or ends before provisioning could begin, the tenant
is ProvisioningFailed; when an operator has it tried again the tenant is Provisioning, when it is abandoned
Decommissioned.
"""


class TenantFact(EventModel):
    """What every fact about a tenant says: which, and the state it is in now."""

    tenant: str
    state: TenantState


class TenantRegisteredV1(TenantFact):
    name: str
    edition: Edition
    trial: bool
    owner_id: str
    owner_email: Personal
    owner_name: Personal


class TenantProvisioningStartedV1(TenantFact):
    previous: TenantState
    steps: list[str]
    """The names that must be reported before the tenant can be activated."""


class ProvisioningStepCompletedV1(TenantFact):
    step: str
    remaining: list[str]


class TenantProvisionedV1(TenantFact):
    """The tenant is Active: every provisioning step succeeded."""

    name: str
    edition: Edition
    owner_id: str
    steps: list[str]


class TenantProvisioningFailedV1(TenantFact):
    step: str | None = None
    reason: str


class TenantProvisioningTimedOutV1(TenantFact):
    """`after_seconds` counts from the last beginning of provisioning; `missing` are the steps nobody reported."""

    after_seconds: float
    missing: list[str]


class ProvisioningRevertedV1(EventModel):
    """The beginning of provisioning is undone. Each transition that took is a fact of its own before this one:
    `TenantProvisioningFailedV1`, `TenantProvisioningTimedOutV1` or `TenantDecommissionedV1`. `state` is None when there
    is no such tenant.
    """

    tenant: str
    state: TenantState | None = None


class SuspensionUndoneV1(EventModel):
    """The suspension is undone. When that moved the tenant, `TenantReinstatedV1` said so before."""

    tenant: str
    state: TenantState | None = None


class TenantSuspendedV1(TenantFact):
    reason: str


class TenantReinstatedV1(TenantFact):
    reason: str


class TenantDecommissionedV1(TenantFact):
    previous: TenantState
    reason: str


class TenantTransitionRefusedV1(FailureModel):
    """The tenant's state does not allow it, a step is missing, the tenant is unknown, or it exists already."""

    state: TenantState | None = None


class TenancyUnavailableV1(FailureModel):
    """Nothing was done; try again."""


class RegisterTenantV1(CommandModel):
    """Makes the tenant that the envelope's `tenantid` names."""

    name: str = Field(min_length=1, max_length=200)
    edition: Edition = "standard"
    trial: bool = True
    owner_email: Personal
    owner_name: Personal


class BeginProvisioningV1(CommandModel):
    """From Registered, or again from ProvisioningFailed after remediation."""


class RevertProvisioningV1(UndoModel[BeginProvisioningV1, TenantProvisioningStartedV1]):
    """Where the tenant goes when its provisioning unwinds follows from the cause: failed or cancelled leads to
    ProvisioningFailed, timed_out too (and says so), abandoned to Decommissioned. Done already: nothing more happens.
    """


class CompleteProvisioningStepV1(CommandModel):
    step: str = Field(min_length=1, max_length=100)


class ActivateTenantV1(CommandModel):
    """From Provisioning to Active, when every provisioning step is reported: here, or by CompleteProvisioningStepV1."""

    steps: list[str] = Field(default_factory=list)


class FailProvisioningV1(CommandModel):
    reason: str = Field(min_length=1, max_length=500)
    step: str | None = None


class TimeOutProvisioningV1(CommandModel):
    after_seconds: float = Field(gt=0)


class SuspendTenantV1(CommandModel):
    reason: str = Field(min_length=1, max_length=500)


class ReinstateTenantV1(CommandModel):
    reason: str = Field(min_length=1, max_length=500)


class UndoSuspensionV1(UndoModel[SuspendTenantV1, TenantSuspendedV1]):
    """Reinstates what the suspension suspended."""


class DecommissionTenantV1(CommandModel):
    """Closes the tenant, or abandons one whose provisioning failed."""

    reason: str = Field(min_length=1, max_length=500)


class GetTenantV1(QueryModel):
    pass


class TenantSnapshotV1(AnswerModel):
    """`state` is None when there is no such tenant."""

    tenant: str
    state: TenantState | None = None
    name: str | None = None
    edition: Edition | None = None
    owner_id: str | None = None
    steps_completed: list[str] = Field(default_factory=list)
    revision: int = 0


MANAGE: Final = "tenancy.manage"
READ: Final = "tenancy.read"
_KEYS: Final = {"tenant": "/tenant"}


def _command(model: type[CommandModel], success: type[EventModel], undo: str | None = None) -> Command:
    return Command(
        model,
        success=success,
        failures=(TenancyUnavailableV1,),
        irrecoverable=(TenantTransitionRefusedV1,),
        undo=undo,
        coverage="retriable" if undo is None else "compensatable",
        permission=MANAGE,
    )


MODULE: Final = Module(
    name="tenancy",
    version="1.0.0",
    events=(
        Event(TenantRegisteredV1, keys=_KEYS, subject="/owner_id"),
        *(
            Event(model, keys=_KEYS)
            for model in (
                TenantProvisioningStartedV1,
                ProvisioningStepCompletedV1,
                TenantProvisionedV1,
                TenantProvisioningFailedV1,
                TenantProvisioningTimedOutV1,
                ProvisioningRevertedV1,
                TenantSuspendedV1,
                SuspensionUndoneV1,
                TenantReinstatedV1,
                TenantDecommissionedV1,
            )
        ),
    ),
    commands=(
        _command(RegisterTenantV1, TenantRegisteredV1),
        _command(BeginProvisioningV1, TenantProvisioningStartedV1, undo="RevertProvisioningV1"),
        _command(RevertProvisioningV1, ProvisioningRevertedV1),
        _command(CompleteProvisioningStepV1, ProvisioningStepCompletedV1),
        _command(ActivateTenantV1, TenantProvisionedV1),
        _command(FailProvisioningV1, TenantProvisioningFailedV1),
        _command(TimeOutProvisioningV1, TenantProvisioningTimedOutV1),
        _command(SuspendTenantV1, TenantSuspendedV1, undo="UndoSuspensionV1"),
        _command(UndoSuspensionV1, SuspensionUndoneV1),
        _command(ReinstateTenantV1, TenantReinstatedV1),
        _command(DecommissionTenantV1, TenantDecommissionedV1),
        rehearsal("tenancy"),
    ),
    queries=(Query(GetTenantV1, answer=TenantSnapshotV1, permission=READ),),
    permissions=(MANAGE, READ, rehearsal_permission("tenancy")),
)
