"""Webhook starts: a third party's signed POST begins a run of the workflow of that endpoint: one that the tenant made
(`engine.hooks`), or the path that a saga declares.

Proof of origin is an API token with `runs.start`, or a signature over the body as received, by the endpoint's scheme
and secret; declared paths share the platform's (plain `X-Hub-Signature-256`, or Standard Webhooks). Every failure of
proof is the same 401, and nothing is recorded of the request but a count: one event in the tenant's stream, and so in
its audit, and one `SignatureRefusedV1` per endpoint and minute. The body is parsed only after it is proven.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from consumers.web.acting import IDEMPOTENCY_KEY, begin
from consumers.web.dispatch import parse_json
from consumers.web.minutely import EveryMinute
from consumers.web.routes import TENANT_HEADER, Answer, Call, Deps
from contracts.envelope import is_tenant
from contracts.notices import SignatureRefusedV1
from contracts.problems import Forbidden, NotFound, PayloadInvalid, Unauthenticated, Unavailable
from contracts.tenant_events import SignatureRefused
from engine.guards.permissions import Principal, unauthenticated
from engine.guards.signatures import plainly_encoded, verify_scheme, verify_webhook
from engine.hooks import identity_of, input_of, known_as
from engine.store import Hook

NOBODYS: Final = secrets.token_hex(32)
"""Signs nothing: stands in where no secret is set."""
MOST_ENDPOINTS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Proof:
    """Who a request comes from. `message_id` is the sender's own for the message, None where there is none; `hook` the
    tenant's endpoint, None where a workflow declares the path; `principal` whose token it was, None for a signature.
    """

    tenant: str
    initiator: str
    message_id: str | None
    hook: Hook | None
    principal: Principal | None = None


async def start_by_hook(call: Call) -> Answer:
    """POST /hooks/{tenant}/{path}: an endpoint of the tenant, or the path that a workflow declares."""
    tenant, path = call.path("tenant"), call.path("path")
    hook = await call.deps.door.hooks.find(tenant, path) if is_tenant(tenant) else None
    return await _start(call, "/" + path, tenant, hook)


async def start_by_signup(call: Call) -> Answer:
    """POST /signup: the tenant is the token's, or named by X-Tenant under a signature."""
    return await _start(call, "/signup", call.request.headers.get(TENANT_HEADER), None)


async def _start(call: Call, path: str, tenant: str | None, hook: Hook | None) -> Answer:
    refusals: Refusals = call.request.app[REFUSALS]
    try:
        proof = await _prove(call, path, tenant, hook)
    except Unauthenticated:
        refusals.count(tenant, path)
        raise
    if proof.hook is not None:
        message = parse_json(call.raw)
        workflow, document = proof.hook.workflow, input_of(proof.hook, message)
        identity = identity_of(proof.hook, proof.message_id, call.raw, message)
    else:
        saga = call.deps.plans.hook(path)
        if saga is None:
            raise NotFound("no workflow is started by this path", field="path")
        workflow, document = saga.name, parse_json(call.raw)
        if not isinstance(document, dict):
            raise PayloadInvalid("the body must be a JSON object", field="body")
        identity = known_as(proof.message_id, call.raw)
    key = f"{path.strip('/')}/{identity}"
    return await begin(
        call,
        proof.tenant,
        workflow,
        document,
        key=key,
        kind="hook",
        initiator=proof.initiator,
        principal=proof.principal,
    )


async def _prove(call: Call, path: str, tenant: str | None, hook: Hook | None) -> Proof:
    """Raises the one `Unauthenticated`."""
    headers, now = call.request.headers, call.deps.clock.now()
    if not plainly_encoded(headers):
        raise unauthenticated()
    if "Authorization" in headers:
        principal = await call.deps.gate.admit(headers["Authorization"], call.request.remote or "")
        tenant = tenant or principal.tenant
        try:
            principal.require("runs.start")
            if tenant is None:
                raise unauthenticated()
            principal.require_tenant(tenant)
        except (Forbidden, NotFound):
            raise unauthenticated() from None
        given = headers.get("webhook-id") or headers.get(IDEMPOTENCY_KEY)
        return Proof(_named(tenant), principal.name, _printable(given), hook, principal)
    if hook is not None:
        message_id = verify_scheme(hook.scheme, headers, call.raw, await call.deps.door.hooks.secrets(hook), now=now)
        return Proof(hook.tenant, f"hook:{path}", message_id, hook)
    # Tried where there is no such endpoint, too: no answer comes early.
    message_id = verify_webhook(headers, call.raw, call.deps.signup_secrets or (NOBODYS,), now=now)
    return Proof(_named(tenant), f"hook:{path}", message_id or _printable(headers.get(IDEMPOTENCY_KEY)), None)


def _named(tenant: str | None) -> str:
    if tenant is None or not is_tenant(tenant):
        raise PayloadInvalid(f"name the tenant: /hooks/<tenant>/<path>, or header {TENANT_HEADER}", field="tenant")
    return tenant


def _printable(text: str | None) -> str | None:
    if text is None:
        return None
    if not 0 < len(text) <= 120 or not text.isascii() or not text.isprintable():
        raise PayloadInvalid("the message id must be 1 to 120 printable ASCII characters", field="webhook-id")
    return text


class Refusals(EveryMinute):
    """Counts refused requests by tenant and endpoint, and records and tells them once a minute. Tenants that do not
    exist are not counted: an unknown name in an address must leave nothing behind.
    """

    def __init__(self, deps: Deps) -> None:
        super().__init__("refusals")
        self._deps = deps
        self._counts: dict[tuple[str, str], int] = {}

    def count(self, tenant: str | None, path: str) -> None:
        key = (tenant or "", path[:100])
        if key in self._counts or len(self._counts) < MOST_ENDPOINTS:
            self._counts[key] = self._counts.get(key, 0) + 1

    async def flush(self) -> None:
        """Records what was counted since the last time. What cannot be recorded now is counted on."""
        counts, self._counts = self._counts, {}
        while counts:
            (tenant, path), n = counts.popitem()
            try:
                if tenant and await self._exists(tenant):
                    await self._record(tenant, path, n)
            except Unavailable:
                for key, times in {(tenant, path): n, **counts}.items():
                    self._counts[key] = self._counts.get(key, 0) + times
                raise

    async def _exists(self, tenant: str) -> bool:
        return bool(await self._deps.store.tokens(tenant) or await self._deps.store.hooks(tenant))

    async def _record(self, tenant: str, path: str, count: int) -> None:
        """One event and one notice."""
        door = self._deps.door
        event = SignatureRefused(at=self._deps.clock.now(), endpoint=path, count=count)
        await door.tenants.record(tenant, event, SignatureRefusedV1(endpoint=path, count=count))
        door.on_outbox()


REFUSALS: Final = web.AppKey("refusals", Refusals)
