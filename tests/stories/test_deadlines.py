"""An onboarding has fifteen minutes. What takes longer has failed and says so; at the deadline itself there is one
winner."""

from __future__ import annotations

import asyncio

import pytest

from contracts.modules import tenancy
from tests.stories.house import House, MovableClock, Stack, until, until_now
from tests.stories.understudy import asked, play, success

TIMED_OUT = "tenancy.TenantProvisioningTimedOutV1"
PROVISIONED = "tenancy.TenantProvisionedV1"
SILENT_MAIL = ("tenancy", "identity", "billing", "configuration", "audit")


async def _state(house: House, tenant: str) -> str | None:
    query = tenancy.GetTenantV1()
    return (await house.ask(tenancy.MODULE, query, tenancy.TenantSnapshotV1, tenant)).state


@pytest.mark.acceptance("H10")
async def test_an_onboarding_that_takes_too_long_has_failed_says_so_and_can_be_taken_up_again(stack: Stack) -> None:
    clock = MovableClock()
    async with House(stack, clock=clock, modules=SILENT_MAIL) as house:
        run = await house.register("slow")
        await asked(house, "notifications.SendNotificationV1", "slow")
        await house.until_step(run, "entitlements", lambda step: step["status"] == "succeeded")
        clock.forward(minutes=14)
        await asked(house, "notifications.SendNotificationV1", "slow", count=2)
        assert house.ear.events(TIMED_OUT) == []
        clock.forward(minutes=1, seconds=1)
        parked = await house.until_state(run, "ProvisioningFailed")
        [told] = await house.until_heard(TIMED_OUT, tenant="slow")
        assert told.data["missing"] == list(tenancy.PROVISIONING_STEPS)
        assert 900 <= told.data["after_seconds"] < 1000
        assert await _state(house, "slow") == "ProvisioningFailed"
        await until(lambda: _incidents(house, run), lambda reasons: "run_timed_out" in reasons)
        [alert] = await until_now(
            lambda: [
                notice
                for notice in house.ear.events("unwind.RunParkedV1", tenant="slow")
                if notice.data["reason"] == "run_timed_out"
            ],
            bool,
        )
        assert alert.data["run_id"] == run == parked["run_id"]

        # An operator has it tried again, and the mail goes out at last.
        await house.api.post(f"/v1/runs/{run}/retry")
        await house.until_state(run, "Provisioning")
        sent = house.ear.commands("notifications.SendNotificationV1", tenant="slow")
        await house.ear.send(success(sent[-1]))
        await house.until_status(run, "succeeded")
        assert await _state(house, "slow") == "Active"
        assert len(house.ear.events(TIMED_OUT)) == len(house.ear.events(PROVISIONED)) == 1


async def _incidents(house: House, run: str) -> list[str]:
    return [entry["event"]["reason"] for entry in await house.timeline(run) if entry["topic"] == "incident.opened"]


@pytest.mark.acceptance("H10")
async def test_an_answer_at_the_deadline_itself_has_one_winner(stack: Stack) -> None:
    clock = MovableClock()
    async with House(stack, clock=clock, modules=SILENT_MAIL) as house:
        runs = {f"tenant-{number}": await house.register(f"tenant-{number}") for number in range(6)}
        for tenant, run in runs.items():
            await asked(house, "notifications.SendNotificationV1", tenant)
            await house.until_step(run, "entitlements", lambda step: step["status"] == "succeeded")
        early, late = list(runs)[:3], list(runs)[3:]
        await asyncio.gather(*(play(house, "notifications.SendNotificationV1", tenant) for tenant in early))
        clock.forward(minutes=15)
        await asyncio.gather(*(play(house, "notifications.SendNotificationV1", tenant) for tenant in late))
        for tenant, run in runs.items():
            await house.until_run(run, lambda found: found["status"] in ("succeeded", "parked"))
            # Whichever came first, the tenant is told one thing, and is what it was told.
            await house.until_run(run, lambda found: found["business_state"] in ("Active", "ProvisioningFailed"))
            state = await _settled(house, tenant)
            assert (state == "Active") == (len(house.ear.events(PROVISIONED, tenant=tenant)) == 1)
            assert (state == "ProvisioningFailed") == (len(house.ear.events(TIMED_OUT, tenant=tenant)) == 1)


async def _settled(house: House, tenant: str) -> str:
    """Active or ProvisioningFailed, once the tenant is one of them and the bus has said so."""
    state = await until(lambda: _state(house, tenant), lambda found: found in ("Active", "ProvisioningFailed"))
    assert state is not None
    kind = PROVISIONED if state == "Active" else TIMED_OUT
    await until_now(lambda: house.ear.events(kind, tenant=tenant), bool)
    return state
