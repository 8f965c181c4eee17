"""The tenancy module: owns every tenant's state and refuses what its table of transitions does not hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

import orjson

from consumers.modules.rehearsal import SQL as REHEARSAL
from consumers.modules.rehearsal import Rehearsal
from consumers.modules.settings import ModuleSettings
from contracts.modules import tenancy as contract
from contracts.modules.tenancy import ONBOARDING, PROVISIONING_STEPS, TRANSITIONS, TenantState, Trigger
from contracts.notices import UNWIND, RunParkedV1, RunStateEnteredV1
from contracts.sdk import Call, DatabaseUnavailable, Early, Question, Refused, Service, Transport, Tx
from contracts.sdk.call import UNDO_SUFFIX
from contracts.sdk.statements import statements

SQL = statements("tenancy.sql", "consumers.modules")


class Moved(TypedDict):
    """What a fact says first about the transition that it tells of."""

    tenant: str
    state: TenantState
    revision: int


class Owner(TypedDict):
    name: str
    owner_id: str
    owner_email: str
    owner_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant as it is before a transition."""

    name: str
    edition: contract.Edition
    owner_id: str
    owner_email: str
    owner_name: str
    state: TenantState
    revision: int
    steps: tuple[str, ...]
    provisioning_since: datetime | None

    def missing(self, also: tuple[str, ...] = ()) -> list[str]:
        return [step for step in PROVISIONING_STEPS if step not in self.steps and step not in also]

    @property
    def owner(self) -> Owner:
        return Owner(name=self.name, owner_id=self.owner_id, owner_email=self.owner_email, owner_name=self.owner_name)


def make(transport: Transport, settings: ModuleSettings) -> Service:
    service = Service(
        contract.MODULE,
        transport=transport,
        database=settings.database("tenancy"),
        schemas=(SQL["schema"], REHEARSAL["schema"]),
        max_attempts=settings.max_attempts,
        drain_seconds=settings.drain_seconds,
        relay_lease_seconds=settings.relay_lease_seconds,
    )
    Rehearsal(service, allowed=settings.rehearsals)
    service.handles(contract.RegisterTenantV1)(register)
    service.handles(contract.BeginProvisioningV1)(begin)
    service.handles(contract.RevertProvisioningV1)(revert)
    service.handles(contract.CompleteProvisioningStepV1)(complete_step)
    service.handles(contract.ActivateTenantV1)(activate)
    service.handles(contract.FailProvisioningV1)(fail)
    service.handles(contract.TimeOutProvisioningV1)(time_out)
    service.handles(contract.SuspendTenantV1)(suspend)
    service.handles(contract.UndoSuspensionV1)(undo_suspension)
    service.handles(contract.ReinstateTenantV1)(reinstate)
    service.handles(contract.HoldTenantV1)(hold)
    service.handles(contract.UndoHoldV1)(undo_hold)
    service.handles(contract.ReleaseHoldV1)(release_hold)
    service.handles(contract.ReportViolationV1)(report_violation)
    service.handles(contract.ClearViolationV1)(clear_violation)
    service.handles(contract.DecommissionTenantV1)(decommission)
    service.on(UNWIND, RunParkedV1)(onboarding_parked)
    service.on(UNWIND, RunStateEnteredV1)(onboarding_moved)
    service.answers(contract.GetTenantV1)(get_tenant)
    return service


async def register(command: contract.RegisterTenantV1, call: Call, tx: Tx) -> contract.TenantRegisteredV1:
    owner = call.new_id("usr")
    made = await tx.run(
        SQL["register"],
        call.tenant,
        command.name,
        command.edition,
        command.trial,
        owner,
        command.owner_email,
        command.owner_name,
        call.at,
    )
    if not made:
        raise Refused("tenant_exists", f"tenant {call.tenant} is registered already; choose another name")
    await tx.run(SQL["note"], call.tenant, 1, "register", None, "Registered", call.envelope.id, call.at)
    return contract.TenantRegisteredV1(
        tenant=call.tenant,
        state="Registered",
        revision=1,
        name=command.name,
        edition=command.edition,
        trial=command.trial,
        owner_id=owner,
        owner_email=command.owner_email,
        owner_name=command.owner_name,
    )


async def begin(command: contract.BeginProvisioningV1, call: Call, tx: Tx) -> contract.TenantProvisioningStartedV1:
    before = await _find(call, tx)
    moved = await _move(before, "begin", call, tx, provisioning_since=call.at)
    return contract.TenantProvisioningStartedV1(**moved, previous=before.state, steps=list(PROVISIONING_STEPS))


