"""What the API does when it is asked properly: start, publish, read, page, wait, repair."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import orjson
import pytest

from contracts import run_events as ev
from contracts.sdk.transport import EVENTS_EXCHANGE, Binding, Queue, Topology
from tests.histories.record import happy
from tests.projections import histories
from tests.projections.histories import SHAPES, record
from tests.web.conftest import Site

SIGNUP = {"email": "ada@example.org", "name": "Ada", "plan": "basic"}


async def _json(response: Any, status: int = 200) -> Any:
    assert response.status == status, await response.text()
    return await response.json()


@pytest.mark.acceptance("A9")
async def test_a_start_by_hand_is_recorded_with_its_user_and_answered_with_the_original_for_a_known_key(
    town: Site,
) -> None:
    path = "/v1/workflows/customer-onboarding/runs"
    key = {"Idempotency-Key": "monday"}
    first = await town.post(path, {"input": SIGNUP}, headers=key)
    begun = await _json(first, 202)
    assert first.headers["Location"] == f"/v1/runs/{begun['run_id']}"
    again = await _json(await town.post(path, {"input": SIGNUP}, headers=key))
    assert (again["run_id"], again["duplicate"], begun["duplicate"]) == (begun["run_id"], True, False)
    other = await town.post(path, {"input": SIGNUP | {"plan": "enterprise"}}, headers=key)
    assert (await _json(other, 409))["code"] == "conflict"
    [row] = await town.store.claim_inputs(town.epoch, limit=10)
    assert (row.kind, str(row.run_id)) == ("start", begun["run_id"])
    from engine.store.mapper import open_input

    keys = await town.vault.ready("acme", [row.body or b""])
    envelope = orjson.loads(open_input(keys, row))  # type: ignore[arg-type]
    assert (envelope["data"]["initiator"], envelope["data"]["input"]) == ("admin of acme", SIGNUP)


async def test_an_unknown_workflow_is_a_404_that_names_those_that_exist(town: Site) -> None:
    problem = await _json(await town.post("/v1/workflows/nothing/runs", {"input": {}}), 404)
    assert "customer-onboarding" in problem["detail"]


async def test_a_published_event_reaches_the_bus_whole(town: Site) -> None:
    await town.transport.declare(
        Topology(
            queues=(Queue(name="probe"),), bindings=(Binding(queue="probe", exchange=EVENTS_EXCHANGE, key="crm.#"),)
        )
    )
    heard: asyncio.Queue[Any] = asyncio.Queue()
    consumer = await town.transport.consume("probe", heard.put_nowait, prefetch=10)
    body = {
        "type": "crm.SignupRequestedV1",
        "data": {"signup_id": "s1", "email": "a@b.c", "name": "A"},
        "subject": "s1",
    }
    told = await _json(await town.post("/v1/events", body, headers={"Idempotency-Key": "e-77"}), 202)
    assert (told["id"], told["source"], told["tenant"]) == ("e-77", "/modules/crm", "acme")
    async with asyncio.timeout(10):
        envelope = orjson.loads((await heard.get()).body)
    assert (envelope["id"], envelope["tenantid"], envelope["subject"]) == ("e-77", "acme", "s1")
    assert envelope["data"]["email"] == "a@b.c"
    await consumer.stop()


MISFITS: list[tuple[Any, int, str]] = [
    ({"type": "crm.NothingV1", "data": {}}, 400, "contract_unknown"),
    ({"type": "crm.SignupRequestedV1", "data": {"email": 5}}, 422, "payload_invalid"),
    ({"type": "not a type", "data": {}}, 400, "envelope_invalid"),
    ({"data": {}}, 422, "payload_invalid"),
    ({"type": "crm.SignupRequestedV1", "data": {}, "surprise": 1}, 422, "payload_invalid"),
    ({"type": "crm.SignupRequestedV1", "source": "/modules/billing", "data": {}}, 400, "envelope_invalid"),
    ({"type": "crm.SignupRequestedV1", "tenantid": "globex", "data": {}}, 404, "not_found"),
]


async def test_an_event_that_does_not_fit_is_refused_by_name(town: Site) -> None:
    for body, status, code in MISFITS:
        response = await town.post("/v1/events", body)
        assert response.content_type == "application/problem+json"
        problem = await _json(response, status)
        assert problem["code"] == code
        assert problem["detail"]


@pytest.mark.acceptance("G6")
async def test_a_run_is_read_with_its_timeline_and_steps(town: Site) -> None:
    run_id = town.runs["acme"][SHAPES.index(histories.unwound)]
    run = await _json(await town.get(f"/v1/runs/{run_id}"))
    assert (run["status"], run["error"]["code"], run["undone"]) == ("compensated", "declined", 1)
    assert run["trigger"]["kind"] == "manual"
    assert run["data"] == {"plan": "pro", "email": "[redacted]"}
    timeline = await _json(await town.get(f"/v1/runs/{run_id}/timeline"))
    assert [entry["topic"] for entry in timeline["items"]] == [event.TOPIC for event in histories.unwound()]
    steps = (await _json(await town.get(f"/v1/runs/{run_id}/steps")))["items"]
    assert [(step["action"], step["status"]) for step in steps] == [
        ("billing.charge", "succeeded"),
        ("billing.ship", "failed"),
    ]
    assert steps[0]["undo"]["status"] == "done"
    assert steps[1]["error"]["stack"] == ["charge.py:3 charge"]


async def test_runs_are_filtered_and_paged_with_a_cursor(town: Site) -> None:
    everything = (await _json(await town.get("/v1/runs", limit=200)))["items"]
    seen: list[str] = []
    cursor = ""
    while True:
        page = await _json(await town.get("/v1/runs", limit=4, cursor=cursor))
        seen += [run["run_id"] for run in page["items"]]
        if page["next"] is None:
            break
        cursor = page["next"]
    assert seen == [run["run_id"] for run in everything]
    found = await _json(await town.get("/v1/runs", attribute="email:ada@example.org", status="compensated,cancelled"))
    assert {run["status"] for run in found["items"]} == {"compensated", "cancelled"}
    assert (await _json(await town.get("/v1/runs", correlation_id="no such story")))["items"] == []
    assert (await _json(await town.get("/v1/runs", trace_id="a" * 32)))["items"] == []
    assert (await _json(await town.get("/v1/runs", trace_id="A" * 32), 400))["field"] == "trace_id"


async def test_whoever_waits_for_a_position_reads_what_was_written_before(town: Site) -> None:
    run_id = await record(town.store, town.vault, "acme", histories.straight(), epoch=town.epoch)
    head = f"0-{await town.store.head(0)}"
    await town.projector.start()
    response = await town.get(f"/v1/runs/{run_id}", as_of=head)
    await town.projector.stop()
    assert (await _json(response))["status"] == "succeeded"
    assert response.headers["Unwind-As-Of"] == head
    assert (await _json(await town.get(f"/v1/runs/{run_id}", wait_for_position=head)))["status"] == "succeeded"
    for field in ("as_of", "wait_for_position"):
        bad = await _json(await town.get("/v1/runs", **{field: "soon"}), 422)
        assert bad["field"] == field


async def test_a_view_that_does_not_come_so_far_in_time_says_so_and_when_to_ask_again(
    town: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.web.dispatch.VIEW_SECONDS", 0.05)
    await record(town.store, town.vault, "acme", histories.straight(), epoch=town.epoch)
    head = f"0-{await town.store.head(0)}"
    behind = await town.get("/v1/runs", wait_for_position=head)
    assert behind.headers["Retry-After"] == "1"
    told = await _json(behind, 503)
    assert (told["code"], told["field"]) == ("view_behind", "wait_for_position")
    await town.projector.catch_up()
    assert (await _json(await town.get("/v1/runs", wait_for_position=head)))["items"]


async def test_explain_says_why_a_run_stands_still(town: Site) -> None:
    run_id = await record(town.store, town.vault, "acme", histories.parked()[:4], epoch=town.epoch)
    said = await _json(await town.get(f"/v1/runs/{run_id}/explain"))
    assert said["status"] == "parked"
    assert "card declined" in said["sentence"]


@pytest.mark.acceptance("G7")
async def test_a_run_of_long_ago_is_decided_again_and_what_would_be_another_is_shown_redacted(town: Site) -> None:
    log = list(happy().events)
    before = await town.store.head(0)
    run_id = await record(town.store, town.vault, "acme", log, epoch=town.epoch)
    told = await _json(await town.get(f"/v1/runs/{run_id}/replay"))
    assert told["same"]
    assert told["difference"] is None
    assert (told["recorded"], told["events"]) == (len(log), len(log))
    assert told["decisions"] > 5
    assert await town.store.head(0) == before + len(log) + 1, (
        "a replay records who asked for it, and nothing of the run"
    )
    await town.projector.catch_up()
    [entry] = (await _json(await town.get("/v1/audit", topic="run.replayed")))["items"]
    assert (entry["kind"], entry["details"]) == ("tenant", {"run_id": str(run_id), "same": True})
    assert entry["actor"]
    assert await town.store.claim_outbox(town.epoch, limit=10) == []

    place = next(n for n, event in enumerate(log) if isinstance(event, ev.StepScheduled) and n > 1)
    log[place] = replace(log[place], input_hash="another")  # type: ignore[call-arg]
    run_id = await record(town.store, town.vault, "acme", log, epoch=town.epoch)
    told = await _json(await town.get(f"/v1/runs/{run_id}/replay"))
    assert not told["same"]
    difference = told["difference"]
    assert told["events"] + 1 == difference["version"] <= place + 1
    was, now = (difference[side][place + 1 - difference["version"]] for side in ("recorded", "derived"))
    assert was["topic"] == now["topic"] == "step.scheduled"
    assert was["event"] == now["event"] | {"input_hash": "another"}
    assert "ann@example.org" not in orjson.dumps(told).decode()


async def test_a_run_whose_version_is_not_installed_cannot_be_decided_again(town: Site) -> None:
    problem = await _json(await town.get(f"/v1/runs/{town.runs['acme'][0]}/replay"), 409)
    assert (problem["code"], problem["field"]) == ("conflict", "workflow_version")
    assert "install" in problem["detail"]


async def test_an_operator_repairs_a_parked_run_and_only_a_parked_one(town: Site) -> None:
    run_id = await record(town.store, town.vault, "acme", histories.parked()[:4], epoch=town.epoch)
    ended = town.runs["acme"][0]
    for verb, body in (
        ("retry", {"step": "charge"}),
        ("cancel", {"reason": "typo"}),
        ("abandon", {}),
        ("terminate", {}),
    ):
        assert (await _json(await town.post(f"/v1/runs/{run_id}/{verb}", body), 202))["accepted"]
        problem = await _json(await town.post(f"/v1/runs/{ended}/{verb}", body), 409)
        assert problem["code"] == "conflict"
    assert (
        await town.post(f"/v1/runs/{run_id}/skip", {"step": "charge", "output": {}, "reason": "cash"})
    ).status == 202
    notes = [row for row in await town.store.claim_inputs(town.epoch, limit=20) if row.kind == "note"]
    assert len(notes) == 5


async def test_the_platforms_operator_need_not_name_the_runs_tenant(town: Site) -> None:
    run_id = await record(town.store, town.vault, "globex", histories.parked()[:4], epoch=town.epoch)
    await town.projector.catch_up()
    assert (await town.post(f"/v1/runs/{run_id}/retry", {}, tenant=None, role="operator")).status == 202


async def test_a_bulk_is_recorded_by_who_may_say_its_word_and_without_personal_values(town: Site) -> None:
    looked_for = {
        "status": "parked",
        "attribute": "email:ada@example.org",
        "started_after": "2030-01-01T02:00:00+02:00",
    }
    asked = {"word": "retry", "filter": looked_for, "found": 2, "reason": "provider is back"}
    assert (await town.post("/v1/bulks", asked, role="viewer")).status == 403
    begun = await _json(await town.post("/v1/bulks", asked, role="operator"), status=201)
    path = f"/v1/bulks/{begun['bulk_id']}"
    addressed = {"word": "retry", "ids": [str(run) for run in town.runs["acme"][:2]]}
    assert (await town.post(f"{path}/addressed", addressed, role="viewer")).status == 403
    assert (await town.post(f"{path}/addressed", {**addressed, "ids": []}, role="operator")).status == 422
    assert (await town.post(f"{path}/addressed", addressed, tenant=None)).status == 422
    await _json(await town.post(f"{path}/addressed", addressed, role="operator"))
    did = {"told": 1, "known": 0, "refused": 1, "failed": 0, "how": "finished"}
    ended = {"word": "retry", "filter": looked_for, "found": 2, **did}
    assert (await town.post(f"{path}/ended", ended, role="viewer")).status == 403
    await _json(await town.post(f"{path}/ended", ended, role="operator"))

    await town.projector.catch_up()
    entries = (await _json(await town.get("/v1/audit", limit=3)))["items"][::-1]
    assert [entry["topic"] for entry in entries] == ["bulk.begun", "bulk.addressed", "bulk.ended"]
    assert {entry["actor"] for entry in entries} == {"operator of acme"}
    whole = {
        "bulk": begun["bulk_id"],
        "word": "retry",
        "filter": {"status": "parked", "attribute": "email", "started_after": "2030-01-01T00:00:00.000000Z"},
        "found": 2,
    }
    assert [entry["details"] for entry in entries] == [
        {**whole, "reason": "provider is back"},
        {"bulk": begun["bulk_id"], **addressed},
        {**whole, **did},
    ]
    letters = {"word": "redrive", "filter": {"letter_type": "crm.SignupRequestedV1"}, "found": 2}
    await _json(await town.post("/v1/bulks", letters, tenant=None), status=201)
    await town.projector.catch_up()
    [entry] = (await _json(await town.client.get("/v1/audit?tenant=platform", headers=town.headers(None))))["items"]
    assert (entry["topic"], entry["actor"]) == ("bulk.begun", "admin of the platform")


@pytest.mark.acceptance("H9")
async def test_a_dead_letter_is_shown_redacted_redriven_byte_for_byte_and_only_once(town: Site) -> None:
    letter = town.letters["acme"]
    shown = await _json(await town.get(f"/v1/dead-letters/{letter}"))
    assert "ada@example.org" not in orjson.dumps(shown).decode()
    assert (shown["envelope"]["id"], shown["envelope"]["data"]) == ("e1", "[redacted]")
    first = await _json(await town.post(f"/v1/dead-letters/{letter}/redrive"))
    second = await _json(await town.post(f"/v1/dead-letters/{letter}/redrive"))
    assert [(answer["changed"], answer["state"]) for answer in (first, second)] == [
        (True, "redriven"),
        (False, "redriven"),
    ]
    [row] = await town.store.claim_outbox(town.epoch, limit=10)
    from engine.store.mapper import open_blob

    keys = await town.vault.ready("acme", [row.body])
    body = open_blob(keys, "outbox", row.message_id, row.body)
    assert isinstance(body, bytes)
    assert hashlib.sha256(body).hexdigest() == shown["sha256"]
    assert (await _json(await town.get("/v1/dead-letters")))["items"] == []
    assert len((await _json(await town.get("/v1/dead-letters", state="any")))["items"]) == 1


async def test_a_tenant_is_registered_once_by_the_platform_alone(town: Site) -> None:
    body = {"tenant": "initech", "name": "Initech", "owner_email": "bill@initech.example", "owner_name": "Bill"}
    assert (await town.post("/v1/tenants", body)).status == 403
    first = await _json(await town.post("/v1/tenants", body, tenant=None), 202)
    again = await _json(await town.post("/tenants", body, tenant=None))
    assert (first["workflow"], first["tenant"]) == ("tenant-onboarding", "initech")
    assert (again["run_id"], again["duplicate"]) == (first["run_id"], True)


@pytest.mark.acceptance("D3")
async def test_a_direct_command_is_checked_by_permission_and_contract_and_becomes_a_run(town: Site) -> None:
    order = {"type": "identity.CreateUserV1", "data": {"email": "a@b.c", "name": "A"}}
    begun = await _json(await town.post("/v1/commands", order), 202)
    assert begun["workflow"] == "direct-command"
    by_action = await _json(
        await town.post("/v1/commands", order | {"type": None, "action": "identity.create_user"}), 202
    )
    assert by_action["run_id"] != begun["run_id"]
    assert (await town.post("/v1/commands", order, role="viewer")).status == 403
    assert (await town.post("/v1/commands", order | {"data": {"email": 1}})).status == 422
    assert (await town.post("/v1/commands", {"type": "identity.NothingV1"})).status == 400
    suspend = {"type": "tenancy.SuspendTenantV1", "data": {"reason": "unpaid"}}
    assert (await town.post("/v1/commands", suspend)).status == 403
    by_hand = {"input": {"action": "tenancy.suspend_tenant", "input": suspend["data"]}}
    for role in ("admin", "operator"):
        assert (await town.post("/v1/workflows/direct-command/runs", by_hand, role=role)).status == 403
    platform = await town.post("/v1/commands", suspend, tenant=None, headers={"X-Tenant": "acme"})
    assert platform.status == 202


@pytest.mark.acceptance("H12")
async def test_a_story_is_one_tree_without_orphans(town: Site) -> None:
    from engine.recording import command_id
    from engine.store import Arrival, Commit
    from engine.store.mapper import arrival_ident, seal_blob

    parent = town.runs["acme"][SHAPES.index(histories.unwound)]
    cause = command_id("scope/charge/1")
    keys = await town.vault.keys_for("acme")
    envelope = orjson.dumps({"id": "e5", "source": "/modules/billing", "causationid": cause})
    arrival = Arrival(
        source="/modules/billing",
        event_id="e5",
        type="billing.SubscriptionActivatedV1",
        body_hash=b"h",
        body=seal_blob(keys, "arrival", arrival_ident("/modules/billing", "e5"), envelope),
        received_at=histories.START,
    )
    await town.store.append([Commit(tenant="acme", stream=None, arrival=arrival)], epoch=town.epoch)
    trigger = {"kind": "event", "id": "e5", "type": "billing.SubscriptionActivatedV1", "source": "/modules/billing"}
    child = histories.Teller().started("follow-up", trigger=trigger, causation_id="e5").ended().events
    child_id = await record(town.store, town.vault, "acme", child, epoch=town.epoch)
    await town.projector.catch_up()
    story = await _json(await town.get("/v1/causation/story-1"))
    assert story["runs"] == len(SHAPES) + 1

    def walk(node: Any, path: tuple[str, ...]) -> Any:
        here = (*path, f"{node['kind']}:{node['id']}")
        yield here
        for inner in node["children"]:
            yield from walk(inner, here)

    paths = [path for root in story["roots"] for path in walk(root, ())]
    runs = [path for path in paths if path[-1].startswith("run:")]
    assert len(runs) == len(SHAPES) + 1
    [found] = [path for path in runs if path[-1] == f"run:{child_id}"]
    assert found == (
        "request:manual/1", f"run:{parent}", f"step:{cause}", "event:e5", f"run:{child_id}",
    )  # fmt: skip
    assert (await town.get("/v1/causation/no-such-story")).status == 404


async def test_reports_answer_for_a_span_of_days(town: Site) -> None:
    span = {"from_day": "2030-01-01", "to_day": "2030-12-31"}
    [usage] = (await _json(await town.get("/v1/usage", **span)))["items"]
    [stats] = (await _json(await town.get("/v1/stats", **span)))["items"]
    assert sum(day["runs_started"] for day in usage["days"]) == stats["started"] == len(SHAPES)
    wrong = await town.get("/v1/usage", from_day="2030-02-01", to_day="2030-01-01")
    assert wrong.status == 400
    audit = await _json(await town.get("/v1/audit", limit=3))
    assert [entry["number"] for entry in audit["items"]] == sorted((e["number"] for e in audit["items"]), reverse=True)
    verdict = await _json(await town.get("/v1/audit/verify", against_log="true"))
    head = await _json(await town.get("/v1/audit/head"))
    assert (verdict["holds"], verdict["head"]) == (True, head["hash"])
