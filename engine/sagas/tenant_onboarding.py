"""From a sign-up to a provisioned, billable, ready-to-use tenant: the universal flow of a multi-tenant platform.

    RegisterTenant -> TenantRegistered -> Provisioning
        ├── CreateSubscription -> SubscriptionActivated -> ApplyEntitlements -> EntitlementsApplied
        └── InviteUser -> UserInvited -> activation mail -> NotificationSent
    -> ActivateTenant -> TenantProvisioned (Active)

The two branches run side by side and complete in any order. Exhausted retries park the run in ProvisioningFailed: an
operator repairs and retries the one failed step, or abandons it, which undoes everything and decommissions the tenant.
An answer that can never become a success unwinds at once. A tenant whose provisioning cannot even begin is told so by
the run's own states: it goes from Registered to ProvisioningFailed, or to Decommissioned, with nothing undone.
"""

from __future__ import annotations

from typing import Any

from engine.plan.code import Run, saga

PROVISIONING_SECONDS = 15 * 60


@saga(
    "tenant-onboarding",
    version=1,
    on_failure="park",
    parked_state="ProvisioningFailed",
    unwound_states={
        "failed": "ProvisioningFailed",
        "timed_out": "ProvisioningFailed",
        "cancelled": "ProvisioningFailed",
        "abandoned": "Decommissioned",
    },
    timeout_seconds=PROVISIONING_SECONDS,
    attributes={"tenant_name": "/name", "edition": "/edition"},
    subject="/owner_email",
    personal=("/owner_email", "/owner_name"),
)
async def tenant_onboarding(run: Run, signup: dict[str, Any]) -> dict[str, Any]:
    tenant = await run.step(
        "register",
        "tenancy.register_tenant",
        name=signup["name"],
        edition=signup.get("edition", "standard"),
        trial=signup.get("trial", True),
        owner_email=signup["owner_email"],
        owner_name=signup["owner_name"],
    )
    await run.state("Registered")
    await run.step("begin", "tenancy.begin_provisioning")
    await run.state("Provisioning")
    subscription, owner = await run.gather(_subscribe(run, tenant), _invite(run, tenant))
    await run.step(
        "activate", "tenancy.activate_tenant", steps=["subscription", "entitlements", "owner", "activation_mail"]
    )
    await run.state("Active")
    return {"tenant": tenant["tenant"], "subscription_id": subscription, "owner_id": owner}


async def _subscribe(run: Run, tenant: dict[str, Any]) -> str:
    subscription = await run.step(
        "subscription", "billing.create_subscription", edition=tenant["edition"], trial=tenant["trial"]
    )
    await run.step(
        "entitlements",
        "configuration.apply_entitlements",
        edition=tenant["edition"],
        subscription_id=subscription["subscription_id"],
    )
    return str(subscription["subscription_id"])


async def _invite(run: Run, tenant: dict[str, Any]) -> str:
    owner = await run.step(
        "owner",
        "identity.invite_user",
        email=tenant["owner_email"],
        name=tenant["owner_name"],
        role="owner",
        user_id=tenant["owner_id"],
    )
    await run.step(
        "activation_mail",
        "notifications.send_notification",
        template="activation",
        to=owner["email"],
        recipient_id=owner["user_id"],
        data={
            "name": owner["name"],
            "tenant_name": tenant["name"],
            "link": f"/activate?user={owner['user_id']}",
        },
    )
    return str(owner["user_id"])