async def revert(command: contract.RevertProvisioningV1, call: Call, tx: Tx) -> contract.ProvisioningRevertedV1:
    """The cause decides where the tenant goes. A tenant that is no longer being provisioned was moved by somebody who
    knew more; only an onboarding that had ended well closes it.
    """
    if command.receipt is None:
        return contract.ProvisioningRevertedV1(tenant=call.tenant, state=await _state(call, tx))
    tenant = await _find(call, tx)
    reason = f"provisioning {command.cause.replace('_', ' ')}"
    if tenant.state == "Provisioning":
        why = "run_timed_out" if command.cause == "timed_out" else reason
        await _follow(tenant, "ProvisioningFailed", call, tx, reason=why)
        tenant = await _find(call, tx)
    if tenant.state in ("Active", "Suspended") or (
        tenant.state == "ProvisioningFailed" and command.cause == "abandoned"
    ):
        await _follow(tenant, "Decommissioned", call, tx, reason=reason)
    return contract.ProvisioningRevertedV1(tenant=call.tenant, state=await _state(call, tx))


async def complete_step(
    command: contract.CompleteProvisioningStepV1, call: Call, tx: Tx
) -> contract.ProvisioningStepCompletedV1:
    before = await _find(call, tx)
    if command.step not in PROVISIONING_STEPS:
        raise _refused("unknown_step", f"step {command.step} is not one of {', '.join(PROVISIONING_STEPS)}", before)
    steps = tuple(dict.fromkeys((*before.steps, command.step)))
    moved = await _move(before, "complete_step", call, tx, steps=steps)
    return contract.ProvisioningStepCompletedV1(**moved, step=command.step, remaining=before.missing((command.step,)))


async def activate(command: contract.ActivateTenantV1, call: Call, tx: Tx) -> contract.TenantProvisionedV1:
    before = await _find(call, tx)
    if before.state == "ProvisioningFailed":
        # The word that its onboarding goes on again may still be under way behind this command.
        raise Early("provisioning_failed", "the tenant's provisioning has failed; begin it again first")
    missing = before.missing(tuple(command.steps))
    if before.state == "Provisioning" and missing:
        raise _refused("steps_missing", f"report {', '.join(missing)} before the tenant is activated", before)
    moved = await _move(before, "activate", call, tx, steps=PROVISIONING_STEPS)
    return contract.TenantProvisionedV1(
        **moved,
        name=before.name,
        edition=before.edition,
        owner_id=before.owner_id,
        steps=list(PROVISIONING_STEPS),
    )


async def fail(command: contract.FailProvisioningV1, call: Call, tx: Tx) -> contract.TenantProvisioningFailedV1:
    moved = await _move(await _find(call, tx), "fail", call, tx)
    return contract.TenantProvisioningFailedV1(**moved, step=command.step, reason=command.reason)


async def time_out(
    command: contract.TimeOutProvisioningV1, call: Call, tx: Tx
) -> contract.TenantProvisioningTimedOutV1:
    before = await _find(call, tx)
    moved = await _move(before, "fail", call, tx)
    return contract.TenantProvisioningTimedOutV1(**moved, after_seconds=command.after_seconds, missing=before.missing())


async def suspend(command: contract.SuspendTenantV1, call: Call, tx: Tx) -> contract.TenantSuspendedV1:
    before = await _find(call, tx)
    if before.state == "Suspended":
        raise _refused("already_suspended", "the tenant is suspended; it can be held for a further cause", before)
    moved = await _move(before, "suspend", call, tx)
    await tx.run(SQL["hold"], call.tenant, command.cause, command.reason, call.key, call.at)
    return contract.TenantSuspendedV1(**moved, **before.owner, reason=command.reason, cause=command.cause)


async def undo_suspension(command: contract.UndoSuspensionV1, call: Call, tx: Tx) -> contract.SuspensionUndoneV1:
    if command.receipt is not None:
        await tx.run(SQL["undo_hold"], call.tenant, call.key.removesuffix(UNDO_SUFFIX))
        await _reinstate_unless_held(call, tx, f"suspension undone: {command.cause}")
    return contract.SuspensionUndoneV1(tenant=call.tenant, state=await _state(call, tx))


async def reinstate(command: contract.ReinstateTenantV1, call: Call, tx: Tx) -> contract.TenantReinstatedV1:
    before = await _find(call, tx)
    moved = await _move(before, "reinstate", call, tx)
    await tx.run(SQL["release_all"], call.tenant)
    return contract.TenantReinstatedV1(**moved, **before.owner, reason=command.reason)


