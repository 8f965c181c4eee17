"""The plug-in as a user has it: a sound saga passes, a bug in a saga or a handler is found by the laws or by the user's
own check, and the seed that found it plays again.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.examples.test_parcels import test_an_order_is_shipped_with_both_or_with_neither as test_the_example_passes

__all__ = ["test_the_example_passes"]

ROOT = Path(__file__).resolve().parents[2]

SUITE = '''
import itertools
from contracts.sdk import Service
from docs.examples.parcels import *
from docs.examples.test_parcels import orders, the_shelf_holds_what_was_shipped
from scripts.simulation.worlds import Weather

@saga("shipping", version=1, on="parcels.OrderedV1")
async def forgetful(run, order):
    await run.step("reserve", "parcels.reserve", undo=None, order_id=order["order_id"])
    await run.step("charge", "parcels.charge", order_id=order["order_id"], card=order["card"])

dice = itertools.count()

@saga("shipping", version=1, on="parcels.OrderedV1")
async def moody(run, order):
    await run.step(f"reserve-{next(dice)}", "parcels.reserve", undo="parcels.release", order_id=order["order_id"])
    await run.step("charge", "parcels.charge", order_id=order["order_id"], card=order["card"])

taken = []

def hasty(transport, database):
    """What it does, it does before its transaction, which may never be."""
    service = Service(MODULE, transport=transport, database=database, schemas=(SHELF,))

    @service.handles(ReserveV1)
    async def reserve(command, call, tx):
        taken.append(call.key)
        return ReservedV1(order_id=command.order_id)

    @service.handles(ReleaseV1)
    async def release(command, call, tx):
        return ReleasedV1(order_id=command.input.order_id)

    @service.handles(ChargeV1)
    async def charge(command, call, tx):
        return ChargedV1(order_id=command.order_id)

    return service

def nothing_is_taken_twice(ended):
    twice = {key for key in taken if taken.count(key) > 1}
    assert not twice, "taken twice"

def test_sound(unwind_worlds):
    played = unwind_worlds(
        sagas=[shipping], services=[parcels], events=orders, check=the_shelf_holds_what_was_shipped
    )
    assert played.seeds == 6 and played.runs == 18 and played.kills > 6

def test_forgetful(unwind_worlds):
    unwind_worlds(sagas=[forgetful], services=[parcels], events=orders, check=the_shelf_holds_what_was_shipped)

def test_moody(unwind_worlds):
    unwind_worlds(sagas=[moody], services=[parcels], events=orders, weather=Weather(heal_seconds=15))

def test_hasty(unwind_worlds):
    unwind_worlds(
        sagas=[shipping], services=[hasty], events=orders, check=nothing_is_taken_twice, begin=taken.clear, seeds=60
    )

async def test_in_a_loop(unwind_worlds):
    unwind_worlds(sagas=[shipping], services=[parcels], events=orders)
'''


def test_the_page_shows_the_example_as_it_is_played() -> None:
    example = (ROOT / "docs" / "examples" / "test_parcels.py").read_text(encoding="utf-8")
    assert f"```python\n{example}```" in (ROOT / "docs" / "simulation.md").read_text(encoding="utf-8")
    assert len([line for line in example.splitlines() if line]) <= 20


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'scripts' / 'wheel'}")
    pytester.makepyfile(test_suite=SUITE)
    return pytester


def ask(suite: pytest.Pytester, *given: str) -> pytest.RunResult:
    return suite.runpytest_subprocess(
        "-p", "unwind_saga.pytest_plugin", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", *given
    )


def test_a_planted_bug_is_found_and_a_sound_saga_passes(suite: pytest.Pytester) -> None:
    told = ask(suite, "--unwind-seeds", "6")
    told.assert_outcomes(passed=1, failed=4)
    said = told.stdout.str()
    assert re.search(r"seed \d+: check: the shelf holds \['o-.*\], shipped were", said)
    assert re.search(r"seed \d+: check: taken twice", said)
    assert re.search(r"seed \d+: T: after 15 calm seconds .*parked \(saga_changed\)", said)
    assert "call it from a plain test function (def, not async def)" in said


def test_the_seed_that_found_it_plays_again_with_the_faults_that_matter(suite: pytest.Pytester) -> None:
    found = ask(suite, "-k", "hasty").stdout.str()
    [again] = set(re.findall(r"play it again: pytest \S*test_suite\.py::test_hasty --unwind-seed (\d+)", found))
    [(few, whole)] = set(re.findall(r"(\d+) of its (\d+) faults still break a law", found))
    assert 0 < int(few) < int(whole)
    assert re.search(r"E +\d+: (killed|answer lost|refused|connection lost) at ", found)
    told = ask(suite, "-k", "hasty", "--unwind-seed", again)
    told.assert_outcomes(failed=1, deselected=4)
    assert f"seed {again}: check: taken twice" in told.stdout.str()


def test_a_seed_that_holds_tells_its_faults(suite: pytest.Pytester) -> None:
    told = ask(suite, "-s", "-k", "test_hasty", "--unwind-seed", "1")
    assert re.search(r"\d+: .* at .*, second \d", told.stdout.str())
