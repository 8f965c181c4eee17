"""Handlers of what a tenant forbids itself: shown to who may see its tenants, changed by its admin."""

from __future__ import annotations

from dataclasses import asdict

from consumers.web import asked
from consumers.web.routes import Answer, Call
from engine.guards.policies import Policies, change, policies_of


async def show_policies(call: Call) -> Answer:
    found = await policies_of(call.deps.store, call.named_tenant)
    return Answer(content={"tenant": call.named_tenant, **asdict(found)})


async def change_policies(call: Call) -> Answer:
    given: asked.ChangePolicies = call.body
    tenant, door = call.named_tenant, call.deps.door
    policies = Policies(approvals_own=given.approvals_own)
    await change(call.deps.store, door.tenants, call.deps.clock, tenant, policies, by=call.principal.name)
    return Answer(content={"tenant": tenant, **asdict(policies)})