async def hold(command: contract.HoldTenantV1, call: Call, tx: Tx) -> contract.TenantHeldV1:
    tenant = await _find(call, tx)
    if tenant.state not in ("Active", "Suspended"):
        raise _refused("transition_refused", f"a tenant that is {tenant.state} cannot be held", tenant)
    fresh = await tx.run(SQL["hold"], call.tenant, command.cause, command.reason, call.key, call.at)
    return contract.TenantHeldV1(tenant=call.tenant, state=tenant.state, cause=command.cause, fresh=bool(fresh))


async def undo_hold(command: contract.UndoHoldV1, call: Call, tx: Tx) -> contract.HoldUndoneV1:
    if command.receipt is not None:
        await tx.run(SQL["undo_hold"], call.tenant, call.key.removesuffix(UNDO_SUFFIX))
    return contract.HoldUndoneV1(tenant=call.tenant)


async def release_hold(command: contract.ReleaseHoldV1, call: Call, tx: Tx) -> contract.HoldReleasedV1:
    await tx.run(SQL["release"], call.tenant, command.cause)
    await _reinstate_unless_held(call, tx, command.reason)
    tenant = await _find(call, tx)
    return contract.HoldReleasedV1(
        tenant=call.tenant, state=tenant.state, cause=command.cause, remaining=await _holds(call.tenant, tx)
    )


async def report_violation(command: contract.ReportViolationV1, call: Call, tx: Tx) -> contract.PolicyViolatedV1:
    tenant = await _find(call, tx)
    if tenant.state == "Decommissioned":
        raise _refused("transition_refused", "a tenant that is Decommissioned breaks no policy any more", tenant)
    cause = contract.policy_cause(command.policy)
    await tx.run(SQL["hold"], call.tenant, cause, command.reason, call.key, call.at)
    return contract.PolicyViolatedV1(tenant=call.tenant, policy=command.policy, reason=command.reason)


async def clear_violation(command: contract.ClearViolationV1, call: Call, tx: Tx) -> contract.PolicyViolationClearedV1:
    tenant = await _find(call, tx)
    if contract.policy_cause(command.policy) not in await _holds(call.tenant, tx):
        raise _refused("violation_unknown", f"the tenant is not held for the policy {command.policy}", tenant)
    return contract.PolicyViolationClearedV1(tenant=call.tenant, policy=command.policy)


async def decommission(command: contract.DecommissionTenantV1, call: Call, tx: Tx) -> contract.TenantDecommissionedV1:
    before = await _find(call, tx)
    moved = await _move(before, "decommission", call, tx)
    return contract.TenantDecommissionedV1(**moved, **before.owner, previous=before.state, reason=command.reason)


async def _reinstate_unless_held(call: Call, tx: Tx, reason: str) -> None:
    """A suspended tenant that nothing holds any longer is Active again."""
    tenant = await _find(call, tx)
    if tenant.state != "Suspended" or await _holds(call.tenant, tx):
        return
    moved = await _move(tenant, "reinstate", call, tx)
    call.publish(contract.TenantReinstatedV1(**moved, **tenant.owner, reason=reason))


async def _holds(tenant: str, tx: Tx) -> list[str]:
    return [row["cause"] for row in await tx.rows(SQL["holds"], tenant)]


async def onboarding_parked(notice: RunParkedV1, call: Call, tx: Tx) -> None:
    """An onboarding that stands still for an operator is a tenant whose provisioning has failed, for now."""
    tenant = await _known(call, tx)
    if notice.workflow != ONBOARDING or tenant is None or tenant.state not in ("Registered", "Provisioning"):
        return
    await _follow(tenant, "ProvisioningFailed", call, tx, reason=notice.reason, step=notice.step)


async def onboarding_moved(notice: RunStateEnteredV1, call: Call, tx: Tx) -> None:
    """The tenant goes with its onboarding where none of the onboarding's own commands takes it."""
    tenant = await _known(call, tx)
    if notice.workflow != ONBOARDING or tenant is None:
        return
    match notice.previous, notice.state:
        case "ProvisioningFailed", "Provisioning" if tenant.state == "ProvisioningFailed":
            # Tried again after remediation: the tenant is being provisioned again before any step of it can end.
            await _follow(tenant, "Provisioning", call, tx, reason="tried again")
        case "Registered", "ProvisioningFailed" if tenant.state == "Registered":
            # Provisioning could not even begin: there is nothing that an undo would have moved.
            await _follow(tenant, "ProvisioningFailed", call, tx, reason="provisioning could not begin")
        case "ProvisioningFailed", "Decommissioned" if tenant.state in ("Registered", "ProvisioningFailed"):
            await _follow(tenant, "Decommissioned", call, tx, reason="provisioning abandoned")


