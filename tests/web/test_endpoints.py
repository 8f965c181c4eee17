"""A tenant's own webhook endpoints: made, listed, rotated and removed; what is sent to them is proven and mapped."""

from __future__ import annotations

import gzip
from datetime import timedelta
from typing import Any

import orjson
import pytest

from contracts.envelope import from_document
from engine.clock import SystemClock
from engine.guards.signatures import HUB_HEADER, STRIPE_HEADER, sign_plain, sign_standard, sign_stripe
from engine.hooks import MOST_HOOKS
from engine.store.mapper import open_input
from tests.web.conftest import SIGNUP_SECRET, Site

STRIPE: dict[str, Any] = {
    "name": "payments",
    "workflow": "customer-onboarding",
    "scheme": "stripe",
    "fields": {
        "email": "/data/object/customer_email",
        "name": {"pointer": "/data/object/customer_name", "default": "nobody"},
        "plan": {"constant": {"tier": "pro"}},
    },
}
ONE_EACH = ("x-request-id", "date", "connection")
MESSAGE: dict[str, Any] = {"id": "evt_1", "type": "checkout", "data": {"object": {"customer_email": "ada@example.org"}}}


async def _make(site: Site, tenant: str = "acme", **given: Any) -> dict[str, Any]:
    response = await site.post(
        "/v1/hooks", {"name": "orders", "workflow": "customer-onboarding"} | given, tenant=tenant
    )
    assert response.status == 201, await response.text()
    made: dict[str, Any] = await response.json()
    return made


