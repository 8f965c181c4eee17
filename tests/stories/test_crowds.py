"""Very many runs at once, on a small scale: those that wait cost nothing, those that fail harm no other, and a tenant
that has much to do does not keep a small one waiting. UNWIND_STORY_RUNS says how many (docs/acceptance.md).
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from contracts.envelope import Envelope
from contracts.modules import billing, crm
from contracts.quotas import FRESH
from contracts.sdk.transport import EVENTS_EXCHANGE, Message, Published
from engine.guards.quotas import EVERYONE, SETTING
from scripts.bench.storm import OTHERS, TENANTS
from scripts.bench.workload import HELD, MODULE, PAID, TENANT, TRIGGER, hold_order, order, place_order
from scripts.opening import opened_store
from tests.stories.house import House, Record, Stack, until

RUNS = int(os.environ.get("UNWIND_STORY_RUNS", "60"))
PATIENCE_SECONDS = 20 + RUNS / 5
HOT = 20
"""So many waiting runs may stay in memory."""

SLOTS = 5
AGREED = "AwaitingConfirmation"


async def send(house: House, tenant: str, kind: str, source: str, *data: Mapping[str, Any]) -> None:
    """Events of a module, each with an id of its own."""
    messages = []
    for number, one in enumerate(data):
        envelope = Envelope(
            id=f"{kind}-{one.get('order_id') or one.get('signup_id') or number}",
            source=source,
            type=kind,
            tenantid=tenant,
            time=datetime.now(UTC),
            data=dict(one),
        )
        messages.append(Message(EVENTS_EXCHANGE, kind, envelope.to_json()))
    assert set(await house.ear.transport.publish(messages)) == {Published.CONFIRMED}


async def listed(house: House, tenant: str) -> list[Record]:
    """Every run of the tenant."""
    return [run async for run in house.api.items("/v1/runs", tenant=tenant, limit=200)]


async def told(house: House, metric: str) -> float:
    """The sum of a metric's samples."""
    page = (await house.page(f"{house.url}/metrics")).decode()
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(metric))


async def connections(stack: Stack) -> int:
    """Of everybody to the stack's database; none on SQLite."""
    if stack.database_url is None:
        return 0
    watch = await asyncpg.connect(stack.database_url)
    try:
        found = await watch.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
    finally:
        await watch.close()
    return int(found)


@pytest.mark.timeout(600 + RUNS)
@pytest.mark.acceptance("G14")
async def test_runs_that_wait_hold_no_memory_no_task_and_no_connection_and_wake_by_their_own_event(
    stack: Stack,
) -> None:
    limits = {"waiting_runs": HOT}
    async with House(stack, sagas=(hold_order,), contracts=(MODULE,), modules=(), limits=limits, hears=()) as house:

        async def statuses() -> Counter[str]:
            return Counter(run["status"] for run in await listed(house, "acme"))

        async def hold(first: int, last: int) -> None:
            orders = [{"order_id": f"o-{number}", "seconds": 30 * 86_400.0} for number in range(first, last)]
            await send(house, "acme", HELD, MODULE.source, *orders)
            await until(statuses, lambda found: found == {"waiting": last}, seconds=PATIENCE_SECONDS)

        await hold(0, HOT)
        tasks, sockets = len(asyncio.all_tasks()), await connections(stack)
        await hold(HOT, HOT + RUNS)
        await until(lambda: told(house, "unwind_runs_hot"), lambda hot: hot <= HOT, seconds=PATIENCE_SECONDS)
        assert len(asyncio.all_tasks()) <= tasks + 10
        assert await connections(stack) <= sockets + 5

        one = f"o-{HOT + RUNS // 2}"
        await send(house, "acme", PAID, MODULE.source, {"order_id": one})

        wanted = {"succeeded": 1, "waiting": HOT + RUNS - 1}
        await until(statuses, lambda found: found == wanted, seconds=PATIENCE_SECONDS)
        [woken] = [run for run in await listed(house, "acme") if run["status"] == "succeeded"]
        assert (await house.run(woken["run_id"]) or {})["data"]["order_id"] == one


