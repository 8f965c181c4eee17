"""`unwind users ...` and `unwind invitations ...`: people who sign in. A password comes from a prompt or from standard
input, never from the command line, which other users of the machine can read.

Making a user, and setting a password that somebody forgot, work on the store itself, as `unwind tokens` does: the first
admin must come from somewhere. All else is asked of the API.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.answer import Answer, instant, listed, pairs, table
from scripts.border import verb
from scripts.verbs.runs import Tenant

if TYPE_CHECKING:
    from engine.people import People
    from scripts.reach import Api

app = typer.Typer(no_args_is_help=True, help="People who sign in: create, invite, change, shut out.")
invitations = typer.Typer(no_args_is_help=True, help="Invitations that are open or lately were.")

Who = Annotated[str, typer.Argument(help="E-mail address or id of the user.", metavar="USER")]
Email = Annotated[str, typer.Argument(help="E-mail address.", metavar="EMAIL")]
Roles = Annotated[
    list[str] | None,
    typer.Option("--role", help="viewer, author, publisher, approver, operator, auditor, admin; repeatable."),
]


@verb(app, "create")
async def create(
    email: Email,
    name: Annotated[str, typer.Option("--name", help="As others see it.")],
    role: Roles = None,
    admin: Annotated[bool, typer.Option("--admin", help="The same as --role admin.")] = False,
    tenant: Annotated[
        str | None, typer.Option("--tenant", "-t", help="Where the user is a member; none: the platform.")
    ] = None,
) -> Answer:
    """Make a user at once, without an invitation. Asks for the password, or reads it from standard input."""
    from scripts.opening import local_user

    roles = [*(role or ()), *(["admin"] if admin else ())]
    password = _password()
    async with _people() as people:
        person = await people.create(email, name, password, tenant, roles, by=local_user())
    user = person.user
    document = {"id": str(user.id), "email": user.email, "name": user.name, "tenant": tenant, "roles": roles}
    return Answer(document, f"{user.email} is {user.actor}")


@verb(app, "set-password")
async def set_password(email: Email) -> Answer:
    """Give a user who forgot it a new password, and end his sessions. Asks for it, or reads it from standard input."""
    from contracts.problems import NotFound
    from engine.people import address_of
    from scripts.opening import local_user

    async with _people() as people:
        person = await people.rows.person_by_email(address_of(email))
        if person is None:
            raise NotFound(f"nobody has the address {email}; see `unwind users list`", field="EMAIL")
        ended = await people.change_password(person, None, _password(), by=local_user())
    return Answer({"id": str(person.user.id), "ended": ended}, f"{person.user.email} has a new password")


@verb(app, "list")
async def list_users(
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most users.")] = 100,
    cursor: Annotated[str | None, typer.Option(help="The next page, as told below the one before.")] = None,
) -> Answer:
    """Members of a tenant; without one everybody."""
    from scripts.reach import reach

    async with reach() as api:
        found = await api.get("/v1/users", tenant=tenant, limit=limit, cursor=cursor)
    rows = [
        (
            one["email"],
            one["name"],
            one["id"],
            "; ".join(_place(place) for place in one["memberships"]),
            instant(one["signed_in_at"]),
            "yes" if one["disabled"] else None,
        )
        for one in found["items"]
    ]
    return listed(found, table(("EMAIL", "NAME", "ID", "MEMBER OF", "SIGNED IN", "DISABLED"), rows, empty="No users."))


@verb(app, "show")
async def show(who: Who, tenant: Tenant = None) -> Answer:
    """One user."""
    from scripts.reach import reach

    async with reach() as api:
        one = await _found(api, who, tenant)
    shown = {
        "email": one["email"],
        "name": one["name"],
        "actor": one["actor"],
        "member of": "; ".join(_place(place) for place in one["memberships"]),
        "password": "yes" if one["has_password"] else "none",
        "created": instant(one["created_at"]),
        "signed in": instant(one["signed_in_at"]),
        "disabled": "yes" if one["disabled"] else "no",
    }
    return Answer(one, pairs(shown))


@verb(app, "invite")
async def invite(email: Email, role: Roles = None, tenant: Tenant = None) -> Answer:
    """Invite somebody and print the token, this once and never again; give it to whom it is for."""
    from scripts.reach import reach

    async with reach() as api:
        made = await api.post("/v1/invitations", {"email": email, "roles": role or []}, act_for=tenant)
    print(f"invitation {made['id']} holds until {instant(made['expires_at'])}", file=sys.stderr)
    return Answer(made, str(made["token"]))


@verb(app, "roles")
async def change_roles(who: Who, role: Roles = None, tenant: Tenant = None) -> Answer:
    """Set what a member may do in a tenant, or in the platform; without a role he is a member no more."""
    return await _changed(who, tenant, {"roles": role or []}, "has other roles")


@verb(app, "disable")
async def disable(who: Who, tenant: Tenant = None) -> Answer:
    """Shut a user out of a tenant, or without one of everything; his sessions end at once."""
    return await _changed(who, tenant, {"disabled": True}, "is disabled")


@verb(app, "enable")
async def enable(who: Who, tenant: Tenant = None) -> Answer:
    """Let a disabled user in again."""
    return await _changed(who, tenant, {"disabled": False}, "is enabled")


@verb(app, "sign-out")
async def sign_out(who: Who, tenant: Tenant = None) -> Answer:
    """End a user's sessions in a tenant, or all of them."""
    from scripts.reach import reach, segment

    async with reach() as api:
        found = await _found(api, who, tenant)
        ended = await api.delete(f"/v1/users/{segment(found['id'])}/sessions", tenant=tenant)
    return Answer(ended, f"{ended['ended']} sessions of {found['email']} ended")


