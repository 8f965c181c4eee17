"""Processes that own runs, over one store of either driver and a clock turned by hand: what the coordinator's tests
stand on. A node is a coordinator with its worker, inputs, timers and janitor, none of which runs by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from consumers.archiving import Archiver
from consumers.inputs import BATCH, POLL_SECONDS, Inputs, new_run_id
from consumers.janitor import Janitor
from consumers.timer import TimerLoop
from consumers.worker import Worker
from contracts.calls import ActionCall, ActionSpec, Fate, RetryPolicy
from contracts.modules import SHIPPED
from contracts.problems import Unavailable
from contracts.registry import Registry
from contracts.run_events import RunEvent
from engine.answers import Result
from engine.clock import VirtualClock
from engine.coordinator import Coordinator
from engine.door import Door
from engine.metrics import Metrics
from engine.plan.code import Run, Saga, saga
from engine.recording import Caps
from engine.run.evolve import fold
from engine.run.inputs import Begin
from engine.run.state import RunState
from engine.store import Commit, Outcome, Start, Store, open_store
from engine.store.errors import CommitRefused
from engine.store.key_ring import KeyRing, create_key_ring
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from engine.tenant_log import TenantLog
from engine.triggers import Plans

PATIENCE_SECONDS = 20.0
ONCE = RetryPolicy(attempts=1)


@dataclass
class World:
    """What actions did, and gates that hold them: the outside, which no store knows."""

    done: list[tuple[str, str]] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    entered: dict[str, asyncio.Event] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    at_once: int = 0
    most_at_once: int = 0

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    def arrival(self, name: str) -> asyncio.Event:
        return self.entered.setdefault(name, asyncio.Event())


WORLD = World()


def note(call: ActionCall) -> Any:
    """Quick: happens at once."""
    WORLD.done.append((call.action.rpartition(":")[2], call.key))
    if call.input.get("name") in WORLD.failing:
        raise RuntimeError("scripted")
    return {"of": call.key}


def unnote(call: ActionCall) -> Any:
    WORLD.done.append(("unnote", call.key))


async def gated(call: ActionCall) -> Any:
    """Slow: says that it was entered, then waits at the gate of its name."""
    name = call.input["gate"]
    WORLD.done.append(("gated", call.key))
    WORLD.at_once += 1
    WORLD.most_at_once = max(WORLD.most_at_once, WORLD.at_once)
    WORLD.arrival(name).set()
    try:
        await WORLD.gate(name).wait()
    finally:
        WORLD.at_once -= 1
    return {"of": call.key}


@saga("quick", version=1)
async def quick(run: Run, data: Any) -> Any:
    for name in ("one", "two", "three"):
        await run.step(name, note, undo=unnote, retry=ONCE, name=name)
    return "done"


@saga("slow", version=1)
async def slow(run: Run, data: Any) -> Any:
    await run.step("before", note, undo=unnote)
    await run.step("hold", gated, gate=data["gate"], timeout_seconds=3600)
    return await run.step("after", note)


@saga("family", version=1)
async def family(run: Run, data: Any) -> Any:
    """Two children, one after the other; with `fails` they are taken back."""
    for number in (1, 2):
        await run.child(f"child-{number}", "quick")
    if data.get("fails"):
        raise run.fail("unwanted")
    return "grown up"


@saga("wanderer", version=1)
async def wanderer(run: Run, data: Any) -> Any:
    """Goes on as another run, and as another, and rests."""
    await run.step("pass", note, undo=unnote)
    if data["hops"]:
        raise run.continue_as({"hops": data["hops"] - 1})
    await run.sleep("nap", 60)
    return "home"


@saga("guardian", version=1)
async def guardian(run: Run, data: Any) -> Any:
    return await run.child("ward", "wanderer", {"hops": 2})


@saga("waiting", version=1)
async def waiting(run: Run, data: Any) -> Any:
    await run.sleep("nap", 60)
    await run.step("after", note)
    return "rested"


@saga("flaky", version=1)
async def flaky(run: Run, data: Any) -> Any:
    await run.step("try", note, name="try", retry=RetryPolicy(attempts=5, delay_seconds=10, jitter=0))
    return "done"


@saga("patient", version=1, on_failure="park")
async def patient(run: Run, data: Any) -> Any:
    await run.step("try", note, name="try", retry=ONCE)
    return "done"


@saga("inviting", version=1)
async def inviting(run: Run, data: Any) -> Any:
    await run.sleep("nap", 60)
    return await run.step("invite", "identity.create_user", undo=None, email="ann@example.org", name="Ann")


@saga("asking", version=1)
async def asking(run: Run, data: Any) -> Any:
    """As many users as are asked for, side by side."""
    made = [
        run.step(f"create-{number}", "identity.create_user", email=f"u{number}@example.org", name="U", undo=None)
        for number in range(data.get("users", 1))
    ]
    return [user["user_id"] for user in await run.gather(*made)]


@saga("endless", version=1)
async def endless(run: Run, data: Any) -> Any:
    await run.step("one", note)
    while True:
        pass


@saga("paid", version=1, on="billing.FirstPaymentReceivedV1")
async def paid(run: Run, payment: Any) -> Any:
    return await run.step("hold", gated, gate=payment["payment_id"], timeout_seconds=3600)


async def looking(call: ActionCall) -> Fate:
    """Says what became of it once its gate is open."""
    WORLD.done.append(("looking", call.key))
    WORLD.arrival("looking").set()
    await WORLD.gate("looking").wait()
    return Fate(True, {"found": call.key})


def broken(call: ActionCall) -> Any:
    raise RuntimeError("nobody knows how far it came")


PRINT = ActionSpec(name="press.print", kind="local", perform=broken, ambiguous="query", find=looking, retry=ONCE)


@saga("printing", version=1)
async def printing(run: Run, data: Any) -> Any:
    return await run.step("print", "press.print")


SAGAS: tuple[Saga, ...] = (
    printing, quick, family, wanderer, guardian, slow, waiting, flaky, patient, inviting, asking, endless, paid,
)  # fmt: skip


class Watched:
    """A store that remembers its appends and which runs it loaded whole, can keep appends and claims of runs waiting at
    a gate, lose an answer after it has committed or the next few answers to what a log holds, refuse a batch of one
    commit, and can show a broken body or snapshot.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.batches: list[list[Commit]] = []
        self.gate: asyncio.Event | None = None
        self.waiting = asyncio.Event()
        self.lose: Callable[[int], bool] = lambda number: False
        self.loads_to_lose = 0
        self.refuse: Callable[[Commit], bool] = lambda commit: False
        self.broken: set[UUID] = set()
        self.loaded_whole: set[UUID] = set()
        self.spoil_snapshot: Callable[[bytes], bytes] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append(self, commits: Sequence[Commit], *, epoch: int, now: datetime | None = None) -> list[Outcome]:
        self.batches.append(list(commits))
        number = len(self.batches)
        if self.gate is not None:
            self.waiting.set()
            await self.gate.wait()
        if len(commits) == 1 and self.refuse(commits[0]):
            raise CommitRefused({0: "scripted"}, [None])
        outcomes = await self._store.append(commits, epoch=epoch, now=now)
        if self.lose(number):
            raise Unavailable("the answer got lost")
        return outcomes

    async def claim_named(self, epoch: int, runs: Sequence[tuple[str, UUID]]) -> Any:
        if self.gate is not None:
            self.waiting.set()
            await self.gate.wait()
        return await self._store.claim_named(epoch, runs)

    async def load(self, tenant: str, stream: UUID, *, after: int = 0) -> Any:
        if self.loads_to_lose:
            self.loads_to_lose -= 1
            raise Unavailable("the answer got lost")
        return await self._store.load(tenant, stream, after=after)

    async def load_many(self, streams: Sequence[tuple[str, UUID]]) -> Any:
        found = await self._store.load_many(streams)
        self.loaded_whole |= set(found)
        for run_id in self.broken & set(found):
            one = found[run_id][-1]
            found[run_id][-1] = type(one)(one.version, one.topic, one.body[:-1] + b"\0", one.recorded_at)
        return found

    async def snapshots_of(self, streams: Sequence[tuple[str, UUID]]) -> Any:
        found = await self._store.snapshots_of(streams)
        spoil = self.spoil_snapshot
        return found if spoil is None else {run: (version, spoil(body)) for run, (version, body) in found.items()}


