"""One seed is one world: several engine processes and a module, the real shells, over one store and one bus in memory.

    faults -> heal -> judge

While faults last, processes are killed at awaits on their ports and begun again, calls are refused or lose their
answers, connections break, messages come twice, late or out of order. Then everything heals; every run must come to its
end, and the whole record must keep the laws (`scripts.simulation.checks`). Safety is looked at with every append.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from types import ModuleType
from typing import Any, Final
from uuid import UUID

import structlog

import consumers.inputs
import consumers.intake
import contracts.sdk.handling
import contracts.sdk.module
import contracts.sdk.outbox
from consumers.projector import VIEWS
from contracts.envelope import Envelope
from contracts.sdk.transport import EVENTS_EXCHANGE, Message
from engine.bus.topology import module_topology, queues
from engine.door import Door
from engine.metrics import Metrics
from engine.run.inputs import Decided, Input, RetryAsked
from engine.run.react import APPROVAL
from engine.store import Appended, Commit, Outcome
from engine.store.key_ring import KeyRing
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from engine.triggers import Plans
from scripts.simulation.bus import SimBus, SimTransport, Straight
from scripts.simulation.chance import Chance, Fault, Key, Odds
from scripts.simulation.checks import judge, parked
from scripts.simulation.database import Kept
from scripts.simulation.loop import VirtualLoop
from scripts.simulation.play import Play, Sent
from scripts.simulation.processes import Engine, ModuleProcess, Process, metrics
from scripts.simulation.store import SimDatabase, SimStore, Unhindered
from scripts.simulation.weather import Weather
from scripts.simulation.workload import PLAY

BEGAN: Final = datetime(2030, 1, 1, tzinfo=UTC)


LATE_SECONDS: Final = 4.0


class Violation(AssertionError):
    """A law was broken: which, and how."""


@dataclass(slots=True)
class Told:
    """What became of a seed."""

    seed: int
    runs: int = 0
    events: int = 0
    kills: int = 0
    virtual_seconds: float = 0.0
    crossings: Counter[str] = field(default_factory=Counter)
    at_risk: Counter[str] = field(default_factory=Counter)
    """Crossings while faults lasted, by place."""
    killed_at: Counter[str] = field(default_factory=Counter)
    faults: Sequence[Fault] = ()
    trace: int = 0
    violation: str | None = None


class _Odds(dict[str, Odds]):
    """Place -> what may happen there."""

    def __init__(self, weather: Weather) -> None:
        self._weather = weather

    def __missing__(self, place: str) -> Odds:
        odds = self[place] = self._weather.odds(place)
        return odds


@cache
def _odds(weather: Weather) -> _Odds:
    return _Odds(weather)


class World:
    """Everything of one seed. `told` is what it has come to."""

    def __init__(self, seed: int, weather: Weather, play: Play, *, only: Collection[Key] | None = None) -> None:
        self.weather = weather
        self.chance, self.story = Chance(seed, only=only), Chance(f"{seed} story")
        self.loop = VirtualLoop(self.chance)
        self.told = Told(seed)
        self._now, self._read_at = BEGAN, 0.0
        self.odds = _odds(weather)
        self._crossings: dict[str, int] = {}
        self._at_risk: dict[str, int] = {}
        self.database = SimDatabase()
        self.bus = SimBus()
        self.ring, self.mapper = _ring(), _mapper()
        self.play = play
        self.cap = self.story.pick((None, 2, 3, 10))
        self.databases = {module.name: Kept() for module in play.modules}
        self.processes: list[Process] = []
        self.ever: list[Process] = []
        """All that were begun, those that were killed among them."""
        self.sent: list[Envelope] = []
        self.interrupted: Counter[str] = Counter()
        """How often a process, by its name, lost what it had in hand: it was killed, or its connection was lost."""
        self.trace = 0
        self._versions: dict[UUID, int] = {}
        self._ended: set[UUID] = set()

    def now(self) -> datetime:
        if self._read_at != self.loop.now:
            self._read_at = self.loop.now
            self._now = BEGAN + timedelta(seconds=self._read_at)
        return self._now

    def database_now(self) -> datetime | None:
        return None

    @property
    def metrics(self) -> Metrics:
        return metrics()

    def identifier(self) -> UUID:
        return UUID(int=self.chance.identifier() & ~(0xF << 76) | (7 << 76), version=None)

    # ------------------------------------------------------------------------------------------------ what happens

    def crossed(self, place: str) -> None:
        crossings = self._crossings
        times = crossings[place] = crossings.get(place, 0) + 1
        if not self.chance.calm:
            self._at_risk[place] = self._at_risk.get(place, 0) + 1
        self.trace = hash((self.trace, len(crossings), times, self.loop.now))

    def kill(self, process: Process, place: str | None) -> None:
        """Its tasks are gone, its connection is lost, what was not settled comes again; a while later it is begun."""
        process.dead = True
        self.interrupted[process.name] += 1
        if place is not None:
            self.told.kills += 1
            self.told.killed_at[place] += 1
        if process.transport is not None:
            process.transport.end()
            process.transport.dead = True
        for task in list(process.tasks):
            task.cancel()
        self.loop.call_later(self.chance.between(0.05, self.weather.down_seconds), self._begin_again, process)

    def _begin_again(self, process: Process) -> None:
        self.processes.remove(process)
        self._begin(type(process)(self, process.name))

    def _begin(self, process: Process) -> None:
        self.processes.append(process)
        self.ever.append(process)
        process.begin()

    def appended(self, commits: Sequence[Commit], outcomes: Sequence[Outcome], epoch: int) -> None:
        """Safety, with every append: by a living process, contiguous, and nothing after a run's end."""
        alive = None
        for commit, outcome in zip(commits, outcomes, strict=True):
            if not isinstance(outcome, Appended) or commit.stream is None or commit.kind != "run":
                continue
            if alive is None:
                alive = self.database.rows("SELECT 1 FROM processes WHERE epoch = ? AND NOT dead", (epoch,))
            if not alive:
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
        self._declare()
        for number in range(self.weather.engines):
            self._begin(Engine(self, f"engine-{number}"))
        for module in self.play.modules:
            self._begin(ModuleProcess(self, module.name))
        sending, people = self.loop.create_task(self._send()), self.loop.create_task(self._people())
        await self._while_faults_last(sending)
        self.chance.calm = True
        await self._until_calm()
        people.cancel()
        self.check()
        await judge(self)

    async def _while_faults_last(self, sending: asyncio.Task[None]) -> None:
        """Until enough was killed, time is up, or nothing is left to be done. In many worlds they begin late, and so
        meet what comes late in a run.
        """
        weather = self.weather
        if self.story.below(0.6):
            self.chance.calm = True
            await asyncio.sleep(self.story.between(0, LATE_SECONDS))
            self.chance.calm = False
        while self.told.kills < weather.kills and self.loop.now < weather.fault_seconds:
            if sending.done() and next(self._left(), None) is None:
                break
            await asyncio.sleep(0.25)
        await sending

    def _declare(self) -> None:
        """What a deployment declares before anything runs: a command for a module that never was is a dead letter."""
        nobody = SimTransport(self.bus, Straight())
        for topology in (self.play.topology, *map(module_topology, self.play.modules)):
            self.bus.declare(topology, nobody)

    def check(self) -> None:
        if self.told.violation is not None:
            raise Violation(self.told.violation)

    async def _send(self) -> None:
        """Events as modules with a reliable outbox send them: each at least once."""
        chance = self.chance
        for sent in self.play.events(self.story):
            event = self._event(sent)
            self.sent.append(event)
            for _ in range(2 if chance.below(0.3) else 1):
                self._publish(event)
            await asyncio.sleep(chance.between(0, 0.9))

    def _event(self, sent: Sent) -> Envelope:
        module, number = self.play.module_of(sent.fact), str(self.identifier())
        return Envelope(
            id=number,
            source=module.source,
            type=module.type_of(sent.fact),
            tenantid=sent.tenant,
            time=self.now(),
            data=sent.fact.model_dump(mode="json"),
            correlationid=sent.correlation or number,
        )

    def _publish(self, event: Envelope) -> None:
        waiting = len(self.bus.queues[queues.intake].waiting)
        place = self.chance.number(0, waiting) if self.chance.below(0.2) else waiting
        self.bus.take(Message(EVENTS_EXCHANGE, event.type, event.to_json(), mandatory=False), lambda _: place)

    async def _until_calm(self) -> None:
        """Liveness: everything that was begun comes to its end."""
        deadline = self.loop.now + self.weather.heal_seconds
        while True:
            self.check()
            if next(self._left(), None) is None:
                return
            await self._operate()
            if self.loop.now > deadline:
                left = [*self._left(), *await parked(self)]
                raise self.broken(
                    f"T: after {self.weather.heal_seconds:g} calm seconds there is still {', '.join(left)}"
                )
            await asyncio.sleep(0.25)

    async def _operate(self) -> None:
        """An operator sees to what is parked: tries it again; and to what the engine itself gave up: redrives it."""
        for tenant, run in self.database.rows("SELECT tenant, run_id FROM open_runs WHERE status = 'parked'", ()):
            self._submit(tenant, run, RetryAsked(at=self.now(), by="operator"))
        living = [one.epoch for one in self.processes if isinstance(one, Engine) and not one.dead and one.epoch]
        letters = self._given_up()
        if letters and living:
            store = SimStore(self.database, Unhindered(self.now))
            vault, plans = Vault(store, self.ring), Plans(self.play.sagas, {**self.play.actions})
            door = Door(store, vault, self.mapper, self.play.registry, plans, self, None, living[0])
            for letter in letters:
                await door.redrive(None, letter, by="operator")

    def _given_up(self) -> list[UUID]:
        """Dead letters of messages that were in the hands of an engine each time one was killed."""
        told = (
            "SELECT id FROM dead_letters WHERE state = 'dead'"
            " AND detail LIKE 'queue unwind.% gave it up (delivery_limit)%'"
        )
        return [UUID(row[0]) for row in self.database.rows(told, ())]

    async def _people(self) -> None:
        """Who is asked for an approval gives it or not, some time later."""
        asked = "SELECT tenant, run_id, name FROM subscriptions WHERE type = ?"
        while True:
            await asyncio.sleep(self.chance.between(0.2, 1.5))
            for tenant, run, name in self.database.rows(asked, (APPROVAL,)):
                if self.chance.below(0.6):
                    yes = self.chance.below(0.7)
                    self._submit(tenant, run, Decided(at=self.now(), name=name, approved=yes, by="somebody"))

    def _submit(self, tenant: str, run: str, given: Input) -> None:
        """To the run's owner, as an input of the API finds its way to it; to whoever lives when nobody owns it."""
        living = [one for one in self.processes if isinstance(one, Engine) and not one.dead and one.coordinator]
        [row] = self.database.rows("SELECT owner FROM open_runs WHERE run_id = ?", (run,))
        for engine in [one for one in living if one.epoch == row[0]] or living[:1]:
            if engine.coordinator is not None:
                engine.context.run(engine.coordinator.submit, tenant, UUID(run), given)

    def _left(self) -> Iterator[str]:
        """What there still is to be done; what there mostly is comes first."""
        if any(process.dead or not process.begun for process in self.processes):
            yield "a process that is down"
        for table in ("open_runs", "outbox", "inputs", "timers", "subscriptions", "awaits"):
            [count] = self.database.rows(f"SELECT count(*) FROM {table}", ())
            if count[0]:
                yield f"{count[0]} rows of {table}"
        for name, held in self.bus.queues.items():
            if held.waiting:
                yield f"{len(held.waiting)} messages in {name}"
            if any(consumer.unsettled for consumer in held.consumers):
                yield f"unsettled messages of {name}"
        [head] = self.database.rows("SELECT coalesce(max(rowid), 0) FROM log", ())
        behind = self.database.rows("SELECT view FROM checkpoints WHERE position < ?", head)
        [views] = self.database.rows("SELECT count(*) FROM checkpoints", ())
        if behind or (head[0] and views[0] < len(VIEWS)):
            yield "a read model that is behind"
        for _ in self._given_up():
            yield "a message that an engine gave up"


