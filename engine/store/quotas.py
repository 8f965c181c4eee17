"""The `QuotaRows` port, once for both drivers: what quotas count, to be seen. What they bound, the append decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from engine.store import READ_BYTES, CountedStarts, StartsCounted, StartsRead, WorkflowUse
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

    async def starts_counted(self, lane: int, *, after: int, most: int, day: str) -> StartsCounted:
        found = await self.call("starts_counted", lane=lane, after=after, most=most, day=day)
        own = [row for row in found if row["tenant"] is not None]
        counted = [
            CountedStarts(
                tenant=row["tenant"], counted=int(row["counted"]), opened=row["opened"], open_runs=row["open_runs"]
            )
            for row in own
        ]
        return StartsCounted(
            upto=found[0]["upto"],
            begun={row["tenant"]: row["begun"] for row in own if row["begun"]},
            counted=counted if found[0]["whole"] else None,
        )

    async def starts_of(
        self, tenants: Sequence[str], lane: int, *, after: int, most: int, day: str, most_bytes: int = READ_BYTES
    ) -> StartsRead:
        found = await self.call(
            "starts_of", tenants=list(tenants), lane=lane, after=after, most=most, bytes=most_bytes, day=day
        )
        counted = {
            (row["tenant"], row["workflow"]): int(row["counted"]) for row in found if row["workflow"] is not None
        }
        return StartsRead(
            upto=found[0]["upto"],
            starts=[
                (row["tenant"], read.uuid(row["stream"]), read.stored(row))
                for row in found
                if row["stream"] is not None
            ],
            counted=counted if found[0]["whole"] else None,
        )

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
