"""Handlers that ask something of the engine: publish, start, cancel, retry, decide, register. Each goes through the
door and answers 202: it is recorded, and the run's owner acts on it.
"""

from __future__ import annotations

import uuid_utils

from consumers.web import asked
from consumers.web.dispatch import RequestInvalid
from consumers.web.routes import Answer, Call
from consumers.web.runs import tenant_of_run
from consumers.web.spans import SPAN
from contracts.envelope import Envelope, format_time, from_document, is_tenant
from contracts.modules.billing import COLLECT
from contracts.modules.tenancy import CLOSURE, ONBOARDING, REINSTATEMENT, SUSPENSION
from contracts.problems import Conflict, Forbidden, NotFound, PayloadInvalid
from contracts.tenant_events import PLATFORM
from contracts.traceparent import read
from engine import reruns
from engine.door import Begun
from engine.guards.permission_sets import effective
from engine.guards.permissions import Principal
from engine.guards.policies import policies_of

IDEMPOTENCY_KEY = "Idempotency-Key"
DIRECT_COMMAND = "direct-command"
_PLATFORMS = ("tenancy.", COLLECT)
"""Permissions of commands by which a tenant would move, or settle for, itself: only the platform's admin holds them."""

_PLATFORMS_FACTS = ("tenancy.", "unwind.")
"""What only the platform may say: modules bar and admit tenants by it."""


async def publish_event(call: Call) -> Answer:
    given: asked.PublishEvent = call.body
    tenant = call.tenant if call.tenant is not None else given.tenantid
    if tenant is None:
        tenant = call.named_tenant
    call.principal.require_tenant(given.tenantid or tenant)
    if given.tenantid is not None and given.tenantid != tenant:
        raise PayloadInvalid("tenantid and the tenant of the request differ; name one", field="tenantid")
    if given.type.startswith(_PLATFORMS_FACTS) and call.principal.tenant is not None:
        raise Forbidden(f"only the platform says {given.type}; a token of a tenant cannot")
    document = given.model_dump(exclude_none=True)
    document |= {
        "specversion": "1.0",
        "tenantid": tenant,
        "id": given.id or idempotency_key(call) or str(uuid_utils.uuid7()),
        "source": given.source or f"/modules/{given.type.partition('.')[0]}",
        "time": given.time or format_time(call.deps.clock.now()),
    }
    # As the caller gave it: a repeat of the event must be the same bytes.
    trace = given.traceparent or _heard(call)
    if trace is not None:
        document["traceparent"] = trace
    envelope: Envelope = from_document(document)
    await call.deps.door.publish(envelope)
    if call.deps.tracing is not None:
        call.request[SPAN].links.append(call.deps.tracing.arrival(envelope))
    return Answer(
        status=202,
        content={
            "id": envelope.id,
            "source": envelope.source,
            "type": envelope.type,
            "tenant": tenant,
            "correlation_id": envelope.correlationid,
            "as_of": await call.deps.reader.head(),
        },
    )


def require_start(call: Call, workflow: str) -> None:
    """Raises `Forbidden` unless the caller holds what the workflow asks of those who start it."""
    permission = call.deps.plans.saga(workflow).permission
    if permission is not None:
        call.principal.require(permission)


async def start_run(call: Call) -> Answer:
    given: asked.StartRun = call.body
    workflow = call.path("workflow")
    require_start(call, workflow)
    if workflow == DIRECT_COMMAND:
        _require_command(call, _command_of(call, given.input.get("action")))
    return await begin(call, call.named_tenant, workflow, given.input, correlation_id=given.correlation_id)


async def order_command(call: Call) -> Answer:
    """A direct command is a run of one step: the same record, the same audit, the same undo on cancel."""
    given: asked.OrderCommand = call.body
    deps = call.deps
    if given.type is not None:
        deps.registry.command(given.type)
        kind: str | None = given.type
        found = [name for name, spec in deps.plans.actions.items() if spec.command == kind]
        action = min(found, key=len) if found else ""
    else:
        action = given.action or ""
        kind = _command_of(call, action)
    if kind is None:
        raise NotFound(f"there is no command {action!r}; its module is not installed", field="action")
    _require_command(call, kind)
    return await begin(
        call,
        call.named_tenant,
        DIRECT_COMMAND,
        {"action": action, "input": deps.registry.check_command(kind, given.data)},
        correlation_id=given.correlation_id,
    )


