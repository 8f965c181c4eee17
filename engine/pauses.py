"""Who is paused: settings of the catalog, all read every second, so that a pause takes hold everywhere without
a restart.

A paused tenant's runs record whatever happens to them and begin no new step: a start is queued, a run under way is held
at its next step (`RunHeld`) and gives its slot back, timers and facts are recorded when they come. What was begun is
finished, and what is being undone is undone. `EVERYONE` paused holds all tenants, and
the platform's own workflows too, which a tenant's pause does not. In maintenance a process moves
nothing at all: it takes no delivery, input or timer, and the API takes no orders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from contracts.envelope import format_time, parse_time
from contracts.problems import Unavailable
from contracts.tenant_events import PLATFORM, MaintenanceBegun, MaintenanceEnded, TenantPaused, TenantResumed
from engine.clock import Clock
from engine.endless import Endless
from engine.metrics import Metrics
from engine.store import Catalog
from engine.store.keys import OFFBOARDING
from engine.tenant_log import TenantLog

EVERYONE: Final = "*"
PAUSE: Final = "pause"
"""Setting of a tenant, or of `EVERYONE`; null: not paused."""
MAINTENANCE: Final = "maintenance"
"""Setting of `EVERYONE`; null: none."""

READ_EVERY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Who said so, when and why."""

    by: str
    since: datetime
    reason: str = ""

    def to_setting(self) -> dict[str, str]:
        return {"by": self.by, "since": format_time(self.since), "reason": self.reason}

    @classmethod
    def of(cls, setting: Any) -> Pause | None:
        return None if not setting else cls(setting["by"], parse_time(setting["since"]), setting["reason"])


class Brakes:
    """What an operator pulls. Each word is recorded in the stream of whom it concerns before it takes hold; said twice,
    it changes nothing.
    """

    def __init__(self, catalog: Catalog, log: TenantLog, clock: Clock) -> None:
        self._catalog, self._log, self._clock = catalog, log, clock

    async def pauses(self) -> dict[str, Pause]:
        """Every pause there is, by tenant; `EVERYONE` for that of all."""
        found = {tenant: Pause.of(setting) for tenant, setting in (await self._catalog.settings_named(PAUSE)).items()}
        return {tenant: pause for tenant, pause in found.items() if pause is not None}

    async def pause(self, tenant: str, *, by: str, reason: str = "") -> Pause:
        """Answers the pause that holds from now on, or has held since before."""
        known = (await self.pauses()).get(tenant)
        if known is not None:
            return known
        pause = Pause(by, self._clock.now(), reason)
        await self._log.record(_stream_of(tenant), TenantPaused(at=pause.since, by=by, reason=reason))
        await self._catalog.put_setting(tenant, PAUSE, pause.to_setting())
        return pause

    async def resume(self, tenant: str, *, by: str) -> bool:
        """False: it was not paused."""
        if tenant not in await self.pauses():
            return False
        await self._log.record(_stream_of(tenant), TenantResumed(at=self._clock.now(), by=by))
        await self._catalog.put_setting(tenant, PAUSE, None)
        return True

    async def leaving(self) -> dict[str, bool]:
        """Tenants that leave, and whether they are gone."""
        found = await self._catalog.settings_named(OFFBOARDING)
        return {tenant: bool(setting["gone"]) for tenant, setting in found.items() if setting}

    async def maintenance(self) -> Pause | None:
        return Pause.of(await self._catalog.setting(EVERYONE, MAINTENANCE))

    async def begin_maintenance(self, *, by: str, reason: str = "") -> Pause:
        known = await self.maintenance()
        if known is not None:
            return known
        pause = Pause(by, self._clock.now(), reason)
        await self._log.record(PLATFORM, MaintenanceBegun(at=pause.since, by=by, reason=reason))
        await self._catalog.put_setting(EVERYONE, MAINTENANCE, pause.to_setting())
        return pause

    async def end_maintenance(self, *, by: str) -> bool:
        """False: there was none."""
        if await self.maintenance() is None:
            return False
        await self._log.record(PLATFORM, MaintenanceEnded(at=self._clock.now(), by=by))
        await self._catalog.put_setting(EVERYONE, MAINTENANCE, None)
        return True


def _stream_of(tenant: str) -> str:
    return PLATFORM if tenant == EVERYONE else tenant


class Pauses:
    """One per process: what was last read. `on_maintenance` hears when it begins and when it ends, `on_gone` once of
    each tenant that was offboarded.
    """

    def __init__(self, brakes: Brakes, metrics: Metrics) -> None:
        self._brakes, self._metrics = brakes, metrics
        self._work = Endless()
        self.known: dict[str, Pause] = {}
        self.maintenance: Pause | None = None
        self.leaving: dict[str, bool] = {}
        self.on_maintenance: Callable[[bool], None] = lambda begins: None
        self.on_gone: Callable[[str], None] = lambda tenant: None

    async def start(self) -> None:
        """Reads before anything is taken: a process that starts under a pause keeps it from its first event on."""
        await self.refresh()
        self._work.begin("pauses", self._read_forever())

    async def stop(self) -> None:
        await self._work.end()

    def failed(self) -> BaseException | None:
        return self._work.failed()

    def holds(self, tenant: str) -> bool:
        """Whether the tenant's runs may begin no new step."""
        known = self.known
        return self.maintenance is not None or (bool(known) and (tenant in known or EVERYONE in known))

    def leaves(self, tenant: str) -> bool:
        """Whether no run of the tenant may start any more, since it is being offboarded."""
        return bool(self.leaving) and tenant in self.leaving

    async def refresh(self) -> None:
        """Reads now. Raises `Unavailable`."""
        leaving = await self._brakes.leaving()
        for tenant, gone in leaving.items():
            if gone and not self.leaving.get(tenant):
                self.on_gone(tenant)
        self.leaving = leaving
        self.known = await self._brakes.pauses()
        was, self.maintenance = self.maintenance, await self._brakes.maintenance()
        tenants, everyone = len(self.known.keys() - {EVERYONE}), EVERYONE in self.known
        self._metrics.paused.put(
            {"tenant": tenants, "platform": float(everyone), "maintenance": float(self.maintenance is not None)}
        )
        if (was is None) != (self.maintenance is None):
            self.on_maintenance(self.maintenance is not None)

    async def _read_forever(self) -> None:
        while True:
            await asyncio.sleep(READ_EVERY_SECONDS)
            try:
                await self.refresh()
            except Unavailable:
                pass  # what was known holds on
