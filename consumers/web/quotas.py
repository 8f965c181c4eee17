"""Handlers of quotas: what a tenant's runs may use."""

from __future__ import annotations

from consumers.web.routes import Answer, Call
from contracts.envelope import format_time, is_tenant
from contracts.problems import NotFound
from contracts.quotas import Quotas
from engine.guards.quotas import EVERYONE


async def show_quotas(call: Call) -> Answer:
    tenant = _whose(call)
    return Answer(content=await _told(call, tenant))


async def put_quotas(call: Call) -> Answer:
    tenant, given = _whose(call), call.body.model_dump()
    changed = await call.deps.door.quotas.put(tenant, Quotas.model_validate(given), by=call.principal.name)
    if call.deps.quotas is not None:
        await call.deps.quotas.refresh()  # in this process it holds from the answer on, in the others within a second
    return Answer(content={**await _told(call, tenant), "changed": changed})


async def show_use(call: Call) -> Answer:
    """Read from what the append counts: what is shown is what is enforced."""
    caps = await call.deps.door.use.of(call.named_tenant)
    items = [
        {
            "cap": one.cap,
            "workflow": one.workflow,
            "limit": one.limit,
            "used": one.used,
            "ends_at": None if one.ends_at is None else format_time(one.ends_at),
            "breached": one.breached,
        }
        for one in caps
    ]
    return Answer(content={"tenant": call.named_tenant, "items": items})


async def _told(call: Call, tenant: str) -> dict[str, object]:
    book = call.deps.door.quotas
    own, holding = await book.own(tenant), await book.holding(tenant)
    return {"tenant": tenant, "own": own, "holding": holding}


def _whose(call: Call) -> str:
    """The tenant of the path; `*` is everybody, for the platform alone. Raises `NotFound`, as for none."""
    tenant = call.path("tenant")
    if tenant == EVERYONE and call.principal.tenant is None:
        return tenant
    if not is_tenant(tenant) or not call.principal.reaches(tenant):
        raise NotFound("there is no such tenant", field="tenant")
    return tenant
