"""Reading the read models: rows become JSON-native records, a position goes with every answer. For the HTTP API and for
the command line when it opens the store itself.

`as_of` is an opaque token that says how far the view was when it was read, never later than the rows. The tenant is the
first argument of every question; None is the platform's view over all tenants.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final
from uuid import UUID

import orjson

from contracts.problems import PayloadInvalid
from engine.store import Store
from engine.store.data_keys import subject_of_scope
from engine.store.keys import Vault
from projections import audit as chain
from projections.history import BLOCK
from projections.records import Record, approval_of, audit_of, day_of, entries_of, erasure_of, run_of, statistics_of
from projections.steps import steps
from projections.verifying import verify

ATTRIBUTE: Final = "attribute/"
"""Begins the index name of a searchable run attribute; the projector hashes under the same."""

PAGE: Final = 25
MOST: Final = 200
_LANES_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Page:
    """`next` continues after the last item; None: there is no more."""

    items: list[Record]
    as_of: str
    next: str | None = None


class Reader:
    """One per process. It writes nothing."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._lanes: tuple[float, list[int]] = (0.0, [])

    # ------------------------------------------------------------------------------------------------------- positions

    async def as_of(self, view: str) -> str:
        """How far the view was written."""
        return _token({lane: await self._store.checkpoint(view, lane) for lane in await self._known_lanes()})

    async def head(self) -> str:
        """How far the log goes: whoever waits for this sees all that was committed before."""
        return _token({lane: await self._store.head(lane) for lane in await self._known_lanes()})

    async def reached(self, view: str, token: str, *, timeout_seconds: float, field: str = "wait_for_position") -> bool:
        """Waits until the view was written up to the position; False at the timeout. Raises `PayloadInvalid`, of that
        `field`."""
        wanted = parse_token(token, field)
        deadline = time.monotonic() + timeout_seconds
        pause = 0.01
        known = await self._known_lanes()
        for lane, position in wanted.items():
            if lane not in known or position > await self._store.head(lane):
                raise PayloadInvalid(
                    f"{field} lies past the end of the log; pass the as_of of an answer of this API", field=field
                )
            while await self._store.checkpoint(view, lane) < position:
                if time.monotonic() + pause > deadline:
                    return False
                await asyncio.sleep(pause)
                pause = min(0.1, pause * 1.5)
        return True

    async def _known_lanes(self) -> list[int]:
        read_at, lanes = self._lanes
        if not lanes or time.monotonic() - read_at > _LANES_SECONDS:
            lanes = await self._store.lanes()
            self._lanes = (time.monotonic(), lanes)
        return lanes

    # ------------------------------------------------------------------------------------------------------------ runs

    async def runs(
        self,
        tenant: str | None,
        *,
        statuses: Sequence[str] = (),
        workflow: str | None = None,
        correlation_id: str | None = None,
        trace_id: str | None = None,
        business_state: str | None = None,
        attribute: tuple[str, str] | None = None,
        before: str | None = None,
        limit: int = PAGE,
    ) -> Page:
        """Newest first. `before` is the `next` of the page before; runs that start meanwhile never shift a page."""
        as_of = await self.as_of("history")
        asked: Record = {
            "statuses": ",".join(statuses) or None,
            "status": statuses[0] if len(statuses) == 1 and statuses[0] != "succeeded" else None,
            "workflow": workflow,
            "correlation_id": correlation_id,
            "trace_id": trace_id,
            "business_state": business_state,
            "before": before,
            "limit": limit + 1,
        }
        statement = "history_list_by_statuses" if len(statuses) > 1 and "succeeded" not in statuses else "history_list"
        if attribute is not None:
            if tenant is None:
                raise PayloadInvalid("attributes are hashed per tenant; name the tenant", field="attribute")
            name, value = attribute
            hashes = (await self._vault.keys_for(tenant)).index_hashes(ATTRIBUTE + name, value)
            statement = "history_list_by_attribute"
            asked |= {"attribute": name, "hash": hashes[0], "old_hash": hashes[-1]}
        rows = await self._store.fetch(statement, tenant=tenant, **asked)
        items = [run_of(row) for row in rows[:limit]]
        return Page(items, as_of, items[-1]["run_id"] if len(rows) > limit else None)

    async def runs_of_subject(
        self, tenant: str, subject: str, *, after: str | None = None, limit: int = MOST
    ) -> list[Record]:
        """Oldest first; `after` is the id of the last run of the page before."""
        scope = subject_of_scope((await self._vault.keys_for(tenant)).subject_scope(subject))
        rows = await self._store.fetch("history_of_subject", tenant=tenant, scope=scope, after=after, limit=limit)
        return [run_of(row) for row in rows]

    async def run(self, tenant: str | None, run_id: UUID) -> Record | None:
        """The run with its trigger's data, its output and its error, as its timeline has them."""
        as_of = await self.as_of("history")
        rows = await self._store.fetch("history_run", tenant=tenant, run_id=str(run_id))
        if not rows:
            return None
        found = run_of(rows[0])
        first = await self._store.fetch("history_timeline", tenant=tenant, run_id=str(run_id), from_block=0, limit=1)
        last_block = (rows[0]["version"] - 1) // BLOCK
        last = first
        if last_block:
            last = await self._store.fetch(
                "history_timeline", tenant=tenant, run_id=str(run_id), from_block=last_block, limit=1
            )
        begun = entries_of(first)[0]["event"]
        found |= {"data": begun.get("data"), "output": None, "error": None, "left": [], "as_of": as_of}
        ending = entries_of(last)[-1]
        if ending["topic"] == "run.ended":
            event = ending["event"]
            found |= {"output": event.get("output"), "left": event.get("left") or [], "error": event.get("error")}
        if found["error"] is None and found["error_code"] is not None:
            found["error"] = {"code": found["error_code"], "message": found["error_message"]}
        return found

    async def timeline(self, tenant: str | None, run_id: UUID, *, after: int = 0, limit: int = 100) -> Page | None:
        """The run's events in order, redacted; `after` is a version. None when there is no such run."""
        as_of = await self.as_of("history")
        blocks = limit // BLOCK + 2
        rows = await self._store.fetch(
            "history_timeline", tenant=tenant, run_id=str(run_id), from_block=after // BLOCK, limit=blocks
        )
        if not rows and not await self._store.fetch("history_run", tenant=tenant, run_id=str(run_id)):
            return None
        entries = [entry for entry in entries_of(rows) if entry["version"] > after]
        more = len(entries) > limit
        return Page(entries[:limit], as_of, str(entries[limit - 1]["version"]) if more else None)

    async def entries(self, tenant: str | None, run_id: UUID) -> AsyncIterator[Record]:
        """The whole timeline, read block by block."""
        block = 0
        while True:
            rows = await self._store.fetch(
                "history_timeline", tenant=tenant, run_id=str(run_id), from_block=block, limit=8
            )
            for entry in entries_of(rows):
                yield entry
            if len(rows) < 8:
                return
            block = rows[-1]["block"] + 1

    async def steps(self, tenant: str | None, run_id: UUID) -> Page | None:
        as_of = await self.as_of("history")
        entries = [entry async for entry in self.entries(tenant, run_id)]
        return Page(list(steps(entries)), as_of) if entries else None

    async def story(self, tenant: str | None, correlation_id: str, *, limit: int = MOST) -> Page:
        """All runs of one correlation id, oldest first."""
        as_of = await self.as_of("history")
        rows = await self._store.fetch("history_caused", tenant=tenant, correlation_id=correlation_id, limit=limit)
        return Page([run_of(row) for row in rows], as_of)

    async def counts(self, tenant: str | None) -> dict[str, int]:
        """Open runs by status."""
        return {row["status"]: row["runs"] for row in await self._store.fetch("history_counts", tenant=tenant)}

    async def incidents(self, tenant: str | None) -> dict[str, int]:
        """Runs that wait for an operator, by the reason of their oldest incident."""
        return {row["reason"]: row["runs"] for row in await self._store.fetch("history_incidents", tenant=tenant)}

    # ------------------------------------------------------------------------------------------------- the other views

    async def approvals(
        self,
        tenant: str | None,
        *,
        state: str | None = "open",
        run_id: UUID | None = None,
        before: str | None = None,
        limit: int = PAGE,
    ) -> Page:
        as_of = await self.as_of("approvals")
        last: Sequence[Any] = orjson.loads(before) if before else (None, None, None)
        rows = await self._store.fetch(
            "approvals_list",
            tenant=tenant,
            state=state,
            run_id=None if run_id is None else str(run_id),
            before_run=last[0],
            before_name=last[1],
            before_visit=last[2],
            limit=limit + 1,
        )
        items = [approval_of(row) for row in rows[:limit]]
        mark = None
        if len(rows) > limit:
            mark = orjson.dumps([items[-1]["run_id"], items[-1]["name"], items[-1]["visit"]]).decode()
        return Page(items, as_of, mark)

    async def usage(self, tenant: str | None, *, first: date, last: date, limit: int = 1000) -> Page:
        """A record per tenant: now, and per day of the span, newest first."""
        as_of = await self.as_of("usage")
        span = {"from_day": first.isoformat(), "to_day": last.isoformat()}
        now = await self._store.fetch("usage_now", tenant=tenant)
        days = await self._store.fetch("usage_days", tenant=tenant, limit=limit, **span)
        items = [
            {
                "tenant": row["tenant"],
                "open_runs": row["open_runs"],
                "total_runs": row["total_runs"],
                "days": [day_of(day) for day in days if day["tenant"] == row["tenant"]],
            }
            for row in now
        ]
        return Page(items, as_of)

    async def stats(self, tenant: str | None, *, first: date, last: date, workflow: str | None = None) -> Page:
        """A record per tenant and workflow over the span: runs by status, durations, cost, success rate."""
        as_of = await self.as_of("stats")
        span: Record = {"from_day": first.isoformat(), "to_day": last.isoformat(), "workflow": workflow}
        started = await self._store.fetch("stats_started", tenant=tenant, **span)
        ended = await self._store.fetch("stats_ended", tenant=tenant, **span)
        keys = sorted({(row["tenant"], row["workflow"]) for row in (*started, *ended)})
        return Page([statistics_of(key, started, ended) for key in keys], as_of)

    async def audit(
        self,
        tenant: str,
        *,
        stream: UUID | None = None,
        topic: str | None = None,
        actor: str | None = None,
        before: str | None = None,
        limit: int = PAGE,
    ) -> Page:
        as_of = await self.as_of("audit")
        rows = await self._store.fetch(
            "audit_list",
            tenant=tenant,
            before=None if before is None else int(before),
            stream=None if stream is None else str(stream),
            topic=topic,
            actor=actor,
            limit=limit + 1,
        )
        items = [audit_of(row) for row in rows[:limit]]
        return Page(items, as_of, str(items[-1]["number"]) if len(rows) > limit else None)

    async def erasures(self, tenant: str | None, *, after: str | None = None, limit: int = PAGE) -> Page:
        """Data subjects that were erased, by scope: what is applied again to a restored database."""
        as_of = await self.as_of("audit")
        last, _, number = (after or "").rpartition("/")
        rows = await self._store.fetch(
            "audit_erasures",
            tenant=tenant,
            after_tenant=last or None,
            after=int(number) if last else None,
            limit=limit + 1,
        )
        items = [erasure_of(row) for row in rows[:limit]]
        cursor = f"{rows[limit - 1]['tenant']}/{rows[limit - 1]['number']}" if len(rows) > limit else None
        return Page(items, as_of, cursor)

    async def audit_head(self, tenant: str) -> Record:
        """The end of the tenant's chain: keep it elsewhere, and a later cut shows."""
        as_of = await self.as_of("audit")
        rows = await self._store.fetch("audit_heads_of", tenant=tenant)
        number, digest = (rows[0]["number"], bytes(rows[0]["hash"])) if rows else (0, chain.GENESIS)
        return {"tenant": tenant, "number": number, "hash": digest.hex(), "as_of": as_of}

    async def verify_audit(self, tenant: str, *, against_log: bool = False) -> chain.Verdict:
        """Walks the tenant's whole chain; `against_log` also reads every event that it covers."""
        return await verify(self._store, tenant, against_log=against_log)


def _token(positions: Mapping[int, int]) -> str:
    return ".".join(f"{lane}-{position}" for lane, position in sorted(positions.items()))


def parse_token(token: str, field: str = "wait_for_position") -> dict[int, int]:
    """Lane to position. Raises `PayloadInvalid`."""
    try:
        parts = [part.split("-") for part in token.split(".")]
        return {int(lane): int(position) for lane, position in parts}
    except ValueError:
        raise PayloadInvalid(f"{field} must be a token that this API gave, such as 0-42", field=field) from None
