"""The `QuotaRows` port, once for both drivers: what quotas count, to be seen. What they bound, the append decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from engine.store import CountedStarts, Stored, WorkflowUse
from engine.store import rows as read
from engine.store.statements import Caller


class QuotaVerbs(Caller):
    """See `engine.store.QuotaRows`; docstrings are there."""

    async def quota_use(self, tenant: str, *, day: str) -> list[WorkflowUse]:
        return [WorkflowUse(**dict(row)) for row in await self.call("quota_use", tenant=tenant, day=day)]

    async def keys_answered(self, stream: UUID, keys: Sequence[str]) -> set[str]:
        return {row["key"] for row in await self.call("keys_answered", stream=stream, keys=list(keys))}

    async def egress_taken(self, tenant: str, *, slot: int, width_ms: int, slots: int) -> int:
        found = await self.call("egress_taken", tenant=tenant, slot=slot, width_ms=width_ms, slots=slots)
        return int(found[0]["taken"])

    async def position_before(self, lane: int, at: datetime) -> int:
        found = await self.call("position_before", lane=lane, at=at)
        return int(found[0]["position"])

    async def starts_counted(self, lane: int, *, after: int, day: str) -> list[CountedStarts]:
        found = await self.call("starts_counted", lane=lane, after=after, day=day)
        return [CountedStarts(**dict(row)) for row in found]

    async def starts_of(
        self, tenant: str, lane: int, *, after: int, day: str
    ) -> tuple[list[tuple[UUID, Stored]], Mapping[str, int]]:
        found = await self.call("starts_of", tenant=tenant, lane=lane, after=after, day=day)
        counted = Counter({row["workflow"]: int(row["counted"]) for row in found if row["workflow"] is not None})
        starts = [(read.uuid(row["stream"]), read.stored(row)) for row in found if row["workflow"] is None]
        return starts, counted

    async def correct_counts(self, tenant: str, *, day: str, started: Mapping[str, int], opened: int = 0) -> None:
        by = {**started, **({"": started.get("", 0)} if opened else {})}
        await self.call(
            "correct_counts",
            tenant=tenant,
            day=day,
            workflows=list(by),
            started=list(by.values()),
            opened=[opened if workflow == "" else 0 for workflow in by],
        )
