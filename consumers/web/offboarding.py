"""The handler of a tenant's end."""

from __future__ import annotations

from dataclasses import asdict

from consumers.offboarding import Offboarding
from consumers.web import asked
from consumers.web.routes import Answer, Call
from contracts.envelope import is_tenant
from contracts.modules import tenancy
from contracts.problems import Conflict, NotFound
from contracts.tenant_events import PLATFORM
from engine.store.keys import OFFBOARDING


async def offboard_tenant(call: Call) -> Answer:
    """Of a closed tenant; `force` does not ask tenancy. Raises `QueryTimedOut` when no tenancy module answers."""
    given: asked.OffboardTenant = call.body
    deps, tenant = call.deps, call.path("tenant")
    if not is_tenant(tenant) or tenant == PLATFORM:
        raise NotFound("there is no such tenant", field="tenant")
    begun = await deps.store.setting(tenant, OFFBOARDING) is not None
    if not given.force and not begun:
        found = await deps.asker.ask(tenancy.MODULE, tenancy.GetTenantV1(), tenancy.TenantSnapshotV1, tenant=tenant)
        if found.state != "Decommissioned":
            raise Conflict(
                f"tenancy says of this tenant: {found.state or 'unknown'}; close it first, or say force",
                field="tenant",
            )
    done = await Offboarding(deps.door, deps.reader).offboard(
        tenant, by=call.principal.name, reason=given.reason, open_runs=given.open_runs
    )
    return Answer(content=asdict(done))
