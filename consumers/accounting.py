"""Adds what tenants made this process do to the store, every few seconds and at the end, and counts it in the metrics.

A process that is killed loses its last seconds of it; `rows` can be counted again from the log. It decides nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from contracts.problems import Unavailable
from engine.accounts import Accounts
from engine.clock import Clock
from engine.endless import Endless
from engine.metrics import Metrics
from engine.store import Account, Store

PAUSE_SECONDS: Final = 5.0
KEPT: Final = 10_000
"""So many additions are kept while the database does not answer."""


class Accounting:
    """One per process that owns runs or writes read models."""

    def __init__(self, store: Store, accounts: Accounts, clock: Clock, metrics: Metrics) -> None:
        self._store, self._accounts, self._clock, self._metrics = store, accounts, clock, metrics
        self._waiting: list[tuple[str, list[Account]]] = []
        self._work = Endless()

    async def start(self) -> None:
        self._work.begin("accounting", self._run())

    async def stop(self) -> None:
        await self._work.end()
        with suppress(Unavailable):
            await self.add()

    def failed(self) -> BaseException | None:
        return self._work.failed()

    async def add(self) -> None:
        """Adds what has gathered. Raises `Unavailable`; it is then added the next time."""
        day = self._clock.now().date().isoformat()
        used = self._accounts.take(day)
        if used:
            self._count(used)
            self._waiting.append((day, used))
        while self._waiting:
            await self._store.account(*self._waiting[0])
            del self._waiting[0]

    def _count(self, used: list[Account]) -> None:
        metrics = self._metrics
        for one in used:
            if one.decide_seconds:
                metrics.tenant_cpu.of(one.tenant, "decide").inc(one.decide_seconds)
            if one.project_seconds:
                metrics.tenant_cpu.of(one.tenant, "project").inc(one.project_seconds)
            metrics.tenant_rows.of(one.tenant).inc(one.rows)
            metrics.tenant_sends.of(one.tenant).inc(one.sends)
            metrics.tenant_actions.of(one.tenant).inc(one.actions)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            with suppress(Unavailable):
                await self.add()
            del self._waiting[:-KEPT]
