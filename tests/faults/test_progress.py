"""A long step that records how far it has come: whoever goes on begins there, and who lost it records no more."""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults.orders import PIECES
from tests.faults.site import Effect, Engine, Site
from tests.faults.test_takeover import LEASE_SECONDS

PROGRESS = "step.progressed"


def piece(effect: Effect) -> int:
    return int(effect.key.rpartition("#")[2])


async def make(site: Site, first: int, last: int, engine: Engine) -> None:
    """These pieces, one after the other, by this process."""
    for number in range(first, last):
        effect = await site.effect()
        assert (piece(effect), site.engine_of(effect)) == (number, engine)
        effect.answer()


@pytest.mark.acceptance("G3")
async def test_a_step_whose_process_died_goes_on_from_its_last_piece(site: Site) -> None:
    first = await site.engine()
    await site.place("o-1", pieces=True)
    await make(site, 0, 2, first)
    assert piece(await site.effect()) == 2  # asked for after piece 1 was recorded
    first.process.kill()

    second = await site.engine()
    await make(site, 2, PIECES, second)

    [run] = await site.until_ended()
    assert run["status"] == "succeeded"
    assert set(site.keys("piece").values()) == {1}
    assert (await site.timeline(run)).count(PROGRESS) == PIECES
    [step] = [one for one in await site.steps(run) if one["step"] == "part-2"]
    assert (step["progress"], len(step["attempts"]), step["output"]) == (PIECES, 1, {"made": 2})


@pytest.mark.acceptance("G3")
async def test_a_stalled_worker_loses_its_step_within_the_lease_and_records_no_more(pair: Site) -> None:
    engines = [await pair.engine(), await pair.engine()]
    await pair.place("o-1", pieces=True)
    effect = await pair.effect()
    stalled = pair.engine_of(effect)
    [awake] = [one for one in engines if one is not stalled]
    pair.front = awake
    effect.answer()
    late = await pair.effect()
    assert piece(late) == 1

    frozen = time.monotonic()
    pair.freeze(stalled)
    again = await pair.effect()
    assert time.monotonic() - frozen < LEASE_SECONDS
    assert (piece(again), pair.engine_of(again)) == (1, awake)
    late.answer()
    stalled.send(signal.SIGCONT)
    await stalled.until_said("declared_dead")
    again.answer()
    await make(pair, 2, PIECES, awake)  # what the stalled one had begun asks for nothing more

    [run] = await pair.until_ended()
    assert run["status"] == "succeeded"
    assert (await pair.timeline(run)).count(PROGRESS) == PIECES
    assert pair.keys("piece") == {f"part-2/1#{n}": 1 if n != 1 else 2 for n in range(PIECES)}
