"""`unwind tokens ...`: API tokens. Works on the store itself: whoever may open it could make any token anyway, and
the first one must come from somewhere. What it changes stands in the audit, by the name of the machine's user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from scripts.answer import Answer, table
from scripts.border import verb

if TYPE_CHECKING:
    from engine.guards.token_changes import TokenChanges

app = typer.Typer(no_args_is_help=True, help="API tokens; only their digests are stored.")


@verb(app, "create")
async def create(
    name: Annotated[str, typer.Argument(help="Whose token it is; stands in the audit as the actor.")],
    role: Annotated[
        list[str], typer.Option("--role", help="viewer, author, publisher, approver, operator, auditor, admin.")
    ],
    tenant: Annotated[
        str | None, typer.Option("--tenant", "-t", help="Confined to this tenant; none: a platform token.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="Expires after so many days; none: never.")] = None,
) -> Answer:
    """Make a token and print it, this once and never again."""
    from datetime import UTC, datetime, timedelta

    from engine.guards.permissions import make_token

    now = datetime.now(UTC)
    text, token = make_token(
        name, role, tenant=tenant, now=now, expires_at=now + timedelta(days=days) if days else None
    )
    async with _changes() as changes:
        await changes.add_token(token)
    document = {
        "token": text,
        "prefix": token.prefix,
        "name": name,
        "tenant": tenant,
        "roles": token.roles,
        "expires_at": token.expires_at,
    }
    return Answer(document, text)


@verb(app, "list")
async def list_tokens(
    tenant: Annotated[
        str | None, typer.Option("--tenant", "-t", help="Only this tenant's; none: the platform's.")
    ] = None,
) -> Answer:
    """Tokens by prefix, with roles, who made them and last use."""
    from engine.settings import load
    from scripts.opening import opened_store

    async with opened_store(load()) as store:
        tokens = await store.tokens(tenant)
    document = [
        {
            "prefix": token.prefix,
            "name": token.name,
            "tenant": token.tenant,
            "roles": token.roles,
            "made_by": token.made_by,
            "made_with": token.made_with,
            "created_at": token.created_at,
            "expires_at": token.expires_at,
            "revoked_at": token.revoked_at,
            "last_used_at": token.last_used_at,
        }
        for token in tokens
    ]
    rows = [
        (
            token.prefix,
            token.name,
            token.tenant,
            ",".join(token.roles),
            token.made_by,
            token.made_with,
            token.created_at,
            token.expires_at,
            token.last_used_at,
            token.revoked_at,
        )
        for token in tokens
    ]
    return Answer(
        document,
        table(
            ("PREFIX", "NAME", "TENANT", "ROLES", "MADE BY", "MADE WITH", "CREATED", "EXPIRES", "LAST USED", "REVOKED"),
            rows,
            empty="No tokens.",
        ),
    )


@verb(app, "revoke")
async def revoke(prefix: Annotated[str, typer.Argument(help="The eight characters after unw_.")]) -> Answer:
    """Make a token worthless from now on."""
    from contracts.problems import NotFound

    async with _changes() as changes:
        if not await changes.revoke_token(prefix):
            raise NotFound(
                f"no token begins with unw_{prefix}, or it was revoked before; see `unwind tokens list`", field="PREFIX"
            )
    return Answer({"prefix": prefix, "revoked": True}, f"token {prefix} is revoked")


@asynccontextmanager
async def _changes() -> AsyncIterator[TokenChanges]:
    from engine.clock import SystemClock
    from engine.guards.token_changes import TokenChanges
    from engine.settings import load
    from scripts.opening import local_user, opened_store

    settings = load()
    async with opened_store(settings) as store:
        yield TokenChanges(store, settings.key_path, SystemClock(), by=local_user())
