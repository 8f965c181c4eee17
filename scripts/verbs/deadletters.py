"""`unwind deadletters ...`: messages that nobody could use, kept whole. Redrive sends the very bytes again, once."""

from __future__ import annotations

from typing import Annotated

import typer

from scripts.answer import Answer, instant, listed, pairs, table
from scripts.border import verb
from scripts.verbs.runs import Tenant, spell

app = typer.Typer(no_args_is_help=True, help="Messages that nobody could use, kept whole.")

LetterId = Annotated[str, typer.Argument(help="The dead letter's id.", metavar="LETTER")]


@verb(app, "list")
async def list_letters(
    tenant: Tenant = None,
    state: Annotated[str, typer.Option(help="dead, redriven, discarded or any.")] = "dead",
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most letters shown.")] = 25,
    cursor: Annotated[str | None, typer.Option(help="Continue after the page before: its `next`.")] = None,
) -> Answer:
    """Dead letters with the reason of each."""
    from scripts.reach import reach

    async with reach() as api:
        page = await api.get("/v1/dead-letters", tenant=tenant, state=state, limit=limit, cursor=cursor)
    rows = [
        (
            letter["id"],
            letter["tenant"],
            letter["type"],
            letter["reason"],
            letter["state"],
            instant(letter["created_at"]),
            letter["detail"],
        )
        for letter in page["items"]
    ]
    shown = table(("LETTER", "TENANT", "TYPE", "REASON", "STATE", "SINCE", "DETAIL"), rows, empty="No dead letters.")
    return listed(page, shown)


@verb(app, "show")
async def show(letter: LetterId, tenant: Tenant = None) -> Answer:
    """One dead letter: reason, attempts, headers and the message, redacted."""
    from scripts.reach import reach, segment

    async with reach() as api:
        found = await api.get(f"/v1/dead-letters/{segment(letter)}", tenant=tenant)
    fields = {name: value for name, value in found.items() if name not in ("attempts", "headers", "envelope")}
    nested = {name: spell(found[name]) for name in ("attempts", "headers", "envelope")}
    return Answer(found, pairs({**fields, **nested}))


@verb(app, "redrive")
async def redrive(letter: LetterId, tenant: Tenant = None) -> Answer:
    """Send a dead letter again, byte for byte, after its cause was mended. A second redrive does nothing."""
    return await _settle(letter, "redrive", tenant)


@verb(app, "discard")
async def discard(letter: LetterId, tenant: Tenant = None) -> Answer:
    """Give a dead letter up; it stays listed as discarded."""
    return await _settle(letter, "discard", tenant)


async def _settle(letter: str, word: str, tenant: str | None) -> Answer:
    from scripts.reach import reach, segment

    async with reach() as api:
        settled = await api.post(f"/v1/dead-letters/{segment(letter)}/{word}", tenant=tenant)
    said = f"letter {letter} is {settled['state']}"
    return Answer(settled, said if settled["changed"] else f"{said} already; nothing was done")
