"""The end of a tenant: what the engine knows of it is made unreadable for good, and nothing of it begins again.

    leaving -> its runs end -> they are archived -> recorded -> read models done -> gone: keys, journal, letters, tokens

While it leaves, no run of it starts (a run's own children and unwinding do); open runs get their replies and are
undone. The mark is a setting that every process reads each second; `SETTLE_SECONDS` after it was made, whoever has not
read it is no process any more. Once gone, its keys are dropped, so that log and archive keep bytes which nobody can
open; the audit's chain over them still holds. Asked again after a failure, it goes on where it was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from consumers.archiving import Archiver
from consumers.ending import LISTED, OpenRuns, end_runs, refuse
from contracts.envelope import format_time
from contracts.problems import Unavailable
from contracts.tenant_events import PLATFORM, TenantOffboarded
from engine.door import Door
from engine.store.keys import OFFBOARDING
from projections.reader import Reader

SETTLE_SECONDS: Final = 5.0
"""Longer than a lease."""
END_SECONDS: Final = 30.0
"""So long it waits for runs that it has cancelled or terminated."""
VIEW_SECONDS: Final = 10.0
VIEWS: Final = ("history", "usage", "audit", "stats", "approvals")


@dataclass(frozen=True, slots=True)
class Offboarded:
    """What was let go: archived runs, arrivals of the journal, dead letters, tokens and keys."""

    tenant: str
    runs: int
    arrivals: int
    letters: int
    tokens: int
    keys: int


class Offboarding:
    """One per request of a platform operator."""

    def __init__(self, door: Door, reader: Reader, *, settle_seconds: float = SETTLE_SECONDS) -> None:
        self._door, self._reader, self._settle = door, reader, settle_seconds

    async def offboard(self, tenant: str, *, by: str, reason: str, open_runs: OpenRuns = "refuse") -> Offboarded:
        """Raises `Conflict` over open runs that are to be left alone, `Unavailable` when they do not end in time or the
        read models are too far behind; nothing is gone then, and it may be asked again.
        """
        door, store = self._door, self._door.store
        known: Any = await store.setting(tenant, OFFBOARDING)
        if known is None:
            if open_runs == "refuse":
                refuse("tenant", await self._open(tenant))
            known = {"by": by, "since": format_time(door.clock.now()), "reason": reason, "gone": False}
            await store.put_setting(tenant, OFFBOARDING, known)
            await asyncio.sleep(self._settle)
        runs = 0
        if not known["gone"]:
            await self._end(tenant, by, reason, open_runs)
            await self._read_all("history")
            archiver = Archiver(store, door.tenants, door.clock)
            runs = (await archiver.archive(door.clock.now() + timedelta(days=1), by=by, tenant=tenant)).runs
            event = TenantOffboarded(at=door.clock.now(), tenant=tenant, runs=runs, by=by, reason=reason)
            await door.tenants.record(PLATFORM, event)
            await self._read_all(*VIEWS)
            await store.put_setting(tenant, OFFBOARDING, {**known, "gone": True})
        door.vault.bar(tenant)
        return Offboarded(tenant, runs, **await store.forget_tenant(tenant))

    async def _end(self, tenant: str, by: str, reason: str, how: OpenRuns) -> None:
        """Until no run is open: those that go on in another one, and those that unwind, are waited for too."""
        await end_runs(
            self._door,
            tenant,
            lambda: self._open(tenant),
            how,
            whose="tenant",
            by=by,
            reason=reason or "its tenant is offboarded",
            seconds=END_SECONDS,
        )

    async def _open(self, tenant: str) -> list[UUID]:
        return [run.run_id for run in await self._door.store.open_runs(tenant=tenant, limit=LISTED)]

    async def _read_all(self, *views: str) -> None:
        head = await self._reader.head()
        for view in views:
            if not await self._reader.reached(view, head, timeout_seconds=VIEW_SECONDS):
                raise Unavailable(f"the read model {view} is behind; nothing is gone, ask again")
