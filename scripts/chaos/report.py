"""`unwind chaos` as an answer: makes a site, lets faults happen while orders come in, mends everything, judges, and
shows what was measured as a table, a document, or docs/reliability.md.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final

from contracts.problems import NotFound, Unavailable
from scripts.answer import Answer, stacked, table
from scripts.bench.report import machine
from scripts.chaos.faults import FAULTS, NOT_HERE, Fault
from scripts.chaos.judge import Verdict, judge, until_quiet
from scripts.chaos.site import Site
from scripts.provision import Servers
from scripts.provision.disk import SmallDisk
from scripts.provision.places import Instance

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
EMBEDDED: Final = "embedded"
PRODUCTION: Final = "production"
CLUSTER: Final = "cluster"
"""PostgreSQL, and RabbitMQ as three nodes."""

PAUSE_SECONDS: Final = 0.25
"""Between two orders."""

QUIET_SECONDS: Final = 180.0
DISK_MEGABYTES: Final = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How often each kind of fault happens; one after the other, in an order of the seed's own."""

    kills: int
    freezes: int
    server_kills: int
    losses: int
    others: int
    crowd: int
    """Runs that wait for the one event of a fan-out."""


SMOKE: Final = Plan(kills=30, freezes=2, server_kills=1, losses=1, others=1, crowd=300)
STANDARD: Final = Plan(kills=120, freezes=20, server_kills=15, losses=20, others=5, crowd=10_000)


@dataclass(slots=True)
class Measured:
    """Of one stack. `recoveries` by fault, in seconds."""

    stack: str
    crowd: int
    seconds: float = 0.0
    kills: int = 0
    recoveries: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    memory_growth_percent: float = 0.0
    log_lines_per_minute: float = 0.0
    verdict: Verdict | None = None
    left: Sequence[str] = ()
    found: Sequence[str] = ()
    """What faults saw that must not be, while they lasted."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a fault was left out, by its name."""

    @property
    def broken(self) -> list[str]:
        found = [f"T: {', '.join(self.left)} after everything was mended"] if self.left else []
        found += [
            f"recovery: {fault.name} took {max(self.recoveries[fault.name]):.1f} s, at most {fault.bound_seconds:g} s"
            for fault in FAULTS
            if max(self.recoveries[fault.name], default=0.0) > fault.bound_seconds
        ]
        return [*found, *self.found, *(self.verdict.broken if self.verdict is not None else ())]


def schedule(plan: Plan, stack: str, *, only: Sequence[str], random: Random) -> list[Fault]:
    """The faults of one site, shuffled: on the cluster those of its nodes, and processes killed meanwhile. Raises
    `NotFound` for a name that is none.
    """
    names = {fault.name: fault for fault in FAULTS}
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise NotFound(f"no fault is called {unknown[0]}; known are {', '.join(names)}", field="only")
    times = {
        "kill-engine": plan.others if stack == CLUSTER else plan.kills * 2 // 3,
        "kill-module": plan.kills - plan.kills * 2 // 3,
        "freeze-engine": plan.freezes,
        "kill-postgres": plan.server_kills,
        "kill-rabbitmq": plan.server_kills,
        "lose-commit": plan.losses,
        "cut-commit": plan.losses,
        "lose-confirm": plan.losses,
        "cut-publish": plan.losses,
        "lose-ack": plan.losses,
        "fan-out": 1,
    }
    chosen = [
        fault
        for fault in FAULTS
        if (not only or fault.name in only)
        and (fault.clustered or fault.name == "kill-engine" if stack == CLUSTER else not fault.clustered)
        and (stack != EMBEDDED or not fault.servers)
        for _ in range(times.get(fault.name, plan.others))
    ]
    random.shuffle(chosen)
    return chosen


async def break_and_mend(stack: str, plan: Plan, seed: int, only: Sequence[str]) -> Measured:
    """One site from its start to its verdict; nothing of it is left behind."""
    random, measured = Random(seed), Measured(stack, plan.crowd)
    faults = schedule(plan, stack, only=only, random=random)
    reasons = {fault.name: why for fault in set(faults) if (why := fault.missing())}
    measured.skipped = {name: reasons[name] for name in sorted(reasons)}
    faults = [fault for fault in faults if fault.name not in reasons]
    fills = any(fault.name == "full-disk" for fault in faults)
    with ExitStack() as kept:
        servers: Servers | None = None
        disk: SmallDisk | None = None
        folder = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="unwind-chaos-")))
        if stack != EMBEDDED:
            servers = Servers(
                postgres=True,
                rabbitmq=True,
                durable=False,
                given=False,
                disk_megabytes=DISK_MEGABYTES if fills else None,
                clustered=stack == CLUSTER,
            )
            kept.callback(servers.close)
            await asyncio.to_thread(servers.start)
            disk = servers.disk
        elif fills:
            instance = Instance()
            kept.callback(instance.remove)
            folder = instance.room("site")
            disk = SmallDisk(folder, DISK_MEGABYTES, instance.account)
        site = Site(folder, servers, random, crowd=plan.crowd, disk=disk)
        try:
            await _play(site, faults, measured)
        finally:
            await site.stop()
    return measured


