"""`unwind policies ...`: what a tenant forbids itself beyond permissions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from scripts.answer import Answer
from scripts.border import verb
from scripts.verbs.runs import Tenant

app = typer.Typer(no_args_is_help=True, help="What a tenant forbids itself.")


@verb(app, "show")
async def show(tenant: Tenant = None) -> Answer:
    """The tenant's policies."""
    from scripts.reach import reach

    async with reach() as api:
        found = await api.get("/v1/policies", tenant=tenant)
    return Answer(found, _shown(found))


@verb(app, "set")
async def change(
    approvals_own: Annotated[
        str, typer.Option("--approvals-own", help="allow or forbid: may somebody decide on a run that he triggered?")
    ],
    tenant: Tenant = None,
) -> Answer:
    """Change the tenant's policies; it stands in its audit."""
    from scripts.reach import reach

    async with reach() as api:
        found = await api.post("/v1/policies", {"approvals_own": approvals_own}, tenant=tenant)
    return Answer(found, _shown(found))


def _shown(found: dict[str, Any]) -> str:
    return f"approvals of one's own runs: {found['approvals_own']}"
