"""`unwind bulk WORD`: one word to many runs, or to many dead letters. They are counted first and shown; then each is
told by itself, as `unwind runs` would tell it, so each is audited and one that refuses holds up nobody. The audit has
the bulk as a whole besides: what was asked of whom before the first is told, and at the end what came of it. Stopped
half way, the same command goes on: what was told already says so.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from contracts.problems import PayloadInvalid, Problem
from scripts.answer import Answer, progress, stacked, table
from scripts.border import people, verb
from scripts.verbs.runs import Reason, Tenant

if TYPE_CHECKING:
    from scripts.reach import Api

PAGE: Final = 200
ADDRESSED: Final = 100
"""So many are named to the audit at once, before they are told."""
STATUSES: Final = {
    "cancel": "queued,running,waiting,parked",
    "terminate": "parked",
    "abandon": "parked",
    "retry": "parked",
    "rerun": "failed,compensated,timed_out",
}
"""Which runs a word is for, unless told otherwise."""

Tell = Callable[["Api", dict[str, Any]], Awaitable[str]]
"""Tells one, and answers what came of it in a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """A word to many as the audit has it. `by` are the fields by which they are counted."""

    word: str
    tenant: str | None
    filter: dict[str, Any]
    by: tuple[str, ...]
    step: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has come of a bulk so far: how many by the word that each answered, and who refused, why."""

    bulk_id: str
    results: Counter[str]
    refused: list[dict[str, Any]]


def register(root: typer.Typer) -> None:
    verb(root, "bulk")(bulk)
    verb(root, "backfill")(backfill)


async def bulk(
    word: Annotated[
        str,
        typer.Argument(help="cancel, terminate, abandon, retry or rerun runs; redrive dead letters.", metavar="WORD"),
    ],
    tenant: Tenant = None,
    status: Annotated[
        str | None, typer.Option(help="Only runs in this status; several with commas. Each word has its own default.")
    ] = None,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    state: Annotated[str | None, typer.Option(help="Only runs in this business state, such as Active.")] = None,
    attribute: Annotated[
        str | None, typer.Option(help="Only runs with this declared attribute, as name:value.")
    ] = None,
    correlation_id: Annotated[str | None, typer.Option(help="Only runs of this story.")] = None,
    error_code: Annotated[str | None, typer.Option(help="Only runs with this error code.")] = None,
    started_after: Annotated[str | None, typer.Option(help="Only runs that started then or later, RFC 3339.")] = None,
    started_before: Annotated[str | None, typer.Option(help="Only runs that started earlier, RFC 3339.")] = None,
    letter_type: Annotated[str | None, typer.Option(help="redrive: only messages of this type.")] = None,
    letter_reason: Annotated[str | None, typer.Option(help="redrive: only letters with this reason.")] = None,
    step: Annotated[str | None, typer.Option(help="retry: only this parked step of each run.")] = None,
    from_step: Annotated[
        str | None, typer.Option("--from", help="rerun: do this step and all after it again.", metavar="STEP")
    ] = None,
    reason: Reason = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be told, and tell nobody.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before telling them.")] = False,
    rate: Annotated[float, typer.Option(min=0.1, max=1000, help="At most so many a second.")] = 20.0,
    most: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many in all.")] = 10_000,
) -> Answer:
    """One word to many runs, or many dead letters: counted first, then told one by one.

    One that refuses holds up nobody. Stopped half way, the same command goes on where it was.
    """
    from scripts.reach import reach

    if word == "redrive":
        async with reach() as api:
            letters = [
                letter
                async for letter in api.items("/v1/dead-letters", tenant=tenant, state="dead", limit=PAGE)
                if letter_type in (None, letter["type"]) and letter_reason in (None, letter["reason"])
            ]
            bulk = Bulk(
                word=word,
                tenant=tenant,
                filter={"letter_type": letter_type, "letter_reason": letter_reason, "most": most},
                by=("tenant", "type", "reason"),
                reason=reason,
            )
            return await _tell_all(api, bulk, letters[:most], _redrive, dry_run, yes, rate)
    if word not in STATUSES:
        raise PayloadInvalid(f"{word!r} is no word for many; say {', '.join(STATUSES)} or redrive", field="word")
    bodies: dict[str, dict[str, Any]] = {
        "retry": {"step": step} if step else {},
        "rerun": {"from_step": from_step, "repeat_effects": [], "reason": reason},
    }
    query = {
        "status": status or STATUSES[word],
        "workflow": workflow,
        "business_state": state,
        "attribute": attribute,
        "correlation_id": correlation_id,
    }
    after, before = _instant(started_after, "started_after"), _instant(started_before, "started_before")
    bulk = Bulk(
        word=word,
        tenant=tenant,
        filter={**query, "error_code": error_code, "started_after": after, "started_before": before, "most": most},
        by=("tenant", "workflow", "status"),
        step={"retry": step, "rerun": from_step}.get(word),
        reason=reason,
    )
    runs: list[dict[str, Any]] = []
    async with reach() as api:
        async for run in api.items("/v1/runs", tenant=tenant, **query, limit=PAGE):
            if after is not None and run["started_at"] < after:
                break  # the newest come first
            if (before is None or run["started_at"] < before) and error_code in (None, run["error_code"]):
                runs.append(run)
            if len(runs) == most:
                break
        tell = _word(word, bodies.get(word, {"reason": reason}))
        return await _tell_all(api, bulk, runs, tell, dry_run, yes, rate)


def _instant(text: str | None, field: str) -> str | None:
    from contracts.envelope import format_time, parse_time

    return None if text is None else format_time(parse_time(text, field))


async def _redrive(api: Api, letter: dict[str, Any]) -> str:
    from scripts.reach import segment

    settled = await api.post(f"/v1/dead-letters/{segment(letter['id'])}/redrive", tenant=letter["tenant"])
    return "told" if settled["changed"] else "done before"


def _word(word: str, body: dict[str, Any]) -> Tell:
    async def tell(api: Api, run: dict[str, Any]) -> str:
        from scripts.reach import segment

        said = await api.post(f"/v1/runs/{segment(run['run_id'])}/{word}", body, tenant=run["tenant"])
        return "done before" if said.get("duplicate") else "told"

    return tell


async def _tell_all(
    api: Api, bulk: Bulk, found: list[dict[str, Any]], tell: Tell, dry_run: bool, yes: bool, rate: float
) -> Answer:
    word, by = bulk.word, bulk.by
    groups = Counter(tuple(one[name] for name in by) for one in found)
    counted = [{**dict(zip(by, group, strict=True)), "count": count} for group, count in groups.most_common()]
    document: dict[str, Any] = {"word": word, "found": len(found), "groups": counted, "dry_run": dry_run}
    shown = table((*(name.upper() for name in by), "COUNT"), _rows(counted, by), empty="Nothing fits.")
    if dry_run or not found:
        return Answer(document, stacked(shown, f"\n{len(found)} would be told: {word}."))
    if not yes:
        _ask(word, found, counted, by)
    outcome = await _audited(api, bulk, found, tell, rate)
    document |= {"bulk_id": outcome.bulk_id, "results": dict(outcome.results), "refused": outcome.refused}
    told = ", ".join(f"{count} {result}" for result, count in outcome.results.most_common())
    parts: list[Any] = [shown, f"\n{word}: {told}"]
    if outcome.refused:
        rows = [(one["id"], one["code"], one["detail"]) for one in outcome.refused[:20]]
        parts += ["", table(("REFUSED", "CODE", "WHY"), rows)]
    return Answer(document, stacked(*parts))


async def _audited(api: Api, bulk: Bulk, found: list[dict[str, Any]], tell: Tell, rate: float) -> Outcome:
    """Tells them between the bulk's first and last entry of the audit, however it ends."""
    import asyncio

    whole = {"word": bulk.word, "filter": bulk.filter, "found": len(found)}
    begun = await api.post("/v1/bulks", {**whole, "step": bulk.step, "reason": bulk.reason}, tenant=bulk.tenant)
    outcome = Outcome(begun["bulk_id"], Counter(), [])

    async def ended(how: str) -> None:
        names = {"told": "told", "known": "done before", "refused": "refused", "failed": "failed"}
        counts = {name: outcome.results[result] for name, result in names.items()}
        await api.post(f"/v1/bulks/{outcome.bulk_id}/ended", {**whole, **counts, "how": how}, tenant=bulk.tenant)

    try:
        await _one_by_one(api, bulk, found, tell, rate, outcome)
    except BaseException as error:
        # What broke it off is what the caller must hear, also where the engine is away and records no end.
        with suppress(Problem):
            await ended("cancelled" if isinstance(error, asyncio.CancelledError) else "failed")
        raise
    await ended("finished")
    return outcome


