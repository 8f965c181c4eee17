"""The wiring of one process, read top to bottom: what it opens, what it starts, in which order it lets go. It decides
nothing.

Every process has the store, the key ring and the bus; roles say what else it does. `intake` and `worker` own runs
(with `timer` and `janitor` duties for them), `relay` sends, `projector` writes the read models, `web` answers HTTP;
any process answers /healthz, /readyz and /metrics.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from consumers.accounting import Accounting
from consumers.archiving import Archiver
from consumers.asking import Asking
from consumers.census import Census
from consumers.heads import Heads
from consumers.heartbeat import Heartbeat, keep_time
from consumers.inputs import Inputs
from consumers.intake import Intake
from consumers.janitor import OWNING, Janitor
from consumers.notifier import Notifier
from consumers.projector import VIEWS, Projector
from consumers.recounting import Recounting
from consumers.relay import Relay
from consumers.resting import Resting
from consumers.timer import TimerLoop
from consumers.unreadable import Unreadable
from consumers.watchdog import WATCHDOG_SECONDS, Watchdog
from consumers.worker import Worker
from contracts.manifest import Module
from contracts.modules import SHIPPED
from contracts.notices import UNWIND
from contracts.problems import Unavailable
from contracts.registry import Registry, discover
from contracts.sdk.queries import Asker
from contracts.sdk.tracing import Tracing
from contracts.sdk.transport import Transport, open_transport
from engine.accounts import Accounts
from engine.blueprints import with_blueprints
from engine.bus.topology import engine_topology, queues
from engine.clock import Clock, SharedClock
from engine.coordinator import Coordinator
from engine.door import Door
from engine.guards.breaches import Breaches
from engine.guards.budgets import SpentBudgets
from engine.guards.egress import Egress
from engine.guards.outbound import Outbound, Rate
from engine.guards.quotas import KnownQuotas
from engine.guards.secrets import Secrets
from engine.logs import logger
from engine.loop import calm_collector
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

PING_SECONDS: Final = 1.0
"""Shorter than the store's own patience: a probe wants to know now."""