async def get_tenant(query: contract.GetTenantV1, question: Question, tx: Tx) -> contract.TenantSnapshotV1:
    row = await tx.row(SQL["find"], question.tenant)
    if row is None:
        return contract.TenantSnapshotV1(tenant=question.tenant)
    return contract.TenantSnapshotV1(
        tenant=question.tenant,
        state=row["state"],
        name=row["name"],
        edition=row["edition"],
        owner_id=row["owner_id"],
        steps_completed=orjson.loads(row["steps"]),
        revision=row["revision"],
        holds=await _holds(question.tenant, tx),
    )


async def _find(call: Call, tx: Tx) -> Tenant:
    tenant = await _known(call, tx)
    if tenant is None:
        raise _refused("tenant_unknown", f"register tenant {call.tenant} first", None)
    return tenant


async def _known(call: Call, tx: Tx) -> Tenant | None:
    row = await tx.row(SQL["find"], call.tenant)
    if row is None:
        return None
    return Tenant(
        name=row["name"],
        edition=row["edition"],
        owner_id=row["owner_id"],
        owner_email=row["owner_email"],
        owner_name=row["owner_name"],
        state=row["state"],
        revision=row["revision"],
        steps=tuple(orjson.loads(row["steps"])),
        provisioning_since=row["provisioning_since"],
    )


async def _state(call: Call, tx: Tx) -> TenantState | None:
    row = await tx.row(SQL["find"], call.tenant)
    return None if row is None else row["state"]


async def _move(
    before: Tenant,
    trigger: Trigger,
    call: Call,
    tx: Tx,
    *,
    steps: tuple[str, ...] | None = None,
    provisioning_since: datetime | None = None,
) -> Moved:
    state = TRANSITIONS.get((before.state, trigger))
    if state is None:
        raise _refused(
            "transition_refused", f"a tenant that is {before.state} cannot {trigger.replace('_', ' ')}", before
        )
    moved = await tx.run(
        SQL["move"],
        call.tenant,
        state,
        orjson.dumps(before.steps if steps is None else steps).decode(),
        provisioning_since or before.provisioning_since,
        before.revision,
    )
    if not moved:
        raise DatabaseUnavailable(f"tenant {call.tenant} was moved by another command; look again")
    revision = before.revision + 1
    await tx.run(SQL["note"], call.tenant, revision, trigger, before.state, state, call.envelope.id, call.at)
    return Moved(tenant=call.tenant, state=state, revision=revision)


async def _follow(
    tenant: Tenant, goal: TenantState, call: Call, tx: Tx, *, reason: str, step: str | None = None
) -> None:
    """Takes the tenant to `goal` by the transitions there are, each a fact of its own. Only what is being provisioned
    can fail, and only what has failed is abandoned.
    """
    while tenant.state != goal:
        if tenant.state == "Registered" or (tenant.state == "ProvisioningFailed" and goal == "Provisioning"):
            moved = await _move(tenant, "begin", call, tx, provisioning_since=call.at)
            call.publish(
                contract.TenantProvisioningStartedV1(**moved, previous=tenant.state, steps=list(PROVISIONING_STEPS))
            )
        elif tenant.state == "Provisioning":
            moved = await _move(tenant, "fail", call, tx)
            call.publish(_failure(tenant, call, moved, reason, step=step))
        else:
            moved = await _move(tenant, "decommission", call, tx)
            call.publish(contract.TenantDecommissionedV1(**moved, **tenant.owner, previous=tenant.state, reason=reason))
        tenant = await _find(call, tx)


def _failure(tenant: Tenant, call: Call, moved: Moved, reason: str, *, step: str | None = None) -> contract.TenantFact:
    """The fact of a provisioning that failed: being too late has one of its own, for alerting."""
    if reason == "run_timed_out":
        return contract.TenantProvisioningTimedOutV1(
            **moved, after_seconds=_elapsed(tenant, call), missing=tenant.missing()
        )
    return contract.TenantProvisioningFailedV1(**moved, step=step, reason=reason)


def _elapsed(tenant: Tenant, call: Call) -> float:
    return (call.at - tenant.provisioning_since).total_seconds() if tenant.provisioning_since is not None else 0.0


def _refused(code: str, message: str, tenant: Tenant | None) -> Refused:
    outcome = contract.TenantTransitionRefusedV1(
        code=code, message=message, state=None if tenant is None else tenant.state
    )
    return Refused(code, message, outcome=outcome)
