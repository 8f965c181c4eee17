"""What must hold of a world that has come to rest, by the letters of docs/reliability.md.

R one run per event and workflow      H history contiguous, intent before effect     T one end, nobody stuck
G no ghost                            K one effect per key, one payload per key      C undo in reverse, once each
M read models equal a rebuild         Q dead letters are poison only                 U nothing is left counted
A the audit's chain verifies          D no timer is early                            N what was decided was told
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson

from consumers.projector import VIEWS, Projector
from consumers.rebuild import digest
from contracts import run_events as ev
from contracts.notices import UNWIND
from contracts.run_events import TERMINAL, RunEvent
from contracts.sdk.topology import DELIVERY_LIMIT
from engine.clock import Clock
from engine.metrics import Metrics
from engine.run.children import STARTS
from engine.store import Store
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from projections.reader import Reader
from scripts.simulation.play import EndedRun, Runs, ended_runs
from scripts.simulation.store import Open, SimStore

if TYPE_CHECKING:
    from scripts.simulation.world import World

THOROUGH: Final = 5
"""In each world of so many the audit is walked and every read model rebuilt, half of what a world costs."""

SUSPECT: Final = 3
"""A module that was interrupted so often rightly takes what it had in hand for poison: it gives up what it began more
than five times, and of a message that came twice both copies are begun anew.
"""

Effects = Sequence[tuple[str, str]]
"""(key, do or undo) in the order in which they happened."""


class Rest:
    """A world at rest, as the check of a play sees it."""

    def __init__(self, world: World, runs: Runs) -> None:
        self.seed, self._world = world.told.seed, world
        self.runs: Sequence[EndedRun] = ended_runs(runs)

    def rows(self, module: str, sql: str, *values: Any) -> list[dict[str, Any]]:
        return [dict(row) for row in self._world.databases[module].rows(sql, *values)]


async def judge(world: World) -> None:
    """Raises `Violation` for the first law that does not hold."""
    store = SimStore(world.database, Open())
    vault, mapper = Vault(store, world.ring), world.mapper
    await vault.start()
    runs = await _read(world, store, vault, mapper)
    world.told.runs = len(runs)
    messages = [orjson.loads(message.body) for message in world.bus.published]
    rest, play = Rest(world, runs), world.play
    found = [
        *one_run_each(expected(messages, play.started_by), runs),
        *histories(runs),
        *undone(runs),
        *children(runs),
        *(play.laws(runs, rest) if play.laws is not None else ()),
        *one_payload_each(messages),
        *told(messages, runs),
    ]
    [letters] = world.database.rows("SELECT count(*) FROM dead_letters WHERE state = 'dead'", ())
    [redriven] = world.database.rows("SELECT count(*) FROM dead_letters WHERE state = 'redriven'", ())
    lost = sum(times for name, times in world.interrupted.items() if name not in play.makers)
    if redriven[0] and lost < DELIVERY_LIMIT:
        found.append(f"Q: {redriven[0]} messages were given up by engines that were interrupted {lost} times")
    if letters[0] and max((world.interrupted[module.name] for module in play.modules), default=0) < SUSPECT:
        found.append(f"Q: {letters[0]} dead letters of good messages")
    if not found and play.check is not None:
        try:
            play.check(rest)
        except AssertionError as wrong:
            found.append(f"check: {wrong or 'an assertion without words'}")
    if not found and world.told.seed % THOROUGH == 0:
        found = [
            *await audited(Reader(store, vault), sorted({tenant for tenant, _ in runs})),
            *await rebuilt(store, vault, mapper, world, world.metrics),
        ]
    if found:
        raise world.broken(found[0])


async def _read(world: World, store: Store, vault: Vault, mapper: Mapper) -> dict[tuple[str, UUID], list[RunEvent]]:
    runs: dict[tuple[str, UUID], list[RunEvent]] = {}
    for tenant, stream in world.database.rows(
        "SELECT DISTINCT tenant, originator_id FROM log WHERE kind = 'run' ORDER BY originator_id", ()
    ):
        stored = await store.load(tenant, UUID(stream))
        keys = await vault.ready(tenant, [one.body for one in stored])
        runs[tenant, UUID(stream)] = mapper.decode_all(keys, UUID(stream), stored)
    return runs


async def parked(world: World) -> list[str]:
    """Why runs are parked that an operator has tried again in vain."""
    store = SimStore(world.database, Open())
    vault = Vault(store, world.ring)
    await vault.start()
    found = []
    for (_, run), log in (await _read(world, store, vault, world.mapper)).items():
        incident = next((event for event in reversed(log) if isinstance(event, ev.IncidentOpened)), None)
        if incident is not None and not isinstance(log[-1], ev.RunEnded):
            found.append(f"run {run}, parked ({incident.reason}): {incident.detail}")
    return found


def expected(
    messages: Sequence[Mapping[str, Any]], started_by: Mapping[str, Sequence[str]]
) -> set[tuple[str, str, str]]:
    """(tenant, event, workflow) of every run that the messages on the bus must have started."""
    return {
        (message["tenantid"], message["id"], workflow)
        for message in messages
        for workflow in started_by.get(message["type"], ())
    }


def one_run_each(expected: Collection[tuple[str, str, str]], runs: Runs) -> list[str]:
    """`expected` has (tenant, event, workflow)."""
    started = Counter(
        (tenant, str(log[0].trigger.get("id")), log[0].workflow)
        for (tenant, _), log in runs.items()
        if isinstance(log[0], ev.RunStarted) and log[0].trigger["kind"] == "event"
    )
    found = [f"R: event {key[1]} has started {started[key]} runs of {key[2]}" for key in expected if started[key] != 1]
    ghosts = [key for key in started if key not in expected]
    return sorted(found) + [f"G: a run of {key[2]} was started by {key[1]}, which nobody sent" for key in ghosts]


def histories(runs: Runs) -> list[str]:
    found: list[str] = []
    for (_, run), log in runs.items():
        if not isinstance(log[0], ev.RunStarted):
            found.append(f"H: run {run} begins with {log[0].TOPIC}")
        ends = [event for event in log if isinstance(event, ev.RunEnded)]
        if len(ends) != 1 or log[-1] is not ends[0] or ends[0].status not in TERMINAL:
            found.append(f"T: run {run} has {len(ends)} ends; its last event is {log[-1].TOPIC}")
        found += _one_by_one(run, log)
    return found


def _one_by_one(run: UUID, log: Sequence[RunEvent]) -> list[str]:
    """Intent before outcome, an outcome once, and no wait over before its time."""
    found: list[str] = []
    scheduled: set[tuple[str, int]] = set()
    succeeded: set[tuple[str, int]] = set()
    undoing: set[tuple[str, int]] = set()
    due: dict[tuple[str, int], object] = {}
    for event in log:
        match event:
            case ev.StepScheduled():
                scheduled.add((event.step, event.visit))
            case ev.StepSucceeded():
                step = (event.step, event.visit)
                if step not in scheduled:
                    found.append(f"H: step {event.step} of run {run} succeeded before it was asked for")
                if step in succeeded:
                    found.append(f"H: step {event.step} of run {run} succeeded twice")
                succeeded.add(step)
            case ev.UndoScheduled():
                undoing.add((event.step, event.visit))
            case ev.UndoSucceeded():
                if (event.step, event.visit) not in undoing:
                    found.append(f"H: step {event.step} of run {run} was undone before that was asked for")
            case ev.SleepStarted() | ev.WaitStarted():
                due[event.name, event.visit] = event.due
            case ev.SleepEnded() | ev.WaitTimedOut():
                limit = due.get((event.name, event.visit))
                if limit is None or event.at < limit:  # type: ignore[operator]
                    found.append(f"D: {event.name} of run {run} was over at {event.at}, due at {limit}")
    return found


def undone(runs: Runs) -> list[str]:
    """A run that unwound has undone each completed step that can be, once, the newest completion first."""
    found: list[str] = []
    for (_, run), log in runs.items():
        start = next((at for at, event in enumerate(log) if isinstance(event, ev.CompensationStarted)), None)
        if start is None:
            continue
        undo_of = {(e.step, e.visit): e.undo for e in log if isinstance(e, ev.StepScheduled | ev.StepReused)}
        done = [
            (e.step, e.visit)
            for e in log
            if isinstance(e, ev.StepSucceeded | ev.StepReused) and undo_of.get((e.step, e.visit))
        ]
        begun = list(dict.fromkeys((e.step, e.visit) for e in log if isinstance(e, ev.UndoScheduled)))
        ended = [(e.step, e.visit) for e in log if isinstance(e, ev.UndoSucceeded)]
        wanted = list(reversed(done))
        if [step for step in begun if step in done] != wanted:
            found.append(f"C: run {run} completed {done} and undid {begun}")
        if sorted(set(ended)) != sorted(ended) or not set(done) <= set(ended):
            found.append(f"C: run {run} completed {done} and has undone {ended}")
    return found


def _is_order(step: ev.StepScheduled) -> bool:
    """Whether a module was to carry it out: a child is no message."""
    return step.kind == "command" and not step.action.startswith(STARTS)


def children(runs: Runs) -> list[str]:
    """A step that waits for a child has one, which ended as the step says; what succeeded and was undone has one run
    that unwound it.
    """
    found: list[str] = []
    starts = {run: log[0] for (_, run), log in runs.items() if isinstance(log[0], ev.RunStarted)}
    ends = {run: log[-1] for (_, run), log in runs.items() if isinstance(log[-1], ev.RunEnded)}
    started = Counter(
        (UUID(start.trigger["parent"]["run_id"]), start.trigger["parent"]["step"], start.trigger["kind"])
        for start in starts.values()
        if "parent" in start.trigger
    )
    for (parent, step, kind), times in started.items():
        if times > 1:
            found.append(f"R: step {step} of run {parent} has started {times} runs ({kind})")
    followed = Counter(str(start.trigger["id"]) for start in starts.values() if start.trigger["kind"] == "continue")
    for (_, run), log in runs.items():
        if followed[str(run)] != sum(isinstance(event, ev.RunContinued) for event in log):
            found.append(f"R: run {run} is continued by {followed[str(run)]} runs")
        waits = {event.step for event in log if isinstance(event, ev.StepScheduled) and event.action.startswith(STARTS)}
        for event in log:
            if isinstance(event, ev.StepSucceeded) and event.step in waits:
                end = ends.get(UUID(event.output["run_id"]))
                if not isinstance(end, ev.RunEnded) or end.status != "succeeded":
                    found.append(f"H: step {event.step} of run {run} succeeded without its child")
            if isinstance(event, ev.UndoSucceeded) and event.step in waits and not started[run, event.step, "unwind"]:
                found.append(f"C: step {event.step} of run {run} was undone, and its child was not")
    return found


def one_effect_each(effects: Effects, runs: Runs) -> list[str]:
    """The module's ledger against the log: an effect per key, of a step that was asked for, and neutral when undone."""
    found = [
        f"K: key {key} had {times} effects" for key, times in Counter(key for key, _ in effects).items() if times > 1
    ]
    did = {key for key, done in effects if done == "do"}
    undid = {key.removesuffix("/undo") for key, done in effects if done == "undo"}
    keys: dict[str, tuple[UUID, ev.StepScheduled]] = {}
    outcome: defaultdict[UUID, set[tuple[str, int]]] = defaultdict(set)
    unwound: set[UUID] = set()
    for (_, run), log in runs.items():
        for event in log:
            if isinstance(event, ev.StepScheduled) and _is_order(event):
                keys[event.key] = (run, event)
            elif isinstance(event, ev.StepSucceeded):
                outcome[run].add((event.step, event.visit))
            elif isinstance(event, ev.CompensationStarted):
                unwound.add(run)
    # What a child did goes with its parent.
    for (_, run), log in runs.items():
        parent = log[0].trigger.get("parent") if isinstance(log[0], ev.RunStarted) else None
        if parent is not None and UUID(parent["run_id"]) in unwound:
            unwound.add(run)
    found += [f"G: effect {key} was never asked for" for key in did | undid if key not in keys]
    for key, (run, step) in keys.items():
        if (step.step, step.visit) in outcome[run] and key not in did:
            found.append(f"K: step {step.step} of run {run} succeeded without its effect")
        if run in unwound and key in did and key not in undid:
            found.append(f"C: run {run} unwound, and the effect of {step.step} stands")
        if run not in unwound and key in undid:
            found.append(f"C: run {run} did not unwind, and the effect of {step.step} is undone")
    return found


