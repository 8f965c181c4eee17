"""Signing in: a person proves who he is, and a session begins.

    e-mail and password ─────────► by_password ─┐
    another proof (OpenID Connect) ─────────────┴─► known ──► session, `SignedIn` in the audit of where he acts

Unknown address, wrong password, no password, disabled user, no place to act: one and the same refusal, after the same
work. Tries are counted before they are proven, by network address and by e-mail address; a browser that this user
signed in with before is counted by itself instead, so that no stranger shuts him out. Called by the API.
"""

from __future__ import annotations

import base64
import hmac
import math
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from contracts.problems import PayloadInvalid, RateLimited, Unauthenticated
from contracts.tenant_events import PLATFORM, SignedIn
from engine.clock import Clock
from engine.guards.gate import Throttle
from engine.guards.passwords import is_stale
from engine.guards.sessions import Sessions, enabled
from engine.metrics import Metrics
from engine.people import People, address_of
from engine.store.keys import Vault
from engine.store.people import Person, Session
from engine.tenant_log import TenantLog

How = Literal["password", "oidc"]

ADDRESS_TRIES: Final = 20
"""Tries of one network address in a minute that did not lead to a session."""
EMAIL_TRIES: Final = 10
"""The same for one e-mail address, and for one browser, in a quarter of an hour."""
EMAIL_WINDOW: Final = timedelta(minutes=15)

_BROWSER: Final = "browser"
_NONCE_BYTES: Final = 16
_KNOWN: Final = re.compile(r"[A-Za-z0-9_-]{22}\.[0-9a-f]{64}")


class SignInRefused(Unauthenticated):
    """The one answer to every failed sign-in."""

    code = "sign_in_refused"
    title = "Nobody can sign in like this"


@dataclass(frozen=True, slots=True)
class Begun:
    """A session that began, with the id for its cookie; `browser` is what this browser is known by from now on."""

    text: str
    session: Session
    person: Person
    browser: str | None = None


class SignIns:
    """One per process that answers HTTP. `on_refused` hears of each refusal."""

    def __init__(
        self,
        people: People,
        sessions: Sessions,
        vault: Vault,
        log: TenantLog,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._people, self._sessions, self._vault, self._log, self._clock = people, sessions, vault, log, clock
        self._metrics = metrics
        self._addresses = Throttle(ADDRESS_TRIES)
        self._emails = Throttle(EMAIL_TRIES, EMAIL_WINDOW)
        self._browsers = Throttle(EMAIL_TRIES, EMAIL_WINDOW)
        self.on_refused: Callable[[], None] = lambda: None

    async def by_password(
        self, email: str, password: str, *, tenant: str | None, address: str, agent: str, browser: str | None
    ) -> Begun:
        """Raises `SignInRefused`, `RateLimited`, `TenantSuspended` or `TenantClosed`, `Unavailable` when too many sign
        in at once.
        """
        person = await self.prove(email, password, tenant=tenant, address=address, browser=browser)
        text, session = await self.known(person, how="password", tenant=tenant, address=address, agent=agent)
        return Begun(text, session, person, await self._browser_of(person))

    async def prove(
        self,
        email: str,
        password: str,
        *,
        tenant: str | None = None,
        somewhere: bool = True,
        address: str,
        browser: str | None,
    ) -> Person:
        """Whose address and password these are: somebody who may act in the tenant, or `somewhere`. Raises
        `SignInRefused`, `RateLimited`, `Unavailable`.
        """
        mail = _read(email)
        counts = await self._counts(mail, address, browser)
        now = self._clock.now()
        for throttle, key in counts:
            if throttle.spent(key, now):
                self._refused("limited")
                raise too_many_tries(throttle, key, now)
        for throttle, key in counts:
            throttle.count(key, now)
        person = await self._people.rows.person_by_email(mail)
        able = person is not None and (_may_act(person, tenant) if somewhere else person.user.disabled_at is None)
        kept = person.user.password if person is not None and able else None
        if not await self._people.passwords.proves(password, kept) or person is None or kept is None:
            self._refused("refused")
            raise refused()
        for throttle, key in counts:
            throttle.uncount(key)
        if is_stale(kept):
            again = await self._people.passwords.hashed(password)
            await self._people.rows.set_password(person.user.id, again, was=kept)
        return person

    async def known(
        self, person: Person, *, how: How, tenant: str | None, address: str, agent: str
    ) -> tuple[str, Session]:
        """A session of a user who has proven who he is: the id for his cookie, and the session as kept. Raises
        `SignInRefused` for who may act nowhere, `TenantSuspended` or `TenantClosed`.
        """
        if not _may_act(person, tenant):
            self._refused("refused")
            raise refused()
        text, session = await self._sessions.begin(person, tenant=tenant, address=address, agent=agent)
        user = person.user
        event = SignedIn(at=session.created_at, user=str(user.id), how=how, by=user.actor)
        await self._log.record(session.tenant or PLATFORM, event)
        self._metrics.sign_ins.of("ok").inc()
        return text, session

    def _refused(self, result: Literal["refused", "limited"]) -> None:
        self._metrics.sign_ins.of(result).inc()
        self.on_refused()

    async def _counts(self, mail: str, address: str, browser: str | None) -> list[tuple[Throttle, str]]:
        if browser is not None and await self._is_known(browser, mail):
            return [(self._browsers, browser)]
        return [(self._addresses, address), (self._emails, mail)]

    async def _browser_of(self, person: Person) -> str:
        nonce = base64.urlsafe_b64encode(secrets.token_bytes(_NONCE_BYTES)).decode().rstrip("=")
        keys = await self._vault.keys_for(PLATFORM)
        return f"{nonce}.{keys.index_hash(_BROWSER, f'{nonce} {person.user.email}').hex()}"

    async def _is_known(self, browser: str, mail: str) -> bool:
        if not _KNOWN.fullmatch(browser):
            return False
        nonce, _, mac = browser.partition(".")
        keys = await self._vault.keys_for(PLATFORM)
        expected = [one.hex() for one in keys.index_hashes(_BROWSER, f"{nonce} {mail}")]
        return any(hmac.compare_digest(one.encode(), mac.encode()) for one in expected)


def too_many_tries(throttle: Throttle, key: str, now: datetime) -> RateLimited:
    """The refusal of whoever has no try left, with when he has one again."""
    seconds = max(1, math.ceil(throttle.left(key, now)))
    return RateLimited(f"too many tries to sign in; try again in {seconds} s", retry_after_seconds=seconds)


def refused() -> SignInRefused:
    return SignInRefused(
        "the address or the password is wrong, or this user may not sign in; an admin sees which in `unwind users list`"
    )


def _read(email: str) -> str:
    """The address, or what cannot be one, as it is looked up and counted."""
    try:
        return address_of(email)
    except PayloadInvalid:
        return email.strip().lower().encode("ascii", "replace").decode()[:254]


def _may_act(person: Person, tenant: str | None) -> bool:
    return any(tenant is None or one.tenant == tenant for one in enabled(person))
