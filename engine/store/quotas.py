"""The `QuotaRows` port, once for both drivers: what quotas count, to be seen. What they bound, the append decides."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from engine.store import WorkflowUse
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
