"""Handlers of outlets, where notices are delivered to outside. A secret is in the answer that made it and in no other.
The platform's own, which take the notices of all tenants, are those of the tenant `platform`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from consumers.web import asked_outlets as asked
from consumers.web.routes import Answer, Call
from contracts.envelope import format_time, parse_time
from engine.outlets import MOST_REDELIVERED, NewOutlet, signs_until
from engine.store import Outlet, OutletDelivery


async def list_outlets(call: Call) -> Answer:
    found = await call.deps.door.outlets.list(call.tenant)
    return Answer(content={"items": [_told(call, outlet) for outlet in found]})


async def add_outlet(call: Call) -> Answer:
    given: asked.AddOutlet = call.body
    made = await call.deps.door.outlets.add(
        call.named_tenant, given.name, given.url, types=given.types, secret=given.secret, by=call.principal.name
    )
    return _once(call, made, status=201)


async def rotate_outlet(call: Call) -> Answer:
    given: asked.RotateOutlet = call.body
    made = await call.deps.door.outlets.rotate(
        call.named_tenant,
        call.path("outlet"),
        overlap=timedelta(seconds=given.overlap_seconds),
        secret=given.secret,
        by=call.principal.name,
    )
    return _once(call, made)


async def switch_outlet(call: Call) -> Answer:
    given: asked.SwitchOutlet = call.body
    outlet = await call.deps.door.outlets.switch(
        call.named_tenant, call.path("outlet"), enabled=given.enabled, reason=given.reason, by=call.principal.name
    )
    return Answer(content=_told(call, outlet))


async def test_outlet(call: Call) -> Answer:
    message_id = await call.deps.door.outlets.test(call.named_tenant, call.path("outlet"))
    return Answer(status=202, content={"message_id": message_id})


async def redeliver_notices(call: Call) -> Answer:
    given: asked.Redeliver = call.body
    outlets, tenant, name, by = call.deps.door.outlets, call.named_tenant, call.path("outlet"), call.principal.name
    if given.message_id is not None:
        count = await outlets.redeliver(tenant, name, given.message_id, by=by)
    else:
        count = await outlets.redeliver_failed(tenant, name, parse_time(given.since or "", "since"), by=by)
    return Answer(status=202, content={"redelivered": count, "more": count == MOST_REDELIVERED})


async def remove_outlet(call: Call) -> Answer:
    tenant, name = call.named_tenant, call.path("outlet")
    await call.deps.door.outlets.remove(tenant, name, by=call.principal.name)
    return Answer(content={"tenant": tenant, "name": name})


async def list_deliveries(call: Call) -> Answer:
    query: asked.DeliveriesQuery = call.query
    outlet = await call.deps.door.outlets.one(call.named_tenant, call.path("outlet"))
    found = await call.deps.store.deliveries(outlet.tenant, outlet.name, state=query.state, limit=query.limit)
    return Answer(content={"items": [_delivery(one) for one in found]})


def _once(call: Call, made: NewOutlet, status: int = 200) -> Answer:
    return Answer(status=status, content={**_told(call, made.outlet), "secret": made.secret})


def _told(call: Call, outlet: Outlet) -> dict[str, Any]:
    return {
        "tenant": outlet.tenant,
        "name": outlet.name,
        "url": outlet.url,
        "types": list(outlet.types),
        "enabled": outlet.enabled,
        "created_at": format_time(outlet.created_at),
        "created_by": outlet.created_by,
        "rotated_at": _maybe(outlet.rotated_at),
        "old_secret_until": _maybe(signs_until(outlet, call.deps.clock.now())),
        "failing_since": _maybe(outlet.failing_since),
        "switched_at": _maybe(outlet.switched_at),
        "switched_why": outlet.switched_why,
    }


def _delivery(one: OutletDelivery) -> dict[str, Any]:
    return {
        "message_id": one.message_id,
        "tenant": one.about,
        "type": one.type,
        "state": one.state,
        "attempts": one.attempts,
        "created_at": format_time(one.created_at),
        "due_at": format_time(one.due_at) if one.state == "waiting" else None,
        "status": one.status,
        "error": one.error,
        "settled_at": _maybe(one.settled_at),
    }


def _maybe(at: datetime | None) -> str | None:
    return None if at is None else format_time(at)
