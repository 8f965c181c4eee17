"""What each tenant makes this process do, kept in memory until `consumers.accounting` adds it to the store and to the
metrics. Counting is an addition; CPU time is measured for one decision in `SAMPLE`, at random, and counts for all of
them, so that deciding does not become slower by it.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from engine.store import Account

SAMPLE: Final = 64


class Accounts:
    """One per process."""

    __slots__ = ("_actions", "_decide", "_pause", "_project", "_rows", "_sends")

    def __init__(self) -> None:
        self._pause = 0
        self._clear()

    def _clear(self) -> None:
        self._decide: defaultdict[str, float] = defaultdict(float)
        self._project: defaultdict[str, float] = defaultdict(float)
        self._rows: defaultdict[str, int] = defaultdict(int)
        self._sends: defaultdict[str, int] = defaultdict(int)
        self._actions: defaultdict[str, int] = defaultdict(int)

    def begin(self) -> float | None:
        """Before a decision: when it began, in CPU seconds of this thread, if it is one of the sample."""
        if self._pause:
            self._pause -= 1
            return None
        self._pause = random.randrange(2 * SAMPLE - 1)  # on average SAMPLE - 1: no rhythm of tenants meets it
        return time.thread_time()

    def decided(self, tenant: str, began: float) -> None:
        """After a decision of the sample."""
        self._decide[tenant] += (time.thread_time() - began) * SAMPLE

    def appended(self, tenant: str, events: int, sends: int, actions: int) -> None:
        self._rows[tenant] += events
        if sends:
            self._sends[tenant] += sends
        if actions:
            self._actions[tenant] += actions

    def projected(self, events: Mapping[str, int], seconds: float) -> None:
        """So many CPU seconds for these events by tenant."""
        each = seconds / max(1, sum(events.values()))
        for tenant, count in events.items():
            self._project[tenant] += count * each

    def take(self, day: str) -> list[Account]:
        """What has gathered, in the order of the tenants; it begins anew."""
        used = [
            Account(
                tenant=tenant,
                day=day,
                decide_seconds=self._decide[tenant],
                project_seconds=self._project[tenant],
                rows=self._rows[tenant],
                sends=self._sends[tenant],
                actions=self._actions[tenant],
            )
            for tenant in sorted({*self._decide, *self._project, *self._rows})
        ]
        self._clear()
        return used
