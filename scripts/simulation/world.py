"""One seed is one world: several engine processes and a module, the real shells, over one store and one bus in memory.

    faults -> heal -> judge

While faults last, processes are killed at awaits on their ports and begun again, calls are refused or lose their
answers, connections break, messages come twice, late or out of order. Then everything heals; every run must come to its
end, and the whole record must keep the laws (`scripts.simulation.checks`). Safety is looked at with every append.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final
from unittest import mock
from uuid import UUID

import structlog

from consumers.projector import VIEWS
from contracts.envelope import Envelope
from contracts.sdk.transport import EVENTS_EXCHANGE, Message
from engine.bus.topology import engine_topology, module_topology, queues
from engine.metrics import Metrics
from engine.run.inputs import RetryAsked
from engine.store import Appended, Commit, Outcome
from engine.store.key_ring import KeyRing
from scripts.simulation import workload
from scripts.simulation.bus import SimBus, SimTransport, Straight
from scripts.simulation.chance import Chance, Fault
from scripts.simulation.loop import VirtualLoop
from scripts.simulation.processes import Engine, ModuleProcess, Process, metrics, registry
from scripts.simulation.store import SimDatabase

BEGAN: Final = datetime(2030, 1, 1, tzinfo=UTC)
_MOD: Final = (1 << 61) - 1


class Violation(AssertionError):
    """A law was broken: which, and how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How a world is: sizes, and how likely each fault is at a crossing of a port."""

    engines: int = 2
    orders: int = 3
    fault_seconds: float = 5.0
    heal_seconds: float = 180.0
    kill: float = 0.035
    refuse: float = 0.01
    lose: float = 0.01
    slow: float = 0.1
    freeze: float = 0.004
    duplicate: float = 0.08
    reorder: float = 0.1
    lost_confirm: float = 0.04
    lost_message: float = 0.03
    skew_seconds: float = 2.0


@dataclass(slots=True)
class Told:
    """What became of a seed."""

    seed: int
    runs: int = 0
    events: int = 0
    kills: int = 0
    virtual_seconds: float = 0.0
    crossings: Counter[str] = field(default_factory=Counter)
    killed_at: Counter[str] = field(default_factory=Counter)
    faults: Sequence[Fault] = ()
    trace: int = 0
    violation: str | None = None


class World:
    """Everything of one seed. `told` is what it has come to."""

    def __init__(self, seed: int, weather: Weather, *, without: Collection[int] = ()) -> None:
        self.weather = weather
        self.chance = Chance(seed, without=without)
        self.loop = VirtualLoop(self.chance)
        self.told = Told(seed)
        self.database = SimDatabase()
        self.bus = SimBus()
        self.ring = _ring()
        self.sagas = workload.SAGAS
        self.cap = self.chance.pick((None, 2, 3, 10))
        self.busy: dict[str, int] = {}
        self.module_database = sqlite3.connect(":memory:", isolation_level=None, detect_types=sqlite3.PARSE_DECLTYPES)
        self.module_lock = asyncio.Lock()
        self.processes: list[Process] = []
        self.sent: list[Envelope] = []
        self.kills_of: Counter[str] = Counter()
        self.trace = 0
        self._versions: dict[UUID, int] = {}
        self._ended: set[UUID] = set()

    def now(self) -> datetime:
        return BEGAN + timedelta(seconds=self.loop.time())

    def database_now(self) -> datetime | None:
        return None

    @property
    def metrics(self) -> Metrics:
        return metrics()

    def identifier(self) -> UUID:
        return UUID(int=self.chance.identifier() & ~(0xF << 76) | (7 << 76), version=None)

    # ------------------------------------------------------------------------------------------------ what happens

    def crossed(self, process: Process, place: str) -> None:
        crossings = self.told.crossings
        crossings[place] += 1
        self.trace = (
            self.trace * 1_000_003 + len(crossings) * 31 + crossings[place] + int(self.loop.time() * 1e6)
        ) % _MOD

    def kill(self, process: Process, place: str | None) -> None:
        """Its tasks are gone, its connection is lost, what was not settled comes again; a while later it is begun."""
        process.dead = True
        self.kills_of[process.name] += 1
        if place is not None:
            self.told.kills += 1
            self.told.killed_at[place] += 1
        if process.transport is not None:
            process.transport.end()
            process.transport.dead = True
        for task in list(process.tasks):
            task.cancel()
        self.loop.call_later(self.chance.between(0.05, 1.5), self._begin_again, process)

    def _begin_again(self, process: Process) -> None:
        self.processes.remove(process)
        self._begin(type(process)(self, process.name))

    def _begin(self, process: Process) -> None:
        self.processes.append(process)
        process.begin()

    def appended(self, commits: Sequence[Commit], outcomes: Sequence[Outcome], epoch: int) -> None:
        """Safety, with every append: by a living process, contiguous, and nothing after a run's end."""
        [alive] = self.database.rows("SELECT count(*) FROM processes WHERE epoch = ? AND NOT dead", (epoch,))
        for commit, outcome in zip(commits, outcomes, strict=True):
            if not isinstance(outcome, Appended) or commit.stream is None or commit.kind != "run":
                continue
            if not alive[0]:
                raise self.broken(f"H: process {epoch} was declared dead and has appended to {commit.stream}")
            if commit.stream in self._ended:
                raise self.broken(f"T: run {commit.stream} has ended and takes {commit.events[0].topic}")
            version = self._versions.get(commit.stream, 0)
            if commit.expected != version:
                raise self.broken(f"H: run {commit.stream} is at {version}, appended after {commit.expected}")
            self._versions[commit.stream] = version + len(commit.events)
            self.told.events += len(commit.events)
            if any(event.topic == "run.ended" for event in commit.events):
                self._ended.add(commit.stream)

    def broken(self, what: str) -> Violation:
        """Kept here, since the shell that it is raised in may be one that catches everything."""
        self.told.violation = self.told.violation or what
        return Violation(what)

    # ------------------------------------------------------------------------------------------------ the story

    async def live(self) -> None:
        from scripts.simulation.checks import judge

        self._declare()
        for number in range(self.weather.engines):
            self._begin(Engine(self, f"engine-{number}"))
        self._begin(ModuleProcess(self, "module"))
        sending = self.loop.create_task(self._send())
        await asyncio.sleep(self.weather.fault_seconds)
        await sending
        self.chance.calm = True
        await self._until_calm()
        self.check()
        await judge(self)

    def _declare(self) -> None:
        """What a deployment declares before anything runs: a command for a module that never was is a dead letter."""
        nobody = SimTransport(self.bus, Straight())
        for topology in (engine_topology(registry()), module_topology(workload.MODULE)):
            self.bus.declare(topology, nobody)

    def check(self) -> None:
        if self.told.violation is not None:
            raise Violation(self.told.violation)

    async def _send(self) -> None:
        """Orders and payments as a module with a reliable outbox sends them: each at least once."""
        chance = self.chance
        for number in range(self.weather.orders):
            tenant, order = chance.pick(workload.TENANTS), f"o-{number}"
            fates = [chance.pick(("ok", "ok", "ok", "1", "2", "refused")) for _ in range(chance.number(1, 3))]
            placed = {
                "order_id": order,
                "fates": fates,
                "waits": chance.below(0.4),
                "naps": chance.below(0.3),
                "together": chance.below(0.4),
            }
            events = [self._event(workload.PLACED, tenant, placed)]
            if placed["waits"] and chance.below(0.7):
                events.append(self._event(workload.PAID, tenant, {"order_id": order}))
                if chance.below(0.3):
                    events.reverse()  # the payment comes before anybody waits for it
            for event in events:
                self.sent.append(event)
                for _ in range(2 if chance.below(0.3) else 1):
                    self._publish(event)
                await asyncio.sleep(chance.between(0, 0.9))

    def _event(self, kind: str, tenant: str, data: dict[str, Any]) -> Envelope:
        return Envelope(
            id=str(self.identifier()),
            source=workload.MODULE.source,
            type=kind,
            tenantid=tenant,
            time=self.now(),
            data=data,
            correlationid=data["order_id"],
        )

    def _publish(self, event: Envelope) -> None:
        waiting = len(self.bus.queues[queues.intake].waiting)
        place = self.chance.number(0, waiting) if self.chance.below(0.2) else waiting
        self.bus.take(Message(EVENTS_EXCHANGE, event.type, event.to_json(), mandatory=False), lambda _: place)

    async def _until_calm(self) -> None:
        """Liveness: everything that was begun comes to its end."""
        deadline = self.loop.time() + self.weather.heal_seconds
        while True:
            self.check()
            left = self._left()
            if not left:
                return
            self._operate()
            if self.loop.time() > deadline:
                raise self.broken(
                    f"T: after {self.weather.heal_seconds:g} calm seconds there is still {', '.join(left)}"
                )
            await asyncio.sleep(0.5)

    def _operate(self) -> None:
        """An operator sees to what is parked: tries it again."""
        engine = next((one for one in self.processes if isinstance(one, Engine) and not one.dead), None)
        if engine is None or engine.coordinator is None:
            return
        for tenant, run in self.database.rows("SELECT tenant, run_id FROM open_runs WHERE status = 'parked'", ()):
            asked = RetryAsked(at=self.now(), by="operator")
            engine.context.run(engine.coordinator.submit, tenant, UUID(run), asked)

    def _left(self) -> list[str]:
        tables = ("open_runs", "outbox", "inputs", "timers", "subscriptions", "awaits")
        left = [
            f"{count[0]} rows of {table}"
            for table in tables
            for count in self.database.rows(f"SELECT count(*) FROM {table}", ())
            if count[0]
        ]
        left += [f"{len(held.waiting)} messages in {name}" for name, held in self.bus.queues.items() if held.waiting]
        left += [
            f"unsettled messages of {name}"
            for name, held in self.bus.queues.items()
            if any(consumer.unsettled for consumer in held.consumers)
        ]
        [head] = self.database.rows("SELECT coalesce(max(rowid), 0) FROM log", ())
        behind = self.database.rows("SELECT view FROM checkpoints WHERE position < ?", head)
        [views] = self.database.rows("SELECT count(*) FROM checkpoints", ())
        if behind or (head[0] and views[0] < len(VIEWS)):
            left.append("a read model that is behind")
        if any(process.dead for process in self.processes):
            left.append("a process that is down")
        return left


