"""Handlers that stop and release: pauses of one tenant or of all, and maintenance."""

from __future__ import annotations

from consumers.web import asked
from consumers.web.routes import Answer, Call
from contracts.envelope import format_time
from contracts.problems import Forbidden
from engine.guards.permissions import EVERYONES
from engine.pauses import EVERYONE, Pause


async def list_pauses(call: Call) -> Answer:
    brakes = call.deps.door.brakes
    pauses, held = await brakes.pauses(), await brakes.maintenance()
    seen = {tenant: pause for tenant, pause in pauses.items() if tenant == EVERYONE or call.tenant in (None, tenant)}
    return Answer(
        content={
            "items": [{"tenant": tenant, **_told(pause)} for tenant, pause in sorted(seen.items())],
            "maintenance": None if held is None else _told(held),
        }
    )


async def pause(call: Call) -> Answer:
    given: asked.Pause = call.body
    tenant = _whom(call, given.everyone)
    made = await call.deps.door.brakes.pause(tenant, by=call.principal.name, reason=given.reason)
    await _hold(call)
    return Answer(content={"tenant": tenant, **_told(made)})


async def resume(call: Call) -> Answer:
    given: asked.ResumeQuery = call.query
    tenant = _whom(call, given.everyone)
    changed = await call.deps.door.brakes.resume(tenant, by=call.principal.name)
    await _hold(call)
    return Answer(content={"tenant": tenant, "changed": changed})


async def begin_maintenance(call: Call) -> Answer:
    given: asked.Reason = call.body
    made = await call.deps.door.brakes.begin_maintenance(by=call.principal.name, reason=given.reason)
    await _hold(call)
    return Answer(content={"tenant": EVERYONE, **_told(made)})


async def end_maintenance(call: Call) -> Answer:
    changed = await call.deps.door.brakes.end_maintenance(by=call.principal.name)
    await _hold(call)
    return Answer(content={"tenant": EVERYONE, "changed": changed})


async def _hold(call: Call) -> None:
    """In this process it holds from the answer on, in the others within a second."""
    if call.deps.pauses is not None:
        await call.deps.pauses.refresh()


def _whom(call: Call, everyone: bool) -> str:
    if not everyone:
        return call.named_tenant
    if not call.principal.may(EVERYONES):
        raise Forbidden(f"what concerns everybody needs the platform permission {EVERYONES}; leave everyone out")
    return EVERYONE


def _told(pause: Pause) -> dict[str, str]:
    return {"by": pause.by, "since": format_time(pause.since), "reason": pause.reason}
