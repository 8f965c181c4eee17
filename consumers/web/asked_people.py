"""What goes in over HTTP about people: sign-in, invitations, users. As `consumers.web.asked`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from consumers.web.asked import Asked, Query, TenantName

Address = Annotated[str, StringConstraints(min_length=3, max_length=254, pattern=r"^[^\x00\s@]+@[^\x00\s@]+$")]
Password = Annotated[str, StringConstraints(max_length=1_024)]
RoleName = Literal["viewer", "author", "publisher", "approver", "operator", "admin", "auditor"]


class SignIn(Asked):
    email: Annotated[str, StringConstraints(max_length=1_024)]
    password: Password
    tenant: TenantName | None = Field(
        None, description="Where to act; unless named, in the platform for its members, else in the first tenant"
    )


class BeginOidc(Query):
    return_to: str | None = Field(
        None, max_length=1_000, description="Where to go on to when signed in: a path; unless given, the front page"
    )
    tenant: TenantName | None = Field(
        None, description="Where to act; an open invitation to the verified address is accepted there"
    )


class FinishOidc(BaseModel):
    """What the provider adds to the address (RFC 6749, RFC 9207); anything else is passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    state: str | None = Field(None, max_length=200)
    code: str | None = Field(None, max_length=4_000)
    iss: str | None = Field(None, max_length=2_000)
    error: str | None = Field(None, max_length=200)


class MoveSession(Asked):
    tenant: TenantName | None = Field(description="Where to act from now on; null: in the platform")


class ChangePassword(Asked):
    old_password: Password
    password: Password = Field(description="The new one: 12 characters or more")


class AcceptInvitation(Asked):
    token: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    name: Annotated[str, StringConstraints(max_length=200)] | None = Field(
        None, description="Of who is not known yet; a user who is keeps his own"
    )
    password: Password | None = Field(
        None, description="A new one of who is not known yet, else the user's own; not needed by who is signed in"
    )


class Invite(Asked):
    email: Address
    roles: list[RoleName] = Field(min_length=1, max_length=7)


class ChangeUser(Asked):
    """What is left out or null stays."""

    roles: list[RoleName] | None = Field(None, max_length=7, description="Of the member from now on; none: no member")
    disabled: bool | None = Field(
        None, description="Whether the member may not act in the tenant; without one: nowhere"
    )

    @model_validator(mode="after")
    def _of_a_member(self) -> Self:
        if self.roles == [] and self.disabled is not None:
            raise ValueError("say roles or disabled: who has no role is no member")
        return self


class UsersQuery(Query):
    limit: int = Field(100, ge=1, le=1_000)
    cursor: str | None = Field(None, max_length=64, description="`next` of the page before")
    email: str | None = Field(None, max_length=254, description="Only the user of this address")
