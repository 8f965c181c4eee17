"""`unwind subjects ...`: what is known of a data subject, forgetting it, and forgetting it again after a restore."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Any

import typer

from scripts.answer import Answer, instant, table
from scripts.border import verb
from scripts.verbs.runs import Reason, Tenant

app = typer.Typer(no_args_is_help=True, help="Export and erase what is known of a person.")

Subject = Annotated[str, typer.Argument(help="The data subject, as its module names it.", metavar="SUBJECT")]


@verb(app, "export")
async def export(subject: Subject, tenant: Tenant = None, reason: Reason = "") -> Answer:
    """Everything that runs hold of a data subject, in clear. Audited."""
    from scripts.reach import reach

    async with reach() as api:
        found = await api.post("/v1/subjects/export", {"subject": subject, "reason": reason}, act_for=tenant)
    rows = [
        (run["run_id"], run["workflow"], value["topic"], value["place"], value["value"])
        for run in found["runs"]
        for value in run["values"]
    ]
    return Answer(found, table(("RUN", "WORKFLOW", "EVENT", "PLACE", "VALUE"), rows, empty="Nothing is known of it."))


@verb(app, "erase")
async def erase(
    subject: Subject,
    tenant: Tenant = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel its open runs first: they are undone.")] = False,
    now: Annotated[bool, typer.Option("--now", help="Terminate its open runs first: nothing is undone.")] = False,
    reason: Reason = "",
) -> Answer:
    """Forget a data subject for good: its keys are dropped, and what they sealed can never be read again.

    Refused while runs of it are open, unless they are to be cancelled or terminated. Keep the list of erasures
    (`unwind subjects erased`) apart from backups: it is what a restored database must forget again.
    """
    from contracts.problems import PayloadInvalid
    from scripts.reach import reach

    if cancel and now:
        raise PayloadInvalid("--cancel and --now exclude each other; choose one", field="now")
    body = {"subject": subject, "reason": reason, "open_runs": "terminate" if now else "cancel" if cancel else "refuse"}
    async with reach() as api:
        erased = await api.post("/v1/subjects/erase", body, act_for=tenant)
    return Answer(erased, _told(erased))


@verb(app, "erased")
async def erased(tenant: Tenant = None) -> Answer:
    """Every erasure, by scope; with --json, the list that `apply` takes."""
    from scripts.reach import reach

    found: list[dict[str, Any]] = []
    cursor: str | None = None
    async with reach() as api:
        while True:
            page = await api.get("/v1/erasures", tenant=tenant, limit=200, cursor=cursor)
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                break
    rows = [(one["tenant"], one["scope"], one["runs"], one["by"], instant(one["at"])) for one in found]
    return Answer(found, table(("TENANT", "SCOPE", "RUNS", "BY", "AT"), rows, empty="Nobody was erased."))


@verb(app, "apply")
async def apply(
    erasures: Annotated[
        str,
        typer.Argument(help="File with what `unwind subjects erased --json` said; -: standard input.", metavar="FILE"),
    ] = "-",
) -> Answer:
    """Erase again, in a restored database, what was erased before."""
    from contracts.problems import PayloadInvalid
    from scripts.documents import json_file
    from scripts.reach import reach

    given = json_file(erasures, "erasures")
    by_tenant: defaultdict[str, list[str]] = defaultdict(list)
    try:
        for one in given:
            by_tenant[one["tenant"]].append(one["scope"])
    except (TypeError, KeyError):
        raise PayloadInvalid("erasures must be a list of objects with tenant and scope", field="erasures") from None
    applied: list[dict[str, Any]] = []
    async with reach() as api:
        for tenant, scopes in by_tenant.items():
            for start in range(0, len(scopes), 1000):
                answer = await api.post("/v1/erasures", {"scopes": scopes[start : start + 1000]}, act_for=tenant)
                applied += [{"tenant": tenant, **one} for one in answer["items"]]
    dropped = sum(one["keys"] for one in applied)
    return Answer(applied, f"{len(applied)} erasures applied, {dropped} keys dropped")


def _told(one: dict[str, Any]) -> str:
    return f"erased: {one['keys']} keys, {one['runs']} runs, {one['arrivals']} arrivals; its scope is {one['scope']}"