async def _one_by_one(
    api: Api, bulk: Bulk, found: list[dict[str, Any]], tell: Tell, rate: float, outcome: Outcome
) -> None:
    """A refusal is kept beside its id and the next one is told; what is unavailable ends the verb."""
    import asyncio

    from scripts.reach import Refused

    loop = asyncio.get_running_loop()
    began = loop.time()
    with progress(bulk.word, len(found)) as moved:
        for number, one in enumerate(found):
            if number % ADDRESSED == 0:
                await _address(api, bulk, outcome.bulk_id, found[number : number + ADDRESSED])
            await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
            try:
                outcome.results[await tell(api, one)] += 1
            except Problem as problem:
                if not isinstance(problem, Refused) or problem.status >= 500 or problem.status in (401, 403):
                    outcome.results["failed"] += 1
                    raise
                outcome.results["refused"] += 1
                outcome.refused.append({"id": _id(one), "code": problem.code, "detail": problem.detail})
            moved(number + 1)


async def _address(api: Api, bulk: Bulk, bulk_id: str, next_ones: list[dict[str, Any]]) -> None:
    """Names them in the audit of the tenant whose they are."""
    ids: dict[str, list[str]] = {}
    for one in next_ones:
        ids.setdefault(one["tenant"], []).append(_id(one))
    for tenant, mine in ids.items():
        await api.post(f"/v1/bulks/{bulk_id}/addressed", {"word": bulk.word, "ids": mine}, tenant=tenant)