@cache
def _ring() -> KeyRing:
    return KeyRing("root", {"root": b"r" * 32})


@cache
def _mapper() -> Mapper:
    """It keeps nothing between two events, so one is enough for all worlds."""
    return Mapper()


def _unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a killed process leaves behind is nobody's mistake."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without log lines, whose formatting costs more than the world, and without warnings of what a killed process had
    not begun.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    disabled, logging.root.manager.disable = logging.root.manager.disable, logging.CRITICAL
    collects = gc.isenabled()
    gc.disable()
    gc.freeze()  # what is there before the first world will be there after the last
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="coroutine .* was never awaited", category=RuntimeWarning)
            yield
            gc.collect()  # what would be warned of is found here
    finally:
        gc.unfreeze()
        if collects:
            gc.enable()
        logging.root.manager.disable = disabled
        structlog.reset_defaults()


@contextmanager
def _identified(world: World) -> Iterator[None]:
    """Ids and instants of what has no port for them, from the world's own."""
    given: list[tuple[ModuleType, str, Any]] = [
        (consumers.inputs, "new_run_id", world.identifier),
        (consumers.intake, "new_run_id", world.identifier),
        (contracts.sdk.module, "uuid4", world.identifier),
        (contracts.sdk.handling, "uuid4", world.identifier),
        (contracts.sdk.outbox, "_now", world.now),
    ]
    own = [(place, name, getattr(place, name)) for place, name, _ in given]
    for place, name, value in given:
        setattr(place, name, value)
    try:
        yield
    finally:
        for place, name, value in own:
            setattr(place, name, value)


