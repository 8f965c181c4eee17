"""Signing in by an identity provider: from whom it vouches for to a user of ours, and a session of his.

    the identity is linked to a user ────────────────────────────────────────────► that user
    its address is verified, a user has it and no other identity of this issuer ─► linked, that user
    its address is verified, and an invitation to it is open ────────────────────► accepted, linked, the new user
    anything else ───────────────────────────────────────────────────────────────► refused

A sign-in into a tenant that the user is no member of takes an open invitation to his verified address there, too.
An address that the provider did not verify is nobody's: whoever can write it into a profile would else be whom it
belongs to. Once linked, a user is known by issuer and subject, whatever becomes of the address. Every cause of a
refusal gets the same answer; it stands in the log. Decision 0031 says why. Called by the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.problems import PayloadInvalid, Unauthenticated
from contracts.tenant_events import PLATFORM, IdentityLinked
from engine.clock import Clock
from engine.guards.gate import Throttle
from engine.guards.oidc import Attempt, OidcRefused, Provider, ProviderUnavailable, Vouched
from engine.logs import logger
from engine.metrics import Metrics
from engine.people import InvitationOver, People, address_of
from engine.sign_in import ADDRESS_TRIES, SignIns, too_many_tries
from engine.store.keys import Vault
from engine.store.people import Identity, Invitation, Person, User
from engine.tenant_log import TenantLog

_log = logger("oidc")


@dataclass(frozen=True, slots=True)
class Entered:
    """A session that began: the id for its cookie, and the path to go on to."""

    text: str
    return_to: str


class OidcSignIns:
    """One per process that answers HTTP."""

    def __init__(
        self,
        provider: Provider,
        people: People,
        sign_ins: SignIns,
        vault: Vault,
        log: TenantLog,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.provider = provider
        self._people, self._sign_ins, self._vault, self._log, self._clock = people, sign_ins, vault, log, clock
        self._told = metrics.sign_ins
        self._addresses = Throttle(ADDRESS_TRIES)

    async def begin(self, return_to: str, tenant: str | None, redirect_uri: str) -> tuple[str, str]:
        """Where to send the browser, and what it takes along in its cookie. `return_to` has been checked. Raises
        `ProviderUnavailable`.
        """
        attempt = Attempt.begin(return_to, self._clock.now(), tenant=tenant)
        try:
            url = await self.provider.begin(attempt, redirect_uri)
        except ProviderUnavailable as unavailable:
            self._tell("provider_unavailable", unavailable.cause)
            raise
        return url, await attempt.seal(self._vault, self.provider.issuer)

    async def finish(
        self, sealed: str, answer: Mapping[str, str], redirect_uri: str, *, address: str, agent: str
    ) -> Entered:
        """Raises `OidcRefused`, `ProviderUnavailable`, `RateLimited`, `TenantSuspended` or `TenantClosed`."""
        now = self._clock.now()
        if self._addresses.spent(address, now):
            self._told.of("limited").inc()
            self._sign_ins.on_refused()
            raise too_many_tries(self._addresses, address, now)
        self._addresses.count(address, now)
        try:
            attempt = await Attempt.open(self._vault, self.provider.issuer, sealed, now)
            vouched = await self.provider.finish(attempt, answer, redirect_uri)
            person, tenant = await self._person(vouched, attempt.tenant)
        except OidcRefused as refused:
            self._tell("sign_in_refused", refused.cause)
            self._told.of("refused").inc()
            self._sign_ins.on_refused()
            raise
        except ProviderUnavailable as unavailable:
            self._tell("provider_unavailable", unavailable.cause)
            raise
        text = await self._session(person, tenant, address, agent)
        self._addresses.uncount(address)
        return Entered(text, attempt.return_to)

    async def _session(self, person: Person, tenant: str | None, address: str, agent: str) -> str:
        try:
            text, _ = await self._sign_ins.known(person, how="oidc", tenant=tenant, address=address, agent=agent)
        except Unauthenticated:  # counted there
            refused = OidcRefused(f"{person.user.actor} is disabled, or may act nowhere")
            self._tell("sign_in_refused", refused.cause)
            raise refused from None
        return text

    def _tell(self, event: str, cause: str) -> None:
        _log.warning(event, issuer=self.provider.issuer, cause=cause)

    async def _person(self, vouched: Vouched, tenant: str | None) -> tuple[Person, str | None]:
        """Who this is here, and where to act. Raises `OidcRefused`."""
        address = _address(vouched)
        person = await self._people.rows.person_by_identity(vouched.issuer, vouched.subject)
        if person is None:
            if address is None:
                raise OidcRefused("nobody has this identity, and the provider has not verified an address of it")
            person = await self._people.rows.person_by_email(address)
            if person is None:
                return await self._invited(vouched, address, tenant)
            await self._take_over(person.user, vouched)
        if tenant is not None and person.membership(tenant) is None and address == person.user.email:
            invitation = await self._invitation(address, tenant)
            if invitation is not None and person.user.disabled_at is None:
                person = await self._accept(invitation, person.user)
        return person, tenant

    async def _take_over(self, user: User, vouched: Vouched) -> None:
        """Links a user to whom the address belongs. Whoever accepted an invitation never proved that it was his, so the
        password that he chose and the sessions that he began are over first: nobody stays in a user who is another's.
        """
        rows = self._people.rows
        if user.disabled_at is not None:
            raise OidcRefused(f"{user.actor} is disabled")
        if await self._linked(user, vouched):
            raise OidcRefused(f"{user.actor} has another identity of this issuer")
        if user.password is not None and not await rows.set_password(user.id, None, was=user.password):
            raise OidcRefused(f"the password of {user.actor} was changed at the same time")
        await rows.end_sessions(user.id, but=None, now=self._clock.now())
        await self._link(user, vouched)

    async def _invited(self, vouched: Vouched, address: str, tenant: str | None) -> tuple[Person, str | None]:
        invitation = await self._invitation(address, tenant)
        if invitation is None:
            raise OidcRefused("nobody has this identity or its address, and nobody invited it there")
        name = (vouched.name or "").strip() or address.partition("@")[0]
        user = await self._people.newcomer(address, name, None, invitation=invitation)
        person = await self._accept(invitation, user)
        await self._link(user, vouched)
        return person, invitation.tenant

    async def _invitation(self, address: str, tenant: str | None) -> Invitation | None:
        """The newest to this address that is open, into the tenant if one is named; others wait for their tokens."""
        now = self._clock.now()
        found = await self._people.rows.invitations(tenant, email=address)
        return next((one for one in found if one.open_at(now) and tenant in (None, one.tenant)), None)

    async def _accept(self, invitation: Invitation, user: User) -> Person:
        try:
            return await self._people.accept(invitation, user)
        except InvitationOver:
            raise OidcRefused("the invitation was used or revoked at the same time") from None

    async def _link(self, user: User, vouched: Vouched) -> None:
        """From now on this identity is that user. Raises `OidcRefused` when it became another's, or the user's own
        became another one, at the same time.
        """
        rows, now = self._people.rows, self._clock.now()
        event = IdentityLinked(at=now, user=str(user.id), issuer=vouched.issuer, by=user.actor)
        await self._log.record(PLATFORM, event)
        await rows.add_identity(
            Identity(issuer=vouched.issuer, subject=vouched.subject, user_id=user.id, created_at=now)
        )
        if await self._linked(user, vouched) != [vouched.subject]:
            await rows.remove_identity(vouched.issuer, vouched.subject)
            raise OidcRefused(f"{user.actor} was linked to two identities at the same time")

    async def _linked(self, user: User, vouched: Vouched) -> list[str]:
        """Subjects of this issuer that are the user."""
        return [one.subject for one in await self._people.rows.identities(user.id) if one.issuer == vouched.issuer]


def _address(vouched: Vouched) -> str | None:
    """The address as users have it, if the provider verified it and it can be one."""
    try:
        return None if vouched.verified_email is None else address_of(vouched.verified_email)
    except PayloadInvalid:
        return None