def _id(one: dict[str, Any]) -> str:
    """Of a run, or of a dead letter."""
    return str(one.get("run_id") or one["id"])


def _ask(word: str, found: list[dict[str, Any]], counted: list[dict[str, Any]], by: tuple[str, ...]) -> None:
    if not sys.stdin.isatty():
        raise PayloadInvalid(f"{len(found)} would be told: {word}; look with --dry-run, then say --yes", field="yes")
    for row in _rows(counted, by):
        print("  ", *row, file=people())
    typer.confirm(f"{word}: {len(found)} in all?", abort=True, err=True)


def _rows(counted: Iterable[dict[str, Any]], by: tuple[str, ...]) -> list[tuple[Any, ...]]:
    return [(*(one[name] for name in by), one["count"]) for one in counted]


async def backfill(
    workflow: Annotated[str, typer.Argument(help="The workflow to start on past events.")],
    since: Annotated[str, typer.Option(help="Events that arrived from then on, RFC 3339.")],
    until: Annotated[str | None, typer.Option(help="Events that arrived before then; now unless given.")] = None,
    tenant: Tenant = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the events, and start nothing.")] = False,
    rate: Annotated[float, typer.Option(min=0.1, max=10_000, help="At most so many starts a second.")] = 100.0,
) -> Answer:
    """Start a workflow on the events of the journal that start it, as if they came now.

    An event that has begun a run begins no other: a second backfill changes nothing, and one that was stopped goes on.
    """
    import asyncio
    from datetime import UTC, datetime

    from scripts.reach import reach, segment

    # One span for all pages: what arrives meanwhile is live.
    span = {"since": since, "until": until or datetime.now(UTC).isoformat().replace("+00:00", "Z")}
    path = f"/v1/workflows/{segment(workflow)}/backfill"
    loop = asyncio.get_running_loop()
    async with reach() as api:
        whole = await api.post(path, {**span, "dry_run": True}, tenant=tenant)
        if dry_run:
            return Answer(whole, f"{whole['found']} events would be given to {workflow}")
        total = Counter({"found": 0, "started": 0, "known": 0})
        after: int | None = 0
        began = loop.time()
        with progress(f"backfill {workflow}", whole["found"]) as moved:
            while after is not None:
                await asyncio.sleep(max(0.0, began + total["started"] / rate - loop.time()))
                page = await api.post(
                    path, {**span, "after": after, "limit": max(1, min(500, round(rate)))}, tenant=tenant
                )
                total.update({name: page[name] for name in total})
                after = page["next"]
                moved(total["found"])
    return Answer(
        {"workflow": workflow, **span, **total},
        f"{total['found']} events: {total['started']} begin a run, {total['known']} had begun one",
    )