def _command_of(call: Call, action: object) -> str | None:
    """The command that this action sends; None: it sends none, and a run of it goes no further than to say so."""
    spec = call.deps.plans.actions.get(action) if isinstance(action, str) else None
    return spec.command if spec is not None else None


def _require_command(call: Call, kind: str | None) -> None:
    """Raises `Forbidden` unless the caller may order this command, however the run that sends it is started."""
    permission = call.deps.registry.command(kind).command.permission if kind is not None else None
    if permission is not None and not call.principal.may(permission):
        # Module permissions are not in the engine's roles: an admin holds them, some only the platform's admin.
        wide = permission.startswith(_PLATFORMS) and call.principal.tenant is not None
        if "admin" not in call.principal.roles or wide:
            raise Forbidden(f"this needs the permission {permission}; ask an admin for a role that holds it")


async def register_tenant(call: Call) -> Answer:
    """Starts the tenant's onboarding, under the new tenant. The tenant's id is the key: registering it again answers
    with the run that is doing it.
    """
    given: asked.RegisterTenant = call.body
    if given.tenant == PLATFORM:
        raise Conflict(f"{PLATFORM!r} is the platform's own name; choose another id", field="tenant")
    data = given.model_dump(exclude={"tenant"})
    try:
        return await begin(call, given.tenant, ONBOARDING, data, key=f"register-{given.tenant}")
    except Conflict:
        raise Conflict("this tenant was registered with other details; choose another id", field="tenant") from None


async def suspend_tenant(call: Call) -> Answer:
    return await _move_tenant(call, SUSPENSION)


async def reinstate_tenant(call: Call) -> Answer:
    return await _move_tenant(call, REINSTATEMENT)


async def close_tenant(call: Call) -> Answer:
    return await _move_tenant(call, CLOSURE)


async def _move_tenant(call: Call, workflow: str) -> Answer:
    """Each order is a run of its own, unless it repeats an Idempotency-Key: whether the tenant's state allows it is
    for tenancy to say, in the run's record.
    """
    given: asked.MoveTenant = call.body
    tenant = call.path("tenant")
    if not is_tenant(tenant):
        raise PayloadInvalid("name a tenant with letters, digits, dots, dashes or underscores", field="tenant")
    return await begin(call, call.principal.require_tenant(tenant), workflow, {"reason": given.reason})


async def begin(
    call: Call,
    tenant: str,
    workflow: str,
    data: dict[str, object],
    *,
    key: str | None = None,
    kind: str = "manual",
    initiator: str | None = None,
    correlation_id: str | None = None,
    principal: Principal | None = None,
) -> Answer:
    """202 with the new run, 200 with the original one for a known key. The run has the permissions of `principal`, the
    caller where none is given; of nobody known (a signature), those of its workflow.
    """
    whose = principal or call.principal
    permissions = None
    if whose.roles:
        permissions = await call.deps.door.permission_sets.intern(effective(whose, call.deps.plans.actions))
    begun = await call.deps.door.start_run(
        tenant,
        workflow,
        data,
        key=key or idempotency_key(call) or str(uuid_utils.uuid7()),
        kind=kind,
        initiator=initiator or call.principal.name,
        correlation_id=correlation_id,
        traceparent=traceparent(call),
        permissions=permissions,
    )
    return Answer(
        status=200 if begun.duplicate else 202,
        headers={"Location": f"/v1/runs/{begun.run_id}"},
        content={
            "run_id": str(begun.run_id),
            "tenant": tenant,
            "workflow": workflow,
            "duplicate": begun.duplicate,
            "correlation_id": correlation_id,
            "as_of": await call.deps.reader.head(),
        },
    )


async def _may_move(call: Call) -> str:
    """The run's tenant. Whoever may not start a workflow by hand may not stop or mend its runs either: a tenant does
    not cancel its own suspension.
    """
    tenant = await tenant_of_run(call)
    if call.principal.tenant is not None:
        state = await call.deps.door.state(tenant, call.run_id)
        if state.workflow in call.deps.plans.names:
            require_start(call, state.workflow)
    return tenant


async def cancel_run(call: Call) -> Answer:
    given: asked.Reason = call.body
    tenant = await _may_move(call)
    await call.deps.door.cancel(tenant, call.run_id, by=call.principal.name, reason=given.reason)
    return await _accepted(call)


