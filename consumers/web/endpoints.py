"""Handlers for a tenant's webhook endpoints: list, add, rotate, remove. What is sent to them is `consumers.web.hooks`.
A secret is in the answer that made it and in no other.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from consumers.web import asked
from consumers.web.acting import DIRECT_COMMAND, require_start
from consumers.web.routes import Answer, Call
from contracts.envelope import format_time
from contracts.problems import Conflict, Forbidden
from engine.hooks import Made, accepted_until
from engine.store import Hook


async def list_hooks(call: Call) -> Answer:
    found = await call.deps.door.hooks.known(call.tenant)
    return Answer(content={"items": [_told(call, hook) for hook in found]})


async def add_hook(call: Call) -> Answer:
    """Whoever may not start the workflow may not let a third party start it either."""
    given: asked.AddHook = call.body
    tenant = call.named_tenant
    require_start(call, given.workflow)
    if given.workflow == DIRECT_COMMAND:
        raise Forbidden("commands are checked one by one; make a workflow that orders the one you mean")
    if call.deps.plans.hook("/" + given.name) is not None:
        raise Conflict(f"a workflow declares the path /{given.name} itself; choose another name", field="name")
    made = await call.deps.door.hooks.add(
        tenant,
        given.name,
        given.workflow,
        scheme=given.scheme,
        fields=given.fields,
        id_pointer=given.id_pointer,
        secret=given.secret,
        by=call.principal.name,
    )
    return _once(call, made, status=201)


async def rotate_hook(call: Call) -> Answer:
    given: asked.RotateHook = call.body
    made = await call.deps.door.hooks.rotate(
        call.named_tenant,
        call.path("hook"),
        overlap=timedelta(seconds=given.overlap_seconds),
        secret=given.secret,
        by=call.principal.name,
    )
    return _once(call, made)


async def remove_hook(call: Call) -> Answer:
    tenant, name = call.named_tenant, call.path("hook")
    await call.deps.door.hooks.remove(tenant, name, by=call.principal.name)
    return Answer(content={"tenant": tenant, "name": name})


def _once(call: Call, made: Made, status: int = 200) -> Answer:
    return Answer(status=status, content={**_told(call, made.hook), "secret": made.secret})


def _told(call: Call, hook: Hook) -> dict[str, Any]:
    until = accepted_until(hook, call.deps.clock.now())
    return {
        "tenant": hook.tenant,
        "name": hook.name,
        "path": f"/hooks/{hook.tenant}/{hook.name}",
        "workflow": hook.workflow,
        "scheme": hook.scheme,
        "fields": hook.fields,
        "id_pointer": hook.id_pointer,
        "created_at": format_time(hook.created_at),
        "created_by": hook.created_by,
        "rotated_at": None if hook.rotated_at is None else format_time(hook.rotated_at),
        "old_secret_until": None if until is None else format_time(until),
    }