class Part(Protocol):
    """Everything long-lived has the same life."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Assembly:
    """One process. `start`, then `ready`, then `stop`; or `run_until_signal` for all three."""

    def __init__(
        self,
        settings: Settings,
        roles: Sequence[str] | None = None,
        *,
        clock: Clock | None = None,
        sagas: Sequence[Saga] | None = None,
        local_actions: Sequence[Any] = (),
        modules: Sequence[Module] = (),
        appends_at_once: int = 1,
    ) -> None:
        """`modules` are contracts beside the shipped and the installed ones. `appends_at_once` above 1 gives up group
        commit's order of one append after the other; it exists to be measured against."""
        self.settings = settings
        self._appends_at_once = appends_at_once
        self.roles: Sequence[str] = tuple(roles if roles is not None else settings.roles)
        self.clock: Clock = clock or SharedClock()
        self.metrics = Metrics()
        self.accounts = Accounts()
        self.log = logger("assembly")
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
        self.url: str | None = None
        self._parts: list[Part] = []
        self._failing: list[Callable[[], BaseException | None]] = []
        self._draining = False
        self._watchdog: Watchdog | None = None
        self._owns_process = False

    # ---------------------------------------------------------------------------------------------------------- start

    async def start(self) -> None:
        """Opens the store, the key ring and the bus, then the roles. Raises what a person must mend: settings, key
        file, schema, an unreachable server."""
        settings = self.settings
        await patiently(self._open_store, settings.timeouts.start_seconds)
        await keep_time(self.store, self.clock)
        self.vault = Vault(self.store, KeyRing.load(settings.key_path))
        await self.vault.start()
        await patiently(self.transport.start, settings.timeouts.start_seconds)
        await self.transport.declare(engine_topology(self.registry))
        self.epoch = await self.store.register(settings.process_name, self.roles, now=self.clock.database_now())
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
            paused=self._paused,
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
        self.heartbeat = Heartbeat(
            self.store,
            self.clock,
            epoch=lambda: self.epoch,
            seconds=settings.lease.heartbeat_seconds,
            lost=self._register_anew,
        )
        self._failing.append(self.heartbeat.failed)
        await self.heartbeat.start()
        self._parts.append(self.heartbeat)
        breaches = Breaches(self.tenants, self.clock, self.metrics)
        self.coordinator.breached = self.door.breached = self._outbound.breached = breaches.breached
        self._parts.append(breaches)
        self.pauses.on_gone = self.vault.bar
        self.door.leaves = self.pauses.leaves
        self.door.outlets.opens = self.egress.opens
        self.door.payload_bytes = self.quotas.payload_bytes
        await self.pauses.start()
        await self.quotas.start()
        self._failing += [self.pauses.failed, self.quotas.failed]
        self._parts += [self.pauses, self.quotas]
        self.coordinator.interrupter.install()
        if OWNING & set(self.roles):
            await self._start_owning()
        if "relay" in self.roles:
            await self._start_relay()
        if "projector" in self.roles:
            await self._start_projector()
        await self._start_accounting()
        await self._start_census()
        await self._start_web()
        if self._owns_process:
            calm_collector()
        self._watchdog = Watchdog(WATCHDOG_SECONDS if self._owns_process else None, self.metrics)
        await self._watchdog.start()

    async def _open_store(self) -> None:
        if self.settings.migrate:
            await self.store.migrate()
        await self.store.start()

    def _paused(self, tenant: str, workflow: str) -> bool:
        """Whether runs of this workflow begin no new step for the tenant."""
        return self.pauses.holds(EVERYONE if workflow in self.plans.platforms else tenant)

    async def _start_owning(self) -> None:
        settings, limits = self.settings, self.settings.limits
        coordinator = self.coordinator
        asker = Asker(self.transport)
        self._parts.append(asker)
        worker = Worker(
            coordinator,
            self.clock,
            self.metrics,
            Asking(asker, self.registry),
            actions_in_flight=limits.actions_in_flight,
            tracing=self.run_tracing,
            permission_sets=self.door.permission_sets,
        )
        inputs = Inputs(
            self.store,
            self.vault,
            self.mapper,
            self.registry,
            self.plans,
            coordinator,
            self.clock,
            self.metrics,
            self.run_tracing,
            runs_in_decision=limits.runs_in_decision,
            leaves=self.pauses.leaves,
            weight=self.quotas.weight,
        )
        timers = TimerLoop(self.store, coordinator, self.clock)
        spent = SpentBudgets(self.clock)
        coordinator.spent = spent.heard

        def changed() -> None:
            spent.forget()
            coordinator.runs.weigh(None if self.quotas.alike else self.quotas.weight)

        self.quotas.on_change = changed
        changed()
        janitor = Janitor(
            self.store,
            coordinator,
            self.plans,
            self.clock,
            self.metrics,
            heartbeat_seconds=settings.lease.heartbeat_seconds,
            dead_seconds=settings.lease.dead_seconds,
            journal_days=settings.retention.journal_days,
            run_days=settings.retention.run_days,
            archiver=Archiver(self.store, self.tenants, self.clock),
            paused=self._paused,
            spent=spent,
            recounting=Recounting(self.store, self.vault, self.mapper, self.tenants, self.clock),
            log=self.tenants,
        )
        coordinator.perform = worker.perform
        coordinator.matched = inputs.take_soon
        coordinator.freed_slot = janitor.slot_freed
        coordinator.run_queued = janitor.run_queued
        coordinator.suspect = self.heartbeat.suspected
        self.door.on_input = inputs.wake
        coordinator.wrote_inputs = inputs.wake
        self.inputs, self.worker, self.janitor, self.timers = inputs, worker, janitor, timers
        await coordinator.start(self.epoch)
        self._failing += [coordinator.failed, inputs.failed, timers.failed, janitor.failed]
        self._parts.append(worker)
        self.intakes: list[Intake] = []
        takers: list[Part] = [janitor, inputs, timers]
        if "intake" in self.roles:
            self.intakes += [
                Intake(
                    self.transport,
                    queue,
                    self.store,
                    self.vault,
                    self.registry,
                    self.plans,
                    coordinator,
                    self.clock,
                    self.metrics,
                    prefetch=limits.prefetch,
                    runs_in_decision=limits.runs_in_decision if may_wait else None,
                    tracing=self.run_tracing,
                    leaves=self.pauses.leaves,
                    payload_bytes=self.quotas.payload_bytes,
                    breached=coordinator.breached,
                    weight=self.quotas.weight,
                )
                for queue, may_wait in queues.taken
            ]
            unreadable = Unreadable(self.transport, queues.dead, self.store, self.vault, self.clock, self.metrics)
            takers += [*self.intakes, unreadable]
        coordinator.runs.on_room = lambda: _pump([*self.intakes, inputs])
        self.resting = Resting(takers, resting=self.pauses.maintenance is not None, drain=self._drain)
        self.pauses.on_maintenance = self.resting.want
        await self.resting.start()
        self._failing.append(self.resting.failed)
        self._parts.append(self.resting)

    async def _start_relay(self) -> None:
        relay = Relay(
            self.store,
            self.vault,
            self.transport,
            self.epoch,
            self.clock,
            self.metrics,
            batch=self.settings.limits.outbox_batch,
            deadline_seconds=self.settings.timeouts.publish_seconds,
            tracing=self.tracing,
            outlets=self.door.outlets,
        )
        self.relay = relay
        notifier = Notifier(self.store, self.door.outlets, self.egress, self.clock, self.metrics)
        self.door.outlets.on_due = notifier.wake
        self._failing.append(notifier.failed)
        await notifier.start()
        self._parts.append(notifier)
        self.coordinator.wrote_outbox = relay.wake
        self.door.on_outbox = relay.wake
        self._failing.append(relay.failed)
        await relay.start()
        self._parts.append(relay)

    async def _start_projector(self) -> None:
        self.projector = Projector(
            self.store, self.vault, self.mapper, VIEWS, self.clock, self.metrics, accounts=self.accounts
        )
        await self.projector.start()
        heads = Heads(self.store, seconds=self.settings.audit.head_seconds)
        await heads.start()
        self._failing += [self.projector.failed, heads.failed]
        self._parts += [self.projector, heads]

    async def _start_accounting(self) -> None:
        accounting = Accounting(self.store, self.accounts, self.clock, self.metrics)
        self._failing.append(accounting.failed)
        await accounting.start()
        # Stopped after all that it counts.
        self._parts.insert(0, accounting)

    async def _start_census(self) -> None:
        work, incidents = bool(OWNING & set(self.roles)), "web" in self.roles
        census = Census(self.store, self.vault, self.clock, self.metrics, work=work, incidents=incidents)
        await census.start()
        self._failing.append(census.failed)
        self._parts.append(census)

    async def _start_web(self) -> None:
        """The API with the web role; the probes alone without it."""
        # aiohttp is heavy: loaded by the process that starts, not by who imports the wiring.
        from consumers.web import serve

        server = await serve(self)
        self.url = server.url
        self._parts.append(server)

    async def _register_anew(self) -> None:
        """This process was declared dead: it goes on as another one, with nothing in hand."""
        self.coordinator.fenced()
        self.epoch = await self.store.register(self.settings.process_name, self.roles, now=self.clock.database_now())
        self.log.warning("declared_dead", goes_on_as=self.epoch)
        self.coordinator.epoch = self.door.epoch = self.epoch
        if hasattr(self, "relay"):
            self.relay.epoch = self.epoch

    # -------------------------------------------------------------------------------------------------- while it runs

    async def ready(self) -> None:
        """Waits until everything that was asked for answers."""
        deadline = time.monotonic() + self.settings.timeouts.start_seconds
        while not all(check["ok"] for check in (await self.checks()).values()):
            if time.monotonic() > deadline:
                raise Unavailable(f"not ready in time: {await self.checks()}")
            await asyncio.sleep(0.02)

    async def checks(self) -> dict[str, dict[str, Any]]:
        """What /readyz says, part by part."""
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self.store.ping()
            database: dict[str, Any] = {"ok": True}
        except Unavailable as problem:
            database = {"ok": False, "detail": problem.detail}
        except TimeoutError:
            database = {"ok": False, "detail": f"the database did not answer within {PING_SECONDS:g} s"}
        found = {"database": database, "bus": {"ok": self.transport.ready}, "accepting": {"ok": not self._draining}}
        resting = self.pauses.maintenance is not None
        if resting:
            found["maintenance"] = {"ok": True, "detail": "nothing is taken; `unwind maintenance end` ends it"}
        if "intake" in self.roles:
            found["intake"] = {"ok": resting or all(intake.alive for intake in getattr(self, "intakes", []))}
        if "projector" in self.roles:
            found["projector"] = {"ok": not self.projector.stopped_views}
        return found

    def failure(self) -> BaseException | None:
        """The error that ended a part which should run for ever, if one has."""
        return next((error for failed in self._failing if (error := failed()) is not None), None)

    async def run_until_signal(self, *, started: Callable[[Assembly], Awaitable[None]] | None = None) -> None:
        """Starts, serves until SIGTERM or SIGINT, drains. A second signal exits at once. Raises the error that ended
        a part."""
        self._owns_process = True
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def asked() -> None:
            if stop.is_set():
                os._exit(130)
            stop.set()

        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, asked)
        # A task, so that a signal and a part that dies are heard while the start waits or `started` works.
        opening = asyncio.create_task(self._open(started), name="opening")
        stopping = asyncio.create_task(stop.wait(), name="stopping")
        try:
            while not stopping.done():
                waiting = {stopping} if opening.done() else {opening, stopping}
                await asyncio.wait(waiting, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
                if opening.done():
                    opening.result()
                error = self.failure()
                if error is not None:
                    raise error
        finally:
            for task in (opening, stopping):
                task.cancel()
            await asyncio.gather(opening, stopping, return_exceptions=True)
            await self.stop()

    async def _open(self, started: Callable[[Assembly], Awaitable[None]] | None) -> None:
        await self.start()
        if started is not None:
            await started(self)

    # ---------------------------------------------------------------------------------------------------------- stop

    async def _drain(self) -> None:
        """Waits, for a while, until what was taken has reached the log."""
        if not self.epoch:
            return
        try:
            async with asyncio.timeout(self.settings.timeouts.drain_seconds):
                await self.coordinator.drain()
        except TimeoutError:
            self.log.warning("drain_incomplete", active=self.coordinator.active)

    async def stop(self) -> None:
        """Takes nothing new, lets what is in hand reach the log, hands its runs back. Twice is fine."""
        if self._draining:
            return
        self._draining = True
        if hasattr(self, "resting"):
            await self.resting.stop()
            await self._drain()
        for part in reversed(self._parts):
            await part.stop()
        if self.epoch:
            if OWNING & set(self.roles):
                await self.coordinator.stop()
            try:
                await self.store.retire(self.epoch)
            except Unavailable:
                pass  # others will find this process silent and take its runs over
        await self.transport.stop()
        await self.store.stop()
        if self.tracing is not None:
            await self.tracing.stop()
        if self._watchdog is not None:
            await self._watchdog.stop()


def _pump(begin: Sequence[Intake | Inputs]) -> None:
    for one in begin:
        one.pump()


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


async def patiently(work: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Tries until a server that is still starting answers; after `seconds` its `Unavailable` is raised."""
    deadline = time.monotonic() + seconds
    delay = 0.1
    while True:
        try:
            await work()
            return
        except Unavailable:
            if time.monotonic() + delay > deadline:
                raise
        await asyncio.sleep(delay)
        delay = min(1.0, delay * 1.5)
