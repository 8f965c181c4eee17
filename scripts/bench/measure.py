"""One round of measurements: engine, load generator, peer and raw ceiling as processes of their own, one after the
other on the same servers, and the ratios between them. What is asked of the ratios stands in
`scripts.bench.figures`.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

from scripts.bench import codec, peer
from scripts.bench.figures import Figure, Round
from scripts.bench.lasting import Lasted, Lasting
from scripts.bench.load import Load, Report
from scripts.bench.processes import LOAD_SECONDS, ROOT, ask, report
from scripts.bench.stack import Engine, Servers, Stack
from scripts.bench.storm import Storm, Stormed
from scripts.bench.volume import Volume
from scripts.bench.waiting import LEASE_SECONDS, Waited, Waiting, taken_over
from scripts.bench.workload import SHIPPED, STEPS, TRIGGER

SATURATING: Final = 2_000
"""Runs in flight that keep the engine busy, most of them still in its queue."""
BOUNDED: Final = 200
CONNECTIONS: Final = 20
TENANTS: Final = 20
TURNS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many runs each measurement takes."""

    warm_up: int
    saturated: int
    bounded: int
    single_commit: int
    one_by_one: int
    embedded: int
    peer_threads: int
    peer_single: int
    ceiling_events: int
    remote: int
    storm: int
    waiting: int
    wakes: int
    due: int
    taken_over: int
    rebuilt_events: int
    listed_runs: int
    lasting_seconds: float
    span_seconds: float


FULL: Final = Sizes(
    warm_up=2_000,
    saturated=12_000,
    bounded=5_000,
    single_commit=3_000,
    one_by_one=400,
    embedded=6_000,
    peer_threads=800,
    peer_single=200,
    ceiling_events=60_000,
    remote=2_000,
    storm=11_000,
    waiting=100_000,
    wakes=200,
    due=10_000,
    taken_over=10_000,
    rebuilt_events=180_000,
    listed_runs=1_000_000,
    lasting_seconds=300,
    span_seconds=60,
)
QUICK: Final = Sizes(
    warm_up=200,
    saturated=1_000,
    bounded=600,
    single_commit=300,
    one_by_one=40,
    embedded=600,
    peer_threads=100,
    peer_single=30,
    ceiling_events=20_000,
    remote=200,
    storm=1_100,
    waiting=2_000,
    wakes=20,
    due=500,
    taken_over=500,
    rebuilt_events=36_000,
    listed_runs=100_000,
    lasting_seconds=6,
    span_seconds=2,
)


