"""Handlers of API tokens: list, make, revoke. The text of a token is in the answer that made it and in no other.

Whoever makes one gives away nothing that he does not hold himself, and a tenant's admin knows of no token but those of
his tenant.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from consumers.web import asked
from consumers.web.routes import Answer, Call
from contracts.envelope import format_time, is_tenant, parse_time
from contracts.problems import Forbidden, NotFound, PayloadInvalid
from contracts.tenant_events import PLATFORM
from engine.guards.permissions import make_token, permissions_of
from engine.guards.token_changes import RecordedTokens
from engine.store import Token

LONGEST: Final = timedelta(days=3_650)


async def list_tokens(call: Call) -> Answer:
    found = await call.deps.store.tokens(call.tenant)
    return Answer(content={"items": [_told(token) for token in found]})


async def create_token(call: Call) -> Answer:
    """A token of the tenant; one of the platform only where the body says so. It stands on the rights of the user who
    makes it, himself or with a token that stands on them. Raises `Forbidden` for roles that can do more than the caller
    may, `PayloadInvalid` for an end after that of the token it is made with.
    """
    given: asked.CreateToken = call.body
    now, own = call.deps.clock.now(), call.principal.token
    maker = call.visit.person.user.id if call.visit is not None else None
    text, token = make_token(
        given.name,
        given.roles,
        tenant=_owner(call, platform=given.platform),
        now=now,
        expires_at=_end(given.expires_at, now, own),
        made_with=None if own is None else own.prefix,
        maker=maker if own is None else own.maker,
    )
    beyond = permissions_of(token.roles, token.tenant) - call.principal.permissions
    if beyond:
        raise Forbidden(f"these roles hold permissions that you lack, such as {min(beyond)}; give away what you hold")
    token = await _recorded(call).add(token, by=call.principal.name)
    return Answer(status=201, content={**_told(token), "token": text})


async def revoke_token(call: Call) -> Answer:
    """Worthless from now on, for the caller too when it is his own."""
    prefix = call.path("prefix")
    token = await call.deps.store.token(prefix)
    if (
        token is None
        or (call.tenant is not None and token.tenant != call.tenant)
        or not await _recorded(call).revoke(token, by=call.principal.name)
    ):
        raise NotFound("there is no such token, or it was revoked before", field="prefix")
    return Answer(content={"prefix": prefix, "revoked": True})


def _recorded(call: Call) -> RecordedTokens:
    return RecordedTokens(call.deps.store, call.deps.door.tenants, call.deps.clock)


def _owner(call: Call, *, platform: bool) -> str | None:
    """Whose the token is; None: the platform's."""
    if platform:
        if call.principal.tenant is not None:
            raise Forbidden("a token of the platform is made by the platform")
        return None
    tenant = call.named_tenant
    if not is_tenant(tenant) or tenant == PLATFORM:
        raise PayloadInvalid(
            "a tenant's name has 1 to 100 letters, digits, dots, dashes or underscores", field="tenant"
        )
    return tenant


def _end(text: str | None, now: datetime, own: Token | None) -> datetime | None:
    """None: never. What is made with a token ends with it unless an earlier moment is named."""
    until = None if own is None else own.expires_at
    if text is None:
        return until
    at = _expiry(text, now)
    if until is not None and at > until:
        raise PayloadInvalid(
            f"what a token makes does not outlast it: expires_at lies after its end, {format_time(until)}; name no "
            "later moment, or make it with a token that lasts longer, or signed in",
            field="expires_at",
        )
    return at


def _expiry(text: str, now: datetime) -> datetime:
    at = parse_time(text, "expires_at")
    if not now < at <= now + LONGEST:
        raise PayloadInvalid(
            f"expires_at must lie in the future, at most {LONGEST.days} days ahead", field="expires_at"
        )
    return at


def _told(token: Token) -> dict[str, Any]:
    moments = ("created_at", "expires_at", "revoked_at", "last_used_at")
    return {
        "prefix": token.prefix,
        "name": token.name,
        "tenant": token.tenant,
        "roles": list(token.roles),
        "made_by": token.made_by,
        "made_with": token.made_with,
        **{name: None if (at := getattr(token, name)) is None else format_time(at) for name in moments},
    }
