"""People of a tenant or of the platform: invited, let in, given roles, shut out, erased.

    invite ── token, shown once ──► accept: user + membership          create: the first admin, by command line
    roles · disable · enable · sign out · erase

Each change is recorded in the tenant's stream, or the platform's, before it takes hold. The audit names a user by his
number alone (`user:<id>`); who that is stands in the users' table for as long as he is kept. Nobody grants what he may
not do himself, and nobody changes his own place. Called by the API and by `unwind users`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final
from uuid import UUID

import uuid_utils

from contracts.envelope import is_tenant
from contracts.problems import Conflict, Forbidden, NotFound, PayloadInvalid
from contracts.run_events import RunEvent
from contracts.tenant_events import (
    PLATFORM,
    IdentitiesUnlinked,
    InvitationAccepted,
    InvitationRevoked,
    PasswordChanged,
    SessionsEnded,
    UserCreated,
    UserDisabled,
    UserEnabled,
    UserErased,
    UserInvited,
    UserRolesChanged,
)
from engine.clock import Clock
from engine.guards.passwords import Passwords, check_new
from engine.guards.permissions import Principal, check_roles, digest_of, permissions_of
from engine.guards.standing import require_served
from engine.store.people import Invitation, Membership, PeopleRows, Person, User
from engine.tenant_log import TenantLog

INVITATION_DAYS: Final = 7
MOST_OPEN_INVITATIONS: Final = 1_000
"""Of one tenant, or of the platform."""

_ADDRESS: Final = re.compile(r"[!-?A-~]{1,64}@[A-Za-z0-9.-]{1,190}")
_TOKEN: Final = "uwi_"
LONGEST_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Invited:
    """An invitation with its token, this once."""

    invitation: Invitation
    token: str


class InvitationOver(NotFound):
    """The same for a token that was never given out, was used, was revoked, or is too old."""

    code = "invitation_over"
    title = "This invitation does not hold"


def address_of(email: str) -> str:
    """An address as it is compared. Printable ASCII alone, for no two different addresses may look or fold alike.
    Raises `PayloadInvalid`.
    """
    plain = email.strip()
    if not _ADDRESS.fullmatch(plain):
        raise PayloadInvalid("email must be an address such as ann@example.org, in ASCII", field="email")
    return plain.lower()


def require_grant(roles: Iterable[str], tenant: str | None, by: Principal) -> None:
    """Raises the `NotFound` of a tenant that `by` does not reach, and `Forbidden` for more than he holds himself."""
    if tenant is None and by.tenant is not None:
        raise NotFound("there is no such thing here")
    if tenant is not None:
        by.require_tenant(tenant)
    beyond = permissions_of(roles, tenant) - by.permissions
    if beyond:
        raise Forbidden(f"these roles hold {', '.join(sorted(beyond))}, which you do not; grant what you hold yourself")


class People:
    """Over a store. `passwords` is one per process."""

    def __init__(self, rows: PeopleRows, log: TenantLog, clock: Clock, passwords: Passwords | None = None) -> None:
        self.rows, self._log, self._clock = rows, log, clock
        self.passwords = passwords or Passwords()

    # ------------------------------------------------------------------------------------------------------ letting in

    async def invite(self, email: str, tenant: str | None, roles: Iterable[str], *, by: Principal) -> Invited:
        """For seven days. Raises `PayloadInvalid`, `RoleUnknown`, `Forbidden`, `Conflict` for too many open ones,
        `TenantSuspended` or `TenantClosed`.
        """
        address, held = address_of(email), check_roles(roles)
        if tenant is not None and not is_tenant(tenant):
            raise PayloadInvalid("tenant must be the id of a tenant", field="tenant")
        require_grant(held, tenant, by)
        await self._require_served(tenant)
        now = self._clock.now()
        known = [one for one in await self.rows.invitations(tenant) if one.tenant == tenant and one.open_at(now)]
        if len(known) >= MOST_OPEN_INVITATIONS:
            raise Conflict(f"{MOST_OPEN_INVITATIONS} invitations are open; revoke some")
        token = _TOKEN + secrets.token_urlsafe(32)
        made = Invitation(
            id=_new_id(),
            digest=digest_of(token),
            email=address,
            tenant=tenant,
            roles=held,
            invited_by=by.name,
            created_at=now,
            expires_at=now + timedelta(days=INVITATION_DAYS),
        )
        await self._record(
            tenant,
            UserInvited(at=now, invitation=str(made.id), roles=held, expires_at=made.expires_at, by=by.name),
        )
        await self.rows.add_invitation(made)
        return Invited(made, token)

    async def invitation_of(self, token: str) -> Invitation:
        """The open invitation of this token. Raises `InvitationOver`."""
        found = await self.rows.invitation_by_digest(digest_of(token)) if token.startswith(_TOKEN) else None
        if found is None or not found.open_at(self._clock.now()):
            raise _over()
        return found

    async def accept(self, invitation: Invitation, user: User) -> Person:
        """Gives the user what the invitation says; one who is not known yet comes to be with it. That he is who was
        invited is proven before. Raises `InvitationOver`, `TenantSuspended` or `TenantClosed`.
        """
        await self._require_served(invitation.tenant)
        now = self._clock.now()
        await self._record(
            invitation.tenant,
            InvitationAccepted(
                at=now, invitation=str(invitation.id), user=str(user.id), roles=invitation.roles, by=user.actor
            ),
            once=f"invitation/{invitation.id}",
        )
        if not await self.rows.accept_invitation(invitation.id, user, now=now):
            raise _over()
        return await self.person(user.id, None)

    async def newcomer(
        self, email: str, name: str, password: str | None, *, invitation: Invitation | None = None
    ) -> User:
        """A user who is not kept yet. Whoever comes by an invitation has its id, so that of two who accept it at once
        there is one. Raises `PayloadInvalid` for a password that nobody should choose.
        """
        address = address_of(email)
        if not 0 < len(name.strip()) <= LONGEST_NAME or not name.isprintable():
            raise PayloadInvalid(f"name has 1 to {LONGEST_NAME} printable characters", field="name")
        kept = None
        if password is not None:
            check_new(password, email=address)
            kept = await self.passwords.hashed(password)
        ident = _new_id() if invitation is None else invitation.id
        return User(id=ident, email=address, name=name.strip(), created_at=self._clock.now(), password=kept)

    async def create(
        self, email: str, name: str, password: str, tenant: str | None, roles: Iterable[str], *, by: str
    ) -> Person:
        """A user at once, for whoever may open the store anyway. Raises `Conflict` for an address that is known."""
        held = check_roles(roles)
        if await self.rows.person_by_email(address_of(email)) is not None:
            raise _known()
        user = await self.newcomer(email, name, password)
        await self._record(tenant, UserCreated(at=user.created_at, user=str(user.id), roles=held, by=by))
        if not await self.rows.add_user(user):
            raise _known()
        await self.rows.put_membership(
            Membership(user_id=user.id, tenant=tenant, roles=held, created_at=user.created_at)
        )
        return await self.person(user.id, None)

    async def revoke(self, invitation_id: UUID, *, tenant: str | None = None, by: Principal) -> Invitation:
        """One of the tenant, or any. Raises `NotFound` for one that is not there or another tenant's, `Conflict` for
        one that is not open.
        """
        found = await self.rows.invitation(invitation_id)
        where = by.tenant or tenant
        if found is None or (where is not None and found.tenant != where):
            raise NotFound("there is no such invitation", field="invitation_id")
        now = self._clock.now()
        if not found.open_at(now):
            raise Conflict(
                "this invitation was accepted or revoked, or is too old; invite again", field="invitation_id"
            )
        await self._record(found.tenant, InvitationRevoked(at=now, invitation=str(found.id), by=by.name))
        if not await self.rows.revoke_invitation(found.id, now=now):
            raise Conflict("this invitation was accepted or revoked at the same time", field="invitation_id")
        return replace(found, revoked_at=now)

    # -------------------------------------------------------------------------------------------------------- managing

    async def member(self, user_id: UUID, tenant: str | None) -> Person:
        """A member of the tenant with that membership; None: anybody, with all. Raises `NotFound`."""
        person = await self.person(user_id, tenant)
        if tenant is not None and not person.memberships:
            raise NotFound("there is no such user", field="user_id")
        return person

    async def person(self, user_id: UUID, tenant: str | None) -> Person:
        """The user with his membership in the tenant, if he has one there; None: with all. Raises `NotFound`."""
        found = await self.rows.person(user_id)
        if found is None:
            raise NotFound("there is no such user", field="user_id")
        if tenant is None:
            return found
        return replace(found, memberships=tuple(one for one in found.memberships if one.tenant == tenant))

    async def set_roles(self, person: Person, tenant: str | None, roles: Iterable[str], *, by: Principal) -> None:
        """What he may do in the tenant from now on; no role: he is a member no more, and out at once. Raises
        `RoleUnknown`, `Forbidden`, `Conflict` for one's own roles.
        """
        _not_oneself(person, by)
        given = tuple(roles)
        held = check_roles(given) if given else ()
        require_grant(held, tenant, by)
        before = person.membership(tenant)
        if before is None and not held:
            raise NotFound("there is no such member", field="user_id")
        now = self._clock.now()
        was = () if before is None else before.roles
        await self._withdraw(person, tenant, by)
        await self._record(
            tenant, UserRolesChanged(at=now, user=str(person.user.id), before=was, after=held, by=by.name)
        )
        if not held:
            await self.rows.remove_membership(person.user.id, tenant, now=now)
            return
        made = before or Membership(user_id=person.user.id, tenant=tenant, roles=held, created_at=now)
        await self.rows.put_membership(replace(made, roles=held))

    async def disable(self, person: Person, tenant: str | None, *, by: Principal) -> None:
        """In a tenant: he may not act there; without one: he is nobody anywhere. Out at once. Said twice, it changes
        nothing. Raises `Conflict` for oneself.
        """
        _not_oneself(person, by)
        now = self._clock.now()
        event = UserDisabled(at=now, user=str(person.user.id), by=by.name)
        if tenant is None:
            if person.user.disabled_at is None:
                await self._withdraw(person, None, by, everywhere=True)
                await self._record(None, event)
                await self.rows.disable_user(person.user.id, now=now)
            return
        held = _place(person, tenant)
        if held.disabled_at is None:
            await self._withdraw(person, tenant, by)
            await self._record(tenant, event)
            await self.rows.put_membership(replace(held, disabled_at=now))

    async def enable(self, person: Person, tenant: str | None, *, by: Principal) -> None:
        """Said twice, it changes nothing."""
        event = UserEnabled(at=self._clock.now(), user=str(person.user.id), by=by.name)
        if tenant is None:
            if person.user.disabled_at is not None:
                await self._record(None, event)
                await self.rows.disable_user(person.user.id, now=None)
            return
        held = _place(person, tenant)
        if held.disabled_at is not None:
            require_grant(held.roles, tenant, by)
            await self._record(tenant, event)
            await self.rows.put_membership(replace(held, disabled_at=None))

    async def unlink(self, person: Person, *, by: Principal) -> int:
        """Forgets who he is to identity providers; answers how many there were."""
        found = await self.rows.identities(person.user.id)
        if found:
            user = str(person.user.id)
            await self._record(None, IdentitiesUnlinked(at=self._clock.now(), user=user, count=len(found), by=by.name))
        for one in found:
            await self.rows.remove_identity(one.issuer, one.subject)
        return len(found)

    async def erase(self, person: Person, *, by: Principal) -> None:
        """All that is kept of him, for good; what he did stays in the audit under a number. Raises `Conflict` for
        oneself.
        """
        _not_oneself(person, by)
        await self._withdraw(person, None, by, everywhere=True)
        await self._record(None, UserErased(at=self._clock.now(), user=str(person.user.id), by=by.name))
        await self.rows.remove_user(person.user.id)

    # ------------------------------------------------------------------------------------------------------- being one

    async def change_password(
        self, person: Person, tenant: str | None, new: str, *, but: bytes | None = None, by: str
    ) -> int:
        """Ends his sessions but that of the digest `but`; answers how many. Who may do it is proven before. Raises
        `PayloadInvalid` for a password that nobody should choose.
        """
        check_new(new, email=person.user.email)
        kept = await self.passwords.hashed(new)
        now, user = self._clock.now(), person.user
        await self._record(tenant, PasswordChanged(at=now, user=str(user.id), by=by))
        if not await self.rows.set_password(user.id, kept, was=user.password):
            raise Conflict("the password was changed at the same time; sign in with the newer one")
        return await self.rows.end_sessions(user.id, but=but, now=now)

    async def end_sessions(
        self, person: Person, tenant: str | None, *, but: bytes | None = None, everywhere: bool = False, by: str
    ) -> int:
        """His sessions that act in the tenant, all without one or with `everywhere`, but that of the digest `but`;
        answers how many.
        """
        now = self._clock.now()
        ended = await self.rows.end_sessions(person.user.id, but=but, tenant=None if everywhere else tenant, now=now)
        if ended:
            await self._record(tenant, SessionsEnded(at=now, user=str(person.user.id), count=ended, by=by))
        return ended

    async def _withdraw(self, person: Person, tenant: str | None, by: Principal, *, everywhere: bool = False) -> None:
        """Revokes open invitations into the tenant that would bring back what is taken, and those that he made."""
        now, user = self._clock.now(), person.user
        for one in await self.rows.invitations(tenant):
            his = one.email == user.email or one.invited_by == user.actor
            if his and (everywhere or one.tenant == tenant) and one.open_at(now):
                await self.revoke(one.id, by=by)

    async def _require_served(self, tenant: str | None) -> None:
        require_served(None if tenant is None else await self.rows.standing(tenant))

    async def _record(self, tenant: str | None, event: RunEvent, *, once: str | None = None) -> None:
        await self._log.record(tenant or PLATFORM, event, once=once)


def _place(person: Person, tenant: str) -> Membership:
    held = person.membership(tenant)
    if held is None:
        raise NotFound("there is no such member", field="user_id")
    return held


def _not_oneself(person: Person, by: Principal) -> None:
    if by.name == person.user.actor:
        raise Conflict("nobody changes his own place; ask another admin, or use `unwind users` at the machine")


def _new_id() -> UUID:
    return UUID(str(uuid_utils.uuid7()))


def _over() -> InvitationOver:
    return InvitationOver("this invitation was used or revoked, or is too old; ask for another", field="token")


def _known() -> Conflict:
    return Conflict("somebody has this address; see `unwind users list`", field="email")
