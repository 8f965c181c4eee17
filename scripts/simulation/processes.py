"""The processes of a world: engines, all roles wired as `consumers.roles` wires them, and the module. Each is its
own gate and line: what the world does to it happens at the awaits on its ports.
"""

from __future__ import annotations

import asyncio
import contextvars
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from consumers.asking import Asking
from consumers.heartbeat import Heartbeat
from consumers.inputs import Inputs
from consumers.intake import Intake
from consumers.janitor import Janitor
from consumers.projector import VIEWS, Projector
from consumers.relay import Relay
from consumers.timer import TimerLoop
from consumers.unreadable import Unreadable
from consumers.worker import Worker
from contracts.problems import Problem, Unavailable
from contracts.sdk.transport import Published
from engine.bus.topology import queues
from engine.coordinator import Coordinator
from engine.metrics import Metrics
from engine.recording import Caps
from engine.store.keys import Vault
from engine.tenant_log import TenantLog
from engine.triggers import Plans
from scripts.simulation.bus import SimTransport
from scripts.simulation.database import ModuleDatabase
from scripts.simulation.loop import BELONGS_TO, turn
from scripts.simulation.store import SimStore
from scripts.simulation.weather import BROKEN, FROZEN, KILLED, LOST, REFUSED

if TYPE_CHECKING:
    from scripts.simulation.world import World

DEAD_SECONDS: Final = 2.0
SLOW_SECONDS: Final = (0.001, 0.4)
SHOWS: Final = "engine-0"
RUNS_IN_DECISION: Final = 4
"""So few that events wait for room, and those of one tenant are set aside for others'."""
"""The process that writes the read models; all others do everything else."""


@cache
def metrics() -> Metrics:
    return Metrics()


class Clock:
    """A process's own clock: the world's time, a little wrong. Leases go by the database's."""

    def __init__(self, world: World, skew: float) -> None:
        self._world, self._skew = world, timedelta(seconds=skew)

    def now(self) -> datetime:
        return self._world.now() + self._skew

    def database_now(self) -> datetime | None:
        return None


