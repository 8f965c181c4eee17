"""`unwind egress ...`: what a tenant's outbound calls may do beyond the usual, and how many it may make."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from scripts.answer import Answer
from scripts.border import verb

EVERYONE = "*"

app = typer.Typer(no_args_is_help=True, help="Private targets that are open to one tenant, and its rate of requests.")

Whom = Annotated[str, typer.Argument(help="The tenant; '*' for all that have no rules of their own.", metavar="TENANT")]


@verb(app, "show")
async def show(tenant: Whom) -> Answer:
    """The rules that hold for a tenant."""
    from scripts.reach import reach

    async with reach() as api:
        found = await api.get("/v1/egress", tenant=None if tenant == EVERYONE else tenant)
    return Answer(found, _told(found))


@verb(app, "set")
async def set_rules(
    tenant: Whom,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", help="host, host:port or network in CIDR notation; repeatable.")
    ] = None,
    requests: Annotated[int | None, typer.Option("--requests", min=1, help="Requests in any --seconds.")] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", min=1, help="The stretch of --requests.")] = None,
) -> Answer:
    """Replace the rules of a tenant; without options it has none.

    It takes hold in every process within two seconds. Loopback and metadata addresses are never opened.
    """
    from scripts.reach import reach

    everyone = tenant == EVERYONE
    body = {"allow": allow or [], "requests": requests, "seconds": seconds, "everyone": everyone}
    async with reach() as api:
        made = await api.put("/v1/egress", body, act_for=None if everyone else tenant)
    return Answer(made, _told(made))


def _told(rules: dict[str, Any]) -> str:
    opened = ", ".join(rules["allow"]) or "nothing"
    rate = "the usual rate" if rules["requests"] is None else f"{rules['requests']} requests in {rules['seconds']:g} s"
    return f"{rules['tenant']}: {opened} is open beyond public addresses; {rate}"
