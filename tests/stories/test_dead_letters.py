"""What cannot be used is kept whole, with its reason, until an operator sends it again or gives it up."""

from __future__ import annotations

import asyncio
import hashlib
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from contracts.envelope import Envelope
from contracts.modules import billing
from contracts.sdk import Call, Service, Tx, open_database, open_transport
from engine.plan.code import Run, saga
from tests.stories.house import House, Record, Stack, until
from tests.stories.node_module.contract import LABELS, LabelPrintedV1, LabelVoidedV1, PrintLabelV1, VoidLabelV1
from tests.stories.understudy import fact

ORDER = "billing.CreateCustomerV1"


@pytest.mark.acceptance("H9")
async def test_an_exhausted_command_becomes_the_dead_letter_it_was_and_a_redrive_completes_the_run(
    stack: Stack,
) -> None:
    async with House(stack) as house:
        await house.script("acme", ORDER, "crash", times=1000)
        run = await house.sign_up("acme")
        letter = await house.until_letter(tenant="acme", type=ORDER)
        [sent] = house.ear.commands(ORDER, tenant="acme")
        body = house.ear.raw(sent).body
        shown = await house.api.get(f"/v1/dead-letters/{letter['id']}")
        assert (shown["reason"], shown["size"]) == ("rejected", len(body))
        assert shown["sha256"] == hashlib.sha256(body).hexdigest()
        assert shown["envelope"]["id"] == sent.id
        assert sent.data["email"] not in str(shown)
        await house.until_step(run, "create-billing", lambda step: step["status"] == "open")

        await house.script("acme", ORDER, "crash", times=0)
        first = await house.api.post(f"/v1/dead-letters/{letter['id']}/redrive")
        assert first == {"id": letter["id"], "changed": True, "state": "redriven"}
        await house.until_state(run, "AwaitingConfirmation")
        bodies = {house.ear.raw(command).body for command in house.ear.commands(ORDER, tenant="acme")}
        assert bodies == {body}
        assert len(house.ear.commands(ORDER, tenant="acme")) == 2

        second = await house.cli("deadletters", "redrive", letter["id"])
        assert (second["changed"], second["state"]) == (False, "redriven")
        # Whatever a second redrive had sent would be on the bus before this order's answer.
        await house.script("acme", ORDER, "crash", times=0)
        assert len(house.ear.commands(ORDER, tenant="acme")) == 2
        account = (await house.steps(run))["create-account"]["output"]["user_id"]
        query = billing.GetCustomerV1(account_id=account)
        found = await house.ask(billing.MODULE, query, billing.CustomerSnapshotV1, "acme")
        assert found.customer_id is not None
        assert await house.letters() == []


@saga("parcel", version=1)
async def parcel(run: Run, given: dict[str, Any]) -> dict[str, Any]:
    label: dict[str, Any] = await run.step("label", "labels.print_label", order_id=given["order"], weight_grams=1)
    return label


@pytest.mark.acceptance("H9")
async def test_a_module_tries_a_bounded_number_of_times_ever_more_slowly_before_it_gives_an_order_up(
    stack: Stack, tmp_path: Path
) -> None:
    tried: list[float] = []
    repaired = asyncio.Event()
    async with House(stack, sagas=(parcel,), modules=(), contracts=[LABELS]) as house:
        labels = Service(
            LABELS,
            transport=open_transport(house.bus_url, name="labels"),
            database=open_database(f"sqlite:///{tmp_path / 'labels.db'}"),
            max_attempts=3,
        )

        @labels.handles(PrintLabelV1)
        async def put(command: PrintLabelV1, call: Call, tx: Tx) -> LabelPrintedV1:
            tried.append(time.monotonic())
            if not repaired.is_set():
                raise OSError("the printer is on fire")
            return LabelPrintedV1(label_id=call.new_id("lbl"), order_id=command.order_id)

        @labels.handles(VoidLabelV1)
        async def void(command: VoidLabelV1, call: Call, tx: Tx) -> LabelVoidedV1:
            return LabelVoidedV1()

        await labels.start()
        try:
            run = await house.start("parcel", "acme", {"order": "o-1"})
            letter = await house.until_letter(tenant="acme", type="labels.PrintLabelV1")
            assert len(tried) == 3
            pauses = [after - before for before, after in pairwise(tried)]
            assert pauses[1] > pauses[0] > 0.05
            [sent] = house.ear.commands("labels.PrintLabelV1", tenant="acme")
            shown = await house.api.get(f"/v1/dead-letters/{letter['id']}")
            assert shown["sha256"] == hashlib.sha256(house.ear.raw(sent).body).hexdigest()

            repaired.set()
            await house.api.post(f"/v1/dead-letters/{letter['id']}/redrive")
            await house.until_status(run, "succeeded")
            assert (await house.api.post(f"/v1/dead-letters/{letter['id']}/redrive"))["changed"] is False
            following = await house.start("parcel", "acme", {"order": "o-2"})
            await house.until_status(following, "succeeded")
            assert len(tried) == 5
        finally:
            await labels.stop()


