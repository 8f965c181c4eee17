"""`unwind pause`, `unwind resume`, `unwind pauses` and `unwind maintenance ...`: stop what runs, and let it go on."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from scripts.answer import Answer, instant, stacked, table
from scripts.border import verb

EVERYONE = "*"

app = typer.Typer(no_args_is_help=True, help="Stop everything that moves, for work on the servers underneath.")

Whom = Annotated[str, typer.Argument(help="The tenant; '*' for all.", metavar="TENANT")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit and for whoever asks why a run stands.")]


def register(root: typer.Typer) -> None:
    verb(root, "pause")(pause)
    verb(root, "resume")(resume)
    verb(root, "pauses")(pauses)


async def pause(tenant: Whom, reason: Reason = "") -> Answer:
    """Let a tenant's runs begin no new step.

    Whatever happens to them is recorded, and starts are queued. What was begun is finished; what is being undone is
    undone. It takes hold in every process within a second.
    """
    from scripts.reach import reach

    everyone = tenant == EVERYONE
    async with reach() as api:
        made = await api.post(
            "/v1/pauses", {"reason": reason, "everyone": everyone}, act_for=None if everyone else tenant
        )
    return Answer(made, f"{_named(tenant)} paused by {made['by']} since {instant(made['since'])}")


async def resume(tenant: Whom) -> Answer:
    """Let a paused tenant's runs go on, in fair order."""
    from scripts.reach import reach

    whom = {"everyone": "true"} if tenant == EVERYONE else {"tenant": tenant}
    async with reach() as api:
        found = await api.delete("/v1/pauses", **whom)
    return Answer(found, f"{_named(tenant)} {'goes on' if found['changed'] else 'was not paused'}")


async def pauses() -> Answer:
    """Who is paused, and whether the platform is under maintenance."""
    from scripts.reach import reach

    async with reach() as api:
        found = await api.get("/v1/pauses")
    rows = [(one["tenant"], one["by"], instant(one["since"]), one["reason"]) for one in found["items"]]
    shown = table(("TENANT", "BY", "SINCE", "REASON"), rows, empty="Nobody is paused.")
    held = found["maintenance"]
    return Answer(found, shown if held is None else stacked(f"Under maintenance since {instant(held['since'])}", shown))


@verb(app, "begin")
async def begin(reason: Reason = "") -> Answer:
    """Let no process take a delivery, an input or a timer, and the API no order.

    What is in hand reaches the log first; messages wait in the broker, timers in the database. What was sent already
    is still answered by its module, and read models catch up.
    """
    from scripts.reach import reach

    async with reach() as api:
        made: dict[str, Any] = await api.post("/v1/maintenance", {"reason": reason})
    return Answer(made, f"under maintenance since {instant(made['since'])}, by {made['by']}")


@verb(app, "end")
async def end() -> Answer:
    """Take work again."""
    from scripts.reach import reach

    async with reach() as api:
        found = await api.delete("/v1/maintenance")
    return Answer(found, "work is taken again" if found["changed"] else "there was no maintenance")


def _named(tenant: str) -> str:
    return "everybody" if tenant == EVERYONE else tenant
