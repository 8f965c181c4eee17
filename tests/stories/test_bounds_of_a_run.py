"""What bounds a single run: at the limit it passes, one more stops."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from engine.guards.quotas import BREACHED
from engine.plan.code import Run, saga
from scripts.bench.workload import HELD, MODULE, hold_order
from tests.stories.house import House, MovableClock, Record, Stack, until
from tests.stories.test_crowds import listed, send
from tests.stories.test_pauses import audited


@saga("asking", version=1)
async def asking(run: Run, data: dict[str, Any]) -> int:
    for _ in range(data["times"]):
        await run.uuid()
    return int(data["times"])


@saga("nesting", version=1)
async def nesting(run: Run, data: dict[str, Any]) -> int:
    below = await run.child("inner", "nesting", {"below": data["below"] - 1}) if data["below"] else 0
    return int(below) + 1


@saga("resting", version=1, timeout_seconds=86_400)
async def resting(run: Run, data: dict[str, Any]) -> None:
    await run.sleep("rest", data["seconds"])


SAGAS = (asking, nesting, resting, hold_order)


async def why(house: House, run: str) -> Record:
    """The error of which a run was unwound."""
    [error] = [one["event"]["error"] for one in await house.timeline(run) if one["topic"] == "compensation.started"]
    return dict(error)


async def said(house: House, many: int) -> list[tuple[str, int]]:
    """The full quotas that the audit tells of, with what they were; as soon as there are so many."""
    await audited(house, "acme", *["quota.breached"] * many)
    found = (await house.api.get("/v1/audit", tenant="acme", limit=100))["items"]
    return [(one["details"]["cap"], one["details"]["limit"]) for one in found if one["topic"] == "quota.breached"]


async def agrees(house: House, run: str) -> None:
    """Today's code decides the run as it was decided."""
    assert (await house.cli("replay", run))["same"]


@pytest.mark.acceptance("I3")
async def test_a_run_asks_for_as_many_operations_as_the_quota_says(stack: Stack) -> None:
    async with House(stack, sagas=SAGAS, contracts=(MODULE,), hears=()) as house:
        await house.cli("quotas", "set", "acme", "steps=3")
        fits = await house.start("asking", "acme", {"times": 3})
        await house.until_status(fits, "succeeded")
        more = await house.start("asking", "acme", {"times": 4})
        await house.until_status(more, "failed")
        error = await why(house, more)
        assert (error["code"], "quota steps of the tenant is 3" in error["message"]) == ("quota_exceeded", True)

        # What bounds a run is what held when it began.
        await house.cli("quotas", "set", "acme", "steps=4")
        await house.until_status(await house.start("asking", "acme", {"times": 4}), "succeeded")
        for run in (fits, more):
            await agrees(house, run)
        assert await said(house, 1) == [("steps", 3)]
        other = await house.start("asking", "globex", {"times": 40})
        await house.until_status(other, "succeeded")


@pytest.mark.acceptance("I3")
async def test_children_nest_as_deep_as_the_quota_says(stack: Stack) -> None:
    async with House(stack, sagas=SAGAS, contracts=(MODULE,), hears=()) as house:
        await house.cli("quotas", "set", "acme", "depth=2")
        fits = await house.start("nesting", "acme", {"below": 2})
        assert (await house.until_status(fits, "succeeded"))["output"] == 3
        more = await house.start("nesting", "acme", {"below": 3})
        await house.until_status(more, "failed")
        assert (await why(house, more))["code"] == "quota_exceeded"
        runs = await until(lambda: listed(house, "acme"), lambda found: all(run["ended_at"] for run in found))
        assert len(runs) == 6
        errors = [await why(house, run["run_id"]) for run in runs if run["status"] == "failed"]
        assert len(errors) == 3
        assert "quota depth of the tenant is 2" in str(errors)
        assert await said(house, 1) == [("depth", 2)]
        for run in runs:
            await agrees(house, run["run_id"])


@pytest.mark.acceptance("I3")
async def test_a_run_takes_as_long_as_the_quota_says(stack: Stack) -> None:
    clock = MovableClock()
    async with House(stack, sagas=SAGAS, contracts=(MODULE,), clock=clock, hears=()) as house:
        await house.cli("quotas", "set", "acme", "run_seconds=3600")
        fits = await house.start("resting", "acme", {"seconds": 3000})
        more = await house.start("resting", "acme", {"seconds": 4200})
        for run in (fits, more):
            await house.until_status(run, "waiting")
        clock.forward(seconds=3100)
        await house.until_status(fits, "succeeded")
        await house.until_status(more, "waiting")
        clock.forward(seconds=600)
        await house.until_status(more, "timed_out")
        assert (await why(house, more))["code"] == "run_timed_out"
        assert await said(house, 1) == [("run_seconds", 3600)]
        await agrees(house, more)


@pytest.mark.acceptance("I3", "I5")
async def test_a_run_is_started_with_as_much_as_the_quota_says(stack: Stack) -> None:
    async with House(stack, sagas=SAGAS, contracts=(MODULE,), hears=("events",)) as house:

        def padded(size: int) -> Record:
            fixed = len(orjson.dumps({"times": 1, "text": ""}))
            return {"times": 1, "text": "x" * (size - fixed)}

        await house.cli("quotas", "set", "acme", "payload_bytes=100")
        fits = await house.start("asking", "acme", padded(100))
        await house.until_status(fits, "succeeded")
        refused = await house.refused("/v1/workflows/asking/runs", {"input": padded(101)}, tenant="acme")
        assert (refused["status"], refused["code"], refused["field"]) == (413, "quota_exceeded", "input")
        assert (refused["cap"], refused["limit"]) == ("payload_bytes", 100)
        words = ("runs", "start", "asking", "--tenant", "acme", "--input", orjson.dumps(padded(101)).decode())
        code, _, told = await house.cli_raw(*words)
        assert (code, "payload_bytes of the tenant is 100" in told) == (2, True)

        def order(size: int) -> Record:
            fixed = len(orjson.dumps({"order_id": "", "seconds": 30.0}))
            return {"order_id": "o" * (size - fixed), "seconds": 30.0}

        await send(house, "acme", HELD, MODULE.source, order(100), order(101))
        letter = await house.until_letter(reason="quota_exceeded")
        assert "data has 101 bytes" in letter["detail"]
        await until(
            lambda: listed(house, "acme"),
            lambda runs: [run["status"] for run in runs if run["workflow"] == hold_order.name] == ["waiting"],
        )

        # Met three times, by two doors, it is said once.
        [notice] = await house.until_heard(BREACHED)
        data = dict(notice.data)
        hour = data.pop("window")
        assert data == {"tenant": "acme", "cap": "payload_bytes", "value": 101, "limit": 100, "workflow": None}
        assert hour in {f"{at:%Y-%m-%dT%H}" for at in (notice.time, datetime.now(UTC))}
        assert await said(house, 1) == [("payload_bytes", 100)]

        # It is kept whole, and begins once there is room.
        await house.cli("quotas", "set", "acme", "payload_bytes=101")
        await house.cli("deadletters", "redrive", letter["id"])
        await until(
            lambda: listed(house, "acme"),
            lambda runs: len([run for run in runs if run["workflow"] == hold_order.name]) == 2,
        )