def _signup(**more: object) -> Envelope:
    data = {"signup_id": "s-1", "email": "eve@customer.example", "name": "Eve"}
    return fact("crm.SignupRequestedV1", {**data, **more}, tenant="acme", id="fact-1")


async def test_what_is_no_fact_of_a_known_contract_is_kept_with_a_clear_reason_and_the_rest_goes_on(
    stack: Stack,
) -> None:
    good = _signup()
    whole = good.to_json()
    deep = b'{"x":' * 200 + b"1" + b"}" * 200
    cases: dict[str, tuple[str, bytes, str, str]] = {
        "not JSON": (good.type, b'{"specversion": "1.0", "id": ', "envelope_invalid", "body"),
        "no envelope": (good.type, b'{"hello": "world"}', "envelope_invalid", "specversion"),
        "no object": (good.type, b"[1, 2, 3]", "envelope_invalid", "object"),
        "wrong tenant": (good.type, whole.replace(b'"acme"', b'"../acme"'), "envelope_invalid", "tenantid"),
        "time without zone": (good.type, _with(whole, b'"time":"', b'"time":"yesterday '), "envelope_invalid", "time"),
        "foreign source": (good.type, whole.replace(b"/modules/crm", b"/modules/billing"), "", "source"),
        "unknown version": ("crm.SignupRequestedV1", whole.replace(b"RequestedV1", b"RequestedV9"), "", "V9"),
        "unknown type": ("shop.OrderPlacedV1", whole.replace(b"crm.SignupRequested", b"shop.OrderPlaced"), "", "shop"),
        "payload of another shape": (good.type, _signup(email=7).to_json(), "payload_invalid", "email"),
        "too large": (good.type, _signup(name="x" * 300_000).to_json(), "", "26"),
        "too deep": (good.type, deep, "envelope_invalid", "deep"),
        "too many names": (good.type, orjson.dumps({str(n): n for n in range(20_000)}), "envelope_invalid", "names"),
        "a number of 30 digits": (good.type, b'{"n":' + b"9" * 30 + b"}", "envelope_invalid", "64 bits"),
        "a number of 5,000 digits": (good.type, b'{"n":' + b"9" * 5_000 + b"}", "envelope_invalid", "number"),
        "NaN": (good.type, b'{"n":NaN}', "envelope_invalid", "JSON"),
        "half a character": (good.type, _with(whole, b'"acme"', b'"acme\\ud800"'), "envelope_invalid", "JSON"),
        "NUL in a text": (good.type, _with(whole, b'"data":{', b'"data":{"x":"\\u0000",'), "envelope_invalid", "NUL"),
        "NUL in the id": (good.type, _with(whole, b'"id":"', b'"id":"\\u0000'), "envelope_invalid", "NUL"),
    }
    async with House(stack, hears=()) as house:
        for kind, body, _, _ in cases.values():
            await house.ear.send_raw(kind, body, headers={"x-note": "a\x00b"})
        letters = await until(house.letters, lambda found: len(found) >= len(cases))
        by_digest = {}
        for letter in letters:
            shown = await house.api.get(f"/v1/dead-letters/{letter['id']}")
            by_digest[shown["sha256"]] = shown
            assert "eve@customer.example" not in str(shown)
        for name, (_, body, reason, word) in cases.items():
            shown = by_digest[hashlib.sha256(body).hexdigest()]
            assert shown["size"] == len(body), name
            assert not reason or shown["reason"] == reason, (name, shown["reason"], shown["detail"])
            assert word in shown["detail"], (name, shown["detail"])
        assert len(letters) == len(cases)
        # The engine goes on: the good one among them starts its run, once however often it comes.
        await house.ear.send(good, copies=3)
        page = await until(lambda: house.api.get("/v1/runs", tenant="acme"), lambda page: page["items"])
        await house.until_state(page["items"][0]["run_id"], "AwaitingConfirmation")
        assert len((await house.api.get("/v1/runs", tenant="acme"))["items"]) == 1

        # The same id with another body is another fact in disguise: kept, and never mistaken for the first.
        await house.ear.send(_signup(name="Somebody else"))
        letter = await house.until_letter(reason="duplicate_mismatch")
        assert (letter["event_id"], letter["tenant"]) == ("fact-1", "acme")
        assert len((await house.api.get("/v1/runs", tenant="acme"))["items"]) == 1
        discarded = await house.api.post(f"/v1/dead-letters/{letter['id']}/discard")
        assert (discarded["changed"], discarded["state"]) == (True, "discarded")
        assert (await house.api.post(f"/v1/dead-letters/{letter['id']}/redrive"))["changed"] is False


