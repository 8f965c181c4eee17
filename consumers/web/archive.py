"""Handlers of the archive: its months, putting runs there before their time, a month's events, and dropping one."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

import orjson

from consumers.archiving import Archiver
from consumers.web import asked
from consumers.web.routes import Answer, Call
from contracts.envelope import format_time, parse_time
from contracts.problems import NotFound, PayloadInvalid, TenantOffboarded

_MONTH: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


async def list_archive(call: Call) -> Answer:
    items = [
        {"month": one.month, "runs": one.runs, "events": one.events, "dropped": one.dropped}
        for one in await call.deps.store.archive_months()
    ]
    return Answer(content={"items": items, "run_days": call.deps.run_days})


async def archive_runs(call: Call) -> Answer:
    given: asked.ArchiveRuns = call.body
    deps = call.deps
    if given.before is not None:
        before = parse_time(given.before, "before")
    elif deps.run_days:
        before = deps.clock.now() - timedelta(days=deps.run_days)
    else:
        raise PayloadInvalid("runs are kept for ever here: say the end before which they are archived", field="before")
    archiver = _archiver(call)
    if given.dry_run:
        runs, events = await archiver.count(before, tenant=call.tenant), None
    else:
        done = await archiver.archive(before, by=call.principal.name, tenant=call.tenant, most=given.most)
        runs, events = done.runs, done.events
    return Answer(content={"before": format_time(before), "runs": runs, "events": events})


async def list_archived_events(call: Call) -> Answer:
    """Masked, as histories show them, in the order of the log; null where the tenant was offboarded since."""
    query: asked.ArchivedEventsQuery = call.query
    deps, items = call.deps, []
    month = _month(call)
    found = await deps.store.read_archive(month, after=query.cursor or 0, limit=query.limit)
    for one in found:
        try:
            keys = await deps.vault.ready(one.tenant, [one.body])
            _, text = deps.door.mapper.show(keys, one.stream, one)
        except TenantOffboarded:
            text = b"null"
        items.append(
            {
                "position": one.position,
                "tenant": one.tenant,
                "run_id": str(one.stream),
                "version": one.version,
                "topic": one.topic,
                "recorded_at": format_time(one.recorded_at),
                "event": orjson.loads(text),
            }
        )
    last = found[-1].position if found else 0
    more = len(found) >= query.limit and await deps.store.read_archive(month, after=last, limit=1)
    return Answer(content={"items": items, "next": last if more else None})


async def drop_archived(call: Call) -> Answer:
    month = _month(call)
    if all(one.month != month for one in await call.deps.store.archive_months()):
        raise NotFound(f"the archive has no month {month}", field="month")
    dropped = await _archiver(call).drop(month, by=call.principal.name, reason=call.query.reason)
    return Answer(content={"month": month, "runs": dropped.runs, "events": dropped.events})


def _month(call: Call) -> str:
    month = call.path("month")
    if _MONTH.fullmatch(month) is None:
        raise PayloadInvalid("month must be a year and a month, such as 2030-01", field="month")
    return month


def _archiver(call: Call) -> Archiver:
    return Archiver(call.deps.store, call.deps.door.tenants, call.deps.clock)