async def terminate_run(call: Call) -> Answer:
    given: asked.Reason = call.body
    tenant = await _may_move(call)
    await call.deps.door.terminate(tenant, call.run_id, by=call.principal.name, reason=given.reason)
    return await _accepted(call)


async def abandon_run(call: Call) -> Answer:
    given: asked.Reason = call.body
    tenant = await _may_move(call)
    await call.deps.door.abandon(tenant, call.run_id, by=call.principal.name, reason=given.reason)
    return await _accepted(call)


async def retry_run(call: Call) -> Answer:
    given: asked.RetryRun = call.body
    tenant = await _may_move(call)
    await call.deps.door.retry(tenant, call.run_id, by=call.principal.name, step=given.step)
    return await _accepted(call)


async def rerun_run(call: Call) -> Answer:
    """202 with the new run, 200 with the first one when this was asked before."""
    given: asked.RerunRun = call.body
    tenant = await _may_move(call)
    begun = await reruns.ask(
        call.deps.door,
        tenant,
        call.run_id,
        by=call.principal.name,
        from_step=given.from_step,
        repeat_effects=given.repeat_effects,
        reason=given.reason,
        traceparent=traceparent(call),
    )
    return await _follower(call, begun)


async def undo_run(call: Call) -> Answer:
    """202 with the run that unwinds it, 200 with the first one when this was asked before."""
    given: asked.Reason = call.body
    tenant = await _may_move(call)
    begun = await reruns.undo(
        call.deps.door,
        tenant,
        call.run_id,
        by=call.principal.name,
        reason=given.reason,
        traceparent=traceparent(call),
    )
    return await _follower(call, begun)


async def _follower(call: Call, begun: Begun) -> Answer:
    return Answer(
        status=200 if begun.duplicate else 202,
        headers={"Location": f"/v1/runs/{begun.run_id}"},
        content={
            "run_id": str(begun.run_id),
            "follows": str(call.run_id),
            "duplicate": begun.duplicate,
            "as_of": await call.deps.reader.head(),
        },
    )


async def skip_step(call: Call) -> Answer:
    given: asked.SkipStep = call.body
    tenant = await _may_move(call)
    await call.deps.door.skip(
        tenant, call.run_id, given.step, given.output, by=call.principal.name, reason=given.reason
    )
    return await _accepted(call)


async def decide_approval(call: Call) -> Answer:
    """Only who holds the role that the approval asks for, or an admin, may decide."""
    given: asked.Decide = call.body
    tenant, name = await tenant_of_run(call), call.path("name")
    state = await call.deps.door.state(tenant, call.run_id)
    wait = next((wait for wait in state.open_waits() if wait.kind == "approval" and wait.name == name), None)
    if wait is None:
        raise Conflict(f"no approval called {name!r} is open on this run", status_of_run=state.status)
    role = wait.asked["role"]
    if role not in call.principal.roles and "admin" not in call.principal.roles:
        raise Forbidden(f"this approval asks for the role {role}")
    own = state.initiator == call.principal.name
    if own and (await policies_of(call.deps.store, tenant)).approvals_own == "forbid":
        raise Forbidden("a policy of this tenant forbids deciding on a run of one's own; ask another approver")
    await call.deps.door.decide_approval(
        tenant, call.run_id, name, approved=given.approved, by=call.principal.name, comment=given.comment
    )
    return await _accepted(call)


async def _accepted(call: Call) -> Answer:
    return Answer(status=202, content={"run_id": str(call.run_id), "as_of": await call.deps.reader.head()})


def traceparent(call: Call) -> str | None:
    """The trace that the request is part of: whatever the run sends goes on in it."""
    span = call.request.get(SPAN)
    return _heard(call) if span is None else span.context.traceparent


def _heard(call: Call) -> str | None:
    """A header that is none is ignored, as the W3C's recommendation says."""
    given = call.request.headers.get("traceparent", "")
    return given[:55] if read(given) is not None else None


def idempotency_key(call: Call) -> str | None:
    """The header, when it was sent. Raises `RequestInvalid` for a text that cannot be a key."""
    key = call.request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not 0 < len(key) <= 180 or not key.isascii() or not key.isprintable():
        raise RequestInvalid("Idempotency-Key must be 1 to 180 printable ASCII characters", field=IDEMPOTENCY_KEY)
    return key