async def _send(site: Site, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
    async with site.client.post(path, data=body, headers=headers) as response:
        return response.status, await response.json()


def _stripe(secret: str, message: Any = MESSAGE, age: timedelta = timedelta(0)) -> tuple[dict[str, str], bytes]:
    body = orjson.dumps(message)
    return {STRIPE_HEADER: sign_stripe(SystemClock().now() - age, body, secret)}, body


async def _inputs(site: Site) -> list[dict[str, Any]]:
    """What the starts that wait to be taken hand to their runs."""
    found = []
    for row in await site.store.claim_inputs(site.epoch, limit=20):
        keys = await site.vault.ready(row.tenant, [row.body or b""])
        body = open_input(keys, row)
        assert isinstance(body, bytes)
        found.append(from_document(orjson.loads(body)).data["input"])
    return found


@pytest.mark.acceptance("A6")
async def test_a_third_partys_payload_is_mapped_to_the_fields_of_the_run(town: Site) -> None:
    made = await _make(town, **STRIPE)
    assert made["path"] == "/hooks/acme/payments"
    headers, body = _stripe(made["secret"])
    status, begun = await _send(town, made["path"], headers, body)
    assert (status, begun["workflow"], begun["tenant"]) == (202, "customer-onboarding", "acme")
    # A sender that tries again signs again, at a later moment.
    headers, body = _stripe(made["secret"], MESSAGE | {"pending": 1}, age=timedelta(seconds=-60))
    again, same = await _send(town, made["path"], headers, body)
    assert (again, same["run_id"]) == (200, begun["run_id"])
    [given] = await _inputs(town)
    assert given == {"email": "ada@example.org", "name": "nobody", "plan": {"tier": "pro"}}


@pytest.mark.acceptance("A6")
async def test_a_message_without_a_mapped_field_is_refused_by_the_fields_name(town: Site) -> None:
    made = await _make(town, **STRIPE)
    for message, field in (({"id": "evt_2", "data": {}}, "email"), (MESSAGE | {"id": None}, "/id"), ([], "email")):
        status, problem = await _send(town, made["path"], *_stripe(made["secret"], message))
        assert (status, problem["field"]) == (422, field)
    assert await _inputs(town) == []


@pytest.mark.acceptance("A6")
async def test_a_repeat_is_told_by_what_is_signed_and_not_by_a_header(town: Site) -> None:
    made = await _make(town, scheme="github")
    body = b'{"email":"ada@example.org"}'
    runs, statuses = set(), []
    for delivery in ("1", "2"):
        headers = {HUB_HEADER: sign_plain(body, made["secret"]), "Idempotency-Key": delivery, "webhook-id": delivery}
        status, begun = await _send(town, made["path"], headers, body)
        runs.add(begun["run_id"])
        statuses.append(status)
    assert (statuses, len(runs)) == ([202, 200], 1)


@pytest.mark.acceptance("A6")
async def test_every_cause_of_refusal_is_the_same_401_to_the_byte(town: Site) -> None:
    standard = await _make(town)
    github = await _make(town, name="pushes", scheme="github")
    stripe = await _make(town, **STRIPE)
    theirs = await _make(town, "globex")
    body, now = b'{"email":"a@b.c"}', SystemClock().now()
    good = sign_standard("m1", now, body, standard["secret"])
    stale, payment = _stripe(stripe["secret"], age=timedelta(minutes=6))
    ahead, _ = _stripe(stripe["secret"], age=timedelta(minutes=-6))
    fresh, _ = _stripe(stripe["secret"])
    plain = {HUB_HEADER: sign_plain(body, standard["secret"])}
    attempts: list[tuple[str, dict[str, str], bytes]] = [
        ("/hooks/acme/orders", {}, body),
        ("/hooks/acme/orders", good | {"webhook-signature": "v1,AAAA"}, body),
        ("/hooks/acme/orders", good | {"webhook-signature": "v1,\u00e9"}, body),
        ("/hooks/acme/orders", good | {"webhook-id": "m2"}, body),
        ("/hooks/acme/orders", good, body + b" "),
        ("/hooks/acme/orders", sign_standard("m1", now - timedelta(minutes=6), body, standard["secret"]), body),
        ("/hooks/acme/orders", sign_standard("m1", now, body, theirs["secret"]), body),
        ("/hooks/acme/orders", sign_standard("m1", now, body, SIGNUP_SECRET), body),
        # Whoever holds the secret is held to the scheme: another one has no timestamp.
        ("/hooks/acme/orders", plain, body),
        ("/hooks/acme/orders", good | {"Content-Encoding": "gzip"}, gzip.compress(body)),
        ("/hooks/acme/orders", good | {"Content-Encoding": "gzip"}, body),
        ("/hooks/acme/orders", good | {"Content-Encoding": "gzip"}, gzip.compress(b" " * 50_000_000)),
        ("/hooks/acme/orders", good | {"Content-Encoding": "nothing-known"}, body),
        ("/hooks/acme/orders", {"Authorization": "Bearer nonsense"}, body),
        ("/hooks/acme/orders", town.headers("globex", "admin"), body),
        ("/hooks/acme/orders", town.headers("acme", "viewer"), body),
        ("/hooks/acme/pushes", {HUB_HEADER: "sha256=\u00fc"}, body),
        ("/hooks/acme/pushes", {HUB_HEADER: sign_plain(body, github["secret"] + "x")}, body),
        ("/hooks/acme/payments", stale, payment),
        ("/hooks/acme/payments", ahead, payment),
        ("/hooks/acme/payments", {STRIPE_HEADER: fresh[STRIPE_HEADER] + ",t=1"}, payment),
        ("/hooks/acme/payments", {STRIPE_HEADER: "t=\u0661,v1=00"}, payment),
        ("/hooks/acme/payments", fresh, payment + b" "),
        ("/hooks/acme/nothing", good, body),
        ("/hooks/acme/nothing/at/all", plain, body),
        ("/hooks/nobody/orders", good, body),
        ("/hooks/%20/orders", good, body),
    ]
    answers = set()
    for path, headers, content in attempts:
        async with town.client.post(path, data=content, headers=headers) as response:
            told = {name: value for name, value in response.headers.items() if name.lower() not in ONE_EACH}
            answers.add((response.status, await response.read(), tuple(sorted(told.items()))))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 401
    assert await _inputs(town) == []
    # What was refused is taken once it is proven.
    assert (await _send(town, "/hooks/acme/orders", good, body))[0] == 202


@pytest.mark.acceptance("A7")
async def test_a_secret_is_told_once_and_the_old_one_is_taken_as_long_as_was_said(town: Site) -> None:
    made = await _make(town, **STRIPE)
    held = await (await town.post("/v1/hooks/payments/rotate", {"overlap_seconds": 3600})).json()
    assert held["secret"] != made["secret"]
    assert held["old_secret_until"] is not None
    for at, secret in enumerate((made["secret"], held["secret"])):
        status, _ = await _send(town, made["path"], *_stripe(secret, MESSAGE | {"id": f"evt_{at}"}))
        assert status == 202
    ended = await (await town.post("/v1/hooks/payments/rotate", {"overlap_seconds": 0})).json()
    assert ended["old_secret_until"] is None
    statuses = [
        (await _send(town, made["path"], *_stripe(secret, MESSAGE | {"id": "evt_9"})))[0]
        for secret in (made["secret"], held["secret"], ended["secret"])
    ]
    assert statuses == [401, 401, 202]
    listed = await (await town.get("/v1/hooks")).text()
    assert "payments" in listed
    assert "whsec_" not in listed
    assert "secret" not in listed.replace("old_secret_until", "")


@pytest.mark.acceptance("A7")
async def test_each_change_is_in_the_audit_and_no_secret_is(town: Site) -> None:
    made = await _make(town, **STRIPE)
    rotated = await (await town.post("/v1/hooks/payments/rotate", {})).json()
    async with await town.client.delete("/v1/hooks/payments", headers=town.headers()) as response:
        assert (response.status, await response.json()) == (200, {"tenant": "acme", "name": "payments"})
    assert (await _send(town, made["path"], *_stripe(rotated["secret"])))[0] == 401
    await town.projector.catch_up()
    text = await (await town.get("/v1/audit", limit=100)).text()
    entries = [entry for entry in orjson.loads(text)["items"] if entry["topic"].startswith("hook.")]
    assert [(entry["topic"], entry["actor"]) for entry in reversed(entries)] == [
        (topic, "admin of acme") for topic in ("hook.added", "hook.rotated", "hook.removed")
    ]
    assert {entry["details"]["endpoint"] for entry in entries} == {"payments"}
    assert made["secret"] not in text
    assert rotated["secret"] not in text


async def test_the_stored_secret_opens_in_its_own_place_only(town: Site) -> None:
    made = await _make(town)
    [hook] = await town.store.hooks("acme")
    assert made["secret"].encode() not in hook.secret
    assert await town.door.hooks.secrets(hook) == [made["secret"]]
    from dataclasses import replace

    from engine.store.keys import SealBroken

    for elsewhere in (replace(hook, name="payments"), replace(hook, version=2)):
        with pytest.raises(SealBroken):
            await town.door.hooks.secrets(elsewhere)


async def test_a_secret_that_the_sender_chose_is_taken_when_it_can_be(town: Site) -> None:
    made = await _make(town, name="pushes", scheme="github", secret="chosen-by-the-sender")
    assert made["secret"] == "chosen-by-the-sender"
    body = b"{}"
    assert (await _send(town, made["path"], {HUB_HEADER: sign_plain(body, made["secret"])}, body))[0] == 202
    for secret in ("short", "with a space in it.", "not-base64-and-no-prefix", "whsec_c2hvcnQ="):
        refused = await town.post("/v1/hooks", {"name": "orders", "workflow": "customer-onboarding", "secret": secret})
        assert (refused.status, (await refused.json())["field"]) == (422, "secret")


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"name": "a/b"}, 422, "name"),
    ({"name": ""}, 422, "name"),
    ({"name": "signup"}, 409, "name"),
    ({"workflow": "nothing"}, 404, "workflow"),
    ({"scheme": "none"}, 422, "scheme"),
    ({"fields": {"email": "data/email"}}, 422, "fields.email"),
    ({"fields": {"email": {"pointer": "/a", "other": 1}}}, 422, "fields.email"),
    ({"fields": {"email": {"pointer": 1}}}, 422, "fields.email"),
    ({"fields": {"email": ["/a"]}}, 422, "fields.email"),
    ({"fields": {"email": "/" + "9" * 5_000}}, 422, "fields.email"),
    ({"fields": {"email": {"constant": "x" * 20_000}}}, 422, "fields"),
    ({"fields": {str(n): "/a" for n in range(101)}}, 422, "fields"),
    ({"id_pointer": "id"}, 422, "id"),
]


