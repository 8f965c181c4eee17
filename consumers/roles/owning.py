"""A process that owns runs: all that brings an input to its coordinator (the bus, other processes, timers, the
janitor), and the worker that performs what was decided.

    bus ──► intake ──┐
    store ► inputs ──┤
    store ► timers ──┼──► coordinator ──► worker ──► (asks modules, calls outside) ──► coordinator
    store ► janitor ─┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from consumers.archiving import Archiver
from consumers.asking import Asking
from consumers.inputs import Inputs
from consumers.intake import Intake
from consumers.janitor import Janitor
from consumers.parts import Part, Parts
from consumers.process import Process
from consumers.recounting import Recounting
from consumers.resting import Resting
from consumers.timer import TimerLoop
from consumers.unreadable import Unreadable
from consumers.worker import Worker
from contracts.sdk.queries import Asker
from engine.bus.topology import queues
from engine.guards.budgets import SpentBudgets
from engine.logs import logger


class Owning:
    """`start`, then `rest` when the process is to stop, and `close` after all its parts have."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._log = logger("assembly")
        self._coordinator = coordinator = process.coordinator
        self._asker = Asker(process.transport)
        self._worker = Worker(
            coordinator,
            process.clock,
            process.metrics,
            Asking(self._asker, process.registry),
            actions_in_flight=process.settings.limits.actions_in_flight,
            tracing=process.run_tracing,
            permission_sets=process.door.permission_sets,
        )
        self._inputs = inputs = _inputs(process)
        self._timers = TimerLoop(process.store, coordinator, process.clock)
        self._janitor = janitor = _janitor(process, _budgets(process))
        coordinator.perform = self._worker.perform
        coordinator.matched = inputs.take_soon
        coordinator.freed_slot = janitor.slot_freed
        coordinator.run_queued = janitor.run_queued
        coordinator.suspect = process.heartbeat.suspected
        process.door.on_input = inputs.wake
        coordinator.wrote_inputs = inputs.wake
        takers: list[Part] = [janitor, inputs, self._timers]
        self._intakes: list[Intake] = []
        if "intake" in process.roles:
            self._intakes += _intakes(process)
            takers += [*self._intakes, _unreadable(process)]
        coordinator.runs.on_room = lambda: _pump([*self._intakes, inputs])
        self._resting = Resting(takers, resting=process.pauses.maintenance is not None, drain=self._drain)
        process.pauses.on_maintenance = self._resting.want

    async def start(self, parts: Parts) -> None:
        """Appends first, takes last: what is taken can be decided."""
        parts.keep(self._asker)
        await self._coordinator.start(self._process.epoch)
        parts.watch(self._coordinator, self._inputs, self._timers, self._janitor)
        await parts.begin(self._worker)
        await parts.begin(self._resting)

    @property
    def taking(self) -> bool:
        """Whether the bus is listened to wherever it should be."""
        return all(intake.alive for intake in self._intakes)

    async def rest(self) -> None:
        """Takes nothing more, for good, and lets what is in hand reach the log."""
        await self._resting.stop()
        await self._drain()

    async def close(self) -> None:
        """Appends nothing more."""
        await self._coordinator.stop()

    async def _drain(self) -> None:
        """Waits, for a while, until what was taken has reached the log."""
        try:
            async with asyncio.timeout(self._process.settings.timeouts.drain_seconds):
                await self._coordinator.drain()
        except TimeoutError:
            self._log.warning("drain_incomplete", active=self._coordinator.active)


def _inputs(process: Process) -> Inputs:
    return Inputs(
        process.store,
        process.vault,
        process.mapper,
        process.registry,
        process.plans,
        process.coordinator,
        process.clock,
        process.metrics,
        process.run_tracing,
        runs_in_decision=process.settings.limits.runs_in_decision,
        leaves=process.pauses.leaves,
        weight=process.quotas.weight,
    )


def _budgets(process: Process) -> SpentBudgets:
    """What is spent is known until the quotas change; so are the weights of tenants among runs that wait."""
    coordinator, quotas = process.coordinator, process.quotas
    spent = SpentBudgets(process.clock)
    coordinator.spent = spent.heard

    def changed() -> None:
        spent.forget()
        coordinator.runs.weigh(None if quotas.alike else quotas.weight)

    quotas.on_change = changed
    changed()
    return spent


def _janitor(process: Process, spent: SpentBudgets) -> Janitor:
    settings, store, clock, tenants = process.settings, process.store, process.clock, process.tenants
    return Janitor(
        store,
        process.coordinator,
        process.plans,
        clock,
        process.metrics,
        heartbeat_seconds=settings.lease.heartbeat_seconds,
        dead_seconds=settings.lease.dead_seconds,
        journal_days=settings.retention.journal_days,
        run_days=settings.retention.run_days,
        archiver=Archiver(store, tenants, clock),
        paused=process.paused,
        spent=spent,
        recounting=Recounting(store, process.vault, process.mapper, tenants, clock),
        log=tenants,
    )


def _intakes(process: Process) -> list[Intake]:
    limits = process.settings.limits
    return [
        Intake(
            process.transport,
            queue,
            process.store,
            process.vault,
            process.registry,
            process.plans,
            process.coordinator,
            process.clock,
            process.metrics,
            prefetch=limits.prefetch,
            runs_in_decision=limits.runs_in_decision if may_wait else None,
            tracing=process.run_tracing,
            leaves=process.pauses.leaves,
            payload_bytes=process.quotas.payload_bytes,
            breached=process.coordinator.breached,
            weight=process.quotas.weight,
        )
        for queue, may_wait in queues.taken
    ]


def _unreadable(process: Process) -> Unreadable:
    return Unreadable(process.transport, queues.dead, process.store, process.vault, process.clock, process.metrics)


def _pump(begin: Sequence[Intake | Inputs]) -> None:
    for one in begin:
        one.pump()
