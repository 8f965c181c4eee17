"""Handlers of the rules for outbound calls: what is open to one tenant, and how fast it may call."""

from __future__ import annotations

from typing import Any

from consumers.web import asked
from consumers.web.routes import Answer, Call
from engine.guards.outbound import EVERYONE, Rules


async def get_egress(call: Call) -> Answer:
    tenant = call.tenant or EVERYONE
    return Answer(content=_told(tenant, await call.deps.door.outbound.get(tenant)))


async def put_egress(call: Call) -> Answer:
    given: asked.PutEgress = call.body
    tenant = EVERYONE if given.everyone else call.named_tenant
    rules = Rules.parse(given.allow, given.requests, given.seconds)
    await call.deps.door.outbound.put(tenant, rules, by=call.principal.name)
    return Answer(content=_told(tenant, rules))


def _told(tenant: str, rules: Rules) -> dict[str, Any]:
    rate = rules.rate
    return {
        "tenant": tenant,
        "allow": list(rules.allow),
        "requests": None if rate is None else rate.requests,
        "seconds": None if rate is None else rate.seconds,
    }
