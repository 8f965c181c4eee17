"""A run does what whoever triggered it might do then: the permissions are captured once, shown, and used to its end and
by whatever follows it."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.reach import Api
from tests.stories.house import House, Record, Stack, until
from tests.stories.workshop import refund, refunds

HOUSE: dict[str, Any] = {"sagas": (refunds,), "local_actions": (refund,)}


async def begun(house: House, token: str, tenant: str = "acme") -> str:
    """A run of the saga, started with this token and waiting for the approval."""
    api = Api(house.session, house.url, token)
    run = str((await api.post("/v1/workflows/refunds/runs", {"input": {}}))["run_id"])
    await house.until_status(run, "waiting")
    return run


async def approve(house: House, run: str, token: str | None = None) -> None:
    api = Api(house.session, house.url, token or house.token)
    await api.post(f"/v1/runs/{run}/approvals/say", {"approved": True})


@pytest.mark.acceptance("J8")
async def test_a_run_keeps_the_permissions_it_was_triggered_with_and_the_next_one_is_refused(stack: Stack) -> None:
    async with House(stack, **HOUSE) as house:
        made = await house.cli("tokens", "create", "ann", "--role", "admin", "--tenant", "acme")
        run = await begun(house, made["token"])
        shown = (await house.cli("runs", "show", run))["permissions"]
        assert {"audit.read", "action.http", "runs.start"} <= set(shown["held"])
        assert shown["hash"] == (await house.api.get(f"/v1/runs/{run}"))["trigger"]["permissions"]
        await house.cli("tokens", "revoke", made["prefix"])
        await house.restart()
        await approve(house, run)
        ended = await house.until_status(run, "succeeded")
        assert ended["output"] == {"refunded": 5}
        refused = await house.refused("/v1/workflows/refunds/runs", {"input": {}}, token=made["token"])
        assert refused["status"] == 401
        # Whoever runs it once more, the run does what the first one might.
        again = await house.cli("rerun", run, "--tenant", "acme")
        followed = await house.until_run(again["run_id"], lambda one: one["ended_at"] is not None)
        assert followed["permissions"] == ended["permissions"]


@pytest.mark.acceptance("J8")
async def test_what_the_owner_lacked_is_refused_by_name_and_no_retry_helps(stack: Stack) -> None:
    async with House(stack, **HOUSE) as house:
        run = await begun(house, await house.make_token("operator", "acme"))
        await approve(house, run)
        failed = await house.until_run(run, lambda one: one["ended_at"] is not None)
        assert failed["status"] in ("failed", "compensated")
        steps = (await house.cli("runs", "show", run))["steps"]
        [step] = [one for one in steps if one["step"] == "refund"]
        assert step["error"]["code"] == "forbidden"
        assert "audit.read" in step["error"]["message"]
        assert len(step["attempts"]) == 1
        assert "audit.read" not in failed["permissions"]["held"]


@pytest.mark.acceptance("J8")
async def test_a_run_that_a_fact_started_does_what_its_workflow_does(stack: Stack) -> None:
    async with House(stack, **HOUSE) as house:
        data = {"signup_id": "s-1", "email": "eve@example.org", "name": "Eve"}
        event = {"type": "crm.SignupRequestedV1", "data": data}
        await house.api.post("/v1/events", event, tenant="acme")

        async def listed() -> list[Record]:
            return list((await house.api.get("/v1/runs", tenant="acme"))["items"])

        [started] = await until(listed, bool)
        run = str(started["run_id"])
        await house.until_status(run, "waiting")
        await approve(house, run)
        ended = await house.until_status(run, "succeeded")
        assert ended["permissions"] is None


@pytest.mark.acceptance("J9")
@pytest.mark.acceptance("J10")
async def test_a_policy_forbids_to_decide_on_a_run_of_ones_own_and_is_audited(stack: Stack) -> None:
    async with House(stack, **HOUSE) as house:
        ann = await house.cli("tokens", "create", "ann", "--role", "operator", "--role", "approver", "--tenant", "acme")
        bob = await house.make_token("approver", "acme")
        operator = await house.refused("/v1/policies", {"approvals_own": "forbid"}, token=ann["token"])
        assert (operator["status"], "policies.write" in operator["detail"]) == (403, True)
        assert (await house.cli("policies", "show", "--tenant", "acme"))["approvals_own"] == "allow"
        told = await house.cli("policies", "set", "--approvals-own", "forbid", "--tenant", "acme")
        assert told == {"tenant": "acme", "approvals_own": "forbid"}
        run = await begun(house, ann["token"])
        path = f"/v1/runs/{run}/approvals/say"
        refused = await house.refused(path, {"approved": True}, token=ann["token"])
        assert (refused["status"], "of one's own" in refused["detail"]) == (403, True)
        await approve(house, run, bob)
        await house.until_run(run, lambda one: one["ended_at"] is not None)

        async def entries() -> list[Record]:
            return list((await house.api.get("/v1/audit", tenant="acme", topic="policy.changed"))["items"])

        [entry] = await until(entries, bool)
        assert (entry["actor"], entry["details"]["approvals_own"]) == ("first admin", "forbid")
        code, _, complaint = await house.cli_raw("policies", "set", "--approvals-own", "never", "--tenant", "acme")
        assert (code, "approvals_own" in complaint) == (2, True)
