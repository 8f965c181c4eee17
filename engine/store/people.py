"""People as the store keeps them: who they are, where they may act, how they are let in. Values, and the port that both
drivers answer (`engine.store.people_verbs`). No row holds a password, a session's id or an invitation's token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from contracts.values import value


@value(kw_only=True)
class User:
    """A person. `email` is unique, as `engine.people.address_of` writes it; `password` is an Argon2id hash in PHC form,
    None: this user has none.
    """

    id: UUID
    email: str
    name: str
    created_at: datetime
    password: str | None = field(default=None, repr=False)
    disabled_at: datetime | None = None
    signed_in_at: datetime | None = None

    @property
    def actor(self) -> str:
        """The name in the audit and of runs; who it was is known for as long as the user is kept."""
        return f"user:{self.id}"


@value(kw_only=True)
class Membership:
    """What a user may do in one tenant; `tenant` None: in the platform."""

    user_id: UUID
    tenant: str | None
    roles: tuple[str, ...]
    created_at: datetime
    disabled_at: datetime | None = None


@value(kw_only=True)
class Person:
    """A user with memberships: all, or those that whoever asked may see."""

    user: User
    memberships: tuple[Membership, ...]

    def membership(self, tenant: str | None) -> Membership | None:
        return next((one for one in self.memberships if one.tenant == tenant), None)


@value(kw_only=True)
class Identity:
    """Who a user is to a provider of OpenID Connect."""

    issuer: str
    subject: str
    user_id: UUID
    created_at: datetime


@value(kw_only=True)
class Invitation:
    """`digest` is SHA-256 of the token that was shown once."""

    id: UUID
    digest: bytes = field(repr=False)
    email: str
    tenant: str | None
    roles: tuple[str, ...]
    invited_by: str
    created_at: datetime
    expires_at: datetime
    accepted_at: datetime | None = None
    revoked_at: datetime | None = None

    def open_at(self, now: datetime) -> bool:
        return self.accepted_at is None and self.revoked_at is None and now < self.expires_at


@value(kw_only=True)
class Session:
    """`digest` is SHA-256 of the id in the cookie; `tenant` is where its user acts, None: in the platform."""

    digest: bytes = field(repr=False)
    user_id: UUID
    tenant: str | None
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    address: str
    agent: str
    revoked_at: datetime | None = None


@value(kw_only=True)
class Signed:
    """A session with its user. `states` says of tenants among the memberships what tenancy said of them last; of a
    tenant that is missing nothing was said.
    """

    session: Session
    person: Person
    states: Mapping[str, str]


class PeopleRows(Protocol):
    """Users, memberships, identities, invitations, sessions."""

    async def add_user(self, user: User) -> bool:
        """False, and nothing changed: somebody has this address."""

    async def person(self, user_id: UUID) -> Person | None: ...

    async def person_by_email(self, email: str) -> Person | None: ...

    async def person_by_identity(self, issuer: str, subject: str) -> Person | None: ...

    async def people(self, tenant: str | None, *, limit: int, after: UUID | None = None) -> list[Person]:
        """Those with a membership in the tenant, each with that one; None: everybody, with all. In the order of ids."""

    async def set_password(self, user_id: UUID, password: str | None, *, was: str | None) -> bool:
        """False, and nothing changed: the hash is not `was` any more."""

    async def disable_user(self, user_id: UUID, *, now: datetime | None) -> bool:
        """From `now` on the user is nobody, and his sessions have ended; None: he may sign in again. False: it was so
        before, or there is no such user.
        """

    async def remove_user(self, user_id: UUID) -> bool:
        """Deletes the user with all that is kept of him here, and invitations to his address. False: there is none."""

    async def put_membership(self, membership: Membership) -> None:
        """Keeps it in the place of the one in the same tenant. The sessions that act there end when it is disabled."""

    async def remove_membership(self, user_id: UUID, tenant: str | None, *, now: datetime) -> bool:
        """The sessions that act there end with it. False: there was none."""

    async def add_identity(self, identity: Identity) -> bool:
        """False, and nothing changed: it is known, as this user's or another's."""

    async def identities(self, user_id: UUID) -> list[Identity]: ...

    async def remove_identity(self, issuer: str, subject: str) -> bool: ...

    async def add_invitation(self, invitation: Invitation) -> None: ...

    async def invitation(self, invitation_id: UUID) -> Invitation | None: ...

    async def invitation_by_digest(self, digest: bytes) -> Invitation | None: ...

    async def invitations(self, tenant: str | None, *, email: str | None = None) -> list[Invitation]:
        """The newest first; tenant None: of all tenants and of the platform."""

    async def revoke_invitation(self, invitation_id: UUID, *, now: datetime) -> bool:
        """False: it is not open."""

    async def accept_invitation(self, invitation_id: UUID, user: User, *, now: datetime) -> bool:
        """In one transaction: marks it accepted, adds the user unless this id is known, and gives him its membership;
        one that he has in the same tenant keeps its roles beside the new ones. False, and nothing changed: it is not
        open, or the user is new and somebody has the address.
        """

    async def add_session(self, session: Session) -> None:
        """Notes the sign-in on its user, too."""

    async def signed(self, digest: bytes) -> Signed | None:
        """The session with its user, over or not."""

    async def sessions(self, user_id: UUID) -> list[Session]:
        """The newest first, those that are over among them until they are forgotten."""

    async def touch_session(self, digest: bytes, *, now: datetime, before: datetime) -> bool:
        """Notes that it was used; False, and nothing written, when that was noted after `before`."""

    async def move_session(self, digest: bytes, tenant: str | None) -> bool:
        """From now on its user acts there."""

    async def end_session(self, digest: bytes, *, now: datetime) -> bool:
        """False: it had ended before."""

    async def end_sessions(
        self, user_id: UUID, *, but: bytes | None = None, tenant: str | None = None, now: datetime
    ) -> int:
        """All that have not ended, or those that act in the tenant, but for the one of that digest; answers how
        many.
        """

    async def forget_past_people(self, *, before: datetime) -> int:
        """Deletes sessions and invitations that were over before that moment; answers how many."""

    async def note_standing(self, tenant: str, state: str, revision: int) -> bool:
        """What tenancy said of the tenant; False, and nothing written: a later word is known."""

    async def standing(self, tenant: str) -> str | None:
        """The state that was last noted."""
