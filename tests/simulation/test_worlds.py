"""The engine's shells in many worlds: whatever is killed, refused, lost, doubled or frozen, every law holds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from scripts.simulation.chance import Chance
from scripts.simulation.loop import Deadlock, VirtualLoop
from scripts.simulation.report import play_seeds, shrink
from scripts.simulation.weather import Weather
from scripts.simulation.world import quiet, run_seed
from tests.simulation.planted import PLANTED

SEEDS = int(os.environ.get("UNWIND_SIMULATED_SEEDS", "10000"))
"""In all; a release plays a million (`python -m scripts.simulation --seeds 1000000`)."""

OFTEN = 1_000
"""An await that was crossed so often while faults lasted must have been the place of a kill."""


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    with quiet():
        yield


@pytest.mark.timeout(900)
@pytest.mark.parametrize("half", [0, 1])
def test_every_law_holds_in_every_world(half: int) -> None:
    report = play_seeds(range(half * SEEDS // 2, (half + 1) * SEEDS // 2))
    print(*report.lines(), sep="\n")
    assert not report.failed
    assert report.runs >= report.seeds
    assert report.kills >= 20 * report.seeds
    assert report.kills_at_work >= 5 * report.seeds
    assert report.repeated >= report.seeds // 100
    spared = [place for place, times in report.at_risk.items() if times >= OFTEN and not report.killed_at[place]]
    assert not spared


def test_the_same_seed_is_the_same_world_and_another_is_another() -> None:
    first, again, other = run_seed(7), run_seed(7), run_seed(8)
    assert (first.trace, first.faults, first.crossings) == (again.trace, again.faults, again.crossings)
    assert first.trace != other.trace


def test_a_fault_that_is_left_out_does_not_happen() -> None:
    # In some worlds faults begin so late that there is none.
    whole = next(told for told in map(run_seed, range(7, 27)) if told.faults)
    keys = [fault.key for fault in whole.faults]
    again = run_seed(whole.seed, only=keys)
    assert (again.trace, again.faults) == (whole.trace, whole.faults)
    assert keys[0] not in [fault.key for fault in run_seed(whole.seed, only=keys[1:]).faults]


def test_without_faults_nothing_is_killed_and_every_run_ends() -> None:
    told = run_seed(
        7, Weather(kill=0, refuse=0, lose=0, freeze=0, duplicate=0, reorder=0, lost_confirm=0, lost_message=0)
    )
    assert (told.violation, told.kills, told.faults) == (None, 0, ())
    assert told.runs >= 2


def test_a_failing_seed_shrinks_to_the_faults_that_matter() -> None:
    planted = PLANTED["ack_first"]
    seed = next(seed for seed in range(100) if run_seed(seed, planted=planted).violation)
    whole = run_seed(seed, planted=planted)
    told, faults = shrink(seed, planted=planted)
    assert told.violation is not None
    assert 0 < len(faults) < len(whole.faults)


def test_virtual_time_passes_at_once_and_in_order() -> None:
    loop = VirtualLoop(Chance(1))
    seen: list[float] = []

    async def nap(seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append(loop.time())

    async def both() -> None:
        await asyncio.gather(nap(30 * 86_400), nap(1))

    loop.run_until_complete(both())
    loop.close()
    assert seen == [1, 30 * 86_400]


def test_waiting_for_what_cannot_come_is_an_error() -> None:
    loop = VirtualLoop(Chance(1))

    async def for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        loop.run_until_complete(for_ever())
    loop.close()