async def _play(site: Site, faults: Sequence[Fault], measured: Measured) -> None:
    await site.start()
    began, lines = time.monotonic(), site.log_lines()
    site.begin_sending(PAUSE_SECONDS)
    await asyncio.sleep(2.0)
    before = max(engine.resident_bytes() for engine in site.engines)
    for fault in faults:
        measured.recoveries[fault.name].append(await fault.cause(site))
        measured.kills += fault.kills
        await asyncio.sleep(random_pause(site))
    await site.end_sending()
    measured.found = tuple(site.found)
    measured.seconds = time.monotonic() - began
    measured.log_lines_per_minute = (site.log_lines() - lines) / measured.seconds * 60
    after = max(engine.resident_bytes() for engine in site.engines)
    measured.memory_growth_percent = (after / before - 1) * 100 if before else 0.0
    measured.left = await until_quiet(site, QUIET_SECONDS)
    for child in site.children:
        await child.end()
    measured.verdict = await judge(site)


def random_pause(site: Site) -> float:
    return 0.1 + site.random.random() * 0.4


def chaos(
    *, smoke: bool, stacks: Sequence[str], only: Sequence[str], seed: int, write: bool, list_only: bool
) -> Answer:
    """Raises `NotFound` for an unknown fault, `Unavailable` where no servers can be had."""
    if list_only:
        rows = [(fault.name, fault.place, _needs(fault), fault.says) for fault in FAULTS]
        listed = [{"fault": name, "place": place, "needs": needs, "says": says} for name, place, needs, says in rows]
        return Answer(listed, table(("FAULT", "PLACE", "NEEDS", "WHAT"), rows))
    plan = SMOKE if smoke else STANDARD
    for fault in {fault for stack in stacks for fault in schedule(plan, stack, only=only, random=Random(0))}:
        fault.prepare()
    measured = [asyncio.run(_interruptible(break_and_mend(stack, plan, seed, only))) for stack in stacks]
    document: dict[str, Any] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "set": "smoke" if smoke else "standard",
        "seed": seed,
        "stacks": [_document(one) for one in measured],
        "not_here": list(NOT_HERE),
    }
    if write:
        PAGE.write_text(page(document), encoding="utf-8")
    shown_rows = [
        (
            stack["stack"],
            row["fault"],
            row["times"],
            f"{row['p50_seconds']:.2f}",
            f"{row['worst_seconds']:.2f}",
            row["bound"],
        )
        for stack in document["stacks"]
        for row in stack["faults"]
    ]
    broken = [f"{one.stack}: {what}" for one in measured for what in one.broken]
    notes = [f"\n{_sentence(stack)}" for stack in document["stacks"]]
    notes += [f"{stack['stack']}: {_crowded(stack['served'])}" for stack in document["stacks"] if stack["served"]]
    notes += [f"SKIPPED {one.stack}: {name}: {why}" for one in measured for name, why in one.skipped.items()]
    notes += [f"BROKEN {what}" for what in broken[:50]] or ["Every law held."]
    notes.append("Not done by this command: " + "; ".join(NOT_HERE) + ".")
    shown = table(("STACK", "FAULT", "TIMES", "P50 S", "WORST S", "BOUND S"), shown_rows)
    return Answer(document, stacked(shown, "\n".join(notes)), 1 if broken else 0)


def _needs(fault: Fault) -> str:
    return "three nodes" if fault.clustered else "servers" if fault.servers else ""


