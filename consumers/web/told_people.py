"""What goes out over HTTP about people. As `consumers.web.told`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from consumers.web.asked import Instant
from consumers.web.told import Told


class SignedInUser(Told):
    id: str
    email: str
    name: str


class Place(Told):
    """Where a user may act. `tenant` null: in the platform. `barred` is the code under which nobody may act there now:
    tenant_suspended or tenant_closed.
    """

    tenant: str | None
    roles: list[str]
    barred: str | None = None


class SessionTold(Told):
    user: SignedInUser
    tenant: str | None = Field(description="Where the user acts; null: in the platform")
    roles: list[str]
    permissions: list[str]
    memberships: list[Place]
    csrf_token: str = Field(description="Send it in X-CSRF-Token with everything but GET and HEAD")
    expires_at: Instant
    idle_seconds: float = Field(description="Without use for so long, the session ends before that")


class Provider(Told):
    name: str = Field(description="What people call it")
    start: str = Field(description="Where to send the browser: GET, with return_to")


class Providers(Told):
    items: list[Provider]


class Onward(Told):
    location: str = Field(description="The same as the header Location")


class SignedOut(Told):
    ended: int = Field(description="Sessions that ended")


class SessionEntry(Told):
    tenant: str | None
    created_at: Instant
    last_seen_at: Instant = Field(description="To the minute")
    expires_at: Instant
    address: str
    agent: str
    current: bool


class SessionEntries(Told):
    items: list[SessionEntry]


class Invitation(Told):
    id: str
    email: str
    tenant: str | None
    roles: list[str]
    invited_by: str
    created_at: Instant
    expires_at: Instant
    state: Literal["open", "accepted", "revoked", "expired"]


class Invitations(Told):
    items: list[Invitation]


class InvitationToken(Invitation):
    """The invitation with its token, which is told this once and never again: give it to whom it is for."""

    token: str


class Member(Told):
    tenant: str | None
    roles: list[str]
    since: Instant
    disabled: bool


class User(Told):
    """With the memberships that whoever asks may see. `disabled`: the user is nobody anywhere. `signed_in_at` is told
    to the platform only.
    """

    id: str
    actor: str = Field(description="The user's name in the audit and of runs")
    email: str
    name: str
    disabled: bool
    has_password: bool
    created_at: Instant
    signed_in_at: Instant | None
    memberships: list[Member]


class Users(Told):
    items: list[User]
    next: str | None


class IdentitiesUnlinked(Told):
    unlinked: int


class UserErased(Told):
    id: str