class Process(ABC):
    """A simulated process: its ports, its tasks, and whether it lives."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.dead = False
        self.begun = False
        """Whether it has started all its parts."""
        self.frozen_until = 0.0
        self.transport: SimTransport | None = None
        self.context = contextvars.copy_context()
        self.context.run(BELONGS_TO.set, self)

    # ------------------------------------------------------------------------------------------------ gate and line

    def now(self) -> datetime:
        return self.world.now()

    async def before(self, port: str) -> None:
        world, place = self.world, port + ":before"
        chance = world.chance
        self._alive()
        if chance.calm:
            await turn()
            self._alive()
            world.crossed(place)
            return
        if chance.below(world.weather.slow):
            await asyncio.sleep(chance.between(*SLOW_SECONDS))
        else:
            await turn()
        self._alive()
        fault = self._drawn(place)
        if self.frozen_until > world.loop.now:
            await self._thawed()
        self._cross(place, fault)
        if fault == REFUSED:
            raise Unavailable(f"{port} was refused")

    async def after(self, port: str) -> None:
        world, place = self.world, port + ":after"
        chance = world.chance
        self._alive()
        if chance.calm:
            world.crossed(place)
            return
        if chance.below(world.weather.slow):
            await asyncio.sleep(chance.between(*SLOW_SECONDS))
            self._alive()
        fault = self._drawn(place)
        if self.frozen_until > world.loop.now:
            await self._thawed()
        self._cross(place, fault)
        if fault == LOST:
            raise Unavailable(f"the answer of {port} got lost")

    def _drawn(self, place: str) -> str | None:
        """The fault that happens here, if any."""
        world = self.world
        fault = world.chance.one_of(world.odds[place], place, world.loop.now)
        if fault == FROZEN:
            self.frozen_until = world.loop.now + world.chance.between(0.5, 2 * DEAD_SECONDS)
        return fault

    async def _thawed(self) -> None:
        loop, chance = self.world.loop, self.world.chance
        while self.frozen_until > loop.now and not chance.calm:
            await asyncio.sleep(min(0.5, self.frozen_until - loop.now))
            self._alive()

    def _cross(self, place: str, fault: str | None) -> None:
        """What becomes of the process. What becomes of the call is its own."""
        world = self.world
        world.crossed(place)
        if fault == KILLED:
            world.kill(self, place)
            self._alive()
        if fault == BROKEN and self.transport:
            world.interrupted[self.name] += 1
            self.transport.break_off()

    def _alive(self) -> None:
        if self.dead:
            raise asyncio.CancelledError

    def forget(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    def fate(self) -> tuple[int, Published]:
        chance, weather, at = self.world.chance, self.world.weather, self.world.loop.now
        copies, heard = 1, Published.CONFIRMED
        if chance.happens("message lost", self.name, weather.lost_message, at):
            return 0, Published.UNKNOWN
        if chance.happens("message doubled", self.name, weather.duplicate, at):
            copies = 2
        if chance.happens("confirm lost", self.name, weather.lost_confirm, at):
            heard = Published.UNKNOWN
        return copies, heard

    def place(self, waiting: int) -> int:
        chance, world = self.world.chance, self.world
        if waiting and chance.happens("message overtaken", self.name, world.weather.reorder, world.loop.now):
            return chance.number(0, waiting - 1)
        return waiting

    def call_soon(self, work: Callable[..., object], *values: object) -> None:
        self.world.loop.call_soon(self._run, work, *values, context=self.context)

    def _run(self, work: Callable[..., object], *values: object) -> None:
        if not self.dead:
            work(*values)

    # ------------------------------------------------------------------------------------------------ life

    def begin(self) -> None:
        living = self.world.loop.create_task(self._live(), name=self.name, context=self.context)
        self.tasks[living] = None

    async def _live(self) -> None:
        try:
            await self.boot()
            self.begun = True
        except Problem:
            self.world.kill(self, None)  # a process that cannot start ends, and is begun again

    @abstractmethod
    async def boot(self) -> None:
        """Opens its ports and starts its parts. Raises `Problem` when it cannot."""

    def open_transport(self) -> SimTransport:
        if self.transport is not None:
            self.transport.end()
        self.transport = SimTransport(self.world.bus, self, self.call_soon)
        return self.transport


class Engine(Process):
    """All roles of the engine in one process, wired as `consumers.roles` wires them."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.clock = Clock(world, world.chance.between(-world.weather.skew_seconds, world.weather.skew_seconds))
        self.epoch = 0
        self.store: SimStore | None = None
        self.coordinator: Coordinator | None = None

    async def boot(self) -> None:
        world, clock, counted, known = self.world, self.clock, metrics(), self.world.play.registry
        store = self.store = SimStore(world.database, self)
        store.appended = world.appended
        vault, mapper = Vault(store, world.ring), world.mapper
        await vault.start()
        transport = self.open_transport()
        await transport.start()
        await transport.declare(world.play.topology)
        self.epoch = await store.register(self.name, ("all",))
        plans = Plans(world.play.sagas, {**world.play.actions})
        coordinator = self.coordinator = Coordinator(
            store, vault, mapper, plans, clock, counted, caps=lambda tenant, workflow: Caps(workflow=world.cap)
        )

        async def register_anew() -> None:
            coordinator.fenced()
            self.epoch = await store.register(self.name, ("all",))
            coordinator.epoch = relay.epoch = self.epoch

        heartbeat = Heartbeat(store, clock, epoch=lambda: self.epoch, seconds=0.8, lost=register_anew)
        worker = Worker(coordinator, clock, counted, Asking(None, known))
        inputs = Inputs(
            store,
            vault,
            mapper,
            known,
            plans,
            coordinator,
            clock,
            counted,
            poll_seconds=0.8,
            at_once=2,
            runs_in_decision=RUNS_IN_DECISION,
        )
        timers = TimerLoop(store, coordinator, clock, poll_seconds=0.6)
        tenants = TenantLog(store, vault, mapper, clock, epoch=lambda: self.epoch)
        janitor = Janitor(
            store, coordinator, plans, clock, counted, heartbeat_seconds=1.0, dead_seconds=DEAD_SECONDS, log=tenants
        )
        relay = Relay(store, vault, transport, self.epoch, clock, counted)
        coordinator.perform = worker.perform
        coordinator.matched = inputs.take_soon
        coordinator.freed_slot, coordinator.run_queued = janitor.slot_freed, janitor.run_queued
        coordinator.suspect = heartbeat.suspected
        coordinator.wrote_outbox = relay.wake
        coordinator.wrote_inputs = inputs.wake
        await coordinator.start(self.epoch)
        intakes = [
            Intake(
                transport,
                queue,
                store,
                vault,
                known,
                plans,
                coordinator,
                clock,
                counted,
                prefetch=20,
                runs_in_decision=RUNS_IN_DECISION if may_wait else None,
            )
            for queue, may_wait in queues.taken
        ]

        beginning: list[Intake | Inputs] = [*intakes, inputs]

        def pump() -> None:
            for one in beginning:
                one.pump()

        coordinator.runs.on_room = pump
        unreadable = Unreadable(transport, queues.dead, store, vault, clock, counted)
        parts: list[Any] = [heartbeat, janitor, inputs, timers, *intakes, unreadable, relay]
        if self.name == SHOWS:
            parts.append(Projector(store, vault, mapper, VIEWS, clock, counted))
        for part in parts:
            await part.start()


class ModuleProcess(Process):
    """The module of that name, as its developer runs it, on a database of its own."""

    async def boot(self) -> None:
        kept = self.world.databases[self.name]
        service = self.world.play.makers[self.name](self.open_transport(), ModuleDatabase(kept, self))
        await service.start()