def _with(body: bytes, mark: bytes, replacement: bytes) -> bytes:
    assert mark in body
    return body.replace(mark, replacement)


async def test_the_api_refuses_the_same_things_and_names_the_field(stack: Stack) -> None:
    async with House(stack) as house:
        data = {"signup_id": "s-1", "email": "eve@customer.example", "name": "Eve"}
        refusals: dict[str, Record] = {
            "unknown type": {"type": "shop.OrderPlacedV1", "data": {}},
            "unknown field": {"type": "crm.SignupRequestedV1", "data": data, "extra": 1},
            "missing value": {"type": "crm.SignupRequestedV1", "data": {"signup_id": "s"}},
            "foreign source": {"type": "crm.SignupRequestedV1", "data": data, "source": "/modules/billing"},
        }
        for name, body in refusals.items():
            problem = await house.refused("/v1/events", body, tenant="acme")
            assert 400 <= problem["status"] < 500, (name, problem)
            assert problem["code"], name
            assert problem["detail"], name
        assert (await house.refused("/v1/workflows/no-such/runs", {"input": {}}, tenant="acme"))["status"] == 404
        theirs = await house.make_token("operator", "acme")
        wrong_tenant = {"type": "crm.SignupRequestedV1", "data": data, "tenantid": "globex"}
        assert (await house.refused("/v1/events", wrong_tenant, token=theirs))["status"] in (403, 404, 422)
        assert (await house.refused("/v1/events", wrong_tenant, tenant="acme"))["field"] == "tenantid"
        large = {"type": "crm.SignupRequestedV1", "data": {**data, "name": "x" * 300_000}}
        assert (await house.refused("/v1/events", large, tenant="acme"))["status"] == 413
        deep = '{"x":' * 300 + "1" + "}" * 300
        whole = b'{"type": "crm.SignupRequestedV1", "data": %b}' % deep.encode()
        headers = {"Authorization": f"Bearer {house.token}", "X-Tenant": "acme", "Content-Type": "application/json"}
        async with house.session.post(f"{house.url}/v1/events", data=whole, headers=headers) as answer:
            problem = await answer.json()
            assert (answer.status, problem["code"]) == (400, "envelope_invalid")
            assert "nested" in problem["detail"]
        for text in ("{]", deep):
            words = ("publish", "crm.SignupRequestedV1", "--tenant", "acme", "--data", text)
            code, _, complaint = await house.cli_raw(*words)
            assert (code, orjson.loads(complaint)["field"]) == (2, "data"), complaint
        # Nothing of it reached the bus: what is published after it is the first thing heard.
        await house.api.post("/v1/events", {"type": "crm.SignupRequestedV1", "data": data}, tenant="acme")
        await house.until_heard("crm.SignupRequestedV1")
        assert house.ear.messages[0].routing_key == "crm.SignupRequestedV1"
        assert len(house.ear.events("crm.SignupRequestedV1")) == 1
        assert await house.letters() == []