@pytest.mark.parametrize(("change", "status", "field"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
async def test_an_endpoint_that_cannot_be_is_refused_by_name(
    town: Site, change: dict[str, Any], status: int, field: str
) -> None:
    response = await town.post("/v1/hooks", {"name": "orders", "workflow": "customer-onboarding"} | change)
    assert (response.status, (await response.json()).get("field")) == (status, field)


async def test_nobody_opens_to_others_what_is_closed_to_them(town: Site) -> None:
    for workflow in ("tenant-suspension", "direct-command"):
        response = await town.post("/v1/hooks", {"name": "orders", "workflow": workflow})
        assert response.status == 403
    assert await town.store.hooks("acme") == []


async def test_a_name_is_taken_once_and_a_tenant_has_so_many(town: Site) -> None:
    await _make(town)
    assert (await town.post("/v1/hooks", {"name": "orders", "workflow": "customer-onboarding"})).status == 409
    await _make(town, "globex")
    for n in range(MOST_HOOKS - 1):
        await _make(town, name=f"orders-{n}")
    assert (await town.post("/v1/hooks", {"name": "more", "workflow": "customer-onboarding"})).status == 409


async def test_endpoints_of_another_tenant_are_not_there(town: Site) -> None:
    await _make(town, "globex")
    assert (await (await town.get("/v1/hooks")).json())["items"] == []
    theirs = await town.post("/v1/hooks/orders/rotate", {})
    missing = await town.post("/v1/hooks/nothing/rotate", {})
    assert theirs.status == 404
    assert await theirs.read() == await missing.read()
    async with await town.client.delete("/v1/hooks/orders", headers=town.headers()) as response:
        assert (response.status, await response.read()) == (404, await missing.read())
    assert len(await town.store.hooks("globex")) == 1
    everyone = await (await town.client.get("/v1/hooks", headers=town.headers(None))).json()
    assert [hook["tenant"] for hook in everyone["items"]] == ["globex"]
