"""What steps cost is bounded: once a budget is spent nothing begins, nothing is lost, and it goes on where it stood."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.calls import ActionCall, Costed
from engine.guards.quotas import BREACHED
from engine.plan.code import Run, saga
from tests.stories.house import House, MovableClock, Record, Stack, until
from tests.stories.test_bounds_of_a_run import agrees, said
from tests.stories.test_crowds import listed
from tests.stories.test_quotas import alarm


def pay(call: ActionCall) -> Costed:
    return Costed({"paid": call.input["amount"]}, call.input["amount"])


def give_back(call: ActionCall) -> Any:
    return None


@saga("spender", version=1)
async def spender(run: Run, order: dict[str, Any]) -> int:
    for _ in range(order["times"]):
        await run.step("pay", pay, undo=give_back, amount=0.5)
    return int(order["times"])


@saga("family", version=1)
async def family(run: Run, order: dict[str, Any]) -> None:
    await run.child("inner", "spender", {"times": 2})
    await run.step("pay", pay, undo=give_back, amount=0.5)


SAGAS = (spender, family, alarm)


async def paid(house: House, run: str) -> int:
    page = await house.api.get(f"/v1/runs/{run}/steps")
    return sum(step["status"] == "succeeded" for step in page["items"])


@pytest.mark.acceptance("I7", "I5")
async def test_a_run_over_its_budget_is_held_and_goes_on_when_it_is_raised_or_the_day_turns(stack: Stack) -> None:
    clock = MovableClock()
    async with House(stack, sagas=SAGAS, modules=(), clock=clock, hears=("events",)) as house:
        await house.cli("quotas", "set", "acme", "daily_cost_micros=1000000")
        first = await house.start("spender", "acme", {"times": 4})
        await house.until_status(first, "queued")
        assert (await paid(house, first), (await house.run(first) or {})["cost"]) == (2, 1.0)
        why = (await house.cli("runs", "explain", first))["sentence"]
        assert "the quota daily_cost_micros of the tenant, 1000000, is spent; it goes on at " in why

        # No other run of the tenant begins, but the saga that is told of it; and another tenant's does.
        second = await house.start("spender", "acme", {"times": 1})
        await house.until_status(second, "queued")
        assert await paid(house, second) == 0
        await house.until_heard(BREACHED)
        alarms = await until(lambda: _of(house, "alarm"), lambda runs: [run["status"] for run in runs] == ["succeeded"])
        told = await house.run(alarms[0]["run_id"])
        assert told is not None
        assert told["output"] == {"cap": "daily_cost_micros"}
        await house.until_status(await house.start("spender", "globex", {"times": 4}), "succeeded")
        assert await said(house, 1) == [("daily_cost_micros", 1_000_000)]
        used = {cap["cap"]: cap for cap in (await house.cli("quotas", "use", "acme"))["items"] if not cap["workflow"]}
        spent = used["daily_cost_micros"]
        assert (spent["limit"], spent["used"], spent["breached"]) == (1_000_000, 1_000_000, True)
        assert (used["daily_runs"]["used"], used["open_runs"]["used"], used["open_runs"]["breached"]) == (3, 2, False)

        # Raised, without a restart, it goes on by as much; on the next day by as much as a day has.
        await house.cli("quotas", "set", "acme", "daily_cost_micros=1500000")
        await until(lambda: paid(house, first), lambda times: times == 3)
        await house.until_status(first, "queued")
        clock.forward(days=1)
        assert (await house.until_status(first, "succeeded"))["cost"] == 2.0
        await house.until_status(second, "succeeded")
        for run in (first, second):
            await agrees(house, run)


async def _of(house: House, workflow: str) -> list[Record]:
    return [run for run in await listed(house, "acme") if run["workflow"] == workflow]


@pytest.mark.acceptance("I7")
async def test_a_start_over_the_budget_is_refused_where_the_tenant_says_so_and_what_is_undone_is_undone(
    stack: Stack,
) -> None:
    async with House(stack, sagas=SAGAS, modules=(), hears=()) as house:
        await house.cli("quotas", "set", "acme", "monthly_cost_micros=1000000", "at_limit=refuse")
        held = await house.start("family", "acme")
        await house.until_status(held, "queued")
        refused = await house.start("spender", "acme", {"times": 1}, key="second")
        told = await until(
            lambda: house.cli("explain-event", "manual/second", "--tenant", "acme"),
            lambda found: "quota_exceeded" in str(found),
        )
        assert "the quota monthly_cost_micros of the tenant is 1000000; it is spent" in str(told)
        assert await house.run(refused) is None

        # A budget keeps nobody from undoing what was done, by runs of their own as well.
        await house.cli("runs", "cancel", held)
        assert (await house.until_status(held, "cancelled"))["undone"] == 1
        undone = await until(
            lambda: _of(house, "spender"), lambda runs: len(runs) == 2 and all(r["ended_at"] for r in runs)
        )
        assert sorted(run["undone"] for run in undone) == [0, 2]
