"""Owners that die, freeze or go: what they owned is taken over within the lease, what they write afterwards is refused,
and what they held comes again.
"""

from __future__ import annotations

import signal
import time

import pytest

from tests.faults.site import PARTS, Engine, Site

ORDERS = [f"o-{n}" for n in range(1, 21)]
LEASE_SECONDS = 10.0
"""A silent second, a heartbeat and a claim, on a machine that has other things to do as well."""


def _other(site: Site, engine: Engine) -> Engine:
    [other] = [one for one in site.engines if one is not engine]
    return other


@pytest.mark.acceptance("G1")
async def test_of_two_engines_over_one_store_the_other_takes_over_within_the_lease(pair: Site) -> None:
    await pair.engine()
    await pair.engine()
    await pair.place("o-1", held=True)
    effect = await pair.effect()
    owner = pair.engine_of(effect)
    pair.front = _other(pair, owner)

    killed = time.monotonic()
    owner.process.kill()
    again = await pair.effect()

    assert time.monotonic() - killed < LEASE_SECONDS
    assert pair.engine_of(again) is pair.front
    assert again.key == effect.key
    again.answer()
    [run] = await pair.until_ended()
    assert run["status"] == "succeeded"
    assert pair.keys("do") == {"part-1/1": 1, "part-2/1": 2, "part-3/1": 1}


@pytest.mark.acceptance("G4")
async def test_an_engine_that_wakes_up_after_its_lease_writes_nothing_and_loses_no_delivery(pair: Site) -> None:
    await pair.engine()
    await pair.engine()
    await pair.place("o-1", held=True)
    effect = await pair.effect()
    frozen = pair.engine_of(effect)
    pair.front = awake = _other(pair, frozen)

    pair.freeze(frozen)
    again = await pair.effect()  # the other has declared it dead, and makes part 2 itself
    assert pair.engine_of(again) is awake
    # Half of these reach the frozen one's socket.
    await pair.place(*ORDERS[1:])
    effect.answer()
    frozen.send(signal.SIGCONT)
    await frozen.until_said("declared_dead")
    again.answer()

    runs = await pair.until_ended(len(ORDERS))
    assert [run["status"] for run in runs] == ["succeeded"] * len(ORDERS)
    [held] = [run for run in runs if again.key.startswith(run["run_id"])]
    assert (await pair.timeline(held)).count("step.succeeded") == len(PARTS)
    assert set(pair.keys("do")) == set(PARTS)
    # Whatever was decided under the old epoch was refused before anything was made.
    assert pair.repeated() == [f"do {effect.key}"]

    # It is a full member again: alone, it takes new orders.
    await awake.stop()
    pair.front = frozen
    await pair.place("o-after")
    assert len(await pair.until_ended(len(ORDERS) + 1)) == len(ORDERS) + 1


async def test_an_engine_alone_that_was_frozen_past_its_lease_goes_on_as_another(site: Site) -> None:
    engine = await site.engine()
    await site.place("o-1", held=True)
    effect = await site.effect()

    site.freeze(engine)
    await site.place(*ORDERS[1:6])
    await engine.lives_on(1.5)  # longer than it may be silent
    engine.send(signal.SIGCONT)
    effect.answer()
    site.answer_at_once()

    # Whether its heartbeat or its own look at silent processes comes first, it is another process or still the same.
    runs = await site.until_ended(6)
    assert [run["status"] for run in runs] == ["succeeded"] * 6
    assert set(site.keys("do")) == set(PARTS)
    assert set(site.repeated()) <= {f"do {effect.key}"}


@pytest.mark.acceptance("G4")
async def test_sigterm_lets_what_is_under_way_end_and_no_effect_happens_twice(site: Site) -> None:
    engine = await site.engine()
    await site.place("o-1", held=True)
    effect = await site.effect()
    await site.place(*ORDERS[1:])

    engine.send(signal.SIGTERM)
    await engine.until_check("accepting", ok=False)
    await engine.lives_on(2.0)  # far longer than it takes to stop: it waits for part 2
    effect.answer()
    assert await engine.ended() == 0, site.told()

    await site.engine()
    runs = await site.until_ended(len(ORDERS))
    assert [run["status"] for run in runs] == ["succeeded"] * len(ORDERS)
    assert site.repeated() == []
    assert len(site.ledger()) == len(ORDERS) * len(PARTS)


@pytest.mark.acceptance("G4")
async def test_what_does_not_end_while_the_engine_drains_is_handed_over_under_its_key(site: Site) -> None:
    engine = await site.engine(UNWIND_TIMEOUTS__DRAIN_SECONDS="0.5")
    await site.place("o-1", held=True)
    effect = await site.effect()

    await engine.stop()
    # A long lease: its runs are free because it gave them back, not because it fell silent.
    await site.engine(UNWIND_LEASE__DEAD_SECONDS="600")

    again = await site.effect()
    assert again.key == effect.key
    again.answer()
    [run] = await site.until_ended()
    assert run["status"] == "succeeded"
    assert site.keys("do") == {"part-1/1": 1, "part-2/1": 2, "part-3/1": 1}
