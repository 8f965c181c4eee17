"""The bench measures a real engine from outside: a small round on the embedded stack gives a rate, and counts what it
says it counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scripts.bench.measure import QUICK, Measurements
from scripts.bench.processes import ask
from scripts.bench.rebuilding import Rebuilding, Rebuilt
from scripts.bench.workload import EVENTS_PER_RUN

SMALL = replace(QUICK, warm_up=20, embedded=100)


@pytest.mark.embedded
def test_a_small_round_counts_every_event_and_few_appends() -> None:
    told: list[str] = []
    report = Measurements(None, SMALL, told.append).embedded
    assert told == ["workload A, embedded"]
    assert report.runs >= SMALL.embedded
    assert report.events_per_run == EVENTS_PER_RUN
    assert report.seconds > 0
    assert 0 < report.appends < report.counted


@pytest.mark.embedded
def test_an_engine_whose_guardrails_stand_aside_does_the_same_work() -> None:
    report = Measurements(None, SMALL, lambda told: None).in_a_folder("--unguarded")
    assert report.runs >= SMALL.embedded
    assert report.events_per_run == EVENTS_PER_RUN


@pytest.mark.embedded
def test_a_rebuild_is_timed_and_its_memory_watched(tmp_path: Path) -> None:
    environment = {"UNWIND_DATA_DIR": str(tmp_path)}
    filled = ask("scripts.bench.rebuilding", Rebuilding(events=20_000, fill=True), environment)["events"]
    done = Rebuilt(**ask("scripts.bench.rebuilding", Rebuilding(events=filled), environment))
    assert (filled, done.events, done.equal) == (19_992, filled, True)
    assert 0 < done.reading < done.seconds
    assert done.early_bytes > 2**24
    assert done.late_bytes > 2**24
