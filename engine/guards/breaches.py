"""Says that a quota is full, once per tenant, quota and window: a fact on the bus (`WorkflowQuotaBreachedV1`) and an
entry of the audit. Whoever meets a quota says so here: the coordinator, the door, the intake, the guard of outbound
requests.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from contracts.notices import WorkflowQuotaBreachedV1
from contracts.problems import PayloadOverQuota, TenantOffboarded, Unavailable
from contracts.tenant_events import QuotaBreached
from engine.clock import Clock
from engine.metrics import Metrics
from engine.run.limits import Breach
from engine.store import Limited
from engine.tenant_log import TenantLog


class Breaches:
    """One per process. Recorded in the tenant's stream, under a key, so that neither another process nor a restart says
    it again. The hot path only looks into a set.
    """

    def __init__(self, log: TenantLog, clock: Clock, metrics: Metrics) -> None:
        self._log, self._clock, self._metrics = log, clock, metrics
        self._said: set[tuple[str, str]] = set()
        self._hour = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Nothing runs until a quota is met."""

    async def stop(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def breached(self, tenant: str, breach: Breach) -> None:
        """Something met the quota."""
        self._metrics.quota_breaches.of(breach.quota).inc()
        now = self._clock.now()
        hour = window_of("", now)
        if hour != self._hour:
            self._hour = hour
            self._said.clear()
        window = window_of(breach.quota, now)
        key = breach_key(breach.quota, breach.workflow, now)
        if (tenant, key) in self._said:
            return
        self._said.add((tenant, key))
        event = QuotaBreached(
            at=now,
            cap=breach.quota,
            value=breach.amount,
            limit=breach.limit,
            workflow=breach.workflow,
            window=window,
        )
        task = asyncio.create_task(self._say(tenant, key, event), name="quota-breached")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _say(self, tenant: str, key: str, event: QuotaBreached) -> None:
        notice = WorkflowQuotaBreachedV1.model_validate(
            {"tenant": tenant, "cap": event.cap, "value": event.value, "limit": event.limit}
            | {"workflow": event.workflow, "window": event.window}
        )
        try:
            await self._log.record(tenant, event, notice, once=key)
        except (Unavailable, TenantOffboarded):
            self._said.discard((tenant, key))  # the next that meets it says it


def breach_key(quota: str, workflow: str | None, now: datetime) -> str:
    """Under which the tenant's stream knows that a breach was said in the window of this moment."""
    return f"quota/{quota}/{window_of(quota, now)}/{workflow or ''}"


def window_of(quota: str, now: datetime) -> str:
    """In which a breach of this quota is said once, in UTC: the day of a daily quota, the month of a monthly one, else
    the hour.
    """
    if quota.startswith("monthly_"):
        return f"{now:%Y-%m}"
    return f"{now:%Y-%m-%d}" if quota.startswith("daily_") else f"{now:%Y-%m-%dT%H}"


def breach_of(limited: Limited, workflow: str) -> Breach:
    """By a run of this workflow, as the append has said."""
    return Breach(limited.quota, limited.cap + 1, limited.cap, workflow if limited.scope == "workflow" else None)


def payload_breach(over: PayloadOverQuota) -> Breach:
    return Breach("payload_bytes", over.context["value"], over.context["limit"])
