"""The `OutletRows` port, once for both drivers. It seals and sends nothing: `engine.outlets` and `consumers.notifier`
do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from engine.store import Outlet, OutletDelivery, OutletQueue, OutletState
from engine.store import rows as read
from engine.store.statements import Caller


class OutletVerbs(Caller):
    """See `engine.store.OutletRows`; docstrings are there."""

    async def add_outlet(self, outlet: Outlet) -> bool:
        given = {name: getattr(outlet, name) for name in _OUTLET}
        return bool(await self.call("add_outlet", **given, types=" ".join(outlet.types)))

    async def outlet(self, tenant: str, name: str) -> Outlet | None:
        found = await self.call("outlet", tenant=tenant, name=name)
        return read.outlet(found[0]) if found else None

    async def outlets(self, tenant: str | None) -> list[Outlet]:
        return [read.outlet(row) for row in await self.call("outlets", tenant=tenant)]

    async def rotate_outlet(self, outlet: Outlet, secret: bytes, *, old_until: datetime, now: datetime) -> bool:
        found = await self.call(
            "rotate_outlet",
            tenant=outlet.tenant,
            name=outlet.name,
            version=outlet.version,
            secret=secret,
            old_until=old_until,
            rotated_at=now,
        )
        return bool(found)

    async def switch_outlet(self, tenant: str, name: str, *, enabled: bool, why: str, now: datetime) -> bool:
        return bool(await self.call("switch_outlet", tenant=tenant, name=name, enabled=enabled, why=why, at=now))

    async def note_outlet(self, tenant: str, name: str, *, failed: bool, now: datetime) -> datetime | None:
        found = await self.call("note_outlet", tenant=tenant, name=name, failed=failed, at=now)
        return read.maybe_instant(found[0]["failing_since"]) if found else None

    async def remove_outlet(self, tenant: str, name: str) -> bool:
        return bool(await self.call("remove_outlet", tenant=tenant, name=name))

    async def add_delivery(self, delivery: OutletDelivery) -> bool:
        given = {name: getattr(delivery, name) for name in _DELIVERY}
        return bool(await self.call("add_delivery", **given))

    async def claim_deliveries(
        self, *, now: datetime, lease_until: datetime, busy: Sequence[str], each: int, limit: int
    ) -> list[OutletDelivery]:
        found = await self.call(
            "claim_deliveries", at=now, lease_until=lease_until, busy=list(busy), each=each, limit=limit
        )
        return [read.outlet_delivery(row) for row in found]

    async def settle_delivery(self, delivery: OutletDelivery) -> bool:
        given = {name: getattr(delivery, name) for name in _SETTLED}
        return bool(await self.call("settle_delivery", **given))

    async def deliveries(
        self, tenant: str, outlet: str, *, state: OutletState | None = None, limit: int = 100
    ) -> list[OutletDelivery]:
        found = await self.call("deliveries", tenant=tenant, outlet=outlet, state=state, limit=limit)
        return [read.outlet_delivery(row) for row in found]

    async def delivery(self, tenant: str, outlet: str, message_id: str) -> OutletDelivery | None:
        found = await self.call("delivery", tenant=tenant, outlet=outlet, message_id=message_id)
        return read.outlet_delivery(found[0]) if found else None

    async def resend_delivery(
        self, tenant: str, outlet: str, message_id: str, *, now: datetime, soon: datetime
    ) -> bool:
        given = {"tenant": tenant, "outlet": outlet, "message_id": message_id}
        return bool(await self.call("resend_delivery", **given, at=now, soon=soon))

    async def resend_failed(
        self, tenant: str, outlet: str, *, since: datetime, now: datetime, soon: datetime, limit: int
    ) -> int:
        found = await self.call(
            "resend_failed", tenant=tenant, outlet=outlet, since=since, at=now, soon=soon, limit=limit
        )
        return len(found)

    async def outlet_queues(self, *, most: int = 100_000) -> list[OutletQueue]:
        return [read.outlet_queue(row) for row in await self.call("outlet_queues", most=most)]

    async def prune_deliveries(self, *, before: datetime, limit: int) -> int:
        return len(await self.call("prune_deliveries", before=before, limit=limit))


_OUTLET = ("tenant", "name", "url", "version", "secret", "created_at", "created_by")
_DELIVERY = ("tenant", "outlet", "message_id", "about", "type", "body", "created_at")
_SETTLED = ("tenant", "outlet", "message_id", "state", "attempts", "due_at", "status", "error", "settled_at")
