"""Handlers of a user's own session: sign in and out, who am I, where do I act, my sessions, my password, and the
invitation with which somebody comes to be a user.

The id of a session is in the cookie of the answer that began it and in no body. Each sign-in has a new one.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from consumers.web import asked_people as asked
from consumers.web.callers import (
    browser_cookie,
    browser_of,
    check_origin,
    require_secure,
    session_cookie,
    session_of,
    visit_of,
)
from consumers.web.minutely import EveryMinute
from consumers.web.routes import Answer, Call, Cookie, Deps
from contracts.envelope import format_time
from contracts.modules.tenancy import BARS
from contracts.problems import NotFound, PayloadInvalid, Unauthenticated, Unavailable
from contracts.tenant_events import PLATFORM, SessionsEnded, SignInsRefused
from engine.guards.sessions import Visit, enabled
from engine.guards.standing import require_served
from engine.store.people import User


async def sign_in(call: Call) -> Answer:
    """Every cause of refusal gets the same 401, after the same work."""
    given: asked.SignIn = call.body
    deps, request = call.deps, call.request
    require_secure(deps, request)
    check_origin(deps, request, browsers_only=True)
    begun = await deps.sign_ins.by_password(
        given.email,
        given.password,
        tenant=given.tenant,
        address=request.remote or "",
        agent=request.headers.get("User-Agent", ""),
        browser=browser_of(deps, request),
    )
    cookies = [browser_cookie(deps, request, begun.browser)] if begun.browser is not None else []
    return await _entered(call, begun.text, cookies)


async def accept_invitation(call: Call) -> Answer:
    """Who is known proves it by the password, or is signed in; who is not comes to be a user with the one given."""
    given: asked.AcceptInvitation = call.body
    deps, request = call.deps, call.request
    require_secure(deps, request)
    check_origin(deps, request, browsers_only=True)
    visit = await _visit(call)
    people = deps.door.people
    invitation = await people.invitation_of(given.token)
    known = await people.rows.person_by_email(invitation.email)
    if visit is not None and known is not None and visit.person.user.id == known.user.id:
        await people.accept(invitation, known.user)
        return Answer(content=_told(deps, await deps.sessions.admit(visit.text)), status=201)
    if given.password is None:
        raise PayloadInvalid("send the password of this user, or sign in first", field="password")
    if known is None:
        if given.name is None:
            raise PayloadInvalid("say the name of the new user", field="name")
        user: User = await people.newcomer(invitation.email, given.name, given.password, invitation=invitation)
    else:
        proven = await deps.sign_ins.prove(
            invitation.email,
            given.password,
            somewhere=False,
            address=request.remote or "",
            browser=browser_of(deps, request),
        )
        user = proven.user
    person = await people.accept(invitation, user)
    text, _ = await deps.sign_ins.known(
        person,
        how="password",
        tenant=invitation.tenant,
        address=request.remote or "",
        agent=request.headers.get("User-Agent", ""),
    )
    return await _entered(call, text)


async def show_session(call: Call) -> Answer:
    return Answer(content=_told(call.deps, call.signed_in))


async def sign_out(call: Call) -> Answer:
    deps, visit = call.deps, call.signed_in
    ended = await deps.store.end_session(visit.signed.session.digest, now=deps.clock.now())
    if ended:
        user = visit.person.user
        event = SessionsEnded(at=deps.clock.now(), user=str(user.id), count=1, by=user.actor)
        await deps.door.tenants.record(visit.signed.session.tenant or PLATFORM, event)
    return Answer(content={"ended": int(ended)}, cookies=[session_cookie(deps, call.request, "")])


async def move_session(call: Call) -> Answer:
    """The rights are those of the membership there."""
    given: asked.MoveSession = call.body
    deps, visit = call.deps, call.signed_in
    place = next((one for one in enabled(visit.person) if one.tenant == given.tenant), None)
    if place is None:
        raise NotFound("there is no such thing here", field="tenant")
    require_served(None if given.tenant is None else visit.signed.states.get(given.tenant))
    await deps.store.move_session(visit.signed.session.digest, given.tenant)
    return Answer(content=_told(deps, await deps.sessions.admit(visit.text)))


async def list_sessions(call: Call) -> Answer:
    """Those that are still good."""
    deps, visit = call.deps, call.signed_in
    now, idle = deps.clock.now(), deps.terms.idle
    items = [
        {
            "tenant": one.tenant,
            "created_at": format_time(one.created_at),
            "last_seen_at": format_time(one.last_seen_at),
            "expires_at": format_time(one.expires_at),
            "address": one.address,
            "agent": one.agent,
            "current": one.digest == visit.signed.session.digest,
        }
        for one in await deps.store.sessions(visit.person.user.id)
        if one.revoked_at is None and now < one.expires_at and now - one.last_seen_at < idle
    ]
    return Answer(content={"items": items})


async def end_other_sessions(call: Call) -> Answer:
    """All sessions of the user but this one."""
    visit = call.signed_in
    session, user = visit.signed.session, visit.person.user
    ended = await call.deps.door.people.end_sessions(
        visit.person, session.tenant, but=session.digest, everywhere=True, by=user.actor
    )
    return Answer(content={"ended": ended})


async def change_password(call: Call) -> Answer:
    """Ends the user's other sessions."""
    given: asked.ChangePassword = call.body
    deps, visit = call.deps, call.signed_in
    session = visit.signed.session
    try:
        proven = await deps.sign_ins.prove(
            visit.person.user.email,
            given.old_password,
            address=call.request.remote or "",
            browser=browser_of(deps, call.request),
        )
    except Unauthenticated:
        raise PayloadInvalid("the old password is wrong", field="old_password") from None
    ended = await deps.door.people.change_password(
        proven, session.tenant, given.password, but=session.digest, by=proven.user.actor
    )
    return Answer(content={"ended": ended})


