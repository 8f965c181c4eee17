"""What every process has, whatever its roles: the store, the key ring, the bus, the coordinator and the door with what
they ask (plans, quotas, pauses), and the heartbeat it is known by. The roles (`consumers.roles`, `consumers.web`) are
given it, and take from it what they need.

The coordinator is only made here: it appends in a process that owns runs (`consumers.roles.owning`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from consumers.heartbeat import Heartbeat, keep_time
from consumers.parts import Parts
from consumers.patience import patiently
from contracts.manifest import Module
from contracts.modules import SHIPPED
from contracts.notices import UNWIND
from contracts.problems import Unavailable
from contracts.registry import Registry, discover
from contracts.sdk.tracing import Tracing
from contracts.sdk.transport import Transport, open_transport
from engine.accounts import Accounts
from engine.blueprints import with_blueprints
from engine.bus.topology import engine_topology
from engine.clock import Clock, SharedClock
from engine.coordinator import Coordinator
from engine.door import Door
from engine.guards.breaches import Breaches
from engine.guards.egress import Egress
from engine.guards.outbound import Outbound, Rate
from engine.guards.quotas import KnownQuotas
from engine.guards.secrets import Secrets
from engine.logs import logger
from engine.metrics import Metrics
from engine.pauses import EVERYONE, Brakes, Pauses
from engine.plan.code import Saga
from engine.sagas import load_sagas
from engine.settings import Settings, bus_url, database_url
from engine.store import Store, open_store
from engine.store.key_ring import KeyRing
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from engine.tenant_log import TenantLog
from engine.tracing import RunTracing, open_tracing
from engine.triggers import Plans


class Process:
    """`start`, then what the roles do, then `close`. What comes from the settings is there at once, what has to be
    opened with `start`.
    """

    def __init__(
        self,
        settings: Settings,
        roles: Sequence[str] | None,
        *,
        clock: Clock | None,
        sagas: Sequence[Saga] | None,
        local_actions: Sequence[Any],
        modules: Sequence[Module],
        appends_at_once: int,
    ) -> None:
        self.settings = settings
        self._log = logger("assembly")
        self._appends_at_once = appends_at_once
        self.roles: Sequence[str] = tuple(roles if roles is not None else settings.roles)
        self.clock: Clock = clock or SharedClock()
        self.metrics = Metrics()
        self.accounts = Accounts()
        self.registry = Registry((*SHIPPED, UNWIND, *discover(), *modules))
        self.tracing = open_tracing(settings, settings.process_name)
        self.run_tracing = None if self.tracing is None else RunTracing(self.tracing, self.clock)
        self.store: Store = open_store(
            database_url(settings),
            patience_seconds=settings.timeouts.database_seconds,
            pool_size=settings.limits.pool_size,
        )
        self._outbound = Outbound(self.store, self.clock, Rate(settings.egress.requests_per_minute, 60.0))
        self.egress = Egress.from_settings(settings.egress, metrics=self.metrics, outbound=self._outbound)
        actions = _actions(
            self.registry,
            settings,
            self.metrics,
            local_actions,
            self.tracing,
            lambda: self.door.secrets,
            self._outbound,
        )
        written = sagas if sagas is not None else load_sagas(settings.sagas)
        self.plans = Plans(with_blueprints(written, settings.blueprints, self.registry, actions), actions)
        self.transport: Transport = open_transport(bus_url(settings), name=settings.process_name)
        self.epoch = 0
        """What the process is known by in the store; 0: not yet registered."""
        self.renewed: Callable[[int], None] = lambda epoch: None
        """Told the new epoch of a process that had been declared dead."""

    async def start(self, parts: Parts) -> None:
        """Opens, registers, and begins what no role goes without. Raises what a person must mend: settings, key file,
        schema, an unreachable server."""
        await self._open()
        self._make()
        self.heartbeat = Heartbeat(
            self.store,
            self.clock,
            epoch=lambda: self.epoch,
            seconds=self.settings.lease.heartbeat_seconds,
            lost=self._register_anew,
        )
        await parts.begin(self.heartbeat)
        breaches = Breaches(self.tenants, self.clock, self.metrics)
        self.coordinator.breached = self.door.breached = self._outbound.breached = breaches.breached
        await parts.begin(breaches)
        self.pauses.on_gone = self.vault.bar
        self.door.leaves = self.pauses.leaves
        self.door.outlets.opens = self.egress.opens
        self.door.payload_bytes = self.quotas.payload_bytes
        await parts.begin(self.pauses, self.quotas)
        self.coordinator.interrupter.install()

    async def close(self) -> None:
        """Hands its runs back and lets go of what `start` opened, or tried to."""
        if self.epoch:
            try:
                await self.store.retire(self.epoch)
            except Unavailable:
                pass  # others will find this process silent and take its runs over
        await self.transport.stop()
        await self.store.stop()
        if self.tracing is not None:
            await self.tracing.stop()

    def paused(self, tenant: str, workflow: str) -> bool:
        """Whether runs of this workflow begin no new step for the tenant."""
        return self.pauses.holds(EVERYONE if workflow in self.plans.platforms else tenant)

    async def _open(self) -> None:
        settings = self.settings
        await patiently(self._open_store, settings.timeouts.start_seconds)
        await keep_time(self.store, self.clock)
        self.vault = Vault(self.store, KeyRing.load(settings.key_path))
        await self.vault.start()
        await patiently(self.transport.start, settings.timeouts.start_seconds)
        await self.transport.declare(engine_topology(self.registry))
        self.epoch = await self.store.register(settings.process_name, self.roles, now=self.clock.database_now())

    async def _open_store(self) -> None:
        if self.settings.migrate:
            await self.store.migrate()
        await self.store.start()

    def _make(self) -> None:
        settings = self.settings
        self.mapper = Mapper()
        self.quotas = KnownQuotas(self.store)
        self.tenants = TenantLog(self.store, self.vault, self.mapper, self.clock, epoch=lambda: self.epoch)
        self.pauses = Pauses(Brakes(self.store, self.tenants, self.clock), self.metrics)
        self.coordinator = Coordinator(
            self.store,
            self.vault,
            self.mapper,
            self.plans,
            self.clock,
            self.metrics,
            caps=self.quotas,
            limits=self.quotas.limits,
            paused=self.paused,
            accounts=self.accounts,
            tracing=self.run_tracing,
            batch=settings.limits.batch_commits,
            appends_at_once=self._appends_at_once,
            hot_runs=settings.limits.hot_runs,
            waiting_runs=settings.limits.waiting_runs,
            snapshot_every=settings.limits.snapshot_events,
            decide_seconds=settings.timeouts.decide_seconds,
        )
        self.door = Door(
            self.store, self.vault, self.mapper, self.registry, self.plans, self.clock, self.transport, self.epoch,
            self.coordinator.interrupter, self._outbound,
        )  # fmt: skip

    async def _register_anew(self) -> None:
        """This process was declared dead: it goes on as another one, with nothing in hand."""
        self.coordinator.fenced()
        self.epoch = await self.store.register(self.settings.process_name, self.roles, now=self.clock.database_now())
        self._log.warning("declared_dead", goes_on_as=self.epoch)
        self.coordinator.epoch = self.door.epoch = self.epoch
        self.renewed(self.epoch)


def _actions(
    registry: Registry,
    settings: Settings,
    metrics: Metrics,
    local: Sequence[Any],
    tracing: Tracing | None,
    secrets: Callable[[], Secrets],
    outbound: Outbound,
) -> Mapping[str, Any]:
    from engine.actions.registry import ActionRegistry

    return ActionRegistry.assemble(registry, settings, metrics, local, tracing, secrets, outbound)
