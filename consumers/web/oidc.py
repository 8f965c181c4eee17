"""Handlers of sign-in by an identity provider: the way there, the way back, and what the provider is called.

Both ways are redirects, followed by a browser that is on its way; a refusal is a problem document, as everywhere.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from consumers.web import asked_people as asked
from consumers.web.callers import OriginRefused, oidc_cookie, oidc_of, require_secure, session_cookie, session_of
from consumers.web.dispatch import RequestInvalid
from consumers.web.routes import Answer, Call, Cookie
from contracts.problems import NotFound
from engine.guards.oidc import is_path
from engine.oidc_sign_in import OidcSignIns

BEGIN: Final = "/v1/session/oidc/start"
BACK: Final = "/v1/session/oidc/callback"


async def list_providers(call: Call) -> Answer:
    """Other ways to sign in than by address and password; none where no provider is set up."""
    oidc = call.deps.oidc_sign_ins
    items = [] if oidc is None else [{"name": oidc.provider.name, "start": BEGIN}]
    return Answer(content={"items": items})


async def begin_oidc(call: Call) -> Answer:
    """The answer sets a cookie of ten minutes, without which nobody comes back."""
    oidc = _provider(call)
    require_secure(call.deps, call.request)
    given: asked.BeginOidc = call.query
    if given.tenant is not None and call.request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        # It may take an invitation there: that is not for a link on somebody else's page to say.
        raise OriginRefused("only pages of this installation may name the tenant; leave it out", field="tenant")
    return_to = given.return_to or urlsplit(_public_url(call)).path.rstrip("/") + "/"
    if not is_path(return_to):
        raise RequestInvalid("return_to must be a path of this installation, such as /runs", field="return_to")
    url, sealed = await oidc.begin(return_to, given.tenant, _redirect_uri(call))
    return _to(url, [oidc_cookie(call.deps, call.request, sealed)])


async def finish_oidc(call: Call) -> Answer:
    """Every cause of refusal gets the same 401. The session that this browser had before ends with the new one."""
    oidc, deps, request = _provider(call), call.deps, call.request
    require_secure(deps, request)
    given: asked.FinishOidc = call.query
    entered = await oidc.finish(
        oidc_of(deps, request) or "",
        given.model_dump(exclude_none=True),
        _redirect_uri(call),
        address=request.remote or "",
        agent=request.headers.get("User-Agent", ""),
    )
    before = session_of(deps, request)
    if before is not None:
        await deps.sessions.drop(before)
    cookies = [session_cookie(deps, request, entered.text), oidc_cookie(deps, request, "")]
    return _to(entered.return_to, cookies)


async def unlink_identities(call: Call) -> Answer:
    deps = call.deps
    person = await deps.door.people.member(call.identifier("user_id", "user"), None)
    count = await deps.door.people.unlink(person, by=call.principal)
    return Answer(content={"unlinked": count})


def _provider(call: Call) -> OidcSignIns:
    if call.deps.oidc_sign_ins is None:
        raise NotFound("no identity provider is set up here; see UNWIND_OIDC__ISSUER")
    return call.deps.oidc_sign_ins


def _redirect_uri(call: Call) -> str:
    return _public_url(call).rstrip("/") + BACK


def _public_url(call: Call) -> str:
    """Ours alone to say: what a request calls our host is the word of whoever wrote it."""
    assert call.deps.public_url is not None
    return call.deps.public_url


def _to(location: str, cookies: list[Cookie]) -> Answer:
    headers = {"Location": location, "Referrer-Policy": "no-referrer"}
    return Answer(content={"location": location}, status=302, headers=headers, cookies=cookies)
