"""What a person or a program does over HTTP and by command: start by webhook and by hand, order a command, read the
record of a run, rebuild a read model while the engine runs.
"""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from engine.guards.signatures import HUB_HEADER, sign_plain
from engine.plan.code import Run, saga
from scripts.reach import Api
from tests.stories.house import SIGNUP_SECRET, House, Record, Stack, until
from tests.stories.understudy import fact


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
        status, again = await _hook(house, "/hooks/acme/greet", body, **signature)
        assert (status, {**again, "as_of": ""}) == (200, {**begun, "duplicate": True, "as_of": ""})
        refused, problem = await _hook(house, "/hooks/acme/greet", body.replace(b"Ada", b"Eve"), **signature)
        assert (refused, problem["code"]) == (401, "unauthenticated")
        assert len((await house.api.get("/v1/runs", workflow="greeting"))["items"]) == 1


@pytest.mark.acceptance("A9", "G6")
async def test_a_run_started_by_command_and_by_http_leaves_the_same_record_with_its_user(stack: Stack) -> None:
    async with House(stack, sagas=await _sagas()) as house:
        by_http = await house.start("greeting", "acme", {"name": "bob"})
        begun = await house.cli("runs", "start", "greeting", "--tenant", "globex", "--input", '{"name": "bob"}')
        records = [await house.until_status(run, "succeeded") for run in (by_http, begun["run_id"])]
        assert {record["initiator"] for record in records} == {"first admin"}
        assert {record["trigger"]["kind"] for record in records} == {"manual"}
        assert _alike(records[0]) == _alike(records[1])
        steps = []
        for record in records:
            [step] = (await house.steps(record["run_id"])).values()
            assert step["status"] == "succeeded"
            assert step["input"]["email"] == "[redacted]"
            assert step["duration_seconds"] > 0
            steps.append(_alike(step))
            topics = [entry["topic"] for entry in await house.timeline(record["run_id"])]
            assert topics == ["run.started", "step.scheduled", "step.succeeded", "run.ended"]
        assert steps[0] == steps[1]

        # Whoever presses the button is who the record names.
        operator = Api(house.session, house.url, await house.make_token("operator", "acme"))
        pressed = await operator.post("/v1/workflows/greeting/runs", {"input": {"name": "cy"}})
        record = await house.until_status(pressed["run_id"], "succeeded")
        assert record["initiator"] == "operator of acme"
        assert _alike(record).keys() == _alike(records[0]).keys()


OF_ITS_OWN = frozenset({
    "run_id", "tenant", "as_of", "key", "correlation_id", "causation_id", "position", "number", "hash", "stream",
    "version", "output", "started_at", "ended_at", "updated_at", "recorded_at", "at", "duration_seconds", "attempts",
    "trigger",
})  # fmt: skip
"""What no two records share: names, places and times."""


def _alike(record: Record) -> Record:
    return {name: value for name, value in record.items() if name not in OF_ITS_OWN}


@pytest.mark.acceptance("D3")
async def test_a_command_leaves_the_same_audit_from_a_direct_call_and_from_a_workflow(stack: Stack) -> None:
    async with House(stack, sagas=await _sagas()) as house:
        direct = await house.order("acme", "identity.CreateUserV1", email="a@example.org", name="A")
        within = await house.start("greeting", "acme", {"name": "bea"})
        runs = {"direct-command": direct, "greeting": await house.until_status(within, "succeeded")}
        told: dict[str, Record] = {}
        for workflow, run in runs.items():
            query = {"tenant": "acme", "run_id": run["run_id"], "as_of": run["as_of"]}
            [entry] = (await house.api.get("/v1/audit", topic="step.scheduled", **query))["items"]
            # What the order is part of differs, and nothing else.
            assert entry["details"].pop("workflow") == workflow
            assert entry["details"].pop("key") == f"{run['run_id']}/{entry['details'].pop('step')}/1"
            assert entry["details"].pop("correlation_id") == run["correlation_id"]
            told[workflow] = {name: value for name, value in entry.items() if name not in OF_ITS_OWN}
            topics = [one["topic"] for one in (await house.api.get("/v1/audit", **query))["items"]]
            assert topics == ["run.ended", "step.scheduled", "run.started"]
        assert told["direct-command"] == told["greeting"]
        assert (told["greeting"]["actor"], told["greeting"]["topic"]) == ("first admin", "step.scheduled")
        assert told["greeting"]["details"]["action"] == "identity.create_user"
        first, second = house.ear.commands("identity.CreateUserV1", tenant="acme")
        assert first.data.keys() == second.data.keys()

        # One door: whoever may not order it may not have a saga order it either, and nothing of it is sent.
        viewer = await house.make_token("viewer", "acme")
        order = {"type": "identity.CreateUserV1", "data": {"email": "c@example.org", "name": "C"}}
        for path, body in (("/v1/commands", order), ("/v1/workflows/greeting/runs", {"input": {"name": "cy"}})):
            problem = await house.refused(path, body, token=viewer)
            assert (problem["status"], problem["code"]) == (403, "forbidden"), path
        await house.order("acme", "identity.CreateUserV1", email="d@example.org", name="D")
        assert len(house.ear.commands("identity.CreateUserV1", tenant="acme")) == 3