class Measurements:
    """Everything one round needs, each measured at most once and only when a figure asks for it."""

    def __init__(self, servers: Servers | None, sizes: Sizes, tell: Callable[[str], None]) -> None:
        self._stack, self._sizes, self._tell = Stack(servers), sizes, tell
        self._volume = Volume(self._stack.database, sizes.rebuilt_events, sizes.listed_runs, tell)

    def round(self, figure: Figure) -> Round:
        """The figure's ratio in this round."""
        of = self._volume if hasattr(self._volume, figure.name) else self
        measured: Round = getattr(of, figure.name if of is self._volume else "_" + figure.name)()
        return measured

    def _steps_vs_dbos(self) -> Round:
        ours, theirs = _steps(self.saturated), self.dbos_threads.steps_per_second
        return Round(ours / theirs, {"steps_per_second": ours, "dbos_steps_per_second": theirs})

    def _events_vs_ceiling(self) -> Round:
        ours = self.saturated.runs * self.saturated.events_per_run / self.saturated.seconds
        return Round(ours / self.ceiling, {"events_per_second": ours, "ceiling_events_per_second": self.ceiling})

    def _group_commit(self) -> Round:
        grouped, single = _steps(self.saturated), _steps(self.single_commit)
        return Round(grouped / single, {"steps_per_second": grouped, "single_commit_steps_per_second": single})

    def _tail(self) -> Round:
        p50, p99 = _quantile(self.bounded.latencies, 0.5) * 1000, _quantile(self.bounded.latencies, 0.99) * 1000
        return Round(p99 / p50, {"p50_ms": p50, "p99_ms": p99, "steps_per_second": _steps(self.bounded)})

    def _latency_vs_dbos(self) -> Round:
        """A machine that others share drifts within seconds: engine and peer take turns, and each turn of ours is held
        against the mean of the peer's before and after it.
        """
        self._tell("one run at a time, in turn with DBOS")
        with self._one_by_one() as engine:
            peers, turns = [self._dbos_single()], []
            for _ in range(TURNS):
                turns.append(self._load(engine, 1, self._sizes.one_by_one))
                peers.append(self._dbos_single())
        ours = [statistics.median(turn.latencies) * 1000 for turn in turns]
        theirs = [(before.p50_ms + after.p50_ms) / 2 for before, after in pairwise(peers)]
        publish = statistics.median(statistics.median(turn.publishing) for turn in turns) * 1000
        return Round(
            statistics.median(own / its for own, its in zip(ours, theirs, strict=True)),
            {"p50_ms": statistics.median(ours), "dbos_p50_ms": statistics.median(theirs), "publish_ms": publish},
        )

    def _transactions_saturated(self) -> Round:
        return _transactions(self.saturated)

    def _transactions_idle(self) -> Round:
        return _transactions(self.one_by_one)

    def _embedded_vs_dbos(self) -> Round:
        ours, theirs = _steps(self.embedded), self.dbos_sqlite.steps_per_second
        return Round(ours / theirs, {"steps_per_second": ours, "dbos_steps_per_second": theirs})

    def _commands_vs_dbos(self) -> Round:
        ours, theirs = _steps(self.remote), self.dbos_threads.steps_per_second
        return Round(ours / theirs, {"steps_per_second": ours, "dbos_steps_per_second": theirs})

    def _storm(self) -> Round:
        runs = self._sizes.storm
        self._tell(f"a storm of one tenant among eleven, {runs} runs")
        with self._stack.production() as engine:
            seen = Stormed(**ask("scripts.bench.storm", Storm(bus_url=engine.bus_url, store=engine.store, runs=runs)))
        storm, alike = _quantile(seen.storm, 0.95), _quantile(seen.alike, 0.95)
        beside = {"storm_p95_ms": storm * 1000, "alike_p95_ms": alike * 1000}
        for name, seconds in (("storm", seen.storm_seconds), ("alike", seen.alike_seconds)):
            beside[f"{name}_steps_per_second"] = runs * STEPS / seconds
        return Round(storm / alike, beside)

    def _guardrails(self) -> Round:
        ours, without = _steps(self.saturated), _steps(self.unguarded)
        return Round(ours / without, {"steps_per_second": ours, "unguarded_steps_per_second": without})

    def _tenants(self) -> Round:
        many, one = _steps(self.many_tenants), _steps(self.saturated)
        return Round(many / one, {"steps_per_second": many, "one_tenant_steps_per_second": one})

    def _redaction(self) -> Round:
        self._tell("redaction of a megabyte")
        quarter, whole = codec.redaction_seconds(codec.MEGABYTE // 4), codec.redaction_seconds(codec.MEGABYTE)
        return Round(whole, {"quarter_seconds": quarter, "times_the_quarter": whole / quarter})

    def _lasting_rate(self) -> Round:
        seen = self.lasting
        beside = {"first_steps_per_second": seen.first_steps, "last_steps_per_second": seen.last_steps}
        return Round(seen.last_steps / seen.first_steps, beside | {"runs": seen.runs})

    def _lasting_lag(self) -> Round:
        return Round(self.lasting.lag_seconds, {})

    def _lasting_memory(self) -> Round:
        first, last = self.lasting.first_bytes / 2**20, self.lasting.last_bytes / 2**20
        return Round((last / first - 1) * 100, {"first_mib": first, "last_mib": last})

    def _waiting_memory(self) -> Round:
        idle, full = self.waiting.idle_bytes / 2**20, self.waiting.waiting_bytes / 2**20
        return Round((full / idle - 1) * 100, {"idle_mib": idle, "waiting_mib": full, "runs": self._sizes.waiting})

    def _wake_up(self) -> Round:
        seconds = self.waiting.wake_seconds
        return Round(_quantile(seconds, 0.5) * 1000, {"p99_ms": _quantile(seconds, 0.99) * 1000})

    def _due_at_once(self) -> Round:
        return Round(self.waiting.due_seconds, {"runs": self._sizes.due})

    def _takeover(self) -> Round:
        """Seconds from the end of the lease of a process that was killed to the last of its runs having an owner that
        lives.
        """
        self._tell(f"a killed process with {self._sizes.taken_over} open runs")
        with self._stack.owners() as (url, bus_url, processes):
            seconds = asyncio.run(taken_over(url, bus_url, self._sizes.taken_over, processes))
        return Round(seconds, {"runs": self._sizes.taken_over, "lease_seconds": LEASE_SECONDS})

    # -------------------------------------------------------------------------------------------------- measurements

    @cached_property
    def lasting(self) -> Lasted:
        sizes = self._sizes
        self._tell(f"workload A, saturated, for {sizes.lasting_seconds:g} s")
        with self._stack.production() as engine:
            asked = Lasting(
                bus_url=engine.bus_url,
                store=engine.store,
                pids=engine.pids,
                in_flight=SATURATING,
                seconds=sizes.lasting_seconds,
                span_seconds=sizes.span_seconds,
            )
            return Lasted(**ask("scripts.bench.lasting", asked))

    @cached_property
    def waiting(self) -> Waited:
        self._tell(f"workload D, {self._sizes.waiting} runs that wait")
        sizes = self._sizes
        with self._stack.production() as engine:
            asked = Waiting(
                bus_url=engine.bus_url,
                store=engine.store,
                pid=engine.pid,
                warm_up=sizes.warm_up,
                waiting=sizes.waiting,
                wakes=sizes.wakes,
                due=sizes.due,
            )
            return Waited(**ask("scripts.bench.waiting", asked))

    @cached_property
    def remote(self) -> Report:
        self._tell("workload B, saturated")
        with self._stack.production() as engine, self._stack.module(engine):
            return self._load(engine, SATURATING, self._sizes.remote, trigger=SHIPPED)

    @cached_property
    def saturated(self) -> Report:
        self._tell("workload A, saturated")
        with self._stack.production() as engine:
            return self._load(engine, SATURATING, self._sizes.saturated)

    @cached_property
    def unguarded(self) -> Report:
        self._tell("workload A, saturated, guardrails aside")
        with self._stack.production(guarded=False) as engine:
            return self._load(engine, SATURATING, self._sizes.saturated)

    @cached_property
    def many_tenants(self) -> Report:
        self._tell(f"workload A, saturated, {TENANTS} tenants")
        with self._stack.production() as engine:
            return self._load(engine, SATURATING, self._sizes.saturated, tenants=TENANTS)

    @cached_property
    def bounded(self) -> Report:
        self._tell(f"workload A, {BOUNDED} runs in flight")
        with self._stack.production() as engine:
            return self._load(engine, BOUNDED, self._sizes.bounded)

    @cached_property
    def one_by_one(self) -> Report:
        self._tell("one run at a time")
        with self._one_by_one() as engine:
            return self._load(engine, 1, self._sizes.one_by_one)

    @cached_property
    def single_commit(self) -> Report:
        self._tell(f"workload A without group commit, {CONNECTIONS} connections")
        with self._stack.production("--commits-per-append", "1", "--appends-at-once", str(CONNECTIONS)) as engine:
            return self._load(engine, SATURATING, self._sizes.single_commit)

    @cached_property
    def embedded(self) -> Report:
        return self.in_a_folder()

    def in_a_folder(self, *options: str) -> Report:
        """Workload A on the embedded stack, by an engine with these options (`scripts.bench.engine`)."""
        self._tell("workload A, embedded")
        with (
            tempfile.TemporaryDirectory(prefix="unwind-bench-") as folder,
            self._stack.engine({"UNWIND_DATA_DIR": folder}, *options) as engine,
        ):
            return self._load(engine, SATURATING, self._sizes.embedded)

    @cached_property
    def ceiling(self) -> float:
        self._tell("raw append ceiling")
        with self._stack.database() as url:
            arguments = ["-m", "scripts.bench.ceiling", url, str(self._sizes.ceiling_events)]
            done = subprocess.run(
                [sys.executable, *arguments], cwd=ROOT, capture_output=True, check=False, timeout=LOAD_SECONDS
            )
        return float(report(done, "the raw ceiling")["events_per_second"])

    @cached_property
    def dbos_threads(self) -> peer.PeerRun:
        self._tell("DBOS, 8 threads on one core")
        with self._stack.database() as url:
            return peer.run(url, "threads", self._sizes.peer_threads)

    def _dbos_single(self) -> peer.PeerRun:
        with self._stack.database() as url:
            return peer.run(url, "single", self._sizes.peer_single)

    @cached_property
    def dbos_sqlite(self) -> peer.PeerRun:
        self._tell("DBOS on SQLite")
        with tempfile.TemporaryDirectory(prefix="unwind-bench-") as folder:
            return peer.run(f"sqlite:///{folder}/dbos.sqlite", "threads", self._sizes.peer_threads)

    # -------------------------------------------------------------------------------------------------- processes

    def _load(self, engine: Engine, in_flight: int, runs: int, *, trigger: str = TRIGGER, tenants: int = 1) -> Report:
        # One at a time the peer, too, is warmed up by as many runs as are counted, and who watches stays off the
        # engine's core.
        one_by_one = in_flight == 1
        warm_up = self._sizes.one_by_one if one_by_one else self._sizes.warm_up
        in_flight = min(in_flight, runs)
        load = Load(
            bus_url=engine.bus_url,
            store=engine.store,
            metrics_url=engine.metrics_url,
            in_flight=in_flight,
            warm_up=warm_up,
            runs=runs,
            core=max(os.sched_getaffinity(0)) if one_by_one else None,
            trigger=trigger,
            tenants=tenants,
        )
        return Report(**ask("scripts.bench.load", load))

    def _one_by_one(self) -> AbstractContextManager[Engine]:
        """The engine that owns runs stays on one core, as the peer does: both are at their best there."""
        return self._stack.production("--core", str(peer.CORE))


def _steps(report: Report) -> float:
    return report.runs * STEPS / report.seconds


KINDS: Final = {
    "relay": ("claim_outbox", "settle_outbox"),
    "checkpoints": ("checkpoint",),
    "projector": ("read_log", "head"),
    "heartbeats": ("heartbeat",),
    "takeover": ("declare_dead_but", "claim_runs"),
    "admission": ("queued_runs_but",),
    "timers": ("due_timers",),
    "inputs": ("claim_inputs_but",),
}
"""Which functions of the database each kind of background transaction calls."""


def _transactions(report: Report) -> Round:
    """Append transactions by the engine's own count; beside it every commit of the database and what asked for it, per
    run.
    """
    beside = {"all_commits": report.commits / report.counted}
    for kind, functions in KINDS.items():
        beside[kind] = sum(report.calls.get(name, 0) for name in functions) / report.counted
    return Round(report.appends / report.counted, beside)


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
