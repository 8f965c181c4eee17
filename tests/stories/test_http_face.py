"""What a person or a program does over HTTP and by command: start by webhook and by hand, order a command, read the
record of a run, rebuild a read model while the engine runs.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from engine.guards.signatures import HUB_HEADER, sign_plain
from engine.plan.code import Run, saga
from tests.stories.house import SIGNUP_SECRET, House, Stack


@saga("greeting", version=1, hook="/greet", attributes={"name": "/name"})
async def greeting(run: Run, event: dict[str, Any]) -> dict[str, Any]:
    user = await run.step("user", "identity.create_user", email=f"{event['name']}@example.org", name=event["name"])
    return {"greeting": f"hello {event['name']}", "user_id": user["user_id"]}


async def _sagas() -> list[Any]:
    from engine.sagas import SHIPPED

    return [greeting, *SHIPPED]


async def _hook(house: House, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    async with house.session.post(house.url + path, data=body, headers=headers) as answer:
        return answer.status, orjson.loads(await answer.read())


@pytest.mark.acceptance("A8")
async def test_a_posted_body_reaches_the_python_run_and_its_output_is_answered(stack: Stack) -> None:
    async with House(stack, sagas=await _sagas()) as house:
        body = b'{"name": "Ada"}'
        signature = {HUB_HEADER: sign_plain(body, SIGNUP_SECRET)}
        status, begun = await _hook(house, "/hooks/acme/greet", body, **signature)
        assert (status, begun["duplicate"]) == (202, False)
        run = await house.until_status(begun["run_id"], "succeeded")
        assert run["output"]["greeting"] == "hello Ada"
        assert (run["trigger"]["kind"], run["data"]) == ("hook", {"name": "Ada"})
        assert await _hook(house, "/hooks/acme/greet", body, **signature) == (
            200,
            {
                **begun,
                "duplicate": True,
                "as_of": (await _hook(house, "/hooks/acme/greet", body, **signature))[1]["as_of"],
            },
        )
        refused, problem = await _hook(house, "/hooks/acme/greet", body.replace(b"Ada", b"Eve"), **signature)
        assert (refused, problem["code"]) == (401, "unauthenticated")
        assert len((await house.api.get("/v1/runs", workflow="greeting"))["items"]) == 1


@pytest.mark.acceptance("A9", "G6")
async def test_a_run_started_by_command_and_by_http_leaves_the_same_record_with_its_user(stack: Stack) -> None:
    async with House(stack, sagas=await _sagas()) as house:
        by_http = await house.start("greeting", "acme", {"name": "bob"})
        begun = await house.cli("runs", "start", "greeting", "--tenant", "acme", "--input", '{"name": "bob2"}')
        records = [await house.until_status(run, "succeeded") for run in (by_http, begun["run_id"])]
        assert {record["initiator"] for record in records} == {"first admin"}
        assert {record["trigger"]["kind"] for record in records} == {"manual"}
        assert set(records[0]) == set(records[1])
        for record in records:
            [step] = (await house.api.get(f"/v1/runs/{record['run_id']}/steps"))["items"]
            assert step["status"] == "succeeded"
            assert step["input"]["email"] == "[redacted]"
            assert step["duration_seconds"] > 0
            topics = [entry["topic"] for entry in await house.timeline(record["run_id"])]
            assert topics == ["run.started", "step.scheduled", "step.succeeded", "run.ended"]


@pytest.mark.acceptance("D3")
async def test_a_command_leaves_the_same_audit_from_a_direct_call_and_from_a_workflow(stack: Stack) -> None:
    async with House(stack, sagas=await _sagas()) as house:
        direct = (await house.order("acme", "identity.CreateUserV1", email="a@example.org", name="A"))["run_id"]
        within = await house.start("greeting", "acme", {"name": "bea"})
        await house.until_status(within, "succeeded")
        told = []
        for run in (direct, within):
            page = await house.api.get("/v1/audit", tenant="acme", run_id=run, topic="step.scheduled")
            [entry] = page["items"]
            kept = {"action", "kind"}
            told.append((entry["actor"], entry["topic"], {k: v for k, v in entry["details"].items() if k in kept}))
        assert told[0] == told[1]
        assert told[0] == ("first admin", "step.scheduled", {"action": "identity.create_user", "kind": "command"})


@pytest.mark.acceptance("L9")
async def test_read_models_are_rebuilt_while_the_engine_runs_and_come_out_the_same(stack: Stack) -> None:
    async with House(stack, sagas=await _sagas()) as house:
        runs = [await house.start("greeting", "acme", {"name": f"user{n}"}) for n in range(5)]
        before = [await house.until_status(run, "succeeded") for run in runs]
        rebuilt = await house.cli("rebuild")
        assert {one["view"]: one["equal"] for one in rebuilt} == dict.fromkeys(
            ("history", "usage", "audit", "stats", "approvals"), True
        )
        late = await house.start("greeting", "acme", {"name": "late"})
        await house.until_status(late, "succeeded")
        for record in before:
            again = await house.run(record["run_id"])
            assert again is not None
            assert {**again, "as_of": ""} == {**record, "as_of": ""}
        [usage] = (await house.api.get("/v1/usage", tenant="acme"))["items"]
        assert (usage["total_runs"], usage["open_runs"]) == (6, 0)
        verdict = await house.api.get("/v1/audit/verify", tenant="acme", against_log=True)
        assert (verdict["holds"], verdict["broken"]) == (True, None)