@pytest.mark.acceptance("L9")
async def test_read_models_are_rebuilt_while_the_engine_runs_and_come_out_the_same(stack: Stack) -> None:
    async with House(stack, sagas=await _sagas()) as house:
        runs = [await house.start("greeting", "acme", {"name": f"user{n}"}) for n in range(5)]
        before = [await house.until_status(run, "succeeded") for run in runs]
        rebuilt = await house.cli("rebuild")
        assert {one["view"]: one["equal"] for one in rebuilt} == dict.fromkeys(
            ("history", "usage", "audit", "stats", "approvals"), True
        )
        verified = await house.cli("projections", "verify", "history")
        assert [(one["equal"], one["switched"], one["differences"]) for one in verified] == [(True, False, [])]
        listed = {one["view"]: one for one in await house.cli("projections", "list")}
        assert listed["history"]["verified"]["rebuilt"] is False
        assert listed["audit"]["verified"]["rebuilt"] is True
        assert listed["history"]["rows"]["history_runs"] == 5
        late = await house.start("greeting", "acme", {"name": "late"})
        last = await house.until_status(late, "succeeded")
        for record in before:
            again = await house.run(record["run_id"])
            assert again is not None
            assert {**again, "as_of": ""} == {**record, "as_of": ""}
        [usage] = (await house.api.get("/v1/usage", tenant="acme", as_of=last["as_of"]))["items"]
        assert (usage["total_runs"], usage["open_runs"]) == (6, 0)
        verdict = await house.api.get("/v1/audit/verify", tenant="acme", against_log=True, as_of=last["as_of"])
        assert (verdict["holds"], verdict["broken"]) == (True, None)


@pytest.mark.acceptance("L9")
async def test_copies_of_everything_change_no_read_model_and_it_is_rebuilt_to_the_same(stack: Stack) -> None:
    async with House(stack) as house:
        run = await house.sign_up("acme")
        waiting = await house.until_status(run, "waiting")
        before = await _shown(house, waiting)
        for message in list(house.ear.messages):
            await house.ear.send_raw(message.routing_key, message.body, exchange=message.exchange, copies=5)
        # It stands behind the copies in every queue: when its run has come as far, they have been taken.
        data = {"signup_id": "s-2", "email": "ann@customer.example", "name": "Ann"}
        await house.ear.send(fact("crm.SignupRequestedV1", data, tenant="globex"))
        page = await until(lambda: house.api.get("/v1/runs", tenant="globex"), lambda found: found["items"])
        behind = await house.until_status(page["items"][0]["run_id"], "waiting")
        assert await _shown(house, {**waiting, "as_of": behind["as_of"]}) == before
        assert {one["view"]: one["equal"] for one in await house.cli("rebuild")} == dict.fromkeys(
            ("history", "usage", "audit", "stats", "approvals"), True
        )
        assert await _shown(house, {**waiting, "as_of": behind["as_of"]}) == before


async def _shown(house: House, run: Record) -> list[Any]:
    """All that the read models hold about the run's tenant."""
    query = {"tenant": run["tenant"], "as_of": run["as_of"]}
    path = f"/v1/runs/{run['run_id']}"
    paths = ("/v1/runs", path, f"{path}/steps", f"{path}/timeline", "/v1/usage", "/v1/audit", "/v1/audit/head")
    pages = [await house.api.get(one, **query) for one in (*paths, "/v1/stats")]
    return [{name: value for name, value in page.items() if name != "as_of"} for page in pages]
