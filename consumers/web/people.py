"""Handlers of people: invitations, users, what they may do. A tenant's admin sees and changes members of his tenant
only; without a tenant the admin of the platform means the person as a whole.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from consumers.web import asked_people as asked
from consumers.web.dispatch import uuid_text
from consumers.web.routes import Answer, Call
from contracts.envelope import format_time
from engine.people import address_of
from engine.store.people import Invitation, Person


async def list_invitations(call: Call) -> Answer:
    """The newest first; those that are over are forgotten after a while."""
    found = await call.deps.store.invitations(call.tenant)
    return Answer(content={"items": [_invitation(call, one) for one in found]})


async def invite_user(call: Call) -> Answer:
    """Into the tenant, or without one into the platform; with roles that hold no more than whoever invites."""
    given: asked.Invite = call.body
    made = await call.deps.door.people.invite(given.email, call.tenant, given.roles, by=call.principal)
    return Answer(content=_invitation(call, made.invitation) | {"token": made.token}, status=201)


async def revoke_invitation(call: Call) -> Answer:
    ident = call.identifier("invitation_id", "invitation")
    revoked = await call.deps.door.people.revoke(ident, tenant=call.tenant, by=call.principal)
    return Answer(content=_invitation(call, revoked))


async def list_users(call: Call) -> Answer:
    query: asked.UsersQuery = call.query
    people = call.deps.door.people
    if query.email is not None:
        known = await people.rows.person_by_email(address_of(query.email))
        found = [] if known is None else [await people.person(known.user.id, call.tenant)]
        members = [one for one in found if one.memberships or call.tenant is None]
        return Answer(content={"items": [_user(call, one) for one in members], "next": None})
    after = uuid_text(query.cursor, "cursor")
    found = await call.deps.store.people(call.tenant, limit=query.limit + 1, after=after)
    items = [_user(call, one) for one in found[: query.limit]]
    return Answer(content={"items": items, "next": items[-1]["id"] if len(found) > query.limit else None})


async def get_user(call: Call) -> Answer:
    return Answer(content=_user(call, await _member(call)))


async def change_user(call: Call) -> Answer:
    """Roles and whether the user may act, in the tenant; without one, the roles in the platform, and whether he may act
    anywhere.
    """
    given: asked.ChangeUser = call.body
    people, tenant = call.deps.door.people, call.tenant
    if call.principal.tenant is None:
        # The platform may make a member of whom it knows.
        person = await people.person(call.identifier("user_id", "user"), tenant)
    else:
        person = await _member(call)
    if given.roles is not None:
        await people.set_roles(person, tenant, given.roles, by=call.principal)
        person = await people.person(person.user.id, tenant)
    if given.disabled is True:
        await people.disable(person, tenant, by=call.principal)
    elif given.disabled is False:
        await people.enable(person, tenant, by=call.principal)
    return Answer(content=_user(call, await people.person(person.user.id, tenant)))


async def sign_user_out(call: Call) -> Answer:
    """Ends the user's sessions in the tenant; without one, all of them."""
    person = await _member(call)
    ended = await call.deps.door.people.end_sessions(person, call.tenant, by=call.principal.name)
    return Answer(content={"ended": ended})


async def erase_user(call: Call) -> Answer:
    """Deletes all that is kept of the user, for good. What he did stays in the audit, under a number that names nobody
    any more.
    """
    person = await _member(call)
    await call.deps.door.people.erase(person, by=call.principal)
    return Answer(content={"id": str(person.user.id)})


async def _member(call: Call) -> Person:
    ident: UUID = call.identifier("user_id", "user")
    return await call.deps.door.people.member(ident, call.tenant)


def _invitation(call: Call, invitation: Invitation) -> dict[str, Any]:
    open_now = invitation.open_at(call.deps.clock.now())
    over = "accepted" if invitation.accepted_at else "revoked" if invitation.revoked_at else "expired"
    return {
        "id": str(invitation.id),
        "email": invitation.email,
        "tenant": invitation.tenant,
        "roles": invitation.roles,
        "invited_by": invitation.invited_by,
        "created_at": format_time(invitation.created_at),
        "expires_at": format_time(invitation.expires_at),
        "state": "open" if open_now else over,
    }


def _user(call: Call, person: Person) -> dict[str, Any]:
    user = person.user
    whole = call.tenant is None
    return {
        "id": str(user.id),
        "actor": user.actor,
        "email": user.email,
        "name": user.name,
        "disabled": user.disabled_at is not None,
        "has_password": user.password is not None,
        "created_at": format_time(user.created_at),
        "signed_in_at": format_time(user.signed_in_at) if whole and user.signed_in_at is not None else None,
        "memberships": [
            {
                "tenant": one.tenant,
                "roles": one.roles,
                "since": format_time(one.created_at),
                "disabled": one.disabled_at is not None,
            }
            for one in person.memberships
        ],
    }