async def _interruptible(work: Any) -> Any:
    """SIGTERM ends it as Ctrl-C does: everything is taken down."""
    task = asyncio.ensure_future(work)
    with suppress(NotImplementedError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise Unavailable("chaos was ended before its verdict") from None


def _document(one: Measured) -> dict[str, Any]:
    assert one.verdict is not None
    return {
        "stack": one.stack,
        "seconds": round(one.seconds, 1),
        "kills": one.kills,
        "runs": one.verdict.runs,
        "events": one.verdict.events,
        "effects": one.verdict.effects,
        "memory_growth_percent": round(one.memory_growth_percent, 1),
        "log_lines_per_minute": round(one.log_lines_per_minute, 1),
        "served": {
            "runs_woken": one.crowd,
            "calm": _spread(one.verdict.calm_seconds),
            "flooded": _spread(one.verdict.flooded_seconds),
            "crowded": _spread(one.verdict.crowded_seconds),
        }
        if one.recoveries["fan-out"]
        else None,
        "broken": one.broken,
        "skipped": [{"fault": name, "why": why} for name, why in one.skipped.items()],
        "faults": [
            {
                "fault": fault.name,
                "says": fault.says,
                "times": len(one.recoveries[fault.name]),
                "p50_seconds": round(statistics.median(one.recoveries[fault.name]), 2),
                "worst_seconds": round(max(one.recoveries[fault.name]), 2),
                "bound": fault.bound_seconds,
            }
            for fault in FAULTS
            if one.recoveries[fault.name]
        ],
    }


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Of sorted values, which may be none."""
    if not seconds:
        return {}
    return {
        "orders": len(seconds),
        "p50_seconds": round(statistics.median(seconds), 3),
        "p95_seconds": round(seconds[int(len(seconds) * 0.95)], 3),
        "worst_seconds": round(seconds[-1], 3),
    }


def _crowded(served: dict[str, Any]) -> str:
    return (
        f"Orders of other tenants, from being sent to being noted: {_took(served['calm'])} before a fan-out; "
        f"{_took(served['flooded'])} while {served['runs_woken']:,} events of one tenant came in; "
        f"{_took(served['crowded'])} while one event woke the runs which those had started."
    )


def _took(spread: dict[str, float]) -> str:
    """Of no orders, too."""
    if not spread:
        return "no order came"
    count = int(spread["orders"])
    return (
        f"{count} order{'s' * (count > 1)} took {spread['p50_seconds']:g} s (p95 {spread['p95_seconds']:g} s, worst "
        f"{spread['worst_seconds']:g} s)"
    )


def _sentence(stack: dict[str, Any]) -> str:
    return (
        f"{stack['stack']}: {stack['kills']} kills in {stack['seconds']:g} s; {stack['runs']} runs, {stack['events']} "
        f"events, {stack['effects']} effects; memory {stack['memory_growth_percent']:+g} %, "
        f"{stack['log_lines_per_minute']:g} log lines a minute"
    )


def page(document: dict[str, Any]) -> str:
    """docs/reliability.md: one measurement, and how to take it again."""
    lines = [HEAD.format(**{name: document[name] for name in ("set", "measured_at", "machine", "seed")})]
    for stack in document["stacks"]:
        lines += [f"## {stack['stack'].capitalize()}", "", f"{_sentence(stack)}.", ""]
        lines += ["| fault | times | recovered after, p50 | worst | bound |", "|---|---|---|---|---|"]
        lines += [
            "| {says} | {times} | {p50_seconds:g} s | {worst_seconds:g} s | {bound:g} s |".format(**row)
            for row in stack["faults"]
        ]
        lines += ["", *(f"Skipped: {one['fault']}, since {one['why']}" for one in stack["skipped"])]
        lines += [_crowded(stack["served"]), ""] if stack["served"] else []
        held = "Every law held." if not stack["broken"] else "Broken: " + "; ".join(stack["broken"])
        lines += [held, ""]
    lines += ["## Not done by this command", "", *(f"- {what}" for what in document["not_here"])]
    return "\n".join(lines) + "\n"


HEAD: Final = """\
# Reliability

What happens to orders when the processes and servers below them are broken: written by `unwind chaos --write`. While
orders come in, each confirmed by the broker and some of them twice, faults happen one after the other and are mended.
At the end every order must have had its one run per workflow, every run its one end, every idempotency key its one
effect and every effect of a run that unwound its undo; the audit's chain must hold against the log, and every read
model must equal one that is written again from the log (the laws of [simulation.md](simulation.md), judged by the same
code).

Recovery is counted from the moment that what was broken is there again to the moment that every process serves; of a
killed process, what any start takes is left out. Of one of three nodes it is counted from its loss, since the others
serve meanwhile; of an alarm, to the moment that the commands which waited for its end have arrived; of a fan-out, from
the one event to the end of the last run that it woke. A recovery beyond its bound breaks the verdict.

Under an alarm of RabbitMQ no message may be taken, every process must come to rest, and no log may fill.

The faults of a wire happen between one process and one server, by a relay that knows their protocols, while the other
processes reach the server straight.

The {set} set, seed {seed}, measured {measured_at} on {machine}.
"""
