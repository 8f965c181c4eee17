"""Handlers that read runs: list, one, timeline, steps, why it stands still, whether it would be decided alike again,
and the story it belongs to.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson

from consumers.web import asked
from consumers.web.dispatch import RequestInvalid, uuid_text
from consumers.web.routes import Answer, Call
from contracts.envelope import format_time
from contracts.problems import NotFound
from contracts.run_events import RunEvent
from engine.guards.redaction import redact, redact_text
from engine.notes import successor_key
from engine.recording import command_id
from engine.store.keys import Erased
from engine.store.mapper import arrival_ident, open_blob, redacted
from projections.causation import tree
from projections.effects import effects
from projections.reader import Page

STORY_RUNS = 200


async def list_runs(call: Call) -> Answer:
    page = await _page(call, call.query)
    return Answer(content={"items": page.items, "next": page.next, "as_of": page.as_of})


async def _page(call: Call, query: asked.RunsQuery) -> Page:
    attribute = None
    if query.attribute is not None:
        name, _, value = query.attribute.partition(":")
        attribute = (name, value)
    return await call.deps.reader.runs(
        call.tenant if attribute is None else call.named_tenant,
        statuses=query.statuses,
        workflow=query.workflow,
        correlation_id=query.correlation_id,
        trace_id=query.trace_id,
        business_state=query.business_state,
        attribute=attribute,
        before=_run_cursor(query.cursor),
        limit=query.limit,
    )


async def get_run(call: Call) -> Answer:
    found = await call.deps.reader.run(call.tenant, call.run_id)
    if found is None:
        raise await no_run(call)
    if found["ended_at"] is not None:
        again = await call.deps.store.started(found["tenant"], successor_key(call.run_id))
        found["followed_by"] = None if again is None else str(again)
    captured = found["trigger"].get("permissions")
    if captured is not None:
        found["permissions"] = {"hash": captured, "held": sorted(await call.deps.door.permission_sets.of(captured))}
    return Answer(content=found)


async def get_timeline(call: Call) -> Answer:
    query: asked.TimelineQuery = call.query
    page = await call.deps.reader.timeline(
        call.tenant, call.run_id, after=_number(query.cursor) or 0, limit=query.limit
    )
    if page is None:
        raise await no_run(call)
    return Answer(content={"items": page.items, "next": page.next, "as_of": page.as_of})


async def get_steps(call: Call) -> Answer:
    page = await call.deps.reader.steps(call.tenant, call.run_id)
    if page is None:
        raise await no_run(call)
    return Answer(content={"items": page.items, "as_of": page.as_of})


async def list_effects(call: Call) -> Answer:
    """The ledger of effects of the runs that a page of the list would show, or of one run."""
    query: asked.EffectsQuery = call.query
    page = await _one_run(call, query.run_id) if query.run_id is not None else await _page(call, query)
    items = []
    for run in page.items:
        found = await call.deps.reader.steps(run["tenant"], UUID(run["run_id"]))
        items += effects(run, found.items) if found is not None else []
    if query.state is not None:
        items = [one for one in items if one["state"] == query.state]
    return Answer(content={"items": items, "next": page.next, "as_of": page.as_of})


async def _one_run(call: Call, text: str) -> Page:
    run_id = uuid_text(text, "run_id")
    run = None if run_id is None else await call.deps.reader.run(call.tenant, run_id)
    if run is None:
        raise await no_run(call)
    return Page([run], run["as_of"])


async def explain_run(call: Call) -> Answer:
    said = await call.deps.door.explain(await tenant_of_run(call), call.run_id)
    wakes = {reason: [_shown(row) for row in rows] for reason, rows in said.wakes.items()}
    return Answer(
        content={
            "run_id": str(call.run_id),
            "status": said.status,
            "sentence": redact_text(said.sentence),
            "branches": [redact_text(branch) for branch in said.branches],
            "wakes": redact(wakes),
        }
    )


async def explain_event(call: Call) -> Answer:
    query: asked.EventQuery = call.query
    tenant = call.named_tenant
    said = await call.deps.door.explain_event(tenant, call.path("event_id"), query.source)
    answered = await _answered_step(call, tenant, said.command_id, said.correlation_id)
    sentence = said.sentence
    if answered is not None:
        sentence += f" It answered step {answered['step']!r} of run {answered['run_id']}."
    return Answer(
        content={
            "event_id": call.path("event_id"),
            "tenant": tenant,
            "source": said.source,
            "type": said.type,
            "received_at": said.received_at and format_time(said.received_at),
            "sentence": sentence,
            "starts": [
                {
                    "workflow": one.workflow,
                    "version": one.version,
                    "run_id": one.run_id and str(one.run_id),
                    "said": one.said,
                }
                for one in said.starts
            ],
            "woke": [{"run_id": str(one.run_id), "wait": one.wait, "said": one.said} for one in said.woke],
            "answered": answered,
            "said": list(said.said),
            "keys": list(said.keys),
            "dead_letters": [{"id": str(ident), "reason": why, "state": state} for ident, why, state in said.letters],
        }
    )


async def _answered_step(
    call: Call, tenant: str, command: str | None, correlation_id: str | None
) -> dict[str, Any] | None:
    """The step whose command this is; a module's outcome inherits the story of the run that asked for it."""
    if command is None or correlation_id is None:
        return None
    for run in (await call.deps.reader.story(tenant, correlation_id, limit=STORY_RUNS)).items:
        async for entry in call.deps.reader.entries(tenant, UUID(run["run_id"])):
            event = entry["event"]
            if entry["topic"] in ("step.scheduled", "undo.scheduled") and command_id(event["key"]) == command:
                return {"run_id": run["run_id"], "step": event["step"], "undo": entry["topic"] == "undo.scheduled"}
    return None


