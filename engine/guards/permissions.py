"""Who may do what: roles, the permissions they hold, and the API tokens that carry them.

A token reads `unw_<prefix>_<secret><checksum>`; the store keeps SHA-256 of it and nothing else. Every cause of refusal
gets one and the same answer. A token of a tenant acts in that tenant only, and what belongs to another looks as if it
were not there. It knows no routes; called by the HTTP API, `unwind tokens` and the first `unwind up`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, Protocol, get_args
from uuid import UUID

from contracts.problems import Forbidden, NotFound, Problem, Unauthenticated
from engine.guards.standing import require_served
from engine.store import PresentedToken, Token
from engine.store.key_ring import write_private

Role = Literal["viewer", "author", "publisher", "approver", "operator", "admin", "auditor"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

_VIEW: Final = frozenset(
    {
        "runs.read",
        "workflows.read",
        "approvals.read",
        "usage.read",
        "accounting.read",
        "stats.read",
        "incidents.read",
        "tenants.read",
        "hooks.read",
    }
)
_OPERATE: Final = frozenset(
    {
        "events.publish", "runs.start", "runs.cancel", "runs.terminate", "runs.retry", "runs.skip", "runs.abandon",
        "runs.rerun", "runs.pause", "deadletters.read", "deadletters.redrive", "deadletters.discard", "action.http",
        "outlets.read", "outlets.redeliver",
    }
)  # fmt: skip
_AUTHOR: Final = frozenset({"workflows.write", "runs.rehearse", "action.http"})

PLATFORM: Final = frozenset(
    {
        "tenants.create", "tenants.manage", "projections.rebuild", "keys.rotate", "processes.read", "settings.write",
        "archive.manage", "tenants.offboard", "egress.write", "users.erase",
    }
)  # fmt: skip
"""What only a token without a tenant can do, whatever its role."""

EVERYONES: Final = "settings.write"
"""Held by who may change what holds for all tenants at once."""

PERMISSIONS: Final[Mapping[Role, frozenset[str]]] = {
    "viewer": _VIEW,
    "author": _VIEW | _AUTHOR,
    "publisher": _VIEW | _AUTHOR | {"workflows.publish"},
    "approver": _VIEW | {"approvals.decide"},
    "operator": _VIEW | _OPERATE | {"projections.rebuild", "processes.read", "tenants.manage"},
    "auditor": _VIEW | {"audit.read", "deadletters.read", "users.read"},
    "admin": _VIEW
    | _OPERATE
    | _AUTHOR
    | PLATFORM
    | {"workflows.publish", "approvals.decide", "audit.read", "tokens.manage", "hooks.manage", "policies.write"}
    | {"secrets.read", "secrets.write", "egress.read", "subjects.erase", "subjects.export"}
    | {"users.read", "users.manage", "outlets.manage"},
}

ALL_PERMISSIONS: Final = frozenset().union(*PERMISSIONS.values())


class AdminTokenFileBroken(Problem):
    code = "admin_token_file_broken"
    title = "The admin token file holds no token"
    exit_code = 8


class RoleUnknown(Problem):
    code = "role_unknown"
    title = "There is no such role"
    status = 422
    exit_code = 2


class MakerGone(Forbidden):
    code = "token_maker_gone"
    title = "Who made this token may not do this any more"


class TokenCatalog(Protocol):
    """The part of the store that keeps tokens."""

    async def add_token(self, token: Token) -> None: ...

    async def token(self, prefix: str) -> Token | None: ...

    async def tokens(self, tenant: str | None) -> list[Token]: ...


class PresentedTokens(Protocol):
    """The part of the store that is asked at each request with a token."""

    async def presented(self, prefix: str) -> PresentedToken | None: ...


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever a token or a session stands for. `tenant` None is the platform: it may act in every tenant. `token` is
    the one he came with, None: with none; roles of it that its maker lost are not among `roles`.
    """

    name: str
    tenant: str | None
    roles: tuple[str, ...]
    permissions: frozenset[str]
    token: Token | None = field(default=None, repr=False)

    def may(self, permission: str) -> bool:
        return permission in self.permissions

    def require(self, permission: str) -> None:
        """Raises `Forbidden` naming what is missing."""
        if permission not in self.permissions:
            remedy = "ask an admin for a role that holds it"
            if self.token is not None and self.token.roles != self.roles:
                lost = ", ".join(role for role in self.token.roles if role not in self.roles)
                remedy = f"user:{self.token.maker}, on whose rights this token stands, lost the role {lost}"
            raise Forbidden(f"this needs the permission {permission}; {remedy}")

    def reaches(self, tenant: str) -> bool:
        return self.tenant is None or self.tenant == tenant

    def require_tenant(self, tenant: str) -> str:
        """The tenant, or the very `NotFound` that a tenant which does not exist gets."""
        if not self.reaches(tenant):
            raise NotFound("there is no such thing here")
        return tenant


def permissions_of(roles: Iterable[str], tenant: str | None) -> frozenset[str]:
    """What these roles hold together; platform permissions fall away for a tenant's token. Unknown roles hold
    nothing.
    """
    held = frozenset[str]().union(*(PERMISSIONS[role] for role in ROLES if role in set(roles)))
    return held if tenant is None else held - PLATFORM


