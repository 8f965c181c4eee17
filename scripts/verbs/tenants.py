"""`unwind tenants ...`: the life of a tenant after it has become Active. `show` asks tenancy; each other verb starts
the saga that does it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from scripts.answer import Answer, pairs
from scripts.border import verb

app = typer.Typer(no_args_is_help=True, help="Show, suspend, reinstate, close and offboard tenants.")

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


@verb(app, "offboard")
async def offboard(
    tenant: Tenant,
    reason: Reason,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel its open runs first: they are undone.")] = False,
    now: Annotated[bool, typer.Option("--now", help="Terminate its open runs first: nothing is undone.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Do not ask tenancy whether it is closed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> Answer:
    """Make all that the engine knows of a closed tenant unreadable, for good.

    Nothing of it starts any more; its runs end and are archived; its keys, journal, dead letters and tokens are
    deleted. The audit keeps its entries. What modules hold of it is theirs to delete.
    """
    from contracts.problems import PayloadInvalid
    from scripts.reach import reach, segment

    if cancel and now:
        raise PayloadInvalid("--cancel and --now exclude each other; choose one", field="now")
    if not yes:
        if not sys.stdin.isatty():
            raise PayloadInvalid("offboarding cannot be taken back; say --yes", field="yes")
        typer.confirm(f"Make everything of tenant {tenant} unreadable for good?", abort=True, err=True)
    body = {
        "reason": reason,
        "open_runs": "terminate" if now else "cancel" if cancel else "refuse",
        "force": force,
    }
    async with reach() as api:
        done = await api.post(f"/v1/tenants/{segment(tenant)}/offboard", body)
    return Answer(
        done,
        f"{tenant} is gone: {done['runs']} runs archived, {done['keys']} keys, {done['arrivals']} arrivals, "
        f"{done['letters']} dead letters and {done['tokens']} tokens deleted",
    )


async def _order(tenant: str, what: str, reason: str, key: str | None) -> Answer:
    from scripts.reach import reach, segment

    async with reach() as api:
        begun = await api.post(f"/v1/tenants/{segment(tenant)}/{what}", {"reason": reason}, key=key)
    return Answer(begun, f"run {begun['run_id']}; see `unwind runs show {begun['run_id']}`")
