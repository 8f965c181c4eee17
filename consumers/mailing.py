"""The outbound rules of tenants for mail: what lies in the engine's database is read, and the tenant's rate is leased
there, by a process that otherwise runs no engine. Started by `consumers.module_host` with the notifications module.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from consumers.heartbeat import keep_time
from consumers.patience import patiently
from contracts.problems import Unavailable
from engine.clock import SharedClock
from engine.endless import Endless
from engine.guards.outbound import Outbound, Rate
from engine.settings import Settings, SettingsInvalid, database_url
from engine.store import open_store

KEEP_SECONDS: Final = 30.0
"""How often the clock is set by the database's."""
POOL_SIZE: Final = 2


class MailRules:
    """`outbound` is of use between `start` and `stop`. Twice is fine for both."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock = SharedClock()
        self._store = open_store(
            database_url(settings),
            patience_seconds=settings.timeouts.database_seconds,
            pool_size=POOL_SIZE,
            role="mail",
        )
        self._keeping = Endless()
        self.outbound = Outbound(self._store, self._clock, Rate(settings.egress.requests_per_minute, 60.0))

    async def start(self) -> None:
        """Raises `SettingsInvalid` where there is no database of an engine, and what the store does."""
        settings = self._settings
        if settings.database_url is None and not (settings.data_dir / "unwind.db").exists():
            # A database made here would have no rules, and a rate of its own beside the engine's.
            raise SettingsInvalid(
                ("UNWIND_DATABASE_URL: mail keeps to the outbound rules of tenants, in the engine's database; set it",)
            )
        await patiently(self._store.start, settings.timeouts.start_seconds)
        await keep_time(self._store, self._clock)
        self._keeping.begin("mail-clock", self._keep())

    async def stop(self) -> None:
        await self._keeping.end()
        await self._store.stop()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            with suppress(Unavailable):
                await keep_time(self._store, self._clock)
