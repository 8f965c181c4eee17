"""The first faults: a process that owns a run is killed at one exact place; what was promised must hold when another
takes over. Each test is named by the place and ends in what the outside world saw.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.site import PARTS, Record, Site, until_now


async def _dies_and_recovers(site: Site, place: str, **order: Any) -> list[Record]:
    doomed = await site.engine(place)
    await site.place("o-1", **order)
    await doomed.died()
    await site.engine()
    return await site.until_ended()


@pytest.mark.acceptance("G1")
@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_killed_before_the_append_leaves_one_run_and_every_effect_under_its_one_key(site: Site, nth: int) -> None:
    runs = await _dies_and_recovers(site, f"append-before:{nth}")

    assert [run["status"] for run in runs] == ["succeeded"]
    assert sorted(site.keys("do")) == PARTS
    # The effect whose outcome was about to be recorded is attempted again, under the same key; no other is.
    assert len(site.repeated()) == (1 if nth > 1 else 0)
    assert len(site.ledger()) <= len(PARTS) + 1


@pytest.mark.acceptance("G1")
@pytest.mark.parametrize("nth", [1, 2, 4])
async def test_killed_after_the_append_leaves_one_run_and_no_effect_twice(site: Site, nth: int) -> None:
    runs = await _dies_and_recovers(site, f"append-after:{nth}")

    assert [run["status"] for run in runs] == ["succeeded"]
    assert site.keys("do") == dict.fromkeys(PARTS, 1)


@pytest.mark.acceptance("G4")
async def test_killed_before_the_acknowledgement_the_redelivered_event_starts_nothing(site: Site) -> None:
    runs = await _dies_and_recovers(site, "ack-before:1")

    assert [run["status"] for run in runs] == ["succeeded"]
    assert sorted(site.keys("do")) == PARTS


@pytest.mark.acceptance("G1")
async def test_killed_before_the_publish_the_command_is_sent_after_the_restart(site: Site) -> None:
    async with site.parcels():
        runs = await _dies_and_recovers(site, "command-before", parcel=True)

    assert [run["status"] for run in runs] == ["succeeded"]
    assert site.keys("do") == dict.fromkeys(PARTS, 1)
    assert site.keys("parcel") == {"parcel/1": 1}


@pytest.mark.acceptance("G4")
async def test_killed_after_the_publish_the_command_goes_again_and_the_module_sends_one_parcel(site: Site) -> None:
    async with site.parcels() as module:
        runs = await _dies_and_recovers(site, "command-after", parcel=True)
        # The outbox row outlived its publish: the same command comes again, and is answered from memory.
        await until_now(lambda: module.tally["resent"], lambda resent: resent == 1)

    assert [run["status"] for run in runs] == ["succeeded"]
    assert site.keys("do") == dict.fromkeys(PARTS, 1)
    assert site.keys("parcel") == {"parcel/1": 1}


@pytest.mark.acceptance("G4")
async def test_killed_during_an_effect_it_is_attempted_again_under_the_same_key(site: Site) -> None:
    runs = await _dies_and_recovers(site, "effect:2")

    assert [run["status"] for run in runs] == ["succeeded"]
    assert site.keys("do") == {"part-1/1": 1, "part-2/1": 2, "part-3/1": 1}
    assert len(site.repeated()) == 1


@pytest.mark.acceptance("H8")
@pytest.mark.parametrize("nth", [1, 2])
async def test_killed_during_a_compensation_the_order_stays_newest_first(site: Site, nth: int) -> None:
    runs = await _dies_and_recovers(site, f"undo:{nth}", spoiled=True)

    assert [run["status"] for run in runs] == ["compensated"]
    undone = [line.split() for line in site.ledger() if line.startswith("undo")]
    keys = [key.split("/", 1)[1] for _, key, _ in undone]
    # The one that was under way when the process died comes twice in a row, under one key and with one receipt.
    assert list(dict.fromkeys(keys)) == ["part-2/1/undo", "part-1/1/undo"]
    assert keys.count(["part-2/1/undo", "part-1/1/undo"][nth - 1]) == 2
    assert len(keys) == 3
    assert {receipt for _, key, receipt in undone if "part-2" in key} == {'{"made":2}'}


@pytest.mark.acceptance("G1")
async def test_an_intent_without_an_outcome_is_visible_while_nobody_resolves_it(site: Site) -> None:
    engine = await site.engine()
    await site.place("o-1", held=True)
    effect = await site.effect()
    engine.process.kill()
    await engine.died()
    await site.engine()

    again = await site.effect()
    [run] = await site.until_runs(lambda runs: len(runs) == 1)
    # What is known: part 2 was meant to be made. Nobody claims that it was, or that it was not.
    events = await site.until_timeline(run, lambda topics: topics.count("step.scheduled") == 2)
    assert events.count("step.succeeded") == 1
    [run] = await site.runs()
    assert run["ended_at"] is None
    assert again.key == effect.key

    again.answer()
    [run] = await site.until_ended()
    assert run["status"] == "succeeded"
    assert (await site.timeline(run)).count("step.succeeded") == 3


@pytest.mark.acceptance("H7")
async def test_ten_copies_of_an_event_across_a_crash_start_one_run(site: Site) -> None:
    doomed = await site.engine("append-after:2")
    await site.place("o-1", times=10)
    await doomed.died()
    await site.engine()
    await site.place("o-1", times=3)
    await site.place("o-2")

    runs = await site.until_ended(2)

    assert [run["status"] for run in runs] == ["succeeded", "succeeded"]
    assert len(set(site.ledger())) == 2 * len(PARTS)
    # Copies may have been the second append: then what part 1 came to was not recorded yet.
    assert len(site.repeated()) <= 1