@pytest.mark.timeout(900 + RUNS)
@pytest.mark.acceptance("H17")
async def test_a_tenth_of_many_onboardings_fails_and_no_other_notices(stack: Stack) -> None:
    few, failing = max(RUNS // 10, 5), RUNS // 10
    async with opened_store(stack.settings(), migrate=True) as store:
        await store.put_setting(EVERYONE, SETTING, FRESH.model_dump() | {"concurrent_runs": SLOTS})
    async with House(stack, hears=()) as house:
        await house.script("large", "billing.CreateCustomerV1", "irrecoverable", times=failing, code="not_today")

        async def sign_up(tenant: str, many: int) -> None:
            forms = [
                {"signup_id": f"{tenant}-{n}", "email": f"c{n}@{tenant}.example", "name": f"C{n}", "plan": "standard"}
                for n in range(many)
            ]
            await send(house, tenant, "crm.SignupRequestedV1", crm.MODULE.source, *forms)

        async def onboarded(tenant: str) -> list[Record]:
            runs = [run for run in await listed(house, tenant) if run["workflow"] == "customer-onboarding"]
            return [run for run in runs if run["business_state"] == AGREED or run["ended_at"]]

        await sign_up("large", RUNS)
        await sign_up("small", few)
        small = await until(lambda: onboarded("small"), lambda runs: len(runs) == few, seconds=PATIENCE_SECONDS)
        # The small tenant came last and has its fair share of the slots: it is done long before the large one.
        assert len(await onboarded("large")) <= 0.75 * RUNS
        large = await until(lambda: onboarded("large"), lambda runs: len(runs) == RUNS, seconds=PATIENCE_SECONDS)

        outcomes = Counter(run["error_code"] if run["ended_at"] else AGREED for run in large)
        assert outcomes == {AGREED: RUNS - failing, "not_today": failing}
        assert {run["status"] for run in large if run["ended_at"]} == {"compensated"}
        assert {run["business_state"] for run in small} == {AGREED}
        seen: set[str] = set()
        for tenant, run in [("large", run) for run in large] + [("small", run) for run in small]:
            steps = await house.steps(run["run_id"])
            account = steps["create-account"]["output"]["user_id"]
            query = billing.GetCustomerV1(account_id=account)
            owner = await house.ask(billing.MODULE, query, billing.CustomerSnapshotV1, tenant)
            assert account not in seen
            seen.add(account)
            if run["ended_at"]:
                assert (owner.customer_id, set(steps)) == (None, {"create-account", "create-billing"})
                assert steps["create-account"]["undo"]["status"] == "done"
            else:
                assert owner.customer_id == steps["create-billing"]["output"]["customer_id"]
                assert len(steps) == 4


@pytest.mark.timeout(600 + RUNS)
@pytest.mark.acceptance("I6")
async def test_a_tenants_storm_keeps_nobody_waiting_twice_as_long_as_the_same_load_sent_by_all(stack: Stack) -> None:
    each = max(RUNS // 12, 4)
    together = each * len(OTHERS)
    limits = {"runs_in_decision": 8, "prefetch": 64}
    async with House(stack, sagas=(place_order,), contracts=(MODULE,), modules=(), limits=limits, hears=()) as house:
        numbers = iter(range(1_000_000))

        async def spell(*shares: tuple[str, int]) -> float:
            """So many events of each tenant, evenly mixed. The p95 in seconds from event to end of the others' runs."""
            sent: dict[str, datetime] = {}
            turns = sorted((place / many, tenant) for tenant, many in shares for place in range(many))
            for at in range(0, len(turns), 50):
                for tenant in {tenant for _, tenant in turns[at : at + 50]}:
                    some = [order(next(numbers)) for _, one in turns[at : at + 50] if one == tenant]
                    sent |= {data["order_id"]: datetime.now(UTC) for data in some if tenant in OTHERS}
                    await send(house, tenant, TRIGGER, MODULE.source, *some)

            async def ended() -> dict[str, datetime]:
                found = {}
                for tenant in OTHERS:
                    for run in await listed(house, tenant):
                        if run["ended_at"]:
                            found[run["trigger"]["id"].removeprefix(f"{TRIGGER}-")] = run["ended_at"]
                return {name: datetime.fromisoformat(at) for name, at in found.items() if name in sent}

            ends = await until(ended, lambda found: found.keys() == sent.keys(), seconds=PATIENCE_SECONDS)
            waited = sorted((ends[name] - at).total_seconds() for name, at in sent.items())
            return waited[int(len(waited) * 0.95)]

        total = 11 * together
        await spell(*((tenant, 1) for tenant in TENANTS))  # every tenant has its keys by then
        alike = await spell(*((tenant, total // len(TENANTS)) for tenant in TENANTS))
        storm = await spell((TENANT, 10 * together), *((tenant, each) for tenant in OTHERS))
        assert storm < 2 * alike
