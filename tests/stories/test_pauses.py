"""An operator stops one tenant, everybody, or the whole platform, and lets go again; nothing is lost meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from contracts.envelope import parse_time
from tests.stories.house import House, Record, Stack, until
from tests.stories.test_command_line import SIGN_UP, SIGNED_UP
from tests.stories.understudy import fact


async def explained(house: House, run: str) -> str:
    found: Record = await house.cli("runs", "explain", run)
    return str(found["sentence"])


async def audited(house: House, tenant: str, *topics: str) -> list[Any]:
    """The actor of each of these acts, in order, as soon as the last is there."""

    async def look() -> list[Record]:
        page = await house.api.get("/v1/audit", tenant=tenant, limit=100)
        return [entry for entry in reversed(page["items"]) if entry["topic"] in topics]

    found = await until(look, lambda entries: len(entries) >= len(topics))
    assert [entry["topic"] for entry in found] == list(topics)
    return [entry["actor"] for entry in found]


async def test_a_paused_tenant_stands_still_and_goes_on_where_it_stood(stack: Stack) -> None:
    async with House(stack) as house:
        await house.cli("pause", "acme", "--reason", "their provider is down")
        assert (await house.cli("pause", "acme"))["reason"] == "their provider is down"
        [held] = (await house.cli("pauses"))["items"]
        assert (held["tenant"], held["reason"]) == ("acme", "their provider is down")

        run = await house.register("acme")
        other = await house.register("globex")
        await house.until_status(other, "succeeded")
        assert (await house.until_status(run, "queued"))["business_state"] is None
        assert "paused its tenant" in await explained(house, run)
        assert "their provider is down" in await explained(house, run)

        assert (await house.cli("resume", "acme"))["changed"]
        assert not (await house.cli("resume", "acme"))["changed"]
        await house.until_status(run, "succeeded")
        assert len(set(await audited(house, "acme", "tenant.paused", "tenant.resumed"))) == 1


async def test_everybody_is_paused_by_the_platform_alone(stack: Stack) -> None:
    async with House(stack) as house:
        operator = await house.make_token("operator", "acme")
        refused = await house.refused("/v1/pauses", {"everyone": True}, token=operator)
        assert (refused["status"], refused["code"]) == (403, "forbidden")
        assert (await house.refused("/v1/pauses", {}, token=operator, act_for="globex"))["status"] == 404

        await house.cli("pause", "*", "--reason", "all hands")
        run = await house.register("acme")
        await house.until_status(run, "queued")
        await house.cli("resume", "*")
        await house.until_status(run, "succeeded")
        await audited(house, "platform", "tenant.paused", "tenant.resumed")


async def test_under_maintenance_nothing_is_taken_and_afterwards_everything_is(stack: Stack) -> None:
    async with House(stack) as house:
        await house.cli("maintenance", "begin", "--reason", "new disks")

        async def resting() -> Record:
            async with house.session.get(f"{house.url}/readyz") as answer:
                return dict(await answer.json())

        await until(resting, lambda ready: "maintenance" in ready["checks"])
        code, _, complaint = await house.cli_raw("runs", "start", "customer-onboarding", "--tenant", "acme")
        assert (code, orjson.loads(complaint)["code"]) == (7, "maintenance")

        # A module publishes as ever: its event waits in the broker.
        await house.ear.send(fact(SIGNED_UP, SIGN_UP, tenant="acme"))
        assert (await house.api.get("/v1/runs", tenant="acme"))["items"] == []
        assert (await house.cli("pauses"))["maintenance"]["reason"] == "new disks"

        released = datetime.now(UTC)
        assert (await house.cli("maintenance", "end"))["changed"]

        async def started() -> list[Record]:
            return list((await house.api.get("/v1/runs", tenant="acme"))["items"])

        [run] = await until(started, bool)
        assert parse_time(run["started_at"]) > released
        await house.until_status(run["run_id"], "waiting")
        await audited(house, "platform", "maintenance.begun", "maintenance.ended")
