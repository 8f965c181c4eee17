"""Starting a saga on past events: what the journal still has of the events that start it is given to it as if it came
now.

    events of [since, until), in the order of the journal -> one start each, under the key that a live start has

So an event that has begun a run begins no other, and a second backfill of the same span changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import uuid_utils

from contracts.problems import Conflict, PayloadInvalid, Unavailable
from contracts.tenant_events import WorkflowBackfilled
from engine.door import Door
from engine.notes import event_start_key
from engine.store import Appended, Commit, NewInput, PastArrival


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfilled:
    """Of `found` events on this page `started` begin a run, and `known` had begun one. `next` continues; None: the span
    is done.
    """

    found: int
    started: int
    known: int
    next: int | None


async def count(door: Door, tenant: str, workflow: str, *, since: datetime, until: datetime) -> int:
    """How many events of the journal would be given to the workflow. Raises as `backfill` does."""
    types = _started_by(door, workflow, since, until)
    return await door.store.count_past_arrivals(tenant, types, since=since, until=until)


async def backfill(
    door: Door,
    tenant: str,
    workflow: str,
    *,
    since: datetime,
    until: datetime,
    by: str,
    after: int = 0,
    limit: int = 500,
) -> Backfilled:
    """Gives one page of past events to the workflow; `after` is `next` of the page before. What was begun here is in
    the tenant's stream.

    Raises `NotFound` for no such workflow, `Conflict` when no event starts it, `PayloadInvalid` for an empty span.
    """
    types = _started_by(door, workflow, since, until)
    page = await door.store.past_arrivals(tenant, types, since=since, until=until, after=after, limit=limit)
    fresh = [
        one
        for one in page
        if await door.store.started(tenant, event_start_key(workflow, one.source, one.event_id)) is None
    ]
    known = len(page) - len(fresh)
    if fresh:
        outcomes = await door.store.append(
            [_start(tenant, workflow, one) for one in fresh], epoch=door.epoch, now=door.clock.database_now()
        )
        if not all(isinstance(outcome, Appended) for outcome in outcomes):
            raise Unavailable("this process has lost its lease; ask again")
        await door.tenants.record(
            tenant,
            WorkflowBackfilled(
                at=door.clock.now(), workflow=workflow, since=since, until=until, runs=len(fresh), known=known, by=by
            ),
        )
        door.on_input()
    return Backfilled(
        found=len(page), started=len(fresh), known=known, next=page[-1].id if len(page) == limit else None
    )


def _started_by(door: Door, workflow: str, since: datetime, until: datetime) -> Sequence[str]:
    types = door.plans.saga(workflow).on
    if not types:
        raise Conflict(f"no event starts {workflow!r}; start its runs by hand", field="workflow")
    if since >= until:
        raise PayloadInvalid("until must be after since", field="until")
    return types


def _start(tenant: str, workflow: str, past: PastArrival) -> Commit:
    run_id = UUID(str(uuid_utils.uuid7()))
    row = NewInput(kind="start", run_id=run_id, workflow=workflow, arrival=(past.source, past.event_id))
    return Commit(tenant=tenant, stream=None, inputs=(row,))
