"""The `Work` port, once for both drivers: each verb is one named statement of their twin `work.sql`. It claims and
releases; deciding what to do with what was claimed is the consumers'."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from contracts.version import __version__
from engine.store import RECOUNTED_AT_ONCE, Account, Census, DueTimer, InputRow, OpenRun, OutboxRow, Process
from engine.store import rows as read
from engine.store.statements import Caller


class WorkVerbs(Caller):
    """See `engine.store.Work`; docstrings are there."""

    async def register(self, name: str, roles: Sequence[str], *, now: datetime | None = None) -> int:
        found = await self.call("register", name=name, roles=list(roles), version=__version__, now=now)
        return int(found[0]["epoch"])

    async def heartbeat(self, epoch: int, *, now: datetime | None = None) -> bool:
        found = await self.call("heartbeat", epoch=epoch, now=now)
        return bool(found) and found[0]["epoch"] is not None

    async def time(self) -> datetime:
        [row] = await self.call("time")
        return read.instant(row["now"])

    async def declare_dead(
        self, *, silent_seconds: float, but: int | None = None, now: datetime | None = None
    ) -> list[int]:
        found = await self.call("declare_dead", silent_seconds=float(silent_seconds), but=but, now=now)
        return sorted(row["epoch"] for row in found)

    async def retire(self, epoch: int) -> None:
        await self.call("retire", epoch=epoch)

    async def restored(self) -> None:
        await self.call("restored")

    async def account(self, day: str, used: Sequence[Account]) -> None:
        if used:
            await self.call(
                "account",
                day=day,
                tenants=[one.tenant for one in used],
                decide=[one.decide_seconds for one in used],
                project=[one.project_seconds for one in used],
                rows=[one.rows for one in used],
                sends=[one.sends for one in used],
                actions=[one.actions for one in used],
            )

    async def accounts(self, tenant: str | None, *, first: str, last: str, limit: int = 10_000) -> list[Account]:
        found = await self.call("accounts", tenant=tenant, first=first, last=last, limit=limit)
        return [Account(**dict(row)) for row in found]

    async def recount_accounts(self, *, first: str, last: str, most: int = RECOUNTED_AT_ONCE) -> None:
        midnight = datetime.fromisoformat(first).replace(tzinfo=UTC)
        for lane in [row["lane"] for row in await self.call("lanes")]:
            [start] = await self.call("position_before", lane=lane, at=midnight)
            after, whole = start["position"], False
            true: Counter[tuple[str, str]] = Counter()
            counted: dict[tuple[str, str], int] = {}
            while not whole:
                found = await self.call("rows_counted", lane=lane, after=after, first=first, last=last, most=most)
                after, whole = found[0]["upto"], found[0]["whole"]
                for row in found:
                    if row["tenant"] is not None:
                        true[row["tenant"], row["day"]] += row["rows"]
                        counted[row["tenant"], row["day"]] = row["counted"]
            missing: defaultdict[str, list[Account]] = defaultdict(list)
            for (tenant, day), rows in sorted(true.items()):
                if rows and rows != counted[tenant, day]:
                    missing[day].append(Account(tenant=tenant, day=day, rows=rows - counted[tenant, day]))
            for day, added in missing.items():
                await self.account(day, added)

    async def processes(self) -> list[Process]:
        """Every process that ever registered, oldest first; the dead ones too."""
        return [read.process(row) for row in await self.call("processes")]

    async def claim_runs(
        self, epoch: int, *, plans: Sequence[tuple[str, int]], limit: int = 500, now: datetime | None = None
    ) -> list[OpenRun]:
        workflows = [workflow for workflow, _ in plans]
        versions = [version for _, version in plans]
        found = await self.call("claim_runs", epoch=epoch, workflows=workflows, versions=versions, limit=limit)
        return sorted(map(read.open_run, found), key=lambda run: (run.started_at, run.run_id))

    async def release_runs(self, epoch: int, runs: Sequence[UUID]) -> None:
        await self.call("release_runs", epoch=epoch, runs=list(runs))

    async def hand_over(self, epoch: int, runs: Sequence[UUID], *, now: datetime | None = None) -> None:
        await self.call("hand_over", epoch=epoch, runs=list(runs), now=now)

    async def claim_named(self, epoch: int, runs: Sequence[tuple[str, UUID]]) -> list[OpenRun]:
        tenants, ids = [tenant for tenant, _ in runs], [run_id for _, run_id in runs]
        return [read.open_run(row) for row in await self.call("claim_named", epoch=epoch, tenants=tenants, runs=ids)]

    async def open_run(self, tenant: str, run_id: UUID) -> OpenRun | None:
        found = await self.call("open_run", tenant=tenant, run=run_id)
        return read.open_run(found[0]) if found else None

    async def open_runs(
        self, *, tenant: str | None = None, limit: int = 1000, after: UUID | None = None
    ) -> list[OpenRun]:
        return [read.open_run(row) for row in await self.call("open_runs", tenant=tenant, after=after, limit=limit)]

    async def queued_runs(
        self, epoch: int, *, limit: int, but: Collection[tuple[str, str | None]] = ()
    ) -> list[OpenRun]:
        tenants = [tenant for tenant, workflow in but if workflow is None]
        pairs = [(tenant, workflow) for tenant, workflow in but if workflow is not None]
        found = await self.call(
            "queued_runs",
            epoch=epoch,
            limit=limit,
            tenants=tenants,
            of=[tenant for tenant, _ in pairs],
            workflows=[workflow for _, workflow in pairs],
        )
        return [read.open_run(row) for row in found]

    async def slots_held(self, tenants: Sequence[str]) -> dict[tuple[str, str], int]:
        held = await self.call("slots_held", tenants=list(tenants))
        return {(row["tenant"], row["workflow"]): row["held"] for row in held}

    async def claim_inputs(
        self, epoch: int, *, limit: int, but: Sequence[str] = (), now: datetime | None = None
    ) -> list[InputRow]:
        found = await self.call("claim_inputs", epoch=epoch, limit=limit, but=list(but), now=now)
        return sorted(map(read.input_row, found), key=lambda row: row.id)

    async def claim_outbox(self, epoch: int, *, limit: int, now: datetime | None = None) -> list[OutboxRow]:
        found = await self.call("claim_outbox", epoch=epoch, limit=limit, now=now)
        return sorted(map(read.outbox_row, found), key=lambda row: row.id)

    async def settle_outbox(
        self, sent: Sequence[int], *, returned: Sequence[int] = (), retry_at: datetime | None = None
    ) -> None:
        if sent or returned:
            await self.call("settle_outbox", sent=list(sent), returned=list(returned), retry_at=retry_at)

    async def due_timers(self, epoch: int, *, limit: int, now: datetime | None = None) -> list[DueTimer]:
        found = await self.call("due_timers", epoch=epoch, limit=limit, now=now)
        return sorted(map(read.due_timer, found), key=lambda timer: (timer.due, timer.run_id, timer.key))

    async def wakes(self, tenant: str, run_id: UUID) -> dict[str, list[dict[str, Any]]]:
        reasons: dict[str, list[dict[str, Any]]] = {
            reason: [] for reason in ("timers", "subscriptions", "awaits", "inputs", "outbox")
        }
        for row in await self.call("wakes", tenant=tenant, run=run_id):
            reasons[row["reason"]].append(read.wake(row["detail"]))
        return reasons

    async def runs_without_wake(
        self, *, older_than_seconds: float, limit: int, now: datetime | None = None
    ) -> list[OpenRun]:
        found = await self.call("runs_without_wake", older_than_seconds=float(older_than_seconds), limit=limit, now=now)
        return [read.open_run(row) for row in found]

    async def census(self, *, most: int = 100_000, now: datetime | None = None) -> Census:
        [row] = await self.call("census", most=most, now=now)
        return read.census(row)
