"""What the modules know of a tenant, asked over the bus."""

from __future__ import annotations

from contracts.modules import audit, billing, configuration, identity, tenancy
from tests.stories.house import House, MovableClock


async def tenant_of(house: House, tenant: str) -> tenancy.TenantSnapshotV1:
    return await house.ask(tenancy.MODULE, tenancy.GetTenantV1(), tenancy.TenantSnapshotV1, tenant)


async def subscription_of(house: House, tenant: str) -> billing.SubscriptionSnapshotV1:
    return await house.ask(billing.MODULE, billing.GetSubscriptionV1(), billing.SubscriptionSnapshotV1, tenant)


async def sign_in_of(house: House, tenant: str, who: str | None = None) -> identity.SignInAnswerV1:
    """Whether the owner, or `who`, may sign in."""
    query = identity.CanSignInV1(email=who or f"owner@{tenant}.example")
    return await house.ask(identity.MODULE, query, identity.SignInAnswerV1, tenant)


async def edition_of(house: House, tenant: str) -> str | None:
    query = configuration.GetEntitlementsV1()
    return (await house.ask(configuration.MODULE, query, configuration.EntitlementsV1, tenant)).edition


async def audit_entries(house: House, tenant: str, subject: str | None = None) -> list[audit.AuditEntryV1]:
    query = audit.ListAuditEntriesV1(limit=1000, subject=subject)
    return (await house.ask(audit.MODULE, query, audit.AuditEntriesV1, tenant)).entries


async def through_backoff(house: House, clock: MovableClock, run: str, step: str) -> None:
    """Lets the time between the attempts pass at once."""
    while True:
        seen = await house.until_step(run, step, lambda found: found["status"] in ("backoff", "parked"))
        if seen["status"] == "parked":
            return
        clock.forward(seconds=5)
        await house.until_attempt(run, step, len(seen["attempts"]) + 1)
