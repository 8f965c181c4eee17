"""How much of its quotas a tenant has used: read from the rows that the append counts, when somebody asks, so that what
is shown is what is enforced. A read model would be late by as much as it lags, and would be a second count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from contracts.quotas import MOST_DEPTH, MOST_STEPS, Quotas, WorkflowQuotas
from contracts.tenant_events import tenant_stream
from engine.clock import Clock
from engine.guards.breaches import breach_key
from engine.guards.budgets import day_after
from engine.guards.outbound import QUOTA, Outbound
from engine.guards.quotas import BUDGETS, QuotaBook, of_workflow
from engine.store import QuotaRows, WorkflowUse

_OF_A_TENANT: Final = ("concurrent_runs", "open_runs", "daily_runs", *BUDGETS)
_OF_A_RUN: Final = ("steps", "depth", "run_seconds", "payload_bytes")


@dataclass(frozen=True, slots=True)
class CapUse:
    """One quota. `limit` None: none; `used` None: it bounds a single run. `ends_at` is when counting begins anew, None
    for what is counted as it is now; `breached`, whether it was met in the window under way.
    """

    cap: str
    workflow: str | None
    limit: int | None
    used: int | None
    ends_at: datetime | None
    breached: bool

    @property
    def spent(self) -> bool:
        """Whether it is a budget of which nothing is left."""
        return self.cap in BUDGETS and self.limit is not None and (self.used or 0) >= self.limit


class QuotaUse:
    """Asked by the API, and by whoever explains why a run does not move."""

    def __init__(self, rows: QuotaRows, book: QuotaBook, clock: Clock, outbound: Outbound | None = None) -> None:
        self._rows, self._book, self._clock, self._outbound = rows, book, clock, outbound

    async def of(self, tenant: str) -> list[CapUse]:
        """Of the tenant first, then of each workflow that has a quota of its own and is named or in use."""
        now = self._clock.now()
        quotas = await self._book.holding(tenant)
        used = await self._rows.quota_use(tenant, day=f"{now:%Y-%m-%d}")
        caps = list(_tenants(quotas, used))
        if self._outbound is not None:
            rate, taken = await self._outbound.used(tenant)
            caps.append((QUOTA, None, rate.requests, taken))
        caps += _workflows(quotas, used)
        keys = {cap[:2]: breach_key(cap[0], cap[1], now) for cap in caps}
        said = await self._rows.keys_answered(tenant_stream(tenant), list(keys.values()))
        return [
            CapUse(cap, workflow, limit, count, _ends(cap, now), keys[cap, workflow] in said)
            for cap, workflow, limit, count in caps
        ]

    async def spent(self, tenant: str, workflow: str) -> CapUse | None:
        """The budget that keeps this workflow's runs from going on, if one does."""
        caps = await self.of(tenant)
        return next((one for one in caps if one.spent and one.workflow in (None, workflow)), None)


_Cap = tuple[str, str | None, int | None, int | None]


def _tenants(quotas: Quotas, used: Sequence[WorkflowUse]) -> Iterable[_Cap]:
    for cap in _OF_A_TENANT:
        yield cap, None, getattr(quotas, cap), sum(_count(one, cap) for one in used)
    bounds = {"steps": MOST_STEPS, "depth": MOST_DEPTH}
    for cap in _OF_A_RUN:
        limit = getattr(quotas, cap)
        yield cap, None, bounds.get(cap) if limit is None else limit, None


def _workflows(quotas: Quotas, used: Sequence[WorkflowUse]) -> Iterable[_Cap]:
    by_name = {one.workflow: one for one in used}
    for name in sorted({*by_name, *quotas.workflows} - {"*"}):
        bounds = of_workflow(name, quotas.workflows)
        for cap in WorkflowQuotas.model_fields:
            limit = getattr(bounds, cap)
            if limit is not None:
                yield cap, name, limit, _count(by_name[name], cap) if name in by_name else 0


def _count(use: WorkflowUse, cap: str) -> int:
    return {
        "concurrent_runs": use.slots,
        "open_runs": use.open_runs,
        "daily_runs": use.started,
        "daily_cost_micros": use.day_micros,
        "monthly_cost_micros": use.month_micros,
    }[cap]


def _ends(cap: str, now: datetime) -> datetime | None:
    if cap.startswith("daily_"):
        return day_after(now)
    if cap.startswith("monthly_"):
        return day_after((now.replace(day=1) + timedelta(days=31)).replace(day=1)) - timedelta(days=1)
    return None
