"""Verbs about the platform as a whole: `publish` an event, `doctor`, `openapi`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from scripts.answer import Answer, table
from scripts.border import verb
from scripts.verbs.runs import Tenant


def register(app: typer.Typer) -> None:
    verb(app, "publish")(publish)
    verb(app, "accounting")(accounting)
    verb(app, "doctor")(doctor)
    verb(app, "openapi")(openapi)
    verb(app, "demo")(demo)


async def publish(
    kind: Annotated[str, typer.Argument(help="The event's type, such as crm.SignupRequestedV1.", metavar="TYPE")],
    data: Annotated[
        str, typer.Option(help="The event's data as a JSON object; - reads it from standard input.")
    ] = "{}",
    tenant: Tenant = None,
    key: Annotated[str | None, typer.Option("--id", help="The event's id: the same id again changes nothing.")] = None,
    correlation_id: Annotated[str | None, typer.Option(help="The story it belongs to; default: a new one.")] = None,
) -> Answer:
    """Publish an event as its module would."""
    from scripts.documents import json_object
    from scripts.reach import reach

    body: dict[str, Any] = {"type": kind, "data": json_object(data, "data")}
    if correlation_id:
        body["correlationid"] = correlation_id
    async with reach() as api:
        published = await api.post("/v1/events", body, key=key, tenant=tenant)
    follow = published["correlation_id"] or published["id"]
    return Answer(published, f"published {published['id']}; see `unwind runs list --correlation-id {follow}`")


async def accounting(
    tenant: Tenant = None,
    since: Annotated[
        str | None, typer.Option("--since", help="First UTC day, YYYY-MM-DD; default: 30 days ago.", metavar="DAY")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Last UTC day; default: today.", metavar="DAY")] = None,
    recount: Annotated[
        bool, typer.Option("--recount", help="First count the rows of these days again from the log, in the database.")
    ] = False,
) -> Answer:
    """What each tenant used: CPU time, rows of the log, messages, local attempts."""
    from scripts.reach import reach

    span = {name: day for name, day in (("from_day", since), ("to_day", until)) if day is not None}
    if recount:
        from engine.settings import load
        from scripts.opening import opened_store

        today = datetime.now(UTC).date()
        last = until or today.isoformat()
        async with opened_store(load()) as store:
            await store.recount_accounts(first=since or (today - timedelta(days=30)).isoformat(), last=last)
    async with reach() as api:
        found = await api.get("/v1/accounting", tenant=tenant, **span)
    rows = [
        (one["tenant"], f"{one['cpu_seconds']:.2f}", one["rows"], one["sends"], one["actions"])
        for one in found["items"]
    ]
    shown = table(("TENANT", "CPU S", "ROWS", "SENDS", "ACTIONS"), rows, empty="Nothing was used in this span.")
    return Answer(found, shown)


async def doctor(
    security: Annotated[
        bool, typer.Option("--security", help="The state of every guardrail instead; exit code 1 when one is open.")
    ] = False,
) -> Answer:
    """Check everything an engine needs."""
    from scripts.doctor import examine
    from scripts.guardrails import guardrails

    findings = await (guardrails() if security else examine())
    document = [{"check": one.check, "state": one.state, "detail": one.detail} for one in findings]
    rows = [(one.state, one.check, one.detail) for one in findings]
    return Answer(
        document, table(("", "CHECK", "FOUND"), rows), 1 if any(one.state == "wrong" for one in findings) else 0
    )


def openapi() -> Answer:
    """The OpenAPI 3.1 document of the HTTP API."""
    import orjson

    from consumers.web.openapi import document
    from consumers.web.table import ROUTES

    described = document(ROUTES)
    return Answer(described, orjson.dumps(described, option=orjson.OPT_INDENT_2).decode())


async def demo() -> Answer:
    """Play the demo against a running engine.

    Its modules must have been started with UNWIND_REHEARSALS=1, as `unwind up --demo` does: the demo scripts failures.
    """
    from scripts.border import people
    from scripts.demo import Demo
    from scripts.reach import reach

    async with reach(alone=False) as api:
        performance = Demo(api, lambda line: print(line, file=people(), flush=True))
        await performance.play()
    chapters = [chapter.to_document() for chapter in performance.chapters]
    return Answer(chapters, f"{len(chapters)} chapters; every run is still there.")
