"""`unwind tenants ...`: the life of a tenant after it has become Active. `show` asks tenancy; each other verb starts
the saga that does it."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts.answer import Answer, pairs
from scripts.border import verb

app = typer.Typer(no_args_is_help=True, help="Show, suspend, reinstate and close tenants.")

Tenant = Annotated[str, typer.Argument(help="The tenant's id.", metavar="TENANT")]
Reason = Annotated[str, typer.Option("--reason", help="Why: for the record, and for the mail to the owner.")]
Key = Annotated[str | None, typer.Option("--key", help="Idempotency-Key: the same key again answers the same run.")]


@verb(app, "show")
async def show(tenant: Tenant) -> Answer:
    """A tenant's state, and what holds it."""
    from scripts.reach import reach, segment

    async with reach() as api:
        found = await api.get(f"/v1/tenants/{segment(tenant)}")
    return Answer(
        found,
        pairs(
            found
            | {
                "holds": ", ".join(found["holds"]) or None,
                "steps_completed": ", ".join(found["steps_completed"]) or None,
            }
        ),
    )


@verb(app, "suspend")
async def suspend(tenant: Tenant, reason: Reason, key: Key = None) -> Answer:
    """Suspend an Active tenant: nobody signs in, nothing is sent."""
    return await _order(tenant, "suspend", reason, key)


@verb(app, "reinstate")
async def reinstate(tenant: Tenant, reason: Reason, key: Key = None) -> Answer:
    """Reinstate a suspended tenant, whatever holds it."""
    return await _order(tenant, "reinstate", reason, key)


@verb(app, "close")
async def close(tenant: Tenant, reason: Reason, key: Key = None) -> Answer:
    """Close a tenant that is Active or Suspended, for good."""
    return await _order(tenant, "close", reason, key)


async def _order(tenant: str, what: str, reason: str, key: str | None) -> Answer:
    from scripts.reach import reach, segment

    async with reach() as api:
        begun = await api.post(f"/v1/tenants/{segment(tenant)}/{what}", {"reason": reason}, key=key)
    return Answer(begun, f"run {begun['run_id']}; see `unwind runs show {begun['run_id']}`")
