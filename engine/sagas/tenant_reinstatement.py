"""A suspended tenant works again: it has paid, it keeps to the policy again, or an operator says so.

    PastDueSettled -> still due? ──> ReleaseHold ──┐
    PolicyViolationCleared ───────> ReleaseHold ──┴─ the last hold? ──> TenantReinstated
    an operator's order ──────────> ReinstateTenant (whatever holds it)

What is held for another cause stays suspended. A tenant that was never suspended, because it paid within the grace, is
left alone.
"""

from __future__ import annotations

from typing import Any

from contracts.modules.tenancy import PAST_DUE, REINSTATEMENT, policy_cause
from engine.plan.code import Run, saga


@saga(
    REINSTATEMENT,
    version=1,
    on=("billing.PastDueSettledV1", "tenancy.PolicyViolationClearedV1"),
    permission="tenants.manage",
    attributes={"subscription": "/subscription_id", "policy": "/policy"},
)
async def tenant_reinstatement(run: Run, given: dict[str, Any]) -> dict[str, Any]:
    if "subscription_id" in given:
        asked = await run.step("confirm", "billing.confirm_past_due", subscription_id=given["subscription_id"])
        if asked["past_due"]:
            await run.state("PastDue")
            return {"active": False, "held_for": [PAST_DUE]}
        return await _release(run, PAST_DUE, "it is paid")
    if "policy" in given:
        return await _release(run, policy_cause(given["policy"]), f"the policy {given['policy']} is kept to again")
    await run.step("reinstate", "tenancy.reinstate_tenant", reason=given["reason"])
    await run.state("Active")
    return {"active": True, "held_for": []}


async def _release(run: Run, cause: str, reason: str) -> dict[str, Any]:
    released = await run.step("release", "tenancy.release_hold", cause=cause, reason=reason)
    await run.state(released["state"])
    return {"active": released["state"] == "Active", "held_for": released["remaining"]}