def check_roles(roles: Iterable[str]) -> tuple[str, ...]:
    """Each of them once. Raises `RoleUnknown`, for none at all too."""
    held = tuple(dict.fromkeys(roles))
    unknown = [role for role in held if role not in ROLES]
    if unknown or not held:
        raise RoleUnknown(f"roles must be among {', '.join(ROLES)}, not {', '.join(unknown) or 'none'}", field="roles")
    return held


# -------------------------------------------------------------------------------------------------------------- tokens

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH: Final = 43
_CHECK_LENGTH: Final = 6
_TOKEN: Final = re.compile(
    rf"unw_(?P<prefix>[0-9A-Za-z]{{8}})_(?P<secret>[0-9A-Za-z]{{{_SECRET_LENGTH}}})(?P<check>[0-9A-Za-z]{{{_CHECK_LENGTH}}})"
)
_NOBODY: Final = hashlib.sha256(b"no such token").digest()


def make_token(
    name: str,
    roles: Iterable[str],
    *,
    tenant: str | None,
    now: datetime,
    expires_at: datetime | None = None,
    made_with: str | None = None,
    maker: UUID | None = None,
) -> tuple[str, Token]:
    """A new token as text, shown once and never again, and as the store keeps it. See `Token` for the last two."""
    held = check_roles(roles)
    prefix = "".join(secrets.choice(_DIGITS) for _ in range(8))
    stem = f"unw_{prefix}_{_base62(int.from_bytes(secrets.token_bytes(32), 'big'), _SECRET_LENGTH)}"
    text = stem + _checksum(stem)
    token = Token(
        prefix, digest_of(text), tenant, name, held, now, expires_at=expires_at, made_with=made_with, maker=maker
    )
    return text, token


def digest_of(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def well_formed(text: str) -> bool:
    """Whether the form and the checksum are right: tells a typo from a guess without asking the store."""
    found = _TOKEN.fullmatch(text)
    return found is not None and hmac.compare_digest(_checksum(text[:-_CHECK_LENGTH]), found["check"])


def prefix_of(text: str) -> str | None:
    """The public part, for logs and for the store's look-up."""
    return text[4:12] if well_formed(text) else None


async def verify_token(catalog: PresentedTokens, text: str, *, now: datetime) -> Principal:
    """Whoever this token stands for. Malformed, unknown, wrong, expired and revoked all get the same
    `Unauthenticated`. A good one raises `TenantSuspended` or `TenantClosed` where its tenant is so, and `MakerGone`
    when its maker lost all that he gave away with it.
    """
    prefix = prefix_of(text)
    found = await catalog.presented(prefix) if prefix is not None else None
    token = found.token if found is not None else None
    # Compared even when there is nothing to compare with, so that time tells nothing.
    same = hmac.compare_digest(token.digest if token is not None else _NOBODY, digest_of(text))
    if (
        found is None
        or token is None
        or not same
        or token.revoked_at is not None
        or (token.expires_at is not None and token.expires_at <= now)
    ):
        raise unauthenticated()
    require_served(found.state)
    roles = _roles_left(found)
    return Principal(token.name, token.tenant, roles, permissions_of(roles, token.tenant), token)


def _roles_left(found: PresentedToken) -> tuple[str, ...]:
    """Those that its maker might give away now. Raises `MakerGone` when there are none."""
    token = found.token
    if found.maker_roles is None:
        return token.roles
    may = permissions_of(found.maker_roles, token.tenant)
    left = tuple(role for role in token.roles if permissions_of((role,), token.tenant) <= may)
    if not left:
        raise MakerGone(
            f"user:{token.maker}, on whose rights this token stands, may do nothing of it any more; somebody who may "
            "makes another"
        )
    return left


async def verify_authorization(catalog: PresentedTokens, header: str | None, *, now: datetime) -> Principal:
    """The same for an Authorization header, `Bearer unw_...`."""
    scheme, _, text = (header or "").partition(" ")
    return await verify_token(catalog, text.strip() if scheme.lower() == "bearer" else "", now=now)


def unauthenticated() -> Unauthenticated:
    """The one answer to every failed proof of identity."""
    return Unauthenticated("send a valid token as `Authorization: Bearer unw_...` or a valid signature, or sign in")


async def first_admin(catalog: TokenCatalog, path: Path, *, now: datetime) -> Path | None:
    """Makes the platform's first admin token when there is none, and writes it to a new 0600 file; answers the file, or
    None when a platform token exists. After a crash between file and store, the token in the file is the one stored.
    """
    if any(token.revoked_at is None for token in await catalog.tokens(None) if token.tenant is None):
        return None
    text, token = make_token("first admin", ("admin",), tenant=None, now=now)
    try:
        write_private(path, text.encode() + b"\n")
    except FileExistsError:
        kept = _read_private(path)
        if kept is None:
            raise AdminTokenFileBroken(
                f"{path} exists but holds no token; move it away and start again to get the first admin token",
                field="admin_token_file",
            ) from None
        prefix = kept[4:12]
        if await catalog.token(prefix) is not None:
            os.unlink(path)
            write_private(path, text.encode() + b"\n")
        else:
            token = Token(prefix, digest_of(kept), None, token.name, token.roles, now)
    await catalog.add_token(token)
    return path


def _read_private(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if well_formed(text) else None


def _checksum(stem: str) -> str:
    return _base62(zlib.crc32(stem.encode()), _CHECK_LENGTH)


def _base62(number: int, length: int) -> str:
    characters = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        characters.append(_DIGITS[digit])
    return "".join(reversed(characters))
