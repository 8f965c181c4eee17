"""What a tenant may use is bounded from the first start on, and changed while everything runs."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.modules import crm
from contracts.quotas import FRESH, WorkflowQuotas
from engine.guards.quotas import BREACHED
from engine.plan.code import Run, saga
from scripts.bench.workload import HELD, MODULE, hold_order
from scripts.opening import opened_store
from tests.stories.house import House, Record, Stack, until
from tests.stories.test_crowds import AGREED, listed, send
from tests.stories.test_pauses import audited


def agreed(runs: list[Record], count: int) -> bool:
    return [run["business_state"] for run in runs] == [AGREED] * count


async def sign_up(house: House, first: int, last: int, tenant: str = "acme") -> None:
    forms = [
        {"signup_id": f"s{n}", "email": f"c{n}@{tenant}.example", "name": f"C{n}", "plan": "standard"}
        for n in range(first, last)
    ]
    await send(house, tenant, "crm.SignupRequestedV1", crm.MODULE.source, *forms)


async def letters(house: House) -> list[Record]:
    page = await house.api.get("/v1/dead-letters", tenant="acme")
    return list(page["items"])


async def onboarded(house: House, tenant: str = "acme") -> list[Record]:
    return [run for run in await listed(house, tenant) if run["workflow"] == "customer-onboarding"]


@pytest.mark.acceptance("I1")
@pytest.mark.parametrize("quota", ["daily_runs", "open_runs", "customer-onboarding.daily_runs"])
async def test_runs_over_a_quota_are_refused_kept_and_begin_once_there_is_room(stack: Stack, quota: str) -> None:
    async with House(stack, hears=()) as house:
        await house.cli("quotas", "set", "acme", f"{quota}=2")
        await sign_up(house, 0, 6)
        refused = await until(lambda: letters(house), lambda found: len(found) == 4)
        assert {one["reason"] for one in refused} == {"quota_exceeded"}
        assert all("is 2;" in one["detail"] for one in refused)
        await until(lambda: onboarded(house), lambda runs: agreed(runs, 2))

        # Another tenant has its own, and a raised quota holds without a restart.
        await sign_up(house, 0, 1, "globex")
        await until(lambda: onboarded(house, "globex"), lambda runs: agreed(runs, 1))
        await house.cli("quotas", "set", "acme", f"{quota}=3")
        await house.cli("deadletters", "redrive", refused[0]["id"])
        await until(lambda: onboarded(house), lambda runs: agreed(runs, 3))


@pytest.mark.acceptance("I1")
async def test_of_two_hundred_at_once_as_many_run_as_there_are_slots_and_the_others_wait(stack: Stack) -> None:
    # No module answers: whoever has begun holds its slot.
    async with House(stack, modules=(), hears=()) as house:

        async def statuses() -> Counter[str]:
            return Counter(run["status"] for run in await onboarded(house))

        await house.cli("quotas", "set", "acme", "customer-onboarding.concurrent_runs=7")
        await sign_up(house, 0, 200)
        await until(statuses, lambda found: found.total() == 200, seconds=60)
        assert await statuses() == {"running": 7, "queued": 193}
        await house.cli("quotas", "set", "acme", "customer-onboarding.concurrent_runs=11")
        await until(statuses, lambda found: found["running"] == 11)
        assert await statuses() == {"running": 11, "queued": 189}
        assert "quota_exceeded" not in {one["reason"] for one in await letters(house)}


@pytest.mark.acceptance("I1")
async def test_a_start_without_a_slot_is_refused_where_the_tenant_says_so(stack: Stack) -> None:
    # No module answers: whoever has begun holds its slot.
    async with House(stack, modules=(), hears=()) as house:
        await house.cli("quotas", "set", "acme", "concurrent_runs=2", "at_limit=refuse")
        await sign_up(house, 0, 5)

        async def over() -> list[Record]:
            return [one for one in await letters(house) if one["reason"] == "quota_exceeded"]

        refused = await until(over, lambda found: len(found) == 3)
        assert all("concurrent_runs of the tenant is 2;" in one["detail"] for one in refused)
        await until(lambda: onboarded(house), lambda runs: [run["status"] for run in runs] == ["running"] * 2)


@pytest.mark.acceptance("I1")
async def test_why_a_start_over_a_quota_began_nothing_is_explained(stack: Stack) -> None:
    async with House(stack, hears=()) as house:
        await house.cli("quotas", "set", "acme", "daily_runs=0")
        form = {"signup_id": "s1", "email": "c@acme.example", "name": "C", "plan": "standard"}
        run = await house.start("customer-onboarding", "acme", form, key="first")
        told = await until(
            lambda: house.cli("explain-event", "manual/first", "--tenant", "acme"),
            lambda found: "quota_exceeded" in str(found),
        )
        assert "daily_runs of the tenant is 0" in str(told)
        assert await house.run(run) is None


@saga("alarm", version=1, on=(BREACHED,))
async def alarm(run: Run, fact: dict[str, Any]) -> dict[str, Any]:
    return {"cap": fact["cap"]}


@pytest.mark.acceptance("I5")
async def test_a_full_quota_is_said_once_and_the_saga_it_starts_causes_no_other(stack: Stack) -> None:
    sagas = (hold_order, alarm)
    async with House(stack, sagas=sagas, contracts=(MODULE,), modules=(), hears=("events",)) as house:

        async def order(first: int, last: int) -> None:
            orders = [{"order_id": f"o-{number}", "seconds": 30 * 86_400.0} for number in range(first, last)]
            await send(house, "acme", HELD, MODULE.source, *orders)

        async def runs() -> list[tuple[str, str]]:
            return sorted((run["workflow"], run["status"]) for run in await listed(house, "acme"))

        await house.cli("quotas", "set", "acme", "daily_runs=2")
        await order(0, 5)
        begun = [("alarm", "succeeded"), *[(hold_order.name, "waiting")] * 2]
        assert await until(runs, lambda found: len(found) == 3 and found == begun)
        await until(lambda: letters(house), lambda found: len(found) == 3)

        assert house.assembly is not None
        await house.assembly.stop()
        async with opened_store(house.settings) as store:
            # What is counted has come to be wrong: the first that starts sees it.
            await store.correct_counts("acme", day=f"{datetime.now(UTC):%Y-%m-%d}", started={hold_order.name: -2})
        house.assembly = await house.new_assembly(house.roles)
        await audited(house, "acme", "quota.recounted")
        await order(5, 7)
        await until(lambda: letters(house), lambda found: len(found) == 5)
        assert await runs() == begun

        # Another quota is said too: by then the first would have been said again.
        await house.cli("quotas", "set", "acme", "daily_runs=null", "open_runs=1")
        await order(7, 8)
        await until(lambda: letters(house), lambda found: len(found) == 6)
        await house.until_heard(BREACHED, count=2)
        said = {event.id: dict(event.data) for event in house.ear.events(BREACHED)}
        data, other = sorted(said.values(), key=lambda data: str(data["cap"]))
        window = data.pop("window")
        assert data == {"tenant": "acme", "cap": "daily_runs", "value": 3, "limit": 2, "workflow": None}
        assert window in {event.time.strftime("%Y-%m-%d") for event in house.ear.events(BREACHED)}
        assert other["cap"] == "open_runs"
        assert len(await audited(house, "acme", "quota.breached", "quota.breached")) == 2


@pytest.mark.acceptance("I4")
async def test_quotas_are_shown_changed_and_audited_with_who_and_from_what(stack: Stack) -> None:
    async with House(stack, hears=()) as house:
        fresh = await house.cli("quotas", "show", "acme")
        assert (fresh["own"], fresh["holding"]) == (None, FRESH.model_dump(mode="json"))

        put = await house.cli("quotas", "set", "acme", "daily_runs=7", "at_limit=refuse", "*.daily_runs=5")
        assert put["changed"]
        assert not (await house.cli("quotas", "set", "acme", "daily_runs=7"))["changed"]
        await house.cli("quotas", "set", "*", "open_runs=50")
        shown = (await house.cli("quotas", "show", "acme"))["holding"]
        assert (shown["daily_runs"], shown["open_runs"], shown["at_limit"]) == (7, 50, "refuse")
        assert shown["workflows"] == {"*": WorkflowQuotas(daily_runs=5).model_dump()}

        [actor] = await audited(house, "acme", "quotas.changed")
        [entry] = (await house.api.get("/v1/audit", tenant="acme"))["items"]
        details: dict[str, Any] = entry["details"]
        assert actor
        assert (details.get("before"), details["after"]["daily_runs"]) == (None, 7)
        await audited(house, "platform", "quotas.changed")

        headers = {"Authorization": f"Bearer {await house.make_token('operator', 'acme')}"}
        path = f"{house.url}/v1/tenants/acme/quotas"
        async with house.session.get(path, headers=headers) as own:
            assert (await own.json())["holding"] == shown
        async with house.session.put(path, json={}, headers=headers) as no:
            assert (await no.json())["code"] == "forbidden"
