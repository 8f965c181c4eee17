"""Counts what waits in the database, again and again, for the metrics: open runs, messages, late timers, dead letters,
notices for outlets, processes, and the runs that wait for an operator.

It changes nothing and decides nothing. Processes that own runs count the work, those with the web role count incidents,
which only the read models tell apart by reason. What could not be counted is taken off the page, not left standing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, get_args

from contracts.problems import Unavailable
from contracts.run_events import TERMINAL, IncidentReason, RunStatus
from engine.clock import Clock
from engine.endless import Endless
from engine.metrics import Metrics
from engine.store import Store
from engine.store.keys import Vault
from projections.reader import Reader

PAUSE_SECONDS: Final = 5.0
PAUSE_PER_COUNT: Final = 20
"""The longer a count takes, the longer the pause after it: much to count must not become much counting."""

LONGEST_PAUSE_SECONDS: Final = 60.0

OPEN: Final = tuple(status for status in get_args(RunStatus) if status not in TERMINAL)
REASONS: Final[tuple[str, ...]] = get_args(IncidentReason)
DISABLED: Final = ("failing", "gone", "person")


class Census:
    """One per process; `work` and `incidents` say what this process may count."""

    def __init__(
        self, store: Store, vault: Vault, clock: Clock, metrics: Metrics, *, work: bool, incidents: bool
    ) -> None:
        self._store, self._clock, self._metrics = store, clock, metrics
        self._reader = Reader(store, vault)
        self._counts_work, self._counts_incidents = work, incidents
        self._endless = Endless()

    async def start(self) -> None:
        if self._counts_work:
            self._endless.begin("census", self._again(self.count_work, self._forget_work))
        if self._counts_incidents:
            self._endless.begin("incidents", self._again(self.count_incidents, self._metrics.incidents_open.forget))

    async def stop(self) -> None:
        await self._endless.end()

    def failed(self) -> BaseException | None:
        return self._endless.failed()

    async def count_work(self) -> None:
        metrics = self._metrics
        found = await self._store.census(now=self._clock.database_now())
        metrics.runs_open.put(dict.fromkeys(OPEN, 0) | dict(found.runs))
        metrics.outbox_rows.set(found.outbox_rows)
        metrics.outbox_age.set(found.outbox_age_seconds)
        metrics.timers_late.set(found.timers_late)
        metrics.timers_lateness.set(found.timers_lateness_seconds)
        metrics.dead_letters_kept.set(found.dead_letters)
        metrics.processes.set(found.processes)
        await self._count_notices()

    async def _count_notices(self) -> None:
        metrics, now = self._metrics, self._clock.now()
        queues = await self._store.outlet_queues()
        enabled = [queue for queue in queues if queue.enabled]
        ages = [(now - queue.oldest).total_seconds() for queue in enabled if queue.oldest is not None]
        # A person's own words are no label.
        disabled = Counter(
            queue.switched_why if queue.switched_why in DISABLED else "person" for queue in queues if not queue.enabled
        )
        metrics.outlet_backlog.set(sum(queue.waiting for queue in enabled))
        metrics.outlet_backlog_age.set(max([0.0, *ages]))
        metrics.outlets_disabled.put(dict.fromkeys(DISABLED, 0) | disabled)

    async def count_incidents(self) -> None:
        found = await self._reader.incidents(None)
        self._metrics.incidents_open.put(dict.fromkeys(REASONS, 0) | found)

    def _forget_work(self) -> None:
        metrics = self._metrics
        for gauge in (metrics.runs_open, metrics.outbox_rows, metrics.outbox_age, metrics.timers_late):
            gauge.forget()
        for gauge in (metrics.timers_lateness, metrics.dead_letters_kept, metrics.processes):
            gauge.forget()
        for gauge in (metrics.outlet_backlog, metrics.outlet_backlog_age, metrics.outlets_disabled):
            gauge.forget()

    async def _again(self, count: Callable[[], Awaitable[None]], forget: Callable[[], None]) -> None:
        while True:
            began = time.monotonic()
            try:
                await count()
                pause = PAUSE_PER_COUNT * (time.monotonic() - began)
            except Unavailable:
                forget()
                pause = 0.0
            await asyncio.sleep(min(LONGEST_PAUSE_SECONDS, max(PAUSE_SECONDS, pause)))
