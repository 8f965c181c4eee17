"""The `Archive` port, once for both drivers: ended runs leave the log for months of the archive, and read as before."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from engine.store import ArchivedMonth, ArchivedRun, Notification
from engine.store import rows as read
from engine.store.statements import Caller


class ArchiveVerbs(Caller):
    """See `engine.store.Archive`; docstrings are there."""

    async def archive_runs(self, tenant: str, runs: Sequence[UUID], *, month: str) -> dict[UUID, int]:
        found = await self.call("archive_runs", tenant=tenant, runs=list(runs), month=month)
        return {read.uuid(row["run_id"]): row["events"] for row in found}

    async def archived_run(self, tenant: str | None, run_id: UUID) -> ArchivedRun | None:
        found = await self.call("archived_run", tenant=tenant, run=run_id)
        return ArchivedRun(found[0]["tenant"], found[0]["month"], bool(found[0]["dropped"])) if found else None

    async def dropped_runs(self, runs: Sequence[UUID]) -> set[UUID]:
        return {read.uuid(row["run_id"]) for row in await self.call("dropped_runs", runs=list(runs))}

    async def archive_months(self) -> list[ArchivedMonth]:
        return [
            ArchivedMonth(row["month"], row["runs"], row["events"], bool(row["dropped"]))
            for row in await self.call("archive_months")
        ]

    async def read_archive(self, month: str, *, after: int, limit: int) -> list[Notification]:
        return [
            read.notification(row) for row in await self.call("read_archive", month=month, after=after, limit=limit)
        ]

    async def drop_month(self, month: str) -> tuple[int, int]:
        [row] = await self.call("drop_month", month=month)
        return row["runs"], row["events"]
