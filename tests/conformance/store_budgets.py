"""Costs and budgets, as the append keeps them: what a step has cost counts with the event that says so, and nothing
begins once a budget is spent.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any

import pytest

from engine.store import Appended, Commit, Cost, Limited, Outcome, Store
from tests.conformance.store_making import NOW, Opening, append, events, later, open_a_run, started
from tests.conformance.store_quotas import kinds, say


def day(cap: int, scope: Any = "tenant") -> Limited:
    return Limited(scope, cap, "daily_cost_micros")


def month(cap: int, scope: Any = "tenant") -> Limited:
    return Limited(scope, cap, "monthly_cost_micros")


def begins(micros: int = 0, workflow: str = "onboarding") -> Cost:
    return Cost(workflow, micros, begins=True)


def step(run: uuid.UUID, version: int, cost: Cost, tenant: str = "acme") -> Commit:
    return Commit(tenant=tenant, stream=run, expected=version, events=events("step"), cost=cost)


class BudgetsConformance:
    async def test_nothing_begins_once_a_budget_is_spent_and_what_has_happened_is_recorded(
        self, store: Store, epoch: int
    ) -> None:
        await say(store, daily_cost_micros=100)
        run, other = [await open_a_run(store, epoch, cost=begins()) for _ in range(2)]
        assert kinds(await append(store, epoch, step(run, 1, begins(60)), step(other, 1, begins(39)))) == [Appended] * 2
        # The step that spends the rest is recorded; the next does not begin with it.
        assert await append(store, epoch, step(run, 2, begins(1))) == [day(100)]
        assert kinds(await append(store, epoch, step(run, 2, Cost("onboarding", 1)))) == [Appended]
        assert await append(store, epoch, started(cost=begins())) == [day(100)]
        assert kinds(await append(store, epoch, started(cost=begins(), tenant="other"))) == [Appended]

    async def test_a_raised_budget_and_a_new_day_let_it_go_on(self, store: Store, epoch: int) -> None:
        await say(store, daily_cost_micros=10)
        run = await open_a_run(store, epoch, cost=begins(0))
        assert kinds(await append(store, epoch, step(run, 1, Cost("onboarding", 10)))) == [Appended]
        on = step(run, 2, begins())
        assert await append(store, epoch, on) == [day(10)]
        await say(store, daily_cost_micros=11)
        assert kinds(await append(store, epoch, on)) == [Appended]
        await say(store, daily_cost_micros=10)
        assert await append(store, epoch, step(run, 3, begins())) == [day(10)]
        assert kinds(await store.append([step(run, 3, begins())], epoch=epoch, now=later(days=1))) == [Appended]

    async def test_a_month_adds_its_days_up_and_the_next_begins_at_nothing(self, store: Store, epoch: int) -> None:
        await say(store, daily_cost_micros=100, monthly_cost_micros=150)
        first = NOW.replace(day=1)
        run = await open_a_run(store, epoch)
        for number in range(2):
            at = first + timedelta(days=number)
            spent = step(run, number + 1, Cost("onboarding", 90))
            assert kinds(await store.append([spent], epoch=epoch, now=at)) == [Appended]
        on = step(run, 3, begins())
        assert await store.append([on], epoch=epoch, now=first + timedelta(days=2)) == [month(150)]
        assert kinds(await store.append([on], epoch=epoch, now=first + timedelta(days=31))) == [Appended]

    @pytest.mark.parametrize("quota", ["daily_cost_micros", "monthly_cost_micros"])
    async def test_a_workflow_has_a_budget_of_its_own_or_that_of_each(
        self, store: Store, epoch: int, quota: str
    ) -> None:
        only: dict[str, Any] = {"workflows": {"v": {quota: 20}}}
        each: dict[str, Any] = {"workflows": {"*": {quota: 30}, "w": {quota: 40}}, quota: 95}
        await say(store, **only)
        await say(store, "*", **each)

        async def left(workflow: str) -> Outcome:
            """Spends until the budget says no."""
            while True:
                [outcome] = await append(store, epoch, started(workflow=workflow, cost=begins(0, workflow)))
                if not isinstance(outcome, Appended):
                    return outcome
                await append(store, epoch, started(workflow=workflow, cost=Cost(workflow, 10)))

        own = [Limited("workflow", budget, quota) for budget in (20, 40, 30)]  # type: ignore[arg-type]
        assert [await left(workflow) for workflow in ("v", "w", "x")] == own
        # 90 are spent of the tenant's 95: one more spends it, whichever workflow comes next.
        assert await left("y") == Limited("tenant", 95, quota)  # type: ignore[arg-type]

    async def test_what_a_batch_spends_counts_within_it_and_of_its_own_tenant_alone(
        self, store: Store, epoch: int
    ) -> None:
        await say(store, "*", daily_cost_micros=10)
        outcomes = await append(
            store,
            epoch,
            started(cost=Cost("onboarding", 9)),
            started(cost=begins()),
            started(cost=begins(), tenant="other"),
            started(cost=begins(1)),
            started(cost=begins()),
            started(cost=Cost("onboarding", 5)),
        )
        assert kinds(outcomes) == [Appended, Appended, Appended, day(10), day(10), Appended]

    async def test_a_refused_commit_costs_nothing(self, store: Store, epoch: int) -> None:
        await say(store, daily_cost_micros=10)
        run = await open_a_run(store, epoch, cost=Cost("onboarding", 9))
        late = step(run, 5, Cost("onboarding", 9))
        twice = started(key="k", cost=Cost("onboarding", 9))
        assert kinds(await append(store, epoch, started(key="k"))) == [Appended]
        for refused in (late, twice):
            assert not isinstance((await append(store, epoch, refused))[0], Appended)
        assert kinds(await append(store, epoch, started(cost=begins()))) == [Appended]

    async def test_no_race_of_two_hundred_passes_a_budget(self, store: Store, epoch: int, opening: Opening) -> None:
        await say(store, daily_cost_micros=170)
        stores = [store, await opening(), await opening(), await opening()]
        epochs = [epoch, *[await one.register("racer", ["all"], now=NOW) for one in stores[1:]]]
        await asyncio.gather(*(one.lane_of("acme") for one in stores))

        async def race(n: int) -> int:
            """Begins and has cost 10 at once: what would spend the last of the budget begins nothing."""
            [outcome] = await append(stores[n % 4], epochs[n % 4], started(cost=begins(10)))
            return isinstance(outcome, Appended)

        assert sum(await asyncio.gather(*map(race, range(200)))) == 16
