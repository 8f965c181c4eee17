"""Contract of the tenancy module, which owns the life of a tenant.

    Registered -> Provisioning -> Active <-> Suspended
                   |      ^         |            |
                   v      |         v            v
             ProvisioningFailed -> Decommissioned

Every command travels under the tenant it is about (`tenantid` of its envelope). A transition that `TRANSITIONS` does
not hold is answered with `TenantTransitionRefusedV1`, which no retry will change.

A suspended tenant is *held* for one or several causes: past_due, policy/<name>, operator. When the last hold is
released it is Active again; reinstating it by hand releases them all.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    personal,
)
from contracts.modules.faults import rehearsal, rehearsal_permission

TenantState = Literal["Registered", "Provisioning", "Active", "ProvisioningFailed", "Suspended", "Decommissioned"]
Trigger = Literal["begin", "complete_step", "activate", "fail", "suspend", "reinstate", "decommission"]
Edition = Literal["free", "standard", "enterprise"]

TRANSITIONS: Final[Mapping[tuple[TenantState, Trigger], TenantState]] = {
    ("Registered", "begin"): "Provisioning",
    ("Provisioning", "complete_step"): "Provisioning",
    ("Provisioning", "activate"): "Active",
    ("Provisioning", "fail"): "ProvisioningFailed",
    ("ProvisioningFailed", "begin"): "Provisioning",
    ("ProvisioningFailed", "decommission"): "Decommissioned",
    ("Active", "suspend"): "Suspended",
    ("Suspended", "reinstate"): "Active",
    ("Active", "decommission"): "Decommissioned",
    ("Suspended", "decommission"): "Decommissioned",
}
"""All there is. A registered tenant comes from nowhere, a decommissioned one goes nowhere."""

BARS: Final[Mapping[str, str]] = {"Suspended": "tenant_suspended", "Decommissioned": "tenant_closed"}
"""States in which nobody signs in and nothing is sent, and the code under which that is refused."""
BAR_WORDS: Final[Mapping[str, str]] = {
    "tenant_suspended": "the tenant is suspended; this works again when it is reinstated",
    "tenant_closed": "the tenant is closed",
}

PROVISIONING_STEPS: Final = ("subscription", "entitlements", "owner", "activation_mail")
"""What must have succeeded before a tenant may become Active."""

ONBOARDING: Final = "tenant-onboarding"
"""The workflow whose runs provision a tenant: when one is parked, or ends before provisioning could begin, the tenant
is ProvisioningFailed; when an operator has it tried again the tenant is Provisioning, when it is abandoned
Decommissioned.
"""


SUSPENSION: Final = "tenant-suspension"
REINSTATEMENT: Final = "tenant-reinstatement"
CLOSURE: Final = "tenant-closure"
"""The workflows that move a tenant after it has become Active."""

PAST_DUE: Final = "past_due"
OPERATOR: Final = "operator"
_CAUSE: Final = r"^(past_due|operator|policy/[a-z0-9][a-z0-9_.-]{0,99})$"
_POLICY: Final = r"^[a-z0-9][a-z0-9_.-]{0,99}$"


def policy_cause(policy: str) -> str:
    """The cause of the hold that a violated policy puts on a tenant."""
    return f"policy/{policy}"


class TenantFact(EventModel):
    """What every fact about a tenant says: which, and the state it is in now. `revision` counts the tenant's
    transitions, this one included: of two facts the one with the higher revision is the later, whichever arrives first.
    """

    tenant: str
    state: TenantState
    revision: int = 0


class OwnedTenantFact(TenantFact):
    """Also says whom to tell."""

    name: str | None = None
    owner_id: str | None = None
    owner_email: str | None = personal(default=None)
    owner_name: str | None = personal(default=None)


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
    """The suspension is undone. When that moved the tenant, `TenantReinstatedV1` said so before; it stays Suspended
    while it is held for another cause.
    """

    tenant: str
    state: TenantState | None = None


class TenantSuspendedV1(OwnedTenantFact):
    reason: str
    cause: str = OPERATOR


class TenantReinstatedV1(OwnedTenantFact):
    reason: str


class TenantDecommissionedV1(OwnedTenantFact):
    previous: TenantState
    reason: str


class TenantHeldV1(EventModel):
    """The tenant is held for this cause: it stays suspended, or will be. `fresh` is False when it was held for it
    already.
    """

    tenant: str
    state: TenantState
    cause: str
    fresh: bool


class HoldUndoneV1(EventModel):
    tenant: str


class HoldReleasedV1(EventModel):
    """The tenant is no longer held for this cause. When it was the last, `TenantReinstatedV1` said before that the
    tenant is Active again; `remaining` are the causes that still hold it.
    """

    tenant: str
    state: TenantState
    cause: str
    remaining: list[str]


class PolicyViolatedV1(EventModel):
    """The tenant breaks a policy of the platform and is held for it; suspending it follows."""

    tenant: str
    policy: str
    reason: str


class PolicyViolationClearedV1(EventModel):
    """The tenant keeps to the policy again; releasing it follows."""

    tenant: str
    policy: str


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
    """From Active to Suspended, held for `cause`. A suspended tenant is refused with the code already_suspended."""

    reason: str = Field(min_length=1, max_length=500)
    cause: str = Field(default=OPERATOR, pattern=_CAUSE)


class ReinstateTenantV1(CommandModel):
    """By hand: whatever held the tenant does so no longer."""

    reason: str = Field(min_length=1, max_length=500)


class UndoSuspensionV1(UndoModel[SuspendTenantV1, TenantSuspendedV1]):
    """Releases the hold that the suspension placed, and reinstates the tenant unless another one stands."""


class HoldTenantV1(CommandModel):
    """Holds a tenant that is Active or Suspended for one more cause."""

    cause: str = Field(pattern=_CAUSE)
    reason: str = Field(min_length=1, max_length=500)


class UndoHoldV1(UndoModel[HoldTenantV1, TenantHeldV1]):
    """Takes away the hold that the order placed; one that stood before stays."""


class ReleaseHoldV1(CommandModel):
    """Ends the hold for this cause; with the last one a suspended tenant is reinstated."""

    cause: str = Field(pattern=_CAUSE)
    reason: str = Field(min_length=1, max_length=500)


class ReportViolationV1(CommandModel):
    policy: str = Field(pattern=_POLICY)
    reason: str = Field(min_length=1, max_length=500)


class ClearViolationV1(CommandModel):
    """Refused when the tenant is not held for this policy."""

    policy: str = Field(pattern=_POLICY)


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
    holds: list[str] = Field(default_factory=list)
    """The causes for which it is held."""


ORDERS: Final[Mapping[Trigger, tuple[type[CommandModel], type[TenantFact]]]] = {
    "begin": (BeginProvisioningV1, TenantProvisioningStartedV1),
    "complete_step": (CompleteProvisioningStepV1, ProvisioningStepCompletedV1),
    "activate": (ActivateTenantV1, TenantProvisionedV1),
    "fail": (FailProvisioningV1, TenantProvisioningFailedV1),
    "suspend": (SuspendTenantV1, TenantSuspendedV1),
    "reinstate": (ReinstateTenantV1, TenantReinstatedV1),
    "decommission": (DecommissionTenantV1, TenantDecommissionedV1),
}
"""What orders each transition, and the fact that tells of it. TimeOutProvisioningV1 orders `fail` too."""

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


STANDINGS: Final = frozenset(
    f"tenancy.{model.__name__}" for model in (TenantSuspendedV1, TenantReinstatedV1, TenantDecommissionedV1)
)
"""Types of the facts that say whether a tenant may be served."""

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
                SuspensionUndoneV1,
                TenantHeldV1,
                HoldUndoneV1,
                HoldReleasedV1,
                PolicyViolatedV1,
                PolicyViolationClearedV1,
            )
        ),
        *(
            Event(model, keys=_KEYS, subject="/owner_id")
            for model in (TenantSuspendedV1, TenantReinstatedV1, TenantDecommissionedV1)
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
        _command(HoldTenantV1, TenantHeldV1, undo="UndoHoldV1"),
        _command(UndoHoldV1, HoldUndoneV1),
        _command(ReleaseHoldV1, HoldReleasedV1),
        _command(ReportViolationV1, PolicyViolatedV1),
        _command(ClearViolationV1, PolicyViolationClearedV1),
        _command(DecommissionTenantV1, TenantDecommissionedV1),
        rehearsal("tenancy"),
    ),
    queries=(Query(GetTenantV1, answer=TenantSnapshotV1, permission=READ),),
    permissions=(MANAGE, READ, rehearsal_permission("tenancy")),
)
