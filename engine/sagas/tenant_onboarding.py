"""From a sign-up to a provisioned, billable, ready-to-use tenant: the universal flow of a multi-tenant platform.

    RegisterTenant -> TenantRegistered -> Provisioning
        ├── CreateSubscription -> SubscriptionActivated -> ApplyEntitlements -> EntitlementsApplied
        └── InviteUser -> UserInvited -> activation mail -> NotificationSent
    -> ActivateTenant -> TenantProvisioned (Active)

The two branches run side by side and complete in any order. Exhausted retries park the run in ProvisioningFailed: an
operator repairs and retries the one failed step, or abandons it, which undoes everything and decommissions the tenant.
An answer that can never become a success unwinds at once. A tenant whose provisioning cannot even begin is told so by
the run's own states: it goes from Registered to ProvisioningFailed, or to Decommissioned, with nothing undone.

It is generated from a template, `contracts/recipes/tenant-onboarding.json`, from which a product's blueprint makes its
own with further steps (docs/blueprints.md).
"""

from __future__ import annotations

from typing import Final

from contracts.modules.tenancy import ONBOARDING
from engine.blueprints import template_saga
from engine.plan.code import Saga

tenant_onboarding: Final[Saga] = template_saga(ONBOARDING)
