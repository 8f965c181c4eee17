"""Handlers that record a bulk, one word to many runs or dead letters, as a whole. Its caller tells each by itself, and
says here what it is about to do, to whom, and what it did; `unwind bulk` does so.

    bulk.begun       the word, the filter, how many were counted
    bulk.addressed   the ids that are told next: of one tenant, in that tenant's audit
    bulk.ended       the same as begun, and what came of it
"""

from __future__ import annotations

from typing import Any, Final

import uuid_utils

from consumers.web import asked
from consumers.web.routes import Answer, Call
from contracts.envelope import format_time, parse_time
from contracts.run_events import RunEvent
from contracts.tenant_events import PLATFORM, BulkAddressed, BulkBegun, BulkEnded, BulkWord

_PERMISSIONS: Final[dict[BulkWord, str]] = {
    "cancel": "runs.cancel",
    "terminate": "runs.terminate",
    "abandon": "runs.abandon",
    "retry": "runs.retry",
    "rerun": "runs.rerun",
    "redrive": "deadletters.redrive",
}


async def begin_bulk(call: Call) -> Answer:
    given: asked.BeginBulk = call.body
    call.principal.require(_PERMISSIONS[given.word])
    bulk = str(uuid_utils.uuid7())
    event = BulkBegun(
        at=call.deps.clock.now(),
        bulk=bulk,
        word=given.word,
        filter=_filter(given.filter),
        found=given.found,
        step=given.step,
        by=call.principal.name,
        reason=given.reason,
    )
    return await _recorded(call, call.tenant or PLATFORM, bulk, event, status=201)


async def address_bulk(call: Call) -> Answer:
    given: asked.AddressBulk = call.body
    call.principal.require(_PERMISSIONS[given.word])
    bulk = str(call.identifier("bulk_id", "bulk"))
    event = BulkAddressed(
        at=call.deps.clock.now(), bulk=bulk, word=given.word, ids=tuple(given.ids), by=call.principal.name
    )
    return await _recorded(call, call.named_tenant, bulk, event)


async def end_bulk(call: Call) -> Answer:
    given: asked.EndBulk = call.body
    call.principal.require(_PERMISSIONS[given.word])
    bulk = str(call.identifier("bulk_id", "bulk"))
    event = BulkEnded(
        at=call.deps.clock.now(),
        bulk=bulk,
        word=given.word,
        filter=_filter(given.filter),
        found=given.found,
        told=given.told,
        known=given.known,
        refused=given.refused,
        failed=given.failed,
        how=given.how,
        by=call.principal.name,
    )
    return await _recorded(call, call.tenant or PLATFORM, bulk, event)


async def _recorded(call: Call, tenant: str, bulk: str, event: RunEvent, *, status: int = 200) -> Answer:
    await call.deps.door.tenants.record(tenant, event)
    return Answer(status=status, content={"bulk_id": bulk, "as_of": await call.deps.reader.head()})


def _filter(given: asked.BulkFilter) -> dict[str, Any]:
    """What was looked for, without an attribute's value: it may be personal, and an audit entry is never changed."""
    looked_for = given.model_dump(exclude_none=True)
    if given.attribute is not None:
        looked_for["attribute"] = given.attribute.partition(":")[0]
    for name in ("started_after", "started_before"):
        if name in looked_for:
            looked_for[name] = format_time(parse_time(looked_for[name], f"filter.{name}"))
    return looked_for
