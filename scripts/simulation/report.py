"""Many seeds on several cores, and what came of them: the rate, which awaits of which ports were hit by a kill and how
often, whether the same seed is the same world, and for a seed that fails its faults, shrunk to those that matter.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, Final

from scripts.simulation.chance import Fault
from scripts.simulation.play import Play
from scripts.simulation.weather import Weather, at_rest
from scripts.simulation.world import Told, quiet, run_seed

REPEATED: Final = 100
"""Each so-manieth seed is played twice, and must be the same world."""

CHUNK: Final = 50
SHRINKS: Final = 200
SHRINK_SECONDS: Final = 30.0


@dataclass(slots=True)
class Report:
    """Of `seeds` worlds. `killed_at` counts kills by port and side; `failed` has the seeds that broke a law."""

    seeds: int = 0
    seconds: float = 0.0
    runs: int = 0
    events: int = 0
    kills: int = 0
    faults: int = 0
    repeated: int = 0
    crossings: Counter[str] = field(default_factory=Counter)
    killed_at: Counter[str] = field(default_factory=Counter)
    at_risk: Counter[str] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, told: Told) -> None:
        self.seeds += 1
        self.runs += told.runs
        self.events += told.events
        self.kills += told.kills
        self.faults += len(told.faults)
        self.crossings += told.crossings
        self.killed_at += told.killed_at
        self.at_risk += told.at_risk
        if told.violation is not None:
            self.failed[told.seed] = told.violation

    @property
    def per_core_second(self) -> float:
        return self.seeds / self.seconds if self.seconds else 0.0

    @property
    def kills_at_work(self) -> int:
        """Kills where something was changed or sent, not at a poll or a beginning."""
        return sum(times for place, times in self.killed_at.items() if not at_rest(place))

    def lines(self) -> list[str]:
        """What a person reads."""
        seeds = max(self.seeds, 1)
        never = sorted(place for place in self.crossings if not self.killed_at[place])
        table = [
            f"{place:<34} {self.crossings[place]:>9} {self.killed_at[place]:>8}" for place in sorted(self.crossings)
        ]
        return [
            f"{'await on a port':<34} {'crossed':>9} {'killed':>8}",
            *table,
            "",
            f"{self.seeds} seeds, {self.runs} runs, {self.events} events, {self.faults} faults",
            f"{self.kills} kills, {self.kills / seeds:.1f} a seed; {self.kills_at_work} of them broke off work",
            f"{self.per_core_second:.1f} seeds a second of a core's time",
            f"{self.repeated} seeds ({self.repeated / seeds:.1%}) were played twice, and alike",
            f"never killed at: {', '.join(never) or 'no await'}",
            *(f"seed {seed}: {broken}" for seed, broken in sorted(self.failed.items())),
        ]


def play_seeds(seeds: Sequence[int], weather: Weather | None = None, *, jobs: int = 1) -> Report:
    """All of them, on `jobs` processes. `seconds` is of all cores together."""
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    report = Report()
    if jobs == 1:
        results: Iterable[tuple[list[Told], float, int]] = (_chunk((chunk, weather)) for chunk in chunks)
        _gather(report, results)
    else:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            _gather(report, pool.map(_chunk, [(chunk, weather) for chunk in chunks]))
    return report


def _gather(report: Report, results: Iterable[tuple[list[Told], float, int]]) -> None:
    for told, seconds, repeated in results:
        report.seconds += seconds
        report.repeated += repeated
        for one in told:
            report.add(one)


def _chunk(given: tuple[Sequence[int], Weather | None]) -> tuple[list[Told], float, int]:
    seeds, weather = given
    told: list[Told] = []
    began, repeated = time.process_time(), 0
    with quiet():
        for seed in seeds:
            one = run_seed(seed, weather)
            if seed % REPEATED == 0:
                again = run_seed(seed, weather)
                repeated += 1
                if again.trace != one.trace and one.violation is None:
                    one.violation = "the same seed was another world the second time"
            told.append(one)
    return told, time.process_time() - began, repeated


def shrink(
    seed: int, weather: Weather | None = None, play: Play | None = None, *, planted: Callable[[], Any] | None = None
) -> tuple[Told, Sequence[Fault]]:
    """The failing seed with as few of its faults as still break a law: halves of them are left out, then quarters, then
    each in turn. Ends after `SHRINKS` worlds or `SHRINK_SECONDS`.
    """
    began, tried = time.monotonic(), 0
    with quiet():
        best = run_seed(seed, weather, play, planted=planted)
        if best.violation is None:
            return best, best.faults
        left = [fault.key for fault in best.faults]
        size = len(left)
        while size:
            start, smaller = 0, False
            while start < len(left):
                if tried >= SHRINKS or time.monotonic() - began > SHRINK_SECONDS:
                    return best, best.faults
                tried += 1
                fewer = left[:start] + left[start + size :]
                told = run_seed(seed, weather, play, only=fewer, planted=planted)
                if told.violation is not None:
                    best, left, smaller = told, fewer, True
                else:
                    start += size
            size = size if smaller and size == 1 else size // 2
    return best, best.faults


def cores() -> int:
    return len(os.sched_getaffinity(0))
