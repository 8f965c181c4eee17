"""Retention: ended runs leave the log, and the lists, for the archive of the month they ended in.

A slice of a tenant's runs is moved first and recorded then (`runs.archived`, from which the read models let them go):
what dies in between is moved already, is still listed, and is recorded by the next pass. Whatever asks for an archived
run by its id (a rerun, an undo, a replay, a rebuild of the read models) reads it as before, until its month is
dropped.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from contracts.envelope import format_time
from contracts.tenant_events import PLATFORM, ArchiveDropped, RunsArchived
from engine.clock import Clock
from engine.store import Store
from engine.tenant_log import TenantLog

SLICE: Final = 500
"""Runs looked at, moved and recorded at once."""


@dataclass(frozen=True, slots=True)
class Archived:
    runs: int
    events: int


class Archiver:
    """One per process that owns runs, and one per request of an operator."""

    def __init__(self, store: Store, log: TenantLog, clock: Clock) -> None:
        self._store, self._log, self._clock = store, log, clock

    async def count(self, before: datetime, *, tenant: str | None = None, most: int = 1_000_000) -> int:
        """How many runs have ended before that moment, as far as the history shows; at most `most`."""
        [row] = await self._ended("history_count_ended_before", before, tenant, UUID(int=0), most)
        return int(row["runs"])

    async def archive(
        self,
        before: datetime,
        *,
        by: str,
        tenant: str | None = None,
        most: int | None = None,
    ) -> Archived:
        """Archives the runs that have ended before that moment, in the order of their starts, at most `most`."""
        runs = events = 0
        after = UUID(int=0)
        while most is None or runs < most:
            limit = SLICE if most is None else min(SLICE, most - runs)
            found = await self._ended("history_ended_before", before, tenant, after, limit)
            months: defaultdict[tuple[str, str], list[UUID]] = defaultdict(list)
            for row in found:
                after = UUID(str(row["run_id"]))
                months[row["tenant"], month_of(row["ended_at"])].append(after)
            for (owner, month), ids in sorted(months.items()):
                moved = await self._store.archive_runs(owner, ids, month=month)
                if moved:
                    event = RunsArchived(
                        at=self._clock.now(),
                        month=month,
                        runs=len(moved),
                        events=sum(moved.values()),
                        archived=tuple(str(run_id) for run_id in moved),
                        by=by,
                    )
                    await self._log.record(owner, event)
                    runs, events = runs + event.runs, events + event.events
            if len(found) < limit:
                break
        return Archived(runs, events)

    async def drop(self, month: str, *, by: str, reason: str) -> Archived:
        """Deletes a month of the archive for good, and records it. Raises `Forbidden` when the database does not let
        this process do it."""
        runs, events = await self._store.drop_month(month)
        if runs:
            event = ArchiveDropped(at=self._clock.now(), month=month, runs=runs, events=events, by=by, reason=reason)
            await self._log.record(PLATFORM, event)
        return Archived(runs, events)

    async def _ended(
        self, statement: str, before: datetime, tenant: str | None, after: UUID, limit: int
    ) -> list[dict[str, Any]]:
        # The first 48 bits of a run's id are the milliseconds of its start (UUIDv7, RFC 9562).
        bound = UUID(int=max(0, int(before.timestamp() * 1000) + 1) << 80)
        return await self._store.fetch(
            statement, tenant=tenant, after=str(after), bound=str(bound), before=format_time(before), limit=limit
        )


def month_of(ended_at: datetime | str) -> str:
    """The UTC month, `2030-01`, of a read model's instant.

    >>> month_of("2030-01-31T23:59:59.000000Z")
    '2030-01'
    """
    return ended_at[:7] if isinstance(ended_at, str) else f"{ended_at:%Y-%m}"
