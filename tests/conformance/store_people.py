"""What every store driver must do about people: users, memberships, identities, invitations, sessions, standings."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from typing import Any

from engine.store import Store
from engine.store.people import Identity, Invitation, Membership, Person, Session, Signed, User
from tests.conformance.store_making import NOW, Opening, later

ANN = User(id=uuid.UUID(int=1), email="ann@example.org", name="Ann", created_at=NOW, password="$argon2id$one")
BOB = User(id=uuid.UUID(int=2), email="bob@example.org", name="Bob", created_at=NOW)


def membership(user: User = ANN, tenant: str | None = "acme", *roles: str, **more: Any) -> Membership:
    return Membership(user_id=user.id, tenant=tenant, roles=roles or ("viewer",), created_at=NOW, **more)


def session(digest: bytes = b"s1", user: User = ANN, tenant: str | None = "acme", **more: Any) -> Session:
    made = Session(
        digest=digest,
        user_id=user.id,
        tenant=tenant,
        created_at=NOW,
        last_seen_at=NOW,
        expires_at=later(hours=12),
        address="192.0.2.7",
        agent="Firefox",
    )
    return replace(made, **more)


def invitation(number: int = 1, **more: Any) -> Invitation:
    made = Invitation(
        id=uuid.UUID(int=number),
        digest=f"digest {number}".encode(),
        email=BOB.email,
        tenant="acme",
        roles=("viewer", "operator"),
        invited_by="cli:root",
        created_at=later(minutes=number),
        expires_at=later(days=7),
    )
    return replace(made, **more)


class PeopleConformance:
    async def test_a_user_is_found_by_id_address_and_identity_with_every_membership(self, store: Store) -> None:
        assert await store.add_user(ANN)
        assert await store.person(ANN.id) == Person(user=ANN, memberships=())
        both = (membership(ANN, None, "admin"), membership(ANN, "acme", "viewer", "operator"))
        for one in both:
            await store.put_membership(one)
        known = Identity(issuer="https://id.example", subject="x", user_id=ANN.id, created_at=NOW)
        assert await store.add_identity(known)
        assert await store.identities(ANN.id) == [known]
        whole = Person(user=ANN, memberships=both)
        assert await store.person(ANN.id) == whole
        assert await store.person_by_email(ANN.email) == whole
        assert await store.person_by_identity("https://id.example", "x") == whole
        assert await store.person(BOB.id) is None
        assert await store.person_by_email("ANN@example.org") is None
        assert await store.person_by_identity("https://id.example", "y") is None

    async def test_an_address_and_an_identity_belong_to_one_user(self, store: Store, opening: Opening) -> None:
        stores = [store, await opening()]
        twin = replace(ANN, id=uuid.UUID(int=9))
        assert sorted(await asyncio.gather(stores[0].add_user(ANN), stores[1].add_user(twin))) == [False, True]
        await store.add_user(BOB)
        first = Identity(issuer="https://id.example", subject="x", user_id=ANN.id, created_at=NOW)
        assert await store.add_identity(first)
        assert not await store.add_identity(replace(first, user_id=BOB.id))
        assert await store.remove_identity(first.issuer, first.subject)
        assert not await store.remove_identity(first.issuer, first.subject)
        assert await store.identities(ANN.id) == []

    async def test_people_are_listed_by_tenant_and_page_and_each_tenant_sees_its_own_membership(
        self, store: Store
    ) -> None:
        users = [replace(ANN, id=uuid.UUID(int=n), email=f"u{n}@example.org") for n in range(1, 5)]
        for user in users:
            await store.add_user(user)
            await store.put_membership(membership(user, "acme"))
            await store.put_membership(membership(user, "other", "admin"))
        await store.remove_membership(users[2].id, "acme", now=NOW)
        first = await store.people("acme", limit=2)
        assert [person.user for person in first] == users[:2]
        assert [person.memberships for person in first] == [(membership(user, "acme"),) for user in users[:2]]
        rest = await store.people("acme", limit=2, after=users[1].id)
        assert [person.user for person in rest] == [users[3]]
        everyone = await store.people(None, limit=10)
        assert [len(person.memberships) for person in everyone] == [2, 2, 1, 2]
        assert await store.people("nobody", limit=10) == []

    async def test_a_password_changes_only_from_the_one_that_was_known(self, store: Store) -> None:
        await store.add_user(ANN)
        await store.add_user(BOB)
        assert await store.set_password(ANN.id, "two", was=ANN.password)
        assert not await store.set_password(ANN.id, "three", was=ANN.password)
        assert await store.set_password(BOB.id, "one", was=None)
        assert not await store.set_password(BOB.id, "two", was=None)
        found = [await store.person(user.id) for user in (ANN, BOB)]
        assert [one.user.password for one in found if one is not None] == ["two", "one"]

    async def test_who_is_disabled_or_loses_a_membership_has_no_session_there(self, store: Store) -> None:
        for user in (ANN, BOB):
            await store.add_user(user)
            for tenant in ("acme", "other", None):
                await store.put_membership(membership(user, tenant))
                await store.add_session(session(f"{user.name} {tenant}".encode(), user, tenant))

        async def open_of(user: User) -> set[bytes]:
            return {one.digest for one in await store.sessions(user.id) if one.revoked_at is None}

        assert await store.remove_membership(ANN.id, "acme", now=later(minutes=1))
        assert not await store.remove_membership(ANN.id, "acme", now=later(minutes=2))
        assert await open_of(ANN) == {b"Ann other", b"Ann None"}
        await store.put_membership(membership(ANN, None, "viewer", disabled_at=later(minutes=1)))
        assert await open_of(ANN) == {b"Ann other"}
        await store.put_membership(membership(ANN, "other", "operator"))
        assert await open_of(ANN) == {b"Ann other"}
        assert await store.disable_user(ANN.id, now=later(minutes=3))
        assert not await store.disable_user(ANN.id, now=later(minutes=4))
        assert await open_of(ANN) == set()
        assert len(await open_of(BOB)) == 3
        found = await store.person(ANN.id)
        assert found is not None
        assert found.user.disabled_at == later(minutes=3)
        assert await store.disable_user(ANN.id, now=None)
        assert not await store.disable_user(ANN.id, now=None)
        assert await open_of(ANN) == set()

    async def test_a_session_tells_its_user_his_memberships_and_what_tenancy_said(self, store: Store) -> None:
        await store.add_user(ANN)
        held = (membership(ANN, "acme"), membership(ANN, "other", disabled_at=NOW))
        for one in held:
            await store.put_membership(one)
        await store.add_session(session())
        signed_in = replace(ANN, signed_in_at=NOW)
        expected = Signed(session=session(), person=Person(user=signed_in, memberships=held), states={})
        assert await store.signed(b"s1") == expected
        assert await store.note_standing("other", "Suspended", 4)
        assert await store.signed(b"s1") == replace(expected, states={"other": "Suspended"})
        assert await store.signed(b"s2") is None
        assert await store.move_session(b"s1", None)
        moved = await store.signed(b"s1")
        assert moved is not None
        assert moved.session.tenant is None
        await store.remove_membership(ANN.id, "acme", now=NOW)
        await store.remove_membership(ANN.id, "other", now=NOW)
        bare = await store.signed(b"s1")
        assert bare is not None
        assert bare.person.memberships == ()

    async def test_a_session_is_touched_at_most_once_within_a_span_and_ends_once(self, store: Store) -> None:
        await store.add_user(ANN)
        await store.add_session(session())
        assert not await store.touch_session(b"s1", now=later(seconds=59), before=later(seconds=-1))
        assert await store.touch_session(b"s1", now=later(seconds=60), before=NOW)
        [seen] = await store.sessions(ANN.id)
        assert seen == session(last_seen_at=later(seconds=60))
        assert await store.end_session(b"s1", now=later(minutes=2))
        assert not await store.end_session(b"s1", now=later(minutes=3))
        assert not await store.move_session(b"s1", None)
        [ended] = await store.sessions(ANN.id)
        assert ended.revoked_at == later(minutes=2)

    async def test_nobody_is_signed_in_to_a_database_that_was_put_back(self, store: Store) -> None:
        await store.add_user(ANN)
        await store.add_session(session())
        await store.restored()
        assert await store.signed(b"s1") is None

    async def test_all_sessions_but_one_end_and_those_that_are_over_are_not_counted(self, store: Store) -> None:
        await store.add_user(ANN)
        for name in (b"here", b"there", b"over"):
            await store.add_session(session(name, expires_at=later(hours=0 if name == b"over" else 12)))
        await store.add_session(session(b"bob's", BOB))
        assert await store.end_sessions(ANN.id, but=b"here", now=later(minutes=1)) == 1
        assert await store.end_sessions(ANN.id, but=b"here", now=later(minutes=1)) == 0
        assert await store.end_sessions(ANN.id, tenant="other", now=later(minutes=1)) == 0
        assert await store.end_sessions(ANN.id, tenant="acme", now=later(minutes=1)) == 1
        assert await store.end_sessions(ANN.id, now=later(minutes=1)) == 0
        [bobs] = await store.sessions(BOB.id)
        assert bobs.revoked_at is None

    async def test_an_invitation_is_accepted_once_and_brings_user_and_membership(
        self, store: Store, opening: Opening
    ) -> None:
        stores = [store, await opening()]
        given = invitation()
        await store.add_invitation(given)
        assert await store.invitation(given.id) == given
        assert await store.invitation_by_digest(given.digest) == given
        accepted = await asyncio.gather(*(one.accept_invitation(given.id, BOB, now=later(minutes=5)) for one in stores))
        assert sorted(accepted) == [False, True]
        brought = membership(BOB, "acme", "viewer", "operator")
        found = await store.person(BOB.id)
        assert found == Person(
            user=replace(BOB, created_at=later(minutes=5)),
            memberships=(replace(brought, created_at=later(minutes=5)),),
        )
        kept = await store.invitation(given.id)
        assert kept == replace(given, accepted_at=later(minutes=5))
        assert not await store.revoke_invitation(given.id, now=later(minutes=6))

    async def test_who_is_known_keeps_his_roles_beside_those_of_an_invitation(self, store: Store) -> None:
        await store.add_user(BOB)
        await store.put_membership(membership(BOB, "acme", "approver", "viewer", disabled_at=NOW))
        await store.add_invitation(invitation())
        assert await store.accept_invitation(invitation().id, BOB, now=later(minutes=5))
        found = await store.person(BOB.id)
        assert found is not None
        [held] = found.memberships
        assert held == membership(BOB, "acme", "approver", "operator", "viewer", disabled_at=NOW)
        assert found.user == BOB

    async def test_an_invitation_that_is_over_or_not_for_this_user_changes_nothing(self, store: Store) -> None:
        await store.add_user(ANN)
        for number in (1, 2, 3, 4):
            await store.add_invitation(invitation(number))
        assert await store.revoke_invitation(uuid.UUID(int=1), now=later(minutes=9))
        assert not await store.revoke_invitation(uuid.UUID(int=1), now=later(minutes=9))
        assert not await store.accept_invitation(uuid.UUID(int=1), BOB, now=later(minutes=9))
        assert not await store.accept_invitation(uuid.UUID(int=2), BOB, now=later(days=7))
        assert not await store.accept_invitation(uuid.UUID(int=9), BOB, now=later(minutes=9))
        taken = replace(BOB, email=ANN.email)
        assert not await store.accept_invitation(uuid.UUID(int=3), taken, now=later(minutes=9))
        await store.disable_user(ANN.id, now=NOW)
        assert not await store.accept_invitation(uuid.UUID(int=4), ANN, now=later(minutes=9))
        assert await store.person(BOB.id) is None
        found = await store.person(ANN.id)
        assert found is not None
        assert found.memberships == ()
        open_ones = [one.id.int for one in await store.invitations("acme") if one.open_at(later(minutes=9))]
        assert open_ones == [4, 3, 2]
        assert await store.invitations("other") == []
        assert await store.invitations("acme", email="ann@example.org") == []
        assert len(await store.invitations(None, email=BOB.email)) == 4

    async def test_what_is_over_is_forgotten_after_a_while(self, store: Store) -> None:
        await store.add_user(ANN)
        await store.add_session(session(b"over", expires_at=later(hours=1)))
        await store.add_session(session(b"ended", expires_at=later(days=9)))
        await store.add_session(session(b"open", expires_at=later(days=9)))
        await store.end_session(b"ended", now=later(hours=2))
        for number, more in enumerate(({"expires_at": later(hours=1)}, {}, {}, {}), start=1):
            await store.add_invitation(invitation(number, **more))
        await store.revoke_invitation(uuid.UUID(int=2), now=later(hours=2))
        await store.accept_invitation(uuid.UUID(int=3), BOB, now=later(hours=2))
        assert await store.forget_past_people(before=later(hours=3)) == 5
        assert await store.forget_past_people(before=later(hours=3)) == 0
        assert [one.digest for one in await store.sessions(ANN.id)] == [b"open"]
        assert [one.id.int for one in await store.invitations(None)] == [4]

    async def test_a_user_who_is_removed_leaves_nothing(self, store: Store) -> None:
        for user in (ANN, BOB):
            await store.add_user(user)
            await store.put_membership(membership(user))
            await store.add_session(session(user.name.encode(), user))
            await store.add_identity(
                Identity(issuer="https://id.example", subject=user.name, user_id=user.id, created_at=NOW)
            )
        await store.add_invitation(invitation(1))
        await store.add_invitation(invitation(2, email=ANN.email))
        assert await store.remove_user(BOB.id)
        assert not await store.remove_user(BOB.id)
        assert await store.person_by_email(BOB.email) is None
        assert await store.sessions(BOB.id) == []
        assert await store.identities(BOB.id) == []
        assert [one.email for one in await store.invitations(None)] == [ANN.email]
        assert len(await store.people("acme", limit=5)) == 1
        assert await store.signed(b"Ann") is not None

    async def test_the_latest_word_about_a_tenant_holds_in_whatever_order_it_comes(self, store: Store) -> None:
        assert await store.standing("acme") is None
        assert await store.note_standing("acme", "Suspended", 3)
        assert await store.note_standing("acme", "Active", 4)
        assert not await store.note_standing("acme", "Suspended", 3)
        assert not await store.note_standing("acme", "Suspended", 4)
        assert await store.standing("acme") == "Active"

    async def test_a_tenant_that_is_forgotten_takes_its_people_along_and_no_others(self, store: Store) -> None:
        for user in (ANN, BOB):
            await store.add_user(user)
            await store.put_membership(membership(user, "acme"))
            await store.add_session(session(user.name.encode(), user))
            await store.add_identity(
                Identity(issuer="https://id.example", subject=user.name, user_id=user.id, created_at=NOW)
            )
        await store.put_membership(membership(BOB, "other"))
        await store.add_session(session(b"elsewhere", BOB, "other"))
        await store.add_invitation(invitation(1))
        await store.add_invitation(invitation(2, tenant="other", email=ANN.email))
        await store.note_standing("acme", "Decommissioned", 9)
        await store.forget_tenant("acme")
        assert await store.person(ANN.id) is None
        assert await store.identities(ANN.id) == []
        found = await store.person(BOB.id)
        assert found is not None
        assert found.memberships == (membership(BOB, "other"),)
        assert len(await store.identities(BOB.id)) == 1
        assert [one.digest for one in await store.sessions(BOB.id)] == [b"elsewhere"]
        assert [one.tenant for one in await store.invitations(None)] == ["other"]
        assert await store.standing("acme") is None
