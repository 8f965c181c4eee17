"""The owner of a tenant is told that it is suspended, works again, or is closed, whoever or whatever moved it.

A saga of its own: a mail that cannot be sent must not reinstate anybody, and a fact may be told when nothing can be
undone any more.
"""

from __future__ import annotations

from typing import Any

from engine.plan.code import Run, saga

TEMPLATES = {"Suspended": "suspended", "Active": "reinstated", "Decommissioned": "closed"}


@saga(
    "tenant-notice",
    version=1,
    on=("tenancy.TenantSuspendedV1", "tenancy.TenantReinstatedV1", "tenancy.TenantDecommissionedV1"),
    permission="tenants.manage",
    attributes={"state": "/state"},
)
async def tenant_notice(run: Run, fact: dict[str, Any]) -> dict[str, Any]:
    # Whoever never came in is not told that the door is shut.
    if fact.get("owner_email") is None or fact.get("previous") == "ProvisioningFailed":
        return {"told": None}
    template = TEMPLATES[fact["state"]]
    await run.step(
        "mail",
        "notifications.send_notification",
        template=template,
        to=fact["owner_email"],
        recipient_id=fact["owner_id"],
        data={"name": fact["owner_name"], "tenant_name": fact["name"], "reason": fact["reason"]},
    )
    return {"told": template}