def one_payload_each(messages: Sequence[Mapping[str, object]]) -> list[str]:
    """Every send of a message id says the same, and a command's id is its key's alone."""
    said: dict[tuple[object, object], object] = {}
    command: dict[object, object] = {}
    found: list[str] = []
    for message in messages:
        key = (message["source"], message["id"])
        content = (message["type"], orjson.dumps(message["data"], option=orjson.OPT_SORT_KEYS))
        if said.setdefault(key, content) != content:
            found.append(f"K: message {message['id']} was sent with two contents")
        ordered = message["source"] == UNWIND.source and not str(message["type"]).startswith(UNWIND.name + ".")
        if ordered and command.setdefault(message.get("subject"), message["id"]) != message["id"]:
            found.append(f"K: key {message.get('subject')} was sent under two ids")
    return found


def told(messages: Sequence[Mapping[str, object]], runs: Runs) -> list[str]:
    """What a module or a person must hear of was put on the bus: an outbox row can be lost, a notice cannot."""
    heard = {(message.get("subject"), message["type"]) for message in messages}
    ordered = {message.get("subject") for message in messages if message["source"] == UNWIND.source}
    found: list[str] = []
    for (_, run), log in runs.items():
        if any(isinstance(event, ev.CompensationStarted) for event in log):
            wanted = ["unwind.CompensationStartedV1", "unwind.RunEndedV1"]
            found += [f"N: {kind} of run {run} was never sent" for kind in wanted if (str(run), kind) not in heard]
        orders = [event for event in log if isinstance(event, ev.StepScheduled) and _is_order(event)]
        found += [
            f"N: the command of {order.step} of run {run} was never sent"
            for order in orders
            if order.key not in ordered
        ]
    return found


async def audited(reader: Reader, tenants: Sequence[str]) -> list[str]:
    found = []
    for tenant in tenants:
        verdict = await reader.verify_audit(tenant, against_log=True)
        if verdict.broken is not None:
            found.append(f"A: the audit of {tenant} does not hold: {verdict.broken}")
    return found


async def rebuilt(store: Store, vault: Vault, mapper: Mapper, clock: Clock, metrics: Metrics) -> list[str]:
    """Every read model, once it has read to the end, has the rows it has when it is dropped and written again."""
    await Projector(store, vault, mapper, VIEWS, clock, metrics).catch_up()
    before = {view.name: await digest(store, view.name) for view in VIEWS}
    for view in VIEWS:
        await store.reset(view.name)
    await Projector(store, vault, mapper, VIEWS, clock, metrics).catch_up()
    after = {view.name: await digest(store, view.name) for view in VIEWS}
    return [f"M: {name} is not what a rebuild makes of the log" for name in before if before[name] != after[name]]