@verb(app, "unlink")
async def unlink(who: Who) -> Answer:
    """Forget who a user is to the identity provider; his next sign-in there may link another identity."""
    from scripts.reach import reach, segment

    async with reach() as api:
        found = await _found(api, who, None)
        gone = await api.delete(f"/v1/users/{segment(found['id'])}/identities")
    return Answer(gone, f"{gone['unlinked']} identities of {found['email']} are forgotten")


@verb(app, "erase")
async def erase(who: Who) -> Answer:
    """Delete all that is kept of a user, for good. What he did stays in the audit, under a number."""
    from scripts.reach import reach, segment

    async with reach() as api:
        found = await _found(api, who, None)
        gone = await api.delete(f"/v1/users/{segment(found['id'])}")
    return Answer(gone, f"{found['actor']} names nobody any more")


@verb(invitations, "list")
async def list_invitations(tenant: Tenant = None) -> Answer:
    """Invitations, the newest first."""
    from scripts.reach import reach

    async with reach() as api:
        found = await api.get("/v1/invitations", tenant=tenant)
    rows = [
        (
            one["id"],
            one["email"],
            one["tenant"] or "the platform",
            ",".join(one["roles"]),
            one["state"],
            instant(one["expires_at"]),
            one["invited_by"],
        )
        for one in found["items"]
    ]
    columns = ("ID", "EMAIL", "TENANT", "ROLES", "STATE", "EXPIRES", "BY")
    return Answer(found, table(columns, rows, empty="No invitations."))


@verb(invitations, "revoke")
async def revoke(
    invitation: Annotated[str, typer.Argument(help="Its id.", metavar="ID")], tenant: Tenant = None
) -> Answer:
    """Take an invitation back."""
    from scripts.reach import reach, segment

    async with reach() as api:
        gone = await api.delete(f"/v1/invitations/{segment(invitation)}", tenant=tenant)
    return Answer(gone, f"the invitation of {gone['email']} is revoked")


async def _changed(who: str, tenant: str | None, body: dict[str, Any], told: str) -> Answer:
    from scripts.reach import reach, segment

    async with reach() as api:
        found = await _found(api, who, tenant if "roles" not in body else None)
        changed = await api.patch(f"/v1/users/{segment(found['id'])}", body, act_for=tenant)
    return Answer(changed, f"{changed['email']} {told}")


async def _found(api: Api, who: str, tenant: str | None) -> dict[str, Any]:
    """The user of this address or id. Raises `NotFound`."""
    from contracts.problems import NotFound
    from scripts.reach import segment

    if "@" not in who:
        one: dict[str, Any] = await api.get(f"/v1/users/{segment(who)}", tenant=tenant)
        return one
    found = await api.get("/v1/users", tenant=tenant, email=who)
    if not found["items"]:
        raise NotFound(f"nobody here has the address {who}; see `unwind users list`", field="USER")
    first: dict[str, Any] = found["items"][0]
    return first


def _place(place: dict[str, Any]) -> str:
    off = ", disabled" if place["disabled"] else ""
    return f"{place['tenant'] or 'the platform'} ({','.join(place['roles'])}{off})"


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    given: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return given


@asynccontextmanager
async def _people() -> AsyncIterator[People]:
    from engine.brief_log import brief_log
    from engine.clock import SystemClock
    from engine.people import People
    from engine.settings import load
    from engine.store.key_ring import KeyRing
    from scripts.opening import opened_store

    settings, clock = load(), SystemClock()
    ring = KeyRing.load(settings.key_path)
    async with opened_store(settings) as store, brief_log(store, ring, clock, "people") as log:
        people = People(store, log, clock)
        try:
            yield people
        finally:
            people.passwords.stop()
