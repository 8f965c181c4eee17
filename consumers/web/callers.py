"""Who is calling: an API token in the Authorization header, judged by that alone, or a user's session in a cookie.

A browser sends a cookie whoever made it ask. So everything but GET and HEAD, when it comes with a session, must come
from a page of this very origin (`Origin`, or `Sec-Fetch-Site` where a browser sends none) and bring the session's token
in `X-CSRF-Token`, which only such a page can have read (`GET /v1/session`).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from consumers.web.routes import TENANT_HEADER, Cookie, Deps, Route
from contracts.problems import Forbidden
from engine.guards.oidc.attempts import LIFE_SECONDS
from engine.guards.permissions import Principal, unauthenticated
from engine.guards.sessions import Visit, is_token
from engine.guards.standing import require_served

TOKEN_HEADER: Final = "X-CSRF-Token"
COOKIE: Final = "unwind"
BROWSER_COOKIE: Final = "unwind-browser"
BROWSER_SECONDS: Final = 180 * 86_400
OIDC_COOKIE: Final = "unwind-oidc"
_HOST_ONLY: Final = "__Host-"
"""A browser takes a cookie of such a name over https alone, for one host and all of its paths."""
_HARMLESS: Final = ("GET", "HEAD")

NOBODY: Final = Principal("", None, (), frozenset())


class OriginRefused(Forbidden):
    code = "origin_refused"
    title = "This request comes from a page of another origin"


class TokenMissing(Forbidden):
    code = "csrf_refused"
    title = "This request does not bring its session's token"


class Insecure(Forbidden):
    code = "insecure"
    title = "Nobody signs in over an open line"


@dataclass(frozen=True, slots=True)
class Caller:
    """`visit` None: he came with a token, or nobody was asked for."""

    principal: Principal
    visit: Visit | None = None


async def identify(route: Route, deps: Deps, request: web.Request) -> Caller:
    """Raises the one `Unauthenticated`, `RateLimited`, and `Forbidden` for a session whose request is not to be
    believed, and for a session or a token whose tenant is suspended or closed.
    """
    if route.permission is None and not route.session:
        return Caller(NOBODY)
    if route.permission is not None and ("Authorization" in request.headers or session_of(deps, request) is None):
        return Caller(await deps.gate.admit(request.headers.get("Authorization"), request.remote or ""))
    visit = await visit_of(deps, request)
    if visit is None:
        raise unauthenticated()
    if route.permission is not None:
        require_served(visit.state)
    return Caller(visit.principal, visit)


async def visit_of(deps: Deps, request: web.Request) -> Visit | None:
    """The session that a request comes with, checked; None: it has none, or has an Authorization header. Raises
    `Unauthenticated`, `OriginRefused`, `TokenMissing`.
    """
    text = session_of(deps, request)
    if text is None or "Authorization" in request.headers:
        return None
    named = request.headers.get(TENANT_HEADER) or request.query.get("tenant")
    visit = await deps.sessions.admit(text, named)
    if request.method not in _HARMLESS:
        check_origin(deps, request)
        if not is_token(request.headers.get(TOKEN_HEADER), visit):
            raise TokenMissing(f"send the token of GET /v1/session in {TOKEN_HEADER}", field=TOKEN_HEADER)
    return visit


def check_origin(deps: Deps, request: web.Request, *, browsers_only: bool = False) -> None:
    """That a request comes from a page of our own. `browsers_only`: what no browser sent (it says neither `Origin` nor
    `Sec-Fetch-Site`) passes. Raises `OriginRefused`.
    """
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    if origin is None:
        if site == "same-origin" or (site is None and browsers_only):
            return
    elif origin.lower() in _own_origins(deps, request):
        return
    raise OriginRefused(
        "only pages of this installation may send this; see UNWIND_HTTP__PUBLIC_URL if this is one", field="Origin"
    )


def _own_origins(deps: Deps, request: web.Request) -> tuple[str, ...]:
    if deps.public_url is not None:
        return (origin_of(deps.public_url),)
    return (f"{request.scheme}://{request.host}".lower(),)


def origin_of(url: str) -> str:
    """Scheme, host and port as a browser writes them: without the port that the scheme has anyway."""
    parts = urlsplit(url.lower())
    usual = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return f"{parts.scheme}://{parts.netloc.removesuffix(usual) if usual else parts.netloc}"


# ------------------------------------------------------------------------------------------------------------- cookies


def is_secure(deps: Deps, request: web.Request) -> bool:
    """Whether the browser reaches us over https, as far as we know."""
    return request.secure or (deps.public_url or "").startswith("https://")


def require_secure(deps: Deps, request: web.Request) -> None:
    """Raises `Insecure` where a password or a cookie would travel in clear: over http from another machine, unless the
    operator said that people come so.
    """
    if not is_secure(deps, request) and deps.public_url is None and not _is_loopback(request.host):
        raise Insecure("sign in over https; the operator sets UNWIND_HTTP__PUBLIC_URL to the address that people use")


def session_of(deps: Deps, request: web.Request) -> str | None:
    """What stands in the session's cookie."""
    return request.cookies.get(_name(COOKIE, is_secure(deps, request)))


def browser_of(deps: Deps, request: web.Request) -> str | None:
    """What the browser is known by."""
    return request.cookies.get(_name(BROWSER_COOKIE, is_secure(deps, request)))


def session_cookie(deps: Deps, request: web.Request, text: str) -> Cookie:
    """Empty: deletes it. It ends with the browser's own session, or with the session in the store before that."""
    secure = is_secure(deps, request)
    return Cookie(name=_name(COOKIE, secure), value=text, secure=secure)


def browser_cookie(deps: Deps, request: web.Request, text: str) -> Cookie:
    secure = is_secure(deps, request)
    return Cookie(name=_name(BROWSER_COOKIE, secure), value=text, secure=secure, seconds=BROWSER_SECONDS)


def oidc_of(deps: Deps, request: web.Request) -> str | None:
    """The sign-in under way at an identity provider, sealed."""
    return request.cookies.get(_name(OIDC_COOKIE, is_secure(deps, request)))


def oidc_cookie(deps: Deps, request: web.Request, text: str) -> Cookie:
    """Empty: deletes it."""
    secure = is_secure(deps, request)
    return Cookie(name=_name(OIDC_COOKIE, secure), value=text, secure=secure, seconds=LIFE_SECONDS)


def _name(name: str, secure: bool) -> str:
    return _HOST_ONLY + name if secure else name


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
