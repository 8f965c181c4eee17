"""`unwind runs ...`: look at runs and say a word to one. Every word is a durable input that the run's owner acts on;
nothing is decided here."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.answer import Answer, instant, listed, pairs, stacked, table
from scripts.border import verb

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

app = typer.Typer(no_args_is_help=True, help="Look at runs, and move those that wait for an operator.")

RunId = Annotated[str, typer.Argument(help="The run's id.", metavar="RUN")]
Tenant = Annotated[str | None, typer.Option("--tenant", "-t", envvar="UNWIND_TENANT", help="Act for this tenant.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the audit.")]


def register(root: typer.Typer) -> None:
    verb(root, "replay")(replay)
    verb(root, "rerun")(rerun)
    verb(root, "undo")(undo)
    verb(root, "explain-event")(explain_event)
    verb(root, "effects")(effects)


@verb(app, "list")
async def list_runs(
    tenant: Tenant = None,
    status: Annotated[str | None, typer.Option(help="Only runs in this status; several with commas.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    attribute: Annotated[
        str | None, typer.Option(help="Only runs with this declared attribute, as name:value.")
    ] = None,
    correlation_id: Annotated[str | None, typer.Option(help="Only runs of this story.")] = None,
    trace_id: Annotated[
        str | None, typer.Option(help="Only runs that a message or request of this W3C trace began.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most runs shown.")] = 25,
    cursor: Annotated[str | None, typer.Option(help="Continue after the page before: its `next`.")] = None,
) -> Answer:
    """Runs, newest first."""
    from scripts.reach import reach

    async with reach() as api:
        page = await api.get(
            "/v1/runs",
            tenant=tenant,
            status=status,
            workflow=workflow,
            attribute=attribute,
            correlation_id=correlation_id,
            trace_id=trace_id,
            limit=limit,
            cursor=cursor,
        )
    rows = [
        (
            run["run_id"],
            run["tenant"],
            run["workflow"],
            run["status"],
            run["business_state"],
            instant(run["started_at"]),
            run["error_code"],
        )
        for run in page["items"]
    ]
    shown = table(("RUN", "TENANT", "WORKFLOW", "STATUS", "STATE", "STARTED", "ERROR"), rows, empty="No runs.")
    return listed(page, shown)


@verb(app, "start")
async def start(
    workflow: Annotated[str, typer.Argument(help="The workflow to run now.")],
    tenant: Tenant = None,
    given: Annotated[
        str, typer.Option("--input", help="The run's data as a JSON object; - reads it from standard input.")
    ] = "{}",
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key again answers with the original run.")
    ] = None,
    correlation_id: Annotated[str | None, typer.Option(help="Ties the run to a story that began elsewhere.")] = None,
) -> Answer:
    """Run a workflow now; you are its initiator."""
    from scripts.documents import json_object
    from scripts.reach import reach, segment

    body: dict[str, Any] = {"input": json_object(given, "input")}
    if correlation_id:
        body["correlation_id"] = correlation_id
    async with reach() as api:
        begun = await api.post(f"/v1/workflows/{segment(workflow)}/runs", body, key=key, tenant=tenant)
    known = " (this key is known: the original run)" if begun["duplicate"] else ""
    return Answer(begun, f"{begun['run_id']}{known}")


@verb(app, "show")
async def show(run: RunId, tenant: Tenant = None) -> Answer:
    """A run with its steps: input, output, error, duration, cost, attempts and undos."""
    from scripts.reach import reach, segment

    async with reach() as api:
        detail = await api.get(f"/v1/runs/{segment(run)}", tenant=tenant)
        steps = await api.get(f"/v1/runs/{segment(run)}/steps", tenant=tenant)
    return Answer({**detail, "steps": steps["items"]}, shown_run(detail, steps["items"]))


@verb(app, "timeline")
async def timeline(run: RunId, tenant: Tenant = None) -> Answer:
    """Every event of a run, in order."""
    from scripts.reach import reach, segment

    async with reach() as api:
        pages = api.items(f"/v1/runs/{segment(run)}/timeline", tenant=tenant, limit=1000)
        entries: list[dict[str, Any]] = [entry async for entry in pages]
    rows = [
        (
            entry["version"],
            instant(entry["event"].get("at")),
            entry["topic"],
            _whose(entry["event"]),
        )
        for entry in entries
    ]
    return Answer(entries, table(("N", "AT", "EVENT", "STEP"), rows))


@verb(app, "explain")
async def explain(run: RunId, tenant: Tenant = None) -> Answer:
    """Why a run is where it is, and every recorded reason that will move it."""
    from scripts.reach import reach, segment

    async with reach() as api:
        found = await api.get(f"/v1/runs/{segment(run)}/explain", tenant=tenant)
    lines = [found["sentence"]]
    if len(found["branches"]) > 1:
        lines += [f"  - {branch}" for branch in found["branches"]]
    wakes = [f"  {kind.removesuffix('s')}: {_wake(row)}" for kind, rows in found["wakes"].items() for row in rows]
    if wakes:
        lines += ["It will be moved by:", *wakes]
    return Answer(found, "\n".join(lines))


async def explain_event(
    event: Annotated[str, typer.Argument(help="The event's id.", metavar="EVENT")],
    tenant: Tenant = None,
    source: Annotated[
        str | None, typer.Option(help="Its publisher, as in /modules/billing; needed where two use one id.")
    ] = None,
) -> Answer:
    """What an event started, woke or answered; or why it did nothing."""
    from scripts.reach import reach, segment

    async with reach() as api:
        found = await api.get(f"/v1/events/{segment(event)}/explain", tenant=tenant, source=source)
    head = pairs(
        {
            "event": found["event_id"],
            "type": found["type"],
            "source": found["source"],
            "came": instant(found["received_at"]),
            "keys": ", ".join(found["keys"]) or None,
        }
    )
    rows = [("start", one["workflow"], one["run_id"], one["said"]) for one in found["starts"]]
    rows += [("wake", one["wait"], one["run_id"], one["said"]) for one in found["woke"]]
    rows += [
        ("dead letter", one["reason"], None, f"{one['state']}; `unwind deadletters show {one['id']}`")
        for one in found["dead_letters"]
    ]
    shown: list[Any] = [found["sentence"], "", head]
    if rows:
        shown += ["", table(("WHAT", "WHICH", "RUN", "WHY"), rows)]
    return Answer(found, stacked(*shown))


async def replay(run: RunId, tenant: Tenant = None) -> Answer:
    """Decide a run again from its events, without any effect. Exit code 1 when a decision comes out otherwise."""
    from scripts.reach import reach, segment

    async with reach() as api:
        found = await api.get(f"/v1/runs/{segment(run)}/replay", tenant=tenant)
    told = f"{found['events']} of {found['recorded']} events derived again in {found['decisions']} decisions"
    if found["difference"] is not None:
        version = found["difference"]["version"]
        return Answer(
            found,
            stacked(f"{told}; the one at event {version} comes out otherwise:\n", _compared(found["difference"])),
            1,
        )
    erased = f"; event {found['erased']} was emptied by an erasure, what follows cannot be derived"
    return Answer(found, f"{told}, all as recorded{erased if found['erased'] is not None else ''}")


async def effects(
    tenant: Tenant = None,
    run: Annotated[str | None, typer.Option("--run", help="Only the effects of this run.")] = None,
    state: Annotated[
        str | None,
        typer.Option(
            help="Only those of which this is known: intended, happened, reused, supplied, unknown, failed, undoing, "
            "not_undone or undone."
        ),
    ] = None,
    status: Annotated[str | None, typer.Option(help="Only of runs in this status; several with commas.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only of runs of this workflow.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Most runs looked at.")] = 25,
    cursor: Annotated[str | None, typer.Option(help="Continue after the page before: its `next`.")] = None,
) -> Answer:
    """The ledger of effects: each with its key, what is known of it, and its cost."""
    from scripts.reach import reach

    async with reach() as api:
        page = await api.get(
            "/v1/effects",
            tenant=tenant,
            run_id=run,
            state=state,
            status=status,
            workflow=workflow,
            limit=limit,
            cursor=cursor,
        )
    rows = [
        (one["key"], one["tenant"], one["action"], one["state"], one["attempts"], one["cost"], instant(one["since"]))
        for one in page["items"]
    ]
    shown = table(("KEY", "TENANT", "ACTION", "STATE", "ATTEMPTS", "COST", "SINCE"), rows, empty="No effects.")
    return listed(page, shown)


async def rerun(
    run: RunId,
    tenant: Tenant = None,
    from_step: Annotated[
        str | None,
        typer.Option("--from", help="Do this step and all after it again, under the keys they had.", metavar="STEP"),
    ] = None,
    repeat: Annotated[
        list[str] | None,
        typer.Option("--repeat-effects", help="Let this step have a second effect, under a new key.", metavar="STEP"),
    ] = None,
    reason: Reason = "",
) -> Answer:
    """Run an ended run once more. What it has done and not undone is not repeated, unless you say so."""
    from scripts.reach import reach, segment

    body = {"from_step": from_step, "repeat_effects": repeat or [], "reason": reason}
    async with reach() as api:
        begun = await api.post(f"/v1/runs/{segment(run)}/rerun", body, tenant=tenant)
    known = " (it was rerun before: that run)" if begun["duplicate"] else ""
    return Answer(begun, f"{begun['run_id']}{known}")


async def undo(run: RunId, tenant: Tenant = None, reason: Reason = "") -> Answer:
    """Undo what an ended run did, newest effect first, as a run of its own."""
    from scripts.reach import reach, segment

    async with reach() as api:
        begun = await api.post(f"/v1/runs/{segment(run)}/undo", {"reason": reason}, tenant=tenant)
    known = " (it is being undone already: that run)" if begun["duplicate"] else ""
    return Answer(begun, f"{begun['run_id']}{known}")


@verb(app, "cancel")
async def cancel(run: RunId, tenant: Tenant = None, reason: Reason = "") -> Answer:
    """Stop a run and undo what it did."""
    return await _tell(run, "cancel", tenant, {"reason": reason})


@verb(app, "terminate")
async def terminate(run: RunId, tenant: Tenant = None, reason: Reason = "") -> Answer:
    """Close a run at once and undo nothing; the run lists what is left."""
    return await _tell(run, "terminate", tenant, {"reason": reason})


@verb(app, "abandon")
async def abandon(run: RunId, tenant: Tenant = None, reason: Reason = "") -> Answer:
    """Give a parked run up and undo what it did."""
    return await _tell(run, "abandon", tenant, {"reason": reason})


@verb(app, "retry")
async def retry(
    run: RunId,
    tenant: Tenant = None,
    step: Annotated[
        str | None, typer.Option(help="Only this parked step; otherwise everything that is parked.")
    ] = None,
) -> Answer:
    """Try what is parked again, after its cause was mended."""
    return await _tell(run, "retry", tenant, {"step": step} if step else {})


@verb(app, "skip")
async def skip(
    run: RunId,
    step: Annotated[str, typer.Argument(help="The parked step.")],
    output: Annotated[
        str, typer.Option(help="What the run goes on with, as JSON; - reads it from standard input.")
    ] = "null",
    tenant: Tenant = None,
    reason: Reason = "",
) -> Answer:
    """Go on as if a parked step had answered this output; it has no undo."""
    from scripts.documents import json_value

    return await _tell(run, "skip", tenant, {"step": step, "output": json_value(output, "output"), "reason": reason})


async def _tell(run: str, word: str, tenant: str | None, body: dict[str, Any]) -> Answer:
    from scripts.reach import reach, segment

    async with reach() as api:
        accepted = await api.post(f"/v1/runs/{segment(run)}/{word}", body, tenant=tenant)
    return Answer(accepted, f"{word} of run {run} is recorded; its owner acts on it (`unwind runs show {run}`)")


def _captured(permissions: dict[str, Any] | None) -> str | None:
    """By hash; the list is in --json."""
    return None if permissions is None else f"{len(permissions['held'])} as captured, {permissions['hash']}"


def shown_run(run: dict[str, Any], steps: list[dict[str, Any]]) -> Callable[[], RenderableType]:
    """A run as a person reads it."""
    error = f"{run['error_code']}: {run['error_message']}" if run.get("error_code") else None
    head = pairs(
        {
            "run": run["run_id"],
            "tenant": run["tenant"],
            "workflow": f"{run['workflow']} version {run['workflow_version']}",
            "status": run["status"],
            "state": run["business_state"],
            "trigger": " ".join(str(run["trigger"].get(part) or "") for part in ("kind", "type", "id")),
            "initiator": run["initiator"],
            "permissions": _captured(run.get("permissions")),
            "correlation id": run["correlation_id"],
            "trace": run["trace_id"],
            "attributes": spell(run["attributes"]),
            "started": instant(run["started_at"]),
            "ended": instant(run["ended_at"]),
            "parked": run["parked"],
            "error": error,
            "output": None if run.get("output") is None else spell(run["output"]),
            "not undone": ", ".join(run["left"]) or None,
            "followed by": run.get("followed_by"),
        }
    )
    rows = [
        (
            step["step"] if step["visit"] == 1 else f"{step['step']} #{step['visit']}",
            step["action"],
            "reused" if step["reused"] else step["status"],
            len(step["attempts"]),
            None if step["duration_seconds"] is None else f"{step['duration_seconds']:.3f} s",
            step["undo"]["status"] if step["undo"] else None,
            spell(step["error"] if step["error"] is not None else step["output"]),
        )
        for step in steps
    ]
    return stacked(
        head,
        "",
        table(("STEP", "ACTION", "STATUS", "ATTEMPTS", "TOOK", "UNDO", "OUTPUT OR ERROR"), rows, empty="No steps."),
    )


def _compared(difference: dict[str, Any]) -> Callable[[], RenderableType]:
    """The events of one decision, as recorded and as they would be now, and the fields that differ."""
    rows = []
    for offset, (was, now) in enumerate(zip_longest(difference["recorded"], difference["derived"])):
        fields: list[str] = []
        if was is not None and now is not None:
            names = [
                name for name in {**was["event"], **now["event"]} if was["event"].get(name) != now["event"].get(name)
            ]
            fields = [f"{name}: {spell(was['event'].get(name))} -> {spell(now['event'].get(name))}" for name in names]
        rows.append((difference["version"] + offset, _named(was), _named(now), "\n".join(fields)))
    return table(("N", "RECORDED", "NOW", "FIELDS"), rows)


def _named(happened: dict[str, Any] | None) -> str | None:
    if happened is None:
        return None
    return " ".join(filter(None, (happened["topic"], _whose(happened["event"]))))


def _whose(event: dict[str, Any]) -> str | None:
    """The step, wait, approval or state that an event is about."""
    return event.get("step") or event.get("name")


def _wake(row: dict[str, Any]) -> str:
    """A recorded reason to wake: its fields, without those that only the store needs."""
    shown = {
        name: value for name, value in row.items() if value is not None and name not in ("available_at", "owner", "id")
    }
    return ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in shown.items())


def _plain(value: Any) -> str:
    text = spell(value)
    return instant(text) or "" if len(text) > 19 and text[4:5] == text[7:8] == "-" and text[10:11] == "T" else text


def spell(value: Any) -> str:
    import orjson

    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
