"""Who has spent a budget, as far as this process has heard: the append says so, and this keeps it for a while, so that
a tenant's queued runs are not offered a slot over and over. A hint and no more: only the append decides.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from engine.clock import Clock
from engine.guards.quotas import BUDGETS
from engine.store import Limited

AGAIN: Final = timedelta(seconds=30)
"""After so long it is asked again, whatever was heard: a counter may have been repaired."""


class SpentBudgets:
    """One per process. Asked with (tenant, workflow)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str | None], datetime] = {}

    def heard(self, tenant: str, workflow: str, limited: Limited) -> None:
        """What the append said to a run of this workflow."""
        if limited.quota in BUDGETS:
            now = self._clock.now()
            whose = workflow if limited.scope == "workflow" else None
            self._until[tenant, whose] = min(now + AGAIN, day_after(now))

    def __call__(self, tenant: str, workflow: str) -> bool:
        if not self._until:
            return False
        now = self._clock.now()
        found = False
        for key in ((tenant, None), (tenant, workflow)):
            until = self._until.get(key)
            if until is not None and until <= now:
                del self._until[key]
            found = found or (until is not None and until > now)
        return found

    def forget(self) -> None:
        """Quotas have changed."""
        self._until.clear()


def day_after(now: datetime) -> datetime:
    """When the next day begins, in UTC."""
    return datetime(now.year, now.month, now.day, tzinfo=now.tzinfo) + timedelta(days=1)