@cache
def _ring() -> KeyRing:
    return KeyRing("root", {"root": b"r" * 32})


def _unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a killed process leaves behind is nobody's mistake."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without log lines, whose formatting costs more than the world, and without warnings of what a killed process had
    not begun.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    disabled, logging.root.manager.disable = logging.root.manager.disable, logging.CRITICAL
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)
            yield
    finally:
        logging.root.manager.disable = disabled
        structlog.reset_defaults()


@contextmanager
def _identified(world: World) -> Iterator[None]:
    """Ids and instants of what has no port for them, from the world's own."""
    with ExitStack() as stack:
        for name in ("consumers.inputs.new_run_id", "consumers.intake.new_run_id"):
            stack.enter_context(mock.patch(name, world.identifier))
        for name in ("contracts.sdk.module.uuid4", "contracts.sdk.handling.uuid4"):
            stack.enter_context(mock.patch(name, world.identifier))
        stack.enter_context(mock.patch("contracts.sdk.outbox._now", world.now))
        yield


def run_seed(
    seed: int,
    weather: Weather | None = None,
    *,
    without: Collection[int] = (),
    planted: Callable[[], Any] | None = None,
) -> Told:
    """Plays the seed's world. `planted` opens a context in which something is wrong on purpose."""
    world = World(seed, weather or Weather(), without=without)
    workload.JOTTED.clear()
    loop = world.loop
    loop.set_exception_handler(_unhandled)
    asyncio.set_event_loop(loop)
    told = world.told
    with _identified(world), ExitStack() as stack:
        if planted is not None:
            stack.enter_context(planted())
        try:
            loop.run_until_complete(world.live())
        except Violation as broken:
            told.violation = str(broken)
        except Exception as error:
            told.violation = f"{type(error).__name__}: {error}"
        finally:
            _end(world)
    told.virtual_seconds = loop.time()
    told.faults, told.trace = tuple(world.chance.faults), world.trace
    return told


def _end(world: World) -> None:
    """Lets go of everything, so that seeds do not add up."""
    world.chance.calm = True
    for process in world.processes:
        process.dead = True
        if process.transport is not None:
            process.transport.dead = True
    left = asyncio.all_tasks(world.loop)
    for task in left:
        task.cancel()
    if left:
        world.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    world.loop.close()
    asyncio.set_event_loop(None)
    world.database.close()
    world.module_database.close()