def run_seed(
    seed: int,
    weather: Weather | None = None,
    play: Play | None = None,
    *,
    only: Collection[Key] | None = None,
    planted: Callable[[], Any] | None = None,
) -> Told:
    """Plays the seed's world; without a play the engine's own. With `only`, these of its faults happen
    and no others. `planted` opens a context in which something is wrong on purpose.
    """
    play = play or PLAY
    play.begin()
    told = _lived(World(seed, weather or Weather(), play, only=only), planted)
    if not gc.isenabled():
        gc.collect(0)
    return told


def _lived(world: World, planted: Callable[[], Any] | None) -> Told:
    """What has come of the world. Nobody holds it any more when this returns, so that it can be collected at once:
    what it leaves is still in the processor's cache, what a hundred worlds leave is not.
    """
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
    told.virtual_seconds, told.crossings = loop.now, Counter(world._crossings)
    told.at_risk = Counter(world._at_risk)
    told.faults, told.trace = tuple(world.chance.faults), world.trace
    return told


def _end(world: World) -> None:
    """Lets go of everything, so that seeds do not add up."""
    world.chance.calm = True
    for process in world.processes:
        process.dead = True
        if process.transport is not None:
            process.transport.dead = True
    left = [*world.loop.tasks, *(task for process in world.ever for task in process.tasks)]
    for task in left:
        task.cancel()
    if left:
        world.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    world.loop.close()
    asyncio.set_event_loop(None)
    world.database.close()
    for kept in world.databases.values():
        kept.close()
