"""A tenant is suspended: it has not paid, it breaks a policy, or an operator says so.

    PaymentPastDue -> grace ── PastDueSettled ──> Paid, nothing happens
                        └── time is up ──> still due? ──> HoldTenant ──> SuspendTenant
    PolicyViolated (the tenant is held already) ─────────────────────> SuspendTenant
    an operator's order ─────────────────────────────────────────────> SuspendTenant

A tenant that is suspended already is held for one cause more, and is reinstated only when none is left. The modules
learn of it from `TenantSuspended`; the owner is told by `tenant-notice`.
"""

from __future__ import annotations

from typing import Any

from contracts.modules.tenancy import PAST_DUE, SUSPENSION, policy_cause
from engine.plan.code import Run, StepFailed, saga

DAY_SECONDS = 24 * 60 * 60.0


@saga(
    SUSPENSION,
    version=1,
    on=("billing.PaymentPastDueV1", "tenancy.PolicyViolatedV1"),
    permission="tenants.manage",
    attributes={"subscription": "/subscription_id", "policy": "/policy"},
)
async def tenant_suspension(run: Run, given: dict[str, Any]) -> dict[str, Any]:
    if "subscription_id" in given:
        return await _past_due(run, given)
    if "policy" in given:
        return await _suspend(run, policy_cause(given["policy"]), given["reason"])
    suspended = await run.step("suspend", "tenancy.suspend_tenant", reason=given["reason"])
    await run.state("Suspended")
    return {"suspended": True, "cause": suspended["cause"]}


async def _past_due(run: Run, due: dict[str, Any]) -> dict[str, Any]:
    subscription = due["subscription_id"]
    if due["grace_days"]:
        await run.state("PastDue")
        paid = await run.wait_for(
            "payment",
            "billing.PastDueSettledV1",
            key=("subscription", subscription),
            timeout_seconds=due["grace_days"] * DAY_SECONDS,
        )
        if paid is not None:
            await run.state("Paid")
            return {"suspended": False, "cause": None}
    # The payment may have come before this run began to listen; billing knows.
    asked = await run.step("confirm", "billing.confirm_past_due", subscription_id=subscription)
    if not asked["past_due"]:
        await run.state("Paid")
        return {"suspended": False, "cause": None}
    reason = f"payment is {due['days']} days past due"
    await run.step("hold", "tenancy.hold_tenant", cause=PAST_DUE, reason=reason)
    return await _suspend(run, PAST_DUE, reason)


async def _suspend(run: Run, cause: str, reason: str) -> dict[str, Any]:
    try:
        await run.step("suspend", "tenancy.suspend_tenant", reason=reason, cause=cause, on_failure="continue")
    except StepFailed as failed:
        if failed.error["code"] != "already_suspended":
            raise run.fail(str(failed.error["code"]), str(failed.error["message"])) from failed
    await run.state("Suspended")
    return {"suspended": True, "cause": cause}
