"""Webhook starts: a third party's signed POST begins a run of the saga that declares the path.

Proof of origin is an API token with `runs.start`, or a signature over the body as received (plain
`X-Hub-Signature-256`, or Standard Webhooks). Every failure of proof is the same 401, and nothing is recorded of the
request but a count: one event in the tenant's stream, and so in its audit, and one `SignatureRefusedV1` per endpoint
and minute. The body is parsed only after it is proven.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from typing import Final

from aiohttp import web

from consumers.web.acting import IDEMPOTENCY_KEY, begin
from consumers.web.dispatch import parse_json
from consumers.web.routes import TENANT_HEADER, Answer, Call, Deps
from contracts.envelope import is_tenant
from contracts.notices import SignatureRefusedV1
from contracts.problems import Forbidden, NotFound, PayloadInvalid, Unauthenticated, Unavailable
from contracts.tenant_events import SignatureRefused
from engine.guards.permissions import unauthenticated, verify_authorization
from engine.guards.signatures import verify_webhook

FLUSH_SECONDS: Final = 60.0
MOST_ENDPOINTS: Final = 1_000


async def start_by_hook(call: Call) -> Answer:
    """POST /hooks/{tenant}/{path}, and POST /signup."""
    return await _start(call, "/" + call.path("path"), call.path("tenant"))


async def start_by_signup(call: Call) -> Answer:
    """POST /signup: the tenant is the token's, or named by X-Tenant under a signature."""
    return await _start(call, "/signup", call.request.headers.get(TENANT_HEADER))


async def _start(call: Call, path: str, tenant: str | None) -> Answer:
    refusals: Refusals = call.request.app[REFUSALS]
    try:
        tenant, initiator, message_id = await _prove(call, path, tenant)
    except Unauthenticated:
        refusals.count(tenant, path)
        raise
    saga = call.deps.plans.hook(path)
    if saga is None:
        raise NotFound("no workflow is started by this path", field="path")
    document = parse_json(call.raw)
    if not isinstance(document, dict):
        raise PayloadInvalid("the body must be a JSON object", field="body")
    key = f"{path.strip('/')}/{message_id or hashlib.sha256(call.raw).hexdigest()}"
    return await begin(call, tenant, saga.name, document, key=key[:180], kind="hook", initiator=initiator)


async def _prove(call: Call, path: str, tenant: str | None) -> tuple[str, str, str | None]:
    """The tenant, the initiator and the sender's message id. Raises the one `Unauthenticated`."""
    headers = call.request.headers
    if headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise unauthenticated()
    if "Authorization" in headers:
        principal = await verify_authorization(call.deps.store, headers["Authorization"], now=call.deps.clock.now())
        tenant = tenant or principal.tenant
        try:
            principal.require("runs.start")
            if tenant is None:
                raise unauthenticated()
            principal.require_tenant(tenant)
        except (Forbidden, NotFound):
            raise unauthenticated() from None
        given = headers.get("webhook-id") or headers.get(IDEMPOTENCY_KEY)
        return _named(tenant), principal.name, _printable(given)
    message_id = verify_webhook(headers, call.raw, call.deps.signup_secrets, now=call.deps.clock.now())
    return _named(tenant), f"hook:{path}", message_id or _printable(headers.get(IDEMPOTENCY_KEY))


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


class Refusals:
    """Counts refused requests by tenant and endpoint, and records and tells them once a minute. Tenants that do not
    exist are not counted: an unknown name in an address must leave nothing behind.
    """

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._counts: dict[tuple[str, str], int] = {}
        self._task: asyncio.Task[None] | None = None

    def count(self, tenant: str | None, path: str) -> None:
        key = (tenant or "", path[:100])
        if key in self._counts or len(self._counts) < MOST_ENDPOINTS:
            self._counts[key] = self._counts.get(key, 0) + 1

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="refusals")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        with suppress(Unavailable):
            await self.flush()

    async def flush(self) -> None:
        """Records what was counted since the last time. What cannot be recorded now is counted on."""
        counts, self._counts = self._counts, {}
        while counts:
            (tenant, path), n = counts.popitem()
            try:
                if tenant and await self._deps.store.tokens(tenant):
                    await self._record(tenant, path, n)
            except Unavailable:
                for key, times in {(tenant, path): n, **counts}.items():
                    self._counts[key] = self._counts.get(key, 0) + times
                raise

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            with suppress(Unavailable):
                await self.flush()

    async def _record(self, tenant: str, path: str, count: int) -> None:
        """One event and one notice."""
        door = self._deps.door
        event = SignatureRefused(at=self._deps.clock.now(), endpoint=path, count=count)
        await door.tenants.record(tenant, event, SignatureRefusedV1(endpoint=path, count=count))
        door.on_outbox()


REFUSALS: Final = web.AppKey("refusals", Refusals)
