"""An ended run is run once more: by command line and API, without a second effect of what stands."""

from __future__ import annotations

from typing import Any

import orjson

from tests.stories.house import House, Stack
from tests.stories.provider import Provider
from tests.stories.workshop import charge_and_ship


async def test_a_rerun_has_no_effect_twice_unless_it_is_told_to(stack: Stack) -> None:
    async with (
        Provider() as provider,
        House(stack, sagas=(charge_and_ship,), egress={"sandbox": (provider.address,)}) as house,
    ):
        order = {"charge": provider.url("/pay"), "ship": provider.url("/closed")}
        first = await house.start("charge-and-ship", "acme", order)
        await house.until_status(first, "failed")
        provider.release()
        second = (await house.cli("rerun", first, "--reason", "the carrier is back"))["run_id"]
        done = await house.until_status(second, "succeeded")
        assert (done["trigger"]["kind"], done["trigger"]["id"]) == ("rerun", first)
        assert done["trigger"]["reason"] == "the carrier is back"
        assert done["correlation_id"] == (await house.run(first) or {})["correlation_id"]
        steps = await house.steps(second)
        assert [(step["reused"], len(step["attempts"])) for step in steps.values()] == [(True, 0), (False, 1)]
        assert [step["key"] for step in steps.values()] == [f"{first}/charge/1", f"{first}/ship/2"]
        assert provider.effects == {f"{first}/charge/1": 1, f"{first}/ship/2": 1}
        assert (await house.cli("replay", second))["same"]

        known = await house.cli("rerun", first, "--reason", "the carrier is back")
        assert (known["run_id"], known["duplicate"]) == (second, True)
        assert (await house.cli("runs", "show", first))["followed_by"] == second
        code, _, complaint = await house.cli_raw("rerun", first, "--from", "charge")
        assert (code, second in orjson.loads(complaint)["detail"]) == (4, True)

        third = (await house.cli("rerun", second, "--from", "charge"))["run_id"]
        await house.until_status(third, "succeeded")
        assert [step["key"] for step in (await house.steps(third)).values()] == [f"{first}/charge/1", f"{first}/ship/2"]
        fourth = (await house.cli("rerun", third, "--repeat-effects", "charge"))["run_id"]
        await house.until_status(fourth, "succeeded")
        assert [step["key"] for step in (await house.steps(fourth)).values()] == [
            f"{fourth}/charge/1",
            f"{first}/ship/2",
        ]
        assert set(provider.effects) == {f"{first}/charge/1", f"{first}/ship/2", f"{fourth}/charge/1"}
        assert provider.calls[f"{first}/charge/1"] == 2


async def test_an_onboarding_that_was_unwound_succeeds_when_run_again(stack: Stack) -> None:
    async with House(stack) as house:
        await house.script("acme", "crm.CreateContactV1", "irrecoverable")
        first = await house.start("customer-onboarding", "acme", SIGN_UP)
        await house.until_status(first, "compensated")
        begun = await house.api.post(f"/v1/runs/{first}/rerun", {}, tenant="acme")
        await house.until_state(begun["run_id"], "AwaitingConfirmation")
        steps = await house.steps(begun["run_id"])
        assert {step["status"] for step in steps.values()} == {"succeeded"}
        assert not any(step["reused"] for step in steps.values())
        assert {name: step["key"].rpartition("/")[2] for name, step in steps.items()} == {
            "create-account": "2",
            "create-billing": "2",
            "create-crm-contact": "2",
            "send-welcome": "1",
        }
        code, _, complaint = await house.cli_raw("rerun", begun["run_id"])
        assert (code, orjson.loads(complaint)["field"]) == (4, "run_id")


SIGN_UP: dict[str, Any] = {"signup_id": "s-1", "email": "ann@example.org", "name": "Ann Example", "plan": "enterprise"}


async def test_a_cancelled_onboarding_is_run_again_to_its_end_with_a_new_welcome(stack: Stack) -> None:
    async with House(stack) as house:
        first = await house.start("customer-onboarding", "acme", SIGN_UP)
        await house.until_state(first, "AwaitingConfirmation")
        await house.cli("runs", "cancel", first)
        await house.until_status(first, "cancelled")
        again = (await house.cli("rerun", first))["run_id"]
        await house.until_state(again, "AwaitingConfirmation")
        steps = await house.steps(again)
        assert {step["key"].rpartition("/")[2] for step in steps.values()} == {"2"}
        assert (await house.cli("replay", again))["same"]
