"""The `PeopleRows` port, once for both drivers. It hashes and judges nothing: `engine.people` does."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from engine.store.people import Identity, Invitation, Membership, Person, Session, Signed, User
from engine.store.rows import Row, document, instant, maybe_instant, uuid
from engine.store.statements import Caller


class PeopleVerbs(Caller):
    """See `engine.store.people.PeopleRows`; docstrings are there."""

    async def add_user(self, user: User) -> bool:
        return bool(
            await self.call(
                "add_user",
                id=user.id,
                email=user.email,
                name=user.name,
                password=user.password,
                created_at=user.created_at,
            )
        )

    async def person(self, user_id: UUID) -> Person | None:
        return _one(_people(await self.call("person", id=user_id)))

    async def person_by_email(self, email: str) -> Person | None:
        return _one(_people(await self.call("person_by_email", email=email)))

    async def person_by_identity(self, issuer: str, subject: str) -> Person | None:
        return _one(_people(await self.call("person_by_identity", issuer=issuer, subject=subject)))

    async def people(self, tenant: str | None, *, limit: int, after: UUID | None = None) -> list[Person]:
        return _people(await self.call("people", tenant=tenant, limit=limit, after=after))

    async def set_password(self, user_id: UUID, password: str | None, *, was: str | None) -> bool:
        return bool(await self.call("set_password", id=user_id, password=password, was=was))

    async def disable_user(self, user_id: UUID, *, now: datetime | None) -> bool:
        return bool(await self.call("disable_user", id=user_id, disabled_at=now))

    async def remove_user(self, user_id: UUID) -> bool:
        return bool(await self.call("remove_user", id=user_id))

    async def put_membership(self, membership: Membership) -> None:
        await self.call(
            "put_membership",
            user_id=membership.user_id,
            tenant=membership.tenant,
            roles=list(membership.roles),
            created_at=membership.created_at,
            disabled_at=membership.disabled_at,
        )

    async def remove_membership(self, user_id: UUID, tenant: str | None, *, now: datetime) -> bool:
        return bool(await self.call("remove_membership", user_id=user_id, tenant=tenant, now=now))

    async def add_identity(self, identity: Identity) -> bool:
        return bool(
            await self.call(
                "add_identity",
                issuer=identity.issuer,
                subject=identity.subject,
                user_id=identity.user_id,
                created_at=identity.created_at,
            )
        )

    async def identities(self, user_id: UUID) -> list[Identity]:
        return [_identity(row) for row in await self.call("identities", user_id=user_id)]

    async def remove_identity(self, issuer: str, subject: str) -> bool:
        return bool(await self.call("remove_identity", issuer=issuer, subject=subject))

    async def add_invitation(self, invitation: Invitation) -> None:
        await self.call(
            "add_invitation",
            id=invitation.id,
            digest=invitation.digest,
            email=invitation.email,
            tenant=invitation.tenant,
            roles=list(invitation.roles),
            invited_by=invitation.invited_by,
            created_at=invitation.created_at,
            expires_at=invitation.expires_at,
        )

    async def invitation(self, invitation_id: UUID) -> Invitation | None:
        found = await self.call("invitation", id=invitation_id)
        return _invitation(found[0]) if found else None

    async def invitation_by_digest(self, digest: bytes) -> Invitation | None:
        found = await self.call("invitation_by_digest", digest=digest)
        return _invitation(found[0]) if found else None

    async def invitations(self, tenant: str | None, *, email: str | None = None) -> list[Invitation]:
        return [_invitation(row) for row in await self.call("invitations", tenant=tenant, email=email)]

    async def revoke_invitation(self, invitation_id: UUID, *, now: datetime) -> bool:
        return bool(await self.call("revoke_invitation", id=invitation_id, now=now))

    async def accept_invitation(self, invitation_id: UUID, user: User, *, now: datetime) -> bool:
        found = await self.call(
            "accept_invitation",
            id=invitation_id,
            user_id=user.id,
            email=user.email,
            name=user.name,
            password=user.password,
            now=now,
        )
        return bool(found)

    async def add_session(self, session: Session) -> None:
        await self.call(
            "add_session",
            digest=session.digest,
            user_id=session.user_id,
            tenant=session.tenant,
            created_at=session.created_at,
            expires_at=session.expires_at,
            address=session.address,
            agent=session.agent,
        )

    async def signed(self, digest: bytes) -> Signed | None:
        found = await self.call("signed", digest=digest)
        person = _one(_people(found))
        if person is None:
            return None
        row = found[0]
        session = Session(
            digest=digest,
            user_id=person.user.id,
            tenant=row["acts_in"],
            created_at=instant(row["began_at"]),
            last_seen_at=instant(row["last_seen_at"]),
            expires_at=instant(row["expires_at"]),
            address=row["address"],
            agent=row["agent"],
            revoked_at=maybe_instant(row["revoked_at"]),
        )
        states = {row["tenant"]: row["state"] for row in found if row["state"] is not None}
        return Signed(session=session, person=person, states=states)

    async def sessions(self, user_id: UUID) -> list[Session]:
        return [_session(row) for row in await self.call("sessions", user_id=user_id)]

    async def touch_session(self, digest: bytes, *, now: datetime, before: datetime) -> bool:
        return bool(await self.call("touch_session", digest=digest, now=now, before=before))

    async def move_session(self, digest: bytes, tenant: str | None) -> bool:
        return bool(await self.call("move_session", digest=digest, tenant=tenant))

    async def end_session(self, digest: bytes, *, now: datetime) -> bool:
        return bool(await self.call("end_session", digest=digest, now=now))

    async def end_sessions(
        self, user_id: UUID, *, but: bytes | None = None, tenant: str | None = None, now: datetime
    ) -> int:
        return len(await self.call("end_sessions", user_id=user_id, but=but, tenant=tenant, now=now))

    async def forget_past_people(self, *, before: datetime) -> int:
        return len(await self.call("forget_past_people", before=before))

    async def note_standing(self, tenant: str, state: str, revision: int) -> bool:
        return bool(await self.call("note_standing", tenant=tenant, state=state, revision=revision))

    async def standing(self, tenant: str) -> str | None:
        found = await self.call("standing", tenant=tenant)
        return str(found[0]["state"]) if found else None


def _one(people: list[Person]) -> Person | None:
    return people[0] if people else None


def _people(rows: Iterable[Row]) -> list[Person]:
    """Rows of users, each as often as it has memberships here, or once without one."""
    users: dict[UUID, User] = {}
    memberships: dict[UUID, list[Membership]] = {}
    for row in rows:
        ident = uuid(row["id"])
        users[ident] = User(
            id=ident,
            email=row["email"],
            name=row["name"],
            created_at=instant(row["created_at"]),
            password=row["password"],
            disabled_at=maybe_instant(row["disabled_at"]),
            signed_in_at=maybe_instant(row["signed_in_at"]),
        )
        held = memberships.setdefault(ident, [])
        if row["roles"] is not None:
            held.append(
                Membership(
                    user_id=ident,
                    tenant=row["tenant"],
                    roles=tuple(document(row["roles"])),
                    created_at=instant(row["member_since"]),
                    disabled_at=maybe_instant(row["member_disabled_at"]),
                )
            )
    return [Person(user=user, memberships=tuple(memberships[ident])) for ident, user in users.items()]


def _identity(row: Row) -> Identity:
    return Identity(
        issuer=row["issuer"],
        subject=row["subject"],
        user_id=uuid(row["user_id"]),
        created_at=instant(row["created_at"]),
    )


def _invitation(row: Row) -> Invitation:
    return Invitation(
        id=uuid(row["id"]),
        digest=row["digest"],
        email=row["email"],
        tenant=row["tenant"],
        roles=tuple(document(row["roles"])),
        invited_by=row["invited_by"],
        created_at=instant(row["created_at"]),
        expires_at=instant(row["expires_at"]),
        accepted_at=maybe_instant(row["accepted_at"]),
        revoked_at=maybe_instant(row["revoked_at"]),
    )


def _session(row: Row) -> Session:
    return Session(
        digest=row["digest"],
        user_id=uuid(row["user_id"]),
        tenant=row["tenant"],
        created_at=instant(row["created_at"]),
        last_seen_at=instant(row["last_seen_at"]),
        expires_at=instant(row["expires_at"]),
        address=row["address"],
        agent=row["agent"],
        revoked_at=maybe_instant(row["revoked_at"]),
    )
