"""`unwind outlets ...`: where notices are delivered to outside, signed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from scripts.answer import Answer, instant, table
from scripts.border import verb
from scripts.verbs.hooks import given_secret, seconds_of
from scripts.verbs.runs import Tenant

app = typer.Typer(
    no_args_is_help=True, help="Outlets: where notices are delivered to, signed; of `--tenant platform` those of all."
)

Name = Annotated[str, typer.Argument(help="The outlet.", metavar="NAME")]
Given = Annotated[
    bool, typer.Option("--secret-stdin", help="Read the secret that the receiver knows; one is made otherwise.")
]


@verb(app, "add")
async def add(
    name: Name,
    url: Annotated[str, typer.Argument(help="The receiver's address, by https.", metavar="URL")],
    types: Annotated[
        list[str] | None, typer.Option("--type", help="A notice it takes, such as unwind.RunParkedV1; none: all.")
    ] = None,
    secret_stdin: Given = False,
    tenant: Tenant = None,
) -> Answer:
    """Make an outlet and print its secret, this once and never again."""
    from scripts.reach import reach

    given = {"name": name, "url": url, "types": types or [], "secret": given_secret(secret_stdin)}
    async with reach() as api:
        made = await api.post("/v1/outlets", given, act_for=tenant)
    return Answer(made, str(made["secret"]))


@verb(app, "list")
async def list_outlets(tenant: Tenant = None) -> Answer:
    """Outlets by name, without their secrets."""
    from scripts.reach import reach

    async with reach() as api:
        found = await api.get("/v1/outlets", tenant=tenant)
    rows = [
        (
            one["tenant"],
            one["name"],
            one["url"],
            "yes" if one["enabled"] else f"no: {one['switched_why']}",
            instant(one["failing_since"]),
            " ".join(one["types"]) or "all",
        )
        for one in found["items"]
    ]
    columns = ("TENANT", "NAME", "URL", "ENABLED", "FAILING SINCE", "TYPES")
    return Answer(found["items"], table(columns, rows, empty="No outlets."))


@verb(app, "rotate")
async def rotate(
    name: Name,
    overlap: Annotated[
        str, typer.Option(help="How long the secret before signs, too: 90s, 15m, 24h, 7d; 0s: no longer.")
    ] = "24h",
    secret_stdin: Given = False,
    tenant: Tenant = None,
) -> Answer:
    """Give an outlet a new secret and print it, this once and never again. Both sign for a while."""
    from scripts.reach import reach, segment

    given = {"overlap_seconds": seconds_of(overlap), "secret": given_secret(secret_stdin)}
    async with reach() as api:
        made = await api.post(f"/v1/outlets/{segment(name)}/rotate", given, act_for=tenant)
    until = instant(made["old_secret_until"])
    print(f"the secret before signs, too, until {until}" if until else "the secret before is gone", file=sys.stderr)
    return Answer(made, str(made["secret"]))


@verb(app, "enable")
async def enable(name: Name, tenant: Tenant = None) -> Answer:
    """Deliver there again; what waited goes on where it stood."""
    return await _switch(name, tenant, enabled=True, reason="")


@verb(app, "disable")
async def disable(
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="Why; stands in the audit.")] = "",
    tenant: Tenant = None,
) -> Answer:
    """Deliver nothing there until it is enabled."""
    return await _switch(name, tenant, enabled=False, reason=reason)


@verb(app, "test")
async def send_test(name: Name, tenant: Tenant = None) -> Answer:
    """Have a test delivered; `unwind outlets deliveries` shows what becomes of it."""
    from scripts.reach import reach, segment

    async with reach() as api:
        sent = await api.post(f"/v1/outlets/{segment(name)}/test", {}, act_for=tenant)
    return Answer(sent, f"test {sent['message_id']} is on its way")


@verb(app, "deliveries")
async def deliveries(
    name: Name,
    state: Annotated[str | None, typer.Option("--state", help="waiting, delivered or failed.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, newest first.")] = 50,
    tenant: Tenant = None,
) -> Answer:
    """What was delivered, waits, or failed for good, newest first; kept for 30 days."""
    from scripts.reach import reach, segment

    async with reach() as api:
        found = await api.get(f"/v1/outlets/{segment(name)}/deliveries", tenant=tenant, state=state, limit=limit)
    rows = [
        (
            one["message_id"],
            one["tenant"],
            one["type"],
            one["state"],
            one["attempts"],
            one["status"] or one["error"],
            instant(one["due_at"]),
            instant(one["created_at"]),
        )
        for one in found["items"]
    ]
    columns = ("ID", "TENANT", "TYPE", "STATE", "ATTEMPTS", "ANSWER", "DUE", "CREATED")
    return Answer(found["items"], table(columns, rows, empty="No deliveries."))


@verb(app, "redeliver")
async def redeliver(
    name: Name,
    message_id: Annotated[
        str | None, typer.Argument(help="The notice's id; whatever became of it.", metavar="[ID]")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="All made from then on, RFC 3339, that were not taken yet.")
    ] = None,
    tenant: Tenant = None,
) -> Answer:
    """Send one notice again, or all since a time that have failed, for good or so far. Their ids stay, so that a
    receiver knows what it has."""
    from scripts.reach import reach, segment

    async with reach() as api:
        given = {"message_id": message_id, "since": since}
        done = await api.post(f"/v1/outlets/{segment(name)}/redeliver", given, act_for=tenant)
    said = f"{done['redelivered']} on their way again"
    if message_id is not None:
        said = f"{message_id} is on its way" + ("" if done["redelivered"] else " already; nothing was done")
    return Answer(done, f"{said}; there may be more, say it again" if done["more"] else said)


@verb(app, "remove")
async def remove(name: Name, tenant: Tenant = None) -> Answer:
    """Deliver nothing there any more, and forget what was."""
    from scripts.reach import reach, segment

    async with reach() as api:
        gone = await api.delete(f"/v1/outlets/{segment(name)}", tenant=tenant)
    return Answer(gone, f"outlet {name} is removed")


async def _switch(name: str, tenant: str | None, *, enabled: bool, reason: str) -> Answer:
    from scripts.reach import reach, segment

    async with reach() as api:
        given = {"enabled": enabled, "reason": reason}
        outlet = await api.post(f"/v1/outlets/{segment(name)}/switch", given, act_for=tenant)
    return Answer(outlet, f"outlet {name} is {'enabled' if enabled else 'disabled'}")
