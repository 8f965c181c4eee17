"""A tenant is closed, from Active or Suspended: nobody is charged, nobody comes in, nothing is entitled.

    Closing: CloseSubscription -> DisableUsers -> WithdrawEntitlements (answers with their export) -> DecommissionTenant

Decommissioning is last because nothing leads back from it: as long as it has not happened every step before it can be
undone, newest first, and the tenant is what it was. What keeps failing parks for an operator. The owner is told by
`tenant-notice`, after the fact.
"""

from __future__ import annotations

from typing import Any

from contracts.modules.tenancy import CLOSURE
from engine.plan.code import Run, saga


@saga(CLOSURE, version=1, on_failure="park", permission="tenants.manage")
async def tenant_closure(run: Run, order: dict[str, Any]) -> dict[str, Any]:
    await run.state("Closing")
    subscription = await run.step("subscription", "billing.close_subscription")
    users = await run.step("users", "identity.disable_users")
    withdrawn = await run.step("configuration", "configuration.withdraw_entitlements")
    closed = await run.step("decommission", "tenancy.decommission_tenant", reason=order["reason"])
    await run.state("Closed")
    return {
        "previous": closed["previous"],
        "subscription_id": subscription["subscription_id"],
        "users_disabled": users["count"],
        "configuration": {name: withdrawn[name] for name in ("edition", "entitlements", "flags")},
    }
