"""A charge that nobody answered: the module is asked whether it happened, and the answer decides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from contracts.calls import RetryPolicy
from contracts.sdk import QueryTimedOut, open_database, open_transport
from engine.plan.code import Run, saga
from tests.conformance.sdk.till import TILL, Till, question
from tests.stories.house import House, MovableClock, Stack, until_now
from tests.stories.understudy import fact
from tests.stories.workshop import explode, note


@saga("purchase", version=1)
async def purchase(run: Run, order: dict[str, Any]) -> dict[str, Any]:
    return await run.step("charge", "till.charge", amount=order["amount"], how=order["how"])  # type: ignore[no-any-return]


@saga("noted-purchase", version=1)
async def noted_purchase(run: Run, order: dict[str, Any]) -> dict[str, Any]:
    await run.step("note", note, text="before")
    return await run.step("charge", "till.charge", amount=order["amount"], how=order["how"])  # type: ignore[no-any-return]


@saga("doomed-purchase", version=1)
async def doomed_purchase(run: Run, order: dict[str, Any]) -> None:
    await run.step("charge", "till.charge", amount=order["amount"], how=order["how"])
    await run.step("break", explode, retry=RetryPolicy(attempts=1))


SAGAS = (purchase, noted_purchase, doomed_purchase)


@asynccontextmanager
async def shop(stack: Stack) -> AsyncIterator[tuple[House, Till, MovableClock]]:
    clock = MovableClock()
    async with House(stack, clock=clock, sagas=SAGAS, contracts=(TILL,), modules=("tenancy", "audit")) as house:
        place = f"{stack.database_url}?schema=till" if stack.database_url else f"sqlite://{stack.folder / 'till.db'}"
        till = Till(open_transport(house.bus_url, name="till"), open_database(place))
        await till.service.start()
        try:
            yield house, till, clock
        finally:
            await till.service.stop()


async def unheard(house: House, till: Till, clock: MovableClock, workflow: str, how: str) -> str:
    """A run whose charge was ordered, and whose time limit has passed without an answer."""
    run = await house.start(workflow, "acme", {"amount": 5, "how": how})
    await until_now(lambda: till.ordered, bool)
    await house.until_step(run, "charge", lambda step: step["status"] == "open")
    clock.forward(seconds=31)
    return run


def topics(timeline: list[dict[str, Any]]) -> list[str]:
    return [entry["topic"] for entry in timeline]


async def test_a_charge_that_happened_unheard_is_found_and_recorded_once(stack: Stack) -> None:
    async with shop(stack) as (house, till, clock):
        run = await unheard(house, till, clock, "purchase", "lost")
        ended = await house.until_status(run, "succeeded")
        assert ended["output"] == {"charge_id": "ch_charge"}
        assert "step.doubted" in topics(await house.timeline(run))
        step = (await house.steps(run))["charge"]
        assert (step["output"], step["ambiguous"], len(step["attempts"])) == ({"charge_id": "ch_charge"}, False, 1)
        assert len(till.charges) == len(till.ordered) == 1


async def test_a_charge_that_never_arrived_is_tried_again_and_then_closed(stack: Stack) -> None:
    async with shop(stack) as (house, till, clock):
        run = await unheard(house, till, clock, "purchase", "dropped")
        await house.until_attempt(run, "charge", 2)
        clock.forward(seconds=31)
        ended = await house.until_status(run, "failed")
        assert ended["left"] == []
        assert [asked.closing for asked in till.asked] == [False, False, True]
        assert len(set(till.ordered)) == 1
        assert till.refunds == []
        assert not (await house.steps(run))["charge"]["ambiguous"]


async def test_without_an_answer_the_run_is_parked_until_an_operator_has_it_asked_again(stack: Stack) -> None:
    async with shop(stack) as (house, till, clock):
        till.mute = True
        run = await unheard(house, till, clock, "noted-purchase", "lost")
        parked = await house.until_status(run, "parked")
        assert parked["parked"].startswith("fate_unknown: nobody could say whether step 'charge'")
        assert len(till.asked) == 3
        till.mute = False
        await house.api.post(f"/v1/runs/{run}/retry", {})
        ended = await house.until_status(run, "succeeded")
        assert ended["output"] == {"charge_id": "ch_charge"}
        assert len(till.ordered) == 1


async def test_a_found_charge_is_refunded_with_its_receipt_when_the_run_unwinds(stack: Stack) -> None:
    async with shop(stack) as (house, till, clock):
        run = await unheard(house, till, clock, "doomed-purchase", "lost")
        await house.until_status(run, "compensated")
        assert till.refunds == ["ch_charge"]


async def test_a_question_to_a_module_that_was_never_there_leaves_no_dead_letter(stack: Stack) -> None:
    async with House(stack, contracts=(TILL,), modules=("tenancy", "audit"), hears=()) as house:
        asked = question("r/charge/1", "c-1")
        with pytest.raises(QueryTimedOut):
            await house.asker.ask_raw("till.FindChargeV1", asked, tenant="acme", deadline_seconds=0.5)
        await house.ear.send(fact("till.NoSuchThingV1", {}, tenant="acme"))
        await house.until_letter(type="till.NoSuchThingV1")
        assert [letter["type"] for letter in await house.letters()] == ["till.NoSuchThingV1"]
