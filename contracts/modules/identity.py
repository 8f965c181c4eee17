"""Contract of the identity module: users of a tenant, who may sign in, and whose address is confirmed.

    invite or create -> invited | active -> disabled        (removed: as if never created)

While a tenant is suspended or closed, `CanSignInV1` answers no for every user, and nobody is invited, created or
activated: such an order is refused with the code tenant_suspended or tenant_closed. The states of the users stay. An
administrator can block sign-ins apart from that.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from contracts.manifest import (
    AnswerModel,
    Command,
    CommandModel,
    Event,
    EventModel,
    FailureModel,
    Module,
    Personal,
    Query,
    QueryModel,
    UndoModel,
)
from contracts.modules.faults import rehearsal, rehearsal_permission

UserState = Literal["invited", "active", "disabled"]


class UserInvitedV1(EventModel):
    user_id: str
    email: Personal
    name: Personal
    role: str
    state: UserState = "invited"


class UserCreatedV1(EventModel):
    user_id: str
    email: Personal
    name: Personal
    state: UserState = "active"


class UserActivatedV1(EventModel):
    user_id: str
    state: UserState = "active"


class UserDisabledV1(EventModel):
    """`user_id` is None when there was no such user: a late invitation under the same key is refused."""

    user_id: str | None = None


class UserRemovedV1(EventModel):
    """`user_id` is None when there was no such user: a late creation under the same key is refused."""

    user_id: str | None = None


class EmailConfirmedV1(EventModel):
    user_id: str
    email: Personal


class SignInsBlockedV1(EventModel):
    tenant: str
    reason: str


class SignInsUnblockedV1(EventModel):
    tenant: str


class UsersDisabledV1(EventModel):
    """Everybody of the tenant is disabled; `count` were not before."""

    tenant: str
    count: int


class UsersRestoredV1(EventModel):
    tenant: str
    count: int


class IdentityRefusedV1(FailureModel):
    """No retry will help: the address is taken, there is no such user, or the tenant is suspended or closed."""


class IdentityUnavailableV1(FailureModel):
    """Nothing was done; try again."""


class InviteUserV1(CommandModel):
    """Makes an invited user who becomes active by `ActivateUserV1`. `user_id` may be chosen by the caller."""

    email: Personal
    name: Personal
    role: str = Field(default="owner", min_length=1, max_length=50)
    user_id: str | None = None


class DisableUserV1(UndoModel[InviteUserV1, UserInvitedV1]):
    """The invitation no longer lets anybody in; the record stays."""


class CreateUserV1(CommandModel):
    """Makes a user who may sign in at once."""

    email: Personal
    name: Personal


class RemoveUserV1(UndoModel[CreateUserV1, UserCreatedV1]):
    """The user is gone and the address is free again."""


class ActivateUserV1(CommandModel):
    user_id: str


class ConfirmEmailV1(CommandModel):
    """What the link in the welcome mail leads to."""

    user_id: str


class BlockSignInsV1(CommandModel):
    reason: str = Field(min_length=1, max_length=500)


class UnblockSignInsV1(UndoModel[BlockSignInsV1, SignInsBlockedV1]):
    """Sign-ins work again, for whoever could sign in before."""


class AllowSignInsV1(CommandModel):
    """The same as a step of its own."""


class DisableUsersV1(CommandModel):
    """Nobody of the tenant can come in any more: it is closed."""


class RestoreUsersV1(UndoModel[DisableUsersV1, UsersDisabledV1]):
    """Whom that order disabled is again what they were, unless another user has taken the address."""


class CanSignInV1(QueryModel):
    email: Personal


class SignInAnswerV1(AnswerModel):
    allowed: bool
    reason: Literal["ok", "unknown", "invited", "disabled", "blocked"]
    user_id: str | None = None
    code: str | None = None
    """Why everybody is blocked: tenant_suspended, tenant_closed; None: sign-ins are blocked, or nobody is."""


MANAGE: Final = "identity.manage"
READ: Final = "identity.read"


def _command(model: type[CommandModel], success: type[EventModel], undo: str | None = None) -> Command:
    return Command(
        model,
        success=success,
        failures=(IdentityUnavailableV1,),
        irrecoverable=(IdentityRefusedV1,),
        undo=undo,
        coverage="retriable" if undo is None else "compensatable",
        permission=MANAGE,
    )


MODULE: Final = Module(
    name="identity",
    version="1.0.0",
    events=(
        *(
            Event(model, keys={"user": "/user_id", "email": "/email"}, subject="/user_id")
            for model in (UserInvitedV1, UserCreatedV1, EmailConfirmedV1)
        ),
        *(
            Event(model, keys={"user": "/user_id"}, subject="/user_id")
            for model in (UserActivatedV1, UserDisabledV1, UserRemovedV1)
        ),
        Event(SignInsBlockedV1, keys={"tenant": "/tenant"}),
        Event(SignInsUnblockedV1, keys={"tenant": "/tenant"}),
        Event(UsersDisabledV1, keys={"tenant": "/tenant"}),
        Event(UsersRestoredV1, keys={"tenant": "/tenant"}),
    ),
    commands=(
        _command(InviteUserV1, UserInvitedV1, undo="DisableUserV1"),
        _command(DisableUserV1, UserDisabledV1),
        _command(CreateUserV1, UserCreatedV1, undo="RemoveUserV1"),
        _command(RemoveUserV1, UserRemovedV1),
        _command(ActivateUserV1, UserActivatedV1),
        _command(ConfirmEmailV1, EmailConfirmedV1),
        _command(BlockSignInsV1, SignInsBlockedV1, undo="UnblockSignInsV1"),
        _command(UnblockSignInsV1, SignInsUnblockedV1),
        _command(AllowSignInsV1, SignInsUnblockedV1),
        _command(DisableUsersV1, UsersDisabledV1, undo="RestoreUsersV1"),
        _command(RestoreUsersV1, UsersRestoredV1),
        rehearsal("identity"),
    ),
    queries=(Query(CanSignInV1, answer=SignInAnswerV1, permission=READ),),
    permissions=(MANAGE, READ, rehearsal_permission("identity")),
)
