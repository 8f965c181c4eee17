"""The handler that gives past events to a workflow, a page at a time."""

from __future__ import annotations

from consumers.web import asked
from consumers.web.acting import require_start
from consumers.web.routes import Answer, Call
from contracts.envelope import parse_time
from engine import backfills


async def backfill(call: Call) -> Answer:
    """Whoever may start the workflow by hand may start it on past events."""
    given: asked.Backfill = call.body
    workflow, tenant, door = call.path("workflow"), call.named_tenant, call.deps.door
    require_start(call, workflow)
    since = parse_time(given.since, "since")
    until = parse_time(given.until, "until") if given.until is not None else door.clock.now()
    if given.dry_run:
        found = await backfills.count(door, tenant, workflow, since=since, until=until)
        return Answer(content={"found": found, "started": 0, "known": 0, "next": None, "as_of": await _head(call)})
    done = await backfills.backfill(
        door,
        tenant,
        workflow,
        since=since,
        until=until,
        by=call.principal.name,
        after=given.after,
        limit=given.limit,
    )
    return Answer(
        content={
            "found": done.found,
            "started": done.started,
            "known": done.known,
            "next": done.next,
            "as_of": await _head(call),
        }
    )


async def _head(call: Call) -> str:
    return await call.deps.reader.head()
