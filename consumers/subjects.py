"""A data subject's rights: everything that is known of it, and being forgotten.

An erasure first sees the subject's runs to their end, since a run that loses its data half-way can only be parked. It
is recorded, then what the subject can be found by is deleted, and at last its keys are dropped: what they sealed in the
log, the journal and the outbox is gone. The record names the keyed hash of the subject (its scope) and nobody; from it
an erasure is applied again to a database that was restored from before.

What modules hold of the subject is theirs to erase.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson

from consumers.ending import OpenRuns, end_runs
from contracts.pointers import resolve, segments
from contracts.problems import Unavailable
from contracts.tenant_events import LOG_EVENTS, SubjectErased, SubjectExported
from engine.door import Door
from engine.store.data_keys import frame_of_scope
from projections.reader import MOST, Reader
from projections.records import Record

END_SECONDS: Final = 20.0
"""So long an erasure waits for the runs it has cancelled or terminated."""
VIEW_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Erasure:
    """`keys` is how many were dropped: 0 for a subject that is unknown, or erased already."""

    scope: str
    runs: int
    arrivals: int
    keys: int


class Subjects:
    """One per process that serves the platform's operators."""

    def __init__(self, door: Door, reader: Reader) -> None:
        self._door, self._reader = door, reader

    async def erase(
        self, tenant: str, subject: str, *, by: str, reason: str = "", open_runs: OpenRuns = "refuse"
    ) -> Erasure:
        """Raises `Conflict` over open runs when they are to be left alone, `Unavailable` when they do not end in time
        or the read models are too far behind to say which runs there are; asked again, it goes on.
        """
        door = self._door
        scope = await door.vault.scope_of(tenant, subject)
        runs = [UUID(run["run_id"]) async for run in self._runs(tenant, subject)]
        left = await self._open_of(tenant, runs)

        async def still_open() -> list[UUID]:
            nonlocal left
            left = await self._open_of(tenant, left)
            return left

        await end_runs(
            door,
            tenant,
            still_open,
            open_runs,
            whose="subject",
            by=by,
            reason=reason or "its data subject is erased",
            seconds=END_SECONDS,
        )
        event = SubjectErased(at=door.clock.now(), scope=_bare(scope), runs=len(runs), by=by, reason=reason)
        await door.tenants.record(tenant, event)
        return await self._forget(tenant, scope, len(runs))

    async def apply_again(self, tenant: str, scopes: list[str], *, by: str) -> list[Erasure]:
        """Erases by scope what was erased before: a restored database knows the keys again, and maybe not the
        erasure.
        """
        found = []
        for bare in scopes:
            event = SubjectErased(at=self._door.clock.now(), scope=bare, runs=0, by=by, reason="applied again")
            await self._door.tenants.record(tenant, event)
            found.append(await self._forget(tenant, "subject/" + bare, 0))
        return found

    async def export(self, tenant: str, subject: str, *, by: str, reason: str = "") -> Record:
        """What the subject's runs hold of it, opened: every personal value with its place in the run's history."""
        door = self._door
        runs: list[Record] = []
        async for run in self._runs(tenant, subject):
            values: list[Record] = []
            for version, event in enumerate(await door.events(tenant, UUID(run["run_id"])), 1):
                document = orjson.loads(LOG_EVENTS.encode(event))
                values.extend(
                    {
                        "version": version,
                        "topic": event.TOPIC,
                        "place": mark,
                        "value": resolve(document, segments(mark)),
                    }
                    for mark in event.marks
                )
            runs.append(
                {name: run[name] for name in ("run_id", "workflow", "status", "started_at", "ended_at")}
                | {"values": values}
            )
        scope = _bare(await door.vault.scope_of(tenant, subject))
        event = SubjectExported(at=door.clock.now(), scope=scope, runs=len(runs), by=by, reason=reason)
        await door.tenants.record(tenant, event)
        return {"tenant": tenant, "subject": subject, "scope": scope, "runs": runs}

    async def _runs(self, tenant: str, subject: str) -> AsyncIterator[Record]:
        if not await self._reader.reached("history", await self._reader.head(), timeout_seconds=VIEW_SECONDS):
            raise Unavailable("the read models are behind: not all of the subject's runs are known yet; ask again")
        after: str | None = None
        while True:
            page = await self._reader.runs_of_subject(tenant, subject, after=after)
            for run in page:
                yield run
            if len(page) < MOST:
                return
            after = page[-1]["run_id"]

    async def _open_of(self, tenant: str, runs: list[UUID]) -> list[UUID]:
        return [run for run in runs if await self._door.store.open_run(tenant, run) is not None]

    async def _forget(self, tenant: str, scope: str, runs: int) -> Erasure:
        arrivals = await self._door.store.forget_subject(tenant, frame_of_scope(scope))
        keys = await self._door.vault.erase_scope(tenant, scope)
        return Erasure(_bare(scope), runs, arrivals, keys)


def _bare(scope: str) -> str:
    return scope.removeprefix("subject/")