async def replay_run(call: Call) -> Answer:
    state, account = await call.deps.door.replay(await tenant_of_run(call), call.run_id, by=call.principal.name)
    difference = account.difference
    return Answer(
        content={
            "run_id": str(call.run_id),
            "status": state.status,
            "workflow": state.workflow,
            "workflow_version": state.workflow_version,
            "same": difference is None,
            "recorded": account.recorded,
            "events": account.events,
            "decisions": account.decisions,
            "erased": account.erased,
            "difference": difference
            and {
                "version": difference.version,
                "recorded": [_happened(event) for event in difference.recorded],
                "derived": [_happened(event) for event in difference.derived],
            },
        }
    )


def _happened(event: RunEvent) -> dict[str, Any]:
    return {"topic": event.TOPIC, "event": redacted(event)}


async def get_story(call: Call) -> Answer:
    correlation_id = call.path("correlation_id")
    page = await call.deps.reader.story(call.tenant, correlation_id, limit=STORY_RUNS)
    if not page.items:
        raise NotFound("there is no such story", field="correlation_id")
    runs = []
    causes: dict[str, str | None] = {}
    for run in page.items:
        entries = [entry async for entry in call.deps.reader.entries(run["tenant"], UUID(run["run_id"]))]
        runs.append((run, entries))
        trigger = run["trigger"]
        if trigger.get("kind") == "event" and trigger.get("id") not in causes:
            causes[trigger["id"]] = await _cause(call, run["tenant"], trigger)
    return Answer(
        content={
            "correlation_id": correlation_id,
            "roots": tree(runs, causes),
            "runs": len(runs),
            "as_of": page.as_of,
        }
    )


async def tenant_of_run(call: Call) -> str:
    """The run's tenant, also for a platform token that named none."""
    if call.tenant is not None:
        return call.tenant
    rows = await call.deps.store.fetch("history_run", tenant=None, run_id=str(call.run_id))
    if rows:
        return str(rows[0]["tenant"])
    gone = await call.deps.store.archived_run(None, call.run_id)
    if gone is None or gone.dropped:
        raise await no_run(call)
    return gone.tenant


async def no_run(call: Call) -> NotFound:
    """The one answer for a run of another tenant and for none; an archived one is said to be."""
    gone = await call.deps.store.archived_run(call.tenant, call.run_id)
    if gone is None:
        return NotFound("there is no such run", field="run_id")
    if gone.dropped:
        return NotFound(f"this run was archived, and its month, {gone.month}, was dropped since", field="run_id")
    return NotFound(
        f"this run is archived under {gone.month}: `unwind archive export {gone.month}` writes its events, and it can "
        "still be replayed, rerun and undone",
        field="run_id",
    )


async def _cause(call: Call, tenant: str, trigger: dict[str, Any]) -> str | None:
    """What caused the event that started a run: its envelope's `causationid`, from the journal while it is kept."""
    source, event_id = str(trigger.get("source")), str(trigger.get("id"))
    body = await call.deps.store.arrival(tenant, source, event_id)
    if body is None:
        return None
    keys = await call.deps.vault.ready(tenant, [body])
    content = open_blob(keys, "arrival", arrival_ident(source, event_id), body)
    if isinstance(content, Erased):
        return None
    cause = orjson.loads(content).get("causationid")
    return cause if isinstance(cause, str) else None


def _shown(row: Any) -> dict[str, Any]:
    """A reason to wake without its hashes and sealed bytes."""
    shown: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, bytes | memoryview):
            continue
        shown[name] = format_time(value) if hasattr(value, "astimezone") else _json(value)
    return shown


def _json(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool | list | dict) else str(value)


def _run_cursor(cursor: str | None) -> str | None:
    found = uuid_text(cursor, "cursor")
    return None if found is None else str(found)


def _number(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 9:
        raise RequestInvalid("cursor must be the `next` of the page before", field="cursor")
    return int(cursor)
