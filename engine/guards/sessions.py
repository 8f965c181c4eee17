"""Sessions of people: made at a sign-in, carried by a cookie, looked at with every request.

    id       256 random bits, base64url: in the cookie alone; the store keeps SHA-256 of it
    token    HMAC-SHA256 of the id: what a page sends beside the cookie with everything that changes something

A session gives a `Principal` as an API token does: the roles that its user has where he acts, at that moment. A user
who was disabled or lost the membership, an end, an expiry or an hour without use are all the same: nobody signed in.
Where tenancy said that a tenant is suspended or closed, its members are refused by that name. Called by the API.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from contracts.modules.tenancy import BARS
from contracts.problems import NotFound, Unavailable
from engine.clock import Clock
from engine.guards.gate import MINUTE
from engine.guards.permissions import Principal, digest_of, permissions_of, unauthenticated
from engine.guards.standing import barred
from engine.store.people import Membership, Person, Session, Signed

IDLE_SECONDS: Final = 3_600.0
LONGEST_SECONDS: Final = 43_200.0
_ID: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_TOKEN_OF: Final = b"unwind session token"
_LONGEST_AGENT: Final = 120
_LONGEST_ADDRESS: Final = 64


class SessionRows(Protocol):
    """The part of the store that keeps sessions."""

    async def add_session(self, session: Session) -> None: ...

    async def signed(self, digest: bytes) -> Signed | None: ...

    async def touch_session(self, digest: bytes, *, now: datetime, before: datetime) -> bool: ...

    async def end_session(self, digest: bytes, *, now: datetime) -> bool: ...

    async def standing(self, tenant: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a session lasts: without use, and at all."""

    idle: timedelta = timedelta(seconds=IDLE_SECONDS)
    longest: timedelta = timedelta(seconds=LONGEST_SECONDS)


@dataclass(frozen=True, slots=True)
class Visit:
    """A session in use. `principal` is who acts in this request, `text` the id in the cookie."""

    signed: Signed
    principal: Principal
    text: str = field(repr=False)

    @property
    def token(self) -> str:
        """What its page sends beside the cookie."""
        return token_of(self.text)

    @property
    def person(self) -> Person:
        return self.signed.person

    @property
    def state(self) -> str | None:
        """What tenancy said last of the tenant that the user acts in; None of the platform."""
        tenant = self.principal.tenant
        return None if tenant is None else self.signed.states.get(tenant)


class Sessions:
    """One per process that answers HTTP."""

    def __init__(self, rows: SessionRows, clock: Clock, terms: Terms | None = None) -> None:
        self._rows, self._clock, self._terms = rows, clock, terms or Terms()

    @property
    def terms(self) -> Terms:
        return self._terms

    async def begin(
        self, person: Person, *, tenant: str | None = None, address: str, agent: str
    ) -> tuple[str, Session]:
        """A new session of a user who has proven who he is, as the id for his cookie and as it is kept. He acts in
        `tenant`; with None in the platform when he is a member of that, else in the first of his tenants that is not
        barred. Raises `Unauthenticated` for who has no such place, `TenantSuspended` or `TenantClosed` where it is
        barred.
        """
        places = [one for one in enabled(person) if tenant is None or one.tenant == tenant]
        if not places:
            raise unauthenticated()
        states = [None if one.tenant is None else await self._rows.standing(one.tenant) for one in places]
        free = [one for one, state in zip(places, states, strict=True) if state not in BARS]
        if not free:
            raise barred(states[0])
        text = secrets.token_urlsafe(32)
        now = self._clock.now()
        session = Session(
            digest=digest_of(text),
            user_id=person.user.id,
            tenant=free[0].tenant,
            created_at=now,
            last_seen_at=now,
            expires_at=now + self._terms.longest,
            address=_kept(address, _LONGEST_ADDRESS),
            agent=_kept(agent, _LONGEST_AGENT),
        )
        await self._rows.add_session(session)
        return text, session

    async def admit(self, text: str, named: str | None = None) -> Visit:
        """Whoever this cookie stands for, acting in the tenant that the request names, if any. Raises the one
        `Unauthenticated`; `NotFound` for a tenant he is no member of, there or not.
        """
        now = self._clock.now()
        signed = await self._rows.signed(digest_of(text)) if _ID.fullmatch(text) else None
        if signed is None or not self.is_open(signed, now):
            raise unauthenticated()
        acts_in = signed.person.membership(signed.session.tenant)
        if acts_in is None or acts_in.disabled_at is not None:
            raise unauthenticated()
        if named is not None and acts_in.tenant is not None and named != acts_in.tenant:
            found = signed.person.membership(named)
            if found is None or found.disabled_at is not None:
                raise NotFound("there is no such thing here")
            acts_in = found
        await self._note(signed.session, now)
        return Visit(signed, principal_of(signed.person, acts_in), text)

    async def drop(self, text: str) -> None:
        """Ends the session of this cookie, if it is one."""
        if _ID.fullmatch(text):
            await self._rows.end_session(digest_of(text), now=self._clock.now())

    def is_open(self, signed: Signed, now: datetime) -> bool:
        session = signed.session
        return (
            session.revoked_at is None
            and now < session.expires_at
            and now - session.last_seen_at < self._terms.idle
            and signed.person.user.disabled_at is None
        )

    async def _note(self, session: Session, now: datetime) -> None:
        """At most once a minute."""
        if now - session.last_seen_at < MINUTE:
            return
        with suppress(Unavailable):
            await self._rows.touch_session(session.digest, now=now, before=now - MINUTE)


def principal_of(person: Person, membership: Membership) -> Principal:
    """The user as a principal, with the rights of this one membership."""
    return Principal(
        person.user.actor, membership.tenant, membership.roles, permissions_of(membership.roles, membership.tenant)
    )


def token_of(text: str) -> str:
    """The token of a session's page, from the id in its cookie."""
    mac = hmac.digest(text.encode(), _TOKEN_OF, "sha256")
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")


def is_token(given: str | None, visit: Visit) -> bool:
    """Whether a request brought its session's token."""
    return given is not None and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), visit.token.encode())


def enabled(person: Person) -> list[Membership]:
    """The memberships in which the user may act: the platform first, then tenants by name; none of who is disabled."""
    if person.user.disabled_at is not None:
        return []
    held = [one for one in person.memberships if one.disabled_at is None]
    return sorted(held, key=lambda one: one.tenant or "")


def _kept(text: str, longest: int) -> str:
    return "".join(one if one.isprintable() else " " for one in text)[:longest]