class Node:
    """One process. It does nothing by itself: tests call its timers, its janitor and its inputs."""

    def __init__(
        self,
        store: Watched,
        vault: Vault,
        clock: VirtualClock,
        caps: Caps,
        *,
        poll_seconds: float = POLL_SECONDS,
        input_batch: int = BATCH,
    ) -> None:
        self.store, self.vault, self.clock = store, vault, clock
        self.metrics = Metrics()
        self.registry = Registry(SHIPPED)
        self.plans = Plans(SAGAS, {**self.registry.action_specs(), PRINT.name: PRINT})
        self.mapper = Mapper()
        typed: Any = store
        self.paused: set[str] = set()
        self.coordinator = Coordinator(
            typed,
            vault,
            self.mapper,
            self.plans,
            clock,
            self.metrics,
            caps=lambda tenant, workflow: caps,
            paused=self.is_paused,
        )
        self.worker = Worker(self.coordinator, clock, self.metrics)
        self.inputs = Inputs(
            typed, vault, self.mapper, self.registry, self.plans, self.coordinator, clock, self.metrics,
            poll_seconds=poll_seconds,
            batch=input_batch,
        )  # fmt: skip
        self.timers = TimerLoop(typed, self.coordinator, clock)
        tenants = TenantLog(typed, vault, self.mapper, clock, epoch=lambda: self.epoch)
        self.janitor = Janitor(
            typed,
            self.coordinator,
            self.plans,
            clock,
            self.metrics,
            dead_seconds=4.0,
            paused=self.is_paused,
            run_days=1,
            archiver=Archiver(typed, tenants, clock),
            log=tenants,
        )
        self.coordinator.perform = self.worker.perform
        self.coordinator.matched = self.inputs.take_soon
        self.suspicions = 0
        self.coordinator.suspect = self._suspected
        self.epoch = 0

    def is_paused(self, tenant: str, workflow: str) -> bool:
        return tenant in self.paused

    async def start(self, name: str) -> None:
        self.epoch = await self.store.register(name, ("worker",), now=self.clock.now())
        await self.coordinator.start(self.epoch)
        typed: Any = self.store
        self.door = Door(typed, self.vault, self.mapper, self.registry, self.plans, self.clock, None, self.epoch)
        self.door.on_input = self.inputs.wake

    async def goes_on_as_another(self, name: str = "again") -> None:
        """What a process does that learns that it was declared dead."""
        self.coordinator.fenced()
        self.epoch = await self.store.register(name, ("worker",), now=self.clock.now())
        self.coordinator.epoch = self.door.epoch = self.epoch

    async def stop(self) -> None:
        await self.inputs.stop()
        await self.worker.stop()
        await self.coordinator.stop()

    async def begin(
        self, saga_name: str, data: Any = None, *, tenant: str = "acme", key: str | None = None
    ) -> tuple[UUID, asyncio.Future[Result]]:
        """Starts a run; the future has what became of the start."""
        plan = self.plans.latest(saga_name)
        given = Begin(
            at=self.clock.now(),
            run_id=new_run_id(),
            tenant=tenant,
            trigger={"kind": "manual", "id": "1"},
            data=data or {},
            initiator="test",
            correlation_id="c",
        )
        start = Start(key=key or f"manual/{given.run_id}", workflow=plan.name, workflow_version=plan.version)
        heard: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        keys = await self.vault.keys_for(tenant)
        self.coordinator.begin(plan, given, start, keys, None, done=heard.set_result)
        return given.run_id, heard

    async def run(self, saga_name: str, data: Any = None, *, tenant: str = "acme") -> UUID:
        """Starts a run and lets it go as far as it goes by itself."""
        run_id, heard = await self.begin(saga_name, data, tenant=tenant)
        await heard
        return run_id

    async def settled(self) -> None:
        """Until nothing is under way here."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.coordinator.drain()

    async def later(self, **delta: float) -> None:
        """Time passes, due timers fire, and what follows from them happens."""
        self.clock.forward(**delta)
        await self.timers.fire()
        await self.settled()

    async def admit(self) -> None:
        await self.janitor.admit()
        await self.settled()

    async def log(self, run_id: UUID, tenant: str = "acme") -> list[RunEvent]:
        stored = await self.store.load(tenant, run_id)
        keys = await self.vault.ready(tenant, [one.body for one in stored])
        return self.mapper.decode_all(keys, run_id, stored)

    async def state(self, run_id: UUID, tenant: str = "acme") -> RunState:
        return fold(RunState(run_id, tenant), await self.log(run_id, tenant))

    async def status(self, run_id: UUID, tenant: str = "acme") -> str:
        return (await self.state(run_id, tenant)).status

    async def stands(self, run_id: UUID, status: str, tenant: str = "acme") -> bool:
        return await self.status(run_id, tenant) == status

    def _suspected(self) -> None:
        self.suspicions += 1


class House:
    """Nodes over one database."""

    def __init__(self, url: str, key_file: Path) -> None:
        self._url = url
        self._key_file = key_file
        create_key_ring(key_file)
        self._opened: list[Store] = []
        self._nodes: list[Node] = []
        self.clock = VirtualClock()

    async def node(self, name: str = "node", *, caps: Caps | None = None, input_batch: int = BATCH) -> Node:
        store = open_store(self._url)
        self._opened.append(store)
        await store.migrate()
        await store.start()
        vault = Vault(store, KeyRing.load(self._key_file))
        await vault.start()
        # PostgreSQL tells of inputs that are left for another process; in an embedded store they are found by polling.
        told = self._url.startswith("postgres")
        made = Node(
            Watched(store),
            vault,
            self.clock,
            caps or Caps(),
            poll_seconds=3_600 if told else POLL_SECONDS,
            input_batch=input_batch,
        )
        await made.start(name)
        self._nodes.append(made)
        return made

    async def stop(self) -> None:
        for node in self._nodes:
            await node.stop()
        for store in self._opened:
            await store.stop()


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits for a condition that other tasks bring about; fails at the deadline."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


async def takeover(house: House, spoil_snapshot: Callable[[bytes], bytes] | None = None) -> Node:
    """Another process finds all others silent and takes their runs."""
    house.clock.forward(seconds=10)
    other = await house.node("other")
    other.store.spoil_snapshot = spoil_snapshot
    await other.janitor.take_over()
    await eventually(lambda: _loaded(other))
    return other


async def _loaded(node: Node) -> bool:
    return not node.coordinator._loader.tasks


def topics(log: Sequence[RunEvent]) -> list[str]:
    return [event.TOPIC for event in log]
