"""The identity module: users of a tenant, and whether they may sign in."""

from __future__ import annotations

from consumers.modules.rehearsal import SQL as REHEARSAL
from consumers.modules.rehearsal import Rehearsal
from consumers.modules.settings import ModuleSettings
from consumers.modules.standing import SQL as STANDING
from consumers.modules.standing import Standing
from contracts.modules import identity as contract
from contracts.sdk import Call, Question, Refused, Service, Transport, Tx
from contracts.sdk.call import UNDO_SUFFIX
from contracts.sdk.statements import statements

SQL = statements("identity.sql", "consumers.modules")


def make(transport: Transport, settings: ModuleSettings) -> Service:
    service = Service(
        contract.MODULE,
        transport=transport,
        database=settings.database("identity"),
        schemas=(SQL["schema"], STANDING["schema"], REHEARSAL["schema"]),
        max_attempts=settings.max_attempts,
        drain_seconds=settings.drain_seconds,
        relay_lease_seconds=settings.relay_lease_seconds,
    )
    Rehearsal(service, allowed=settings.rehearsals)
    _Door(service, Standing(service))
    service.handles(contract.DisableUserV1)(disable)
    service.handles(contract.RemoveUserV1)(remove)
    service.handles(contract.ConfirmEmailV1)(confirm_email)
    service.handles(contract.BlockSignInsV1)(block)
    service.handles(contract.UnblockSignInsV1)(unblock)
    service.handles(contract.AllowSignInsV1)(allow)
    service.handles(contract.DisableUsersV1)(disable_users)
    service.handles(contract.RestoreUsersV1)(restore_users)
    return service


class _Door:
    """What lets somebody in, now or later; shut while the tenant is suspended, and for good when it is closed."""

    def __init__(self, service: Service, standing: Standing) -> None:
        self._standing = standing
        service.handles(contract.InviteUserV1)(self.invite)
        service.handles(contract.CreateUserV1)(self.create)
        service.handles(contract.ActivateUserV1)(self.activate)
        service.answers(contract.CanSignInV1)(self.can_sign_in)

    async def invite(self, command: contract.InviteUserV1, call: Call, tx: Tx) -> contract.UserInvitedV1:
        await self._standing.require(call.tenant, tx)
        user = command.user_id or call.new_id("usr")
        await _add(user, command.email, command.name, command.role, "invited", call, tx)
        return contract.UserInvitedV1(user_id=user, email=command.email, name=command.name, role=command.role)

    async def create(self, command: contract.CreateUserV1, call: Call, tx: Tx) -> contract.UserCreatedV1:
        await self._standing.require(call.tenant, tx)
        user = call.new_id("usr")
        await _add(user, command.email, command.name, "member", "active", call, tx)
        return contract.UserCreatedV1(user_id=user, email=command.email, name=command.name)

    async def activate(self, command: contract.ActivateUserV1, call: Call, tx: Tx) -> contract.UserActivatedV1:
        await self._standing.require(call.tenant, tx)
        user = await tx.row(SQL["find"], call.tenant, command.user_id)
        if user is None or user["state"] == "disabled":
            raise Refused("user_unknown", "there is no such user, or the invitation was withdrawn")
        await tx.run(SQL["set_state"], call.tenant, command.user_id, "active")
        return contract.UserActivatedV1(user_id=command.user_id)

    async def can_sign_in(self, query: contract.CanSignInV1, question: Question, tx: Tx) -> contract.SignInAnswerV1:
        user = await tx.row(SQL["find_by_email"], question.tenant, _address_key(query.email))
        if user is None:
            return contract.SignInAnswerV1(allowed=False, reason="unknown")
        barred = await self._standing.barred(question.tenant, tx)
        if barred is not None:
            return contract.SignInAnswerV1(allowed=False, reason="blocked", user_id=user["user_id"], code=barred)
        if user["state"] != "active":
            return contract.SignInAnswerV1(allowed=False, reason=user["state"], user_id=user["user_id"])
        if await tx.row(SQL["blocked"], question.tenant) is not None:
            return contract.SignInAnswerV1(allowed=False, reason="blocked", user_id=user["user_id"])
        return contract.SignInAnswerV1(allowed=True, reason="ok", user_id=user["user_id"])


async def disable(command: contract.DisableUserV1, call: Call, tx: Tx) -> contract.UserDisabledV1:
    if command.receipt is None:
        return contract.UserDisabledV1()
    await tx.run(SQL["set_state"], call.tenant, command.receipt.user_id, "disabled")
    return contract.UserDisabledV1(user_id=command.receipt.user_id)


async def remove(command: contract.RemoveUserV1, call: Call, tx: Tx) -> contract.UserRemovedV1:
    if command.receipt is None:
        return contract.UserRemovedV1()
    await tx.run(SQL["remove"], call.tenant, command.receipt.user_id)
    return contract.UserRemovedV1(user_id=command.receipt.user_id)


async def confirm_email(command: contract.ConfirmEmailV1, call: Call, tx: Tx) -> contract.EmailConfirmedV1:
    user = await tx.row(SQL["find"], call.tenant, command.user_id)
    if user is None:
        raise Refused("user_unknown", "there is no such user")
    await tx.run(SQL["confirm"], call.tenant, command.user_id)
    return contract.EmailConfirmedV1(user_id=command.user_id, email=user["email"])


async def block(command: contract.BlockSignInsV1, call: Call, tx: Tx) -> contract.SignInsBlockedV1:
    await tx.run(SQL["block"], call.tenant, command.reason, call.at)
    return contract.SignInsBlockedV1(tenant=call.tenant, reason=command.reason)


async def unblock(command: contract.UnblockSignInsV1, call: Call, tx: Tx) -> contract.SignInsUnblockedV1:
    if command.receipt is not None:
        await tx.run(SQL["unblock"], call.tenant)
    return contract.SignInsUnblockedV1(tenant=call.tenant)


async def allow(command: contract.AllowSignInsV1, call: Call, tx: Tx) -> contract.SignInsUnblockedV1:
    await tx.run(SQL["unblock"], call.tenant)
    return contract.SignInsUnblockedV1(tenant=call.tenant)


async def disable_users(command: contract.DisableUsersV1, call: Call, tx: Tx) -> contract.UsersDisabledV1:
    count = await tx.run(SQL["remember_states"], call.tenant, call.key)
    await tx.run(SQL["disable_all"], call.tenant)
    return contract.UsersDisabledV1(tenant=call.tenant, count=count)


async def restore_users(command: contract.RestoreUsersV1, call: Call, tx: Tx) -> contract.UsersRestoredV1:
    if command.receipt is None:
        return contract.UsersRestoredV1(tenant=call.tenant, count=0)
    order = call.key.removesuffix(UNDO_SUFFIX)
    count = await tx.run(SQL["restore_states"], call.tenant, order)
    await tx.run(SQL["forget_states"], call.tenant, order)
    return contract.UsersRestoredV1(tenant=call.tenant, count=count)


async def _add(user: str, email: str, name: str, role: str, state: contract.UserState, call: Call, tx: Tx) -> None:
    added = await tx.run(SQL["add"], call.tenant, user, email, _address_key(email), name, role, state, False, call.at)
    if not added:
        raise Refused("email_taken", "another user of the tenant has this address")


def _address_key(email: str) -> str:
    return email.strip().casefold()