async def _visit(call: Call) -> Visit | None:
    """A session that is over is none."""
    try:
        return await visit_of(call.deps, call.request)
    except Unauthenticated:
        return None


async def _entered(call: Call, text: str, cookies: list[Cookie] | None = None) -> Answer:
    """The session that this browser had before ends with the new one."""
    deps = call.deps
    before = session_of(deps, call.request)
    if before is not None:
        await deps.sessions.drop(before)
    cookie = session_cookie(deps, call.request, text)
    visit = await deps.sessions.admit(text)
    return Answer(content=_told(deps, visit), status=201, cookies=[cookie, *(cookies or ())])


def _told(deps: Deps, visit: Visit) -> dict[str, object]:
    person, principal, signed = visit.person, visit.principal, visit.signed
    places = [
        {
            "tenant": one.tenant,
            "roles": one.roles,
            "barred": BARS.get(signed.states.get(one.tenant, "")) if one.tenant is not None else None,
        }
        for one in enabled(person)
    ]
    return {
        "user": {"id": str(person.user.id), "email": person.user.email, "name": person.user.name},
        "tenant": principal.tenant,
        "roles": principal.roles,
        "permissions": sorted(principal.permissions),
        "memberships": places,
        "csrf_token": visit.token,
        "expires_at": format_time(signed.session.expires_at),
        "idle_seconds": deps.terms.idle.total_seconds(),
    }


class SignInRefusals(EveryMinute):
    """Counts refused sign-ins, and records how many there were once a minute."""

    def __init__(self, deps: Deps) -> None:
        super().__init__("sign-in refusals")
        self._deps = deps
        self._count = 0
        deps.sign_ins.on_refused = self.count

    def count(self) -> None:
        self._count += 1

    async def flush(self) -> None:
        count, self._count = self._count, 0
        if count:
            try:
                await self._deps.door.tenants.record(PLATFORM, SignInsRefused(at=self._deps.clock.now(), count=count))
            except Unavailable:
                self._count += count
                raise


SIGN_IN_REFUSALS: Final = web.AppKey("sign_in_refusals", SignInRefusals)
