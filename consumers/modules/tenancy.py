"""The tenancy module: owns every tenant's state and refuses what its table of transitions does not hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson

from consumers.modules.rehearsal import SQL as REHEARSAL
from consumers.modules.rehearsal import Rehearsal
from consumers.modules.settings import ModuleSettings
from contracts.modules import tenancy as contract
from contracts.modules.tenancy import ONBOARDING, PROVISIONING_STEPS, TenantState
from contracts.notices import UNWIND, RunParkedV1, RunStateEnteredV1
from contracts.sdk import Call, DatabaseUnavailable, Question, Refused, Retryable, Service, Transport, Tx
from contracts.sdk.statements import statements

SQL = statements("tenancy.sql", "consumers.modules")

TRANSITIONS: Final[Mapping[tuple[TenantState, str], TenantState]] = {
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant as it is before a transition."""

    name: str
    edition: contract.Edition
    owner_id: str
    state: TenantState
    revision: int
    steps: tuple[str, ...]
    provisioning_since: datetime | None

    def missing(self, also: tuple[str, ...] = ()) -> list[str]:
        return [step for step in PROVISIONING_STEPS if step not in self.steps and step not in also]


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
        name=command.name,
        edition=command.edition,
        trial=command.trial,
        owner_id=owner,
        owner_email=command.owner_email,
        owner_name=command.owner_name,
    )


async def begin(command: contract.BeginProvisioningV1, call: Call, tx: Tx) -> contract.TenantProvisioningStartedV1:
    before = await _find(call, tx)
    state = await _move(before, "begin", call, tx, provisioning_since=call.at)
    return contract.TenantProvisioningStartedV1(
        tenant=call.tenant, state=state, previous=before.state, steps=list(PROVISIONING_STEPS)
    )


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
    state = await _move(before, "complete_step", call, tx, steps=steps)
    return contract.ProvisioningStepCompletedV1(
        tenant=call.tenant, state=state, step=command.step, remaining=before.missing((command.step,))
    )


async def activate(command: contract.ActivateTenantV1, call: Call, tx: Tx) -> contract.TenantProvisionedV1:
    before = await _find(call, tx)
    if before.state == "ProvisioningFailed":
        # The word that its onboarding goes on again may still be under way behind this command.
        raise Retryable("provisioning_failed", "the tenant's provisioning has failed; begin it again first")
    missing = before.missing(tuple(command.steps))
    if before.state == "Provisioning" and missing:
        raise _refused("steps_missing", f"report {', '.join(missing)} before the tenant is activated", before)
    state = await _move(before, "activate", call, tx, steps=PROVISIONING_STEPS)
    return contract.TenantProvisionedV1(
        tenant=call.tenant,
        state=state,
        name=before.name,
        edition=before.edition,
        owner_id=before.owner_id,
        steps=list(PROVISIONING_STEPS),
    )


async def fail(command: contract.FailProvisioningV1, call: Call, tx: Tx) -> contract.TenantProvisioningFailedV1:
    state = await _move(await _find(call, tx), "fail", call, tx)
    return contract.TenantProvisioningFailedV1(
        tenant=call.tenant, state=state, step=command.step, reason=command.reason
    )


async def time_out(
    command: contract.TimeOutProvisioningV1, call: Call, tx: Tx
) -> contract.TenantProvisioningTimedOutV1:
    before = await _find(call, tx)
    state = await _move(before, "fail", call, tx)
    return contract.TenantProvisioningTimedOutV1(
        tenant=call.tenant, state=state, after_seconds=command.after_seconds, missing=before.missing()
    )


async def suspend(command: contract.SuspendTenantV1, call: Call, tx: Tx) -> contract.TenantSuspendedV1:
    state = await _move(await _find(call, tx), "suspend", call, tx)
    return contract.TenantSuspendedV1(tenant=call.tenant, state=state, reason=command.reason)


async def undo_suspension(command: contract.UndoSuspensionV1, call: Call, tx: Tx) -> contract.SuspensionUndoneV1:
    if command.receipt is not None:
        tenant = await _find(call, tx)
        if tenant.state == "Suspended":
            state = await _move(tenant, "reinstate", call, tx)
            call.publish(
                contract.TenantReinstatedV1(
                    tenant=call.tenant, state=state, reason=f"suspension undone: {command.cause}"
                )
            )
    return contract.SuspensionUndoneV1(tenant=call.tenant, state=await _state(call, tx))


async def reinstate(command: contract.ReinstateTenantV1, call: Call, tx: Tx) -> contract.TenantReinstatedV1:
    state = await _move(await _find(call, tx), "reinstate", call, tx)
    return contract.TenantReinstatedV1(tenant=call.tenant, state=state, reason=command.reason)


async def decommission(command: contract.DecommissionTenantV1, call: Call, tx: Tx) -> contract.TenantDecommissionedV1:
    before = await _find(call, tx)
    state = await _move(before, "decommission", call, tx)
    return contract.TenantDecommissionedV1(
        tenant=call.tenant, state=state, previous=before.state, reason=command.reason
    )


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
    trigger: str,
    call: Call,
    tx: Tx,
    *,
    steps: tuple[str, ...] | None = None,
    provisioning_since: datetime | None = None,
) -> TenantState:
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
    await tx.run(SQL["note"], call.tenant, before.revision + 1, trigger, before.state, state, call.envelope.id, call.at)
    return state


async def _follow(
    tenant: Tenant, goal: TenantState, call: Call, tx: Tx, *, reason: str, step: str | None = None
) -> None:
    """Takes the tenant to `goal` by the transitions there are, each a fact of its own. Only what is being provisioned
    can fail, and only what has failed is abandoned.
    """
    while tenant.state != goal:
        if tenant.state == "Registered" or (tenant.state == "ProvisioningFailed" and goal == "Provisioning"):
            state = await _move(tenant, "begin", call, tx, provisioning_since=call.at)
            call.publish(
                contract.TenantProvisioningStartedV1(
                    tenant=call.tenant, state=state, previous=tenant.state, steps=list(PROVISIONING_STEPS)
                )
            )
        elif tenant.state == "Provisioning":
            state = await _move(tenant, "fail", call, tx)
            call.publish(_failure(tenant, call, state, reason, step=step))
        else:
            state = await _move(tenant, "decommission", call, tx)
            call.publish(
                contract.TenantDecommissionedV1(tenant=call.tenant, state=state, previous=tenant.state, reason=reason)
            )
        tenant = await _find(call, tx)


def _failure(
    tenant: Tenant, call: Call, state: TenantState, reason: str, *, step: str | None = None
) -> contract.TenantFact:
    """The fact of a provisioning that failed: being too late has one of its own, for alerting."""
    if reason == "run_timed_out":
        return contract.TenantProvisioningTimedOutV1(
            tenant=call.tenant, state=state, after_seconds=_elapsed(tenant, call), missing=tenant.missing()
        )
    return contract.TenantProvisioningFailedV1(tenant=call.tenant, state=state, step=step, reason=reason)


def _elapsed(tenant: Tenant, call: Call) -> float:
    return (call.at - tenant.provisioning_since).total_seconds() if tenant.provisioning_since is not None else 0.0


def _refused(code: str, message: str, tenant: Tenant | None) -> Refused:
    outcome = contract.TenantTransitionRefusedV1(
        code=code, message=message, state=None if tenant is None else tenant.state
    )
    return Refused(code, message, outcome=outcome)
