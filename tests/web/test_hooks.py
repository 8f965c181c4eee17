"""Webhook starts: proven bodies begin a run once, unproven ones leave nothing but a count."""

from __future__ import annotations

import gzip
from datetime import timedelta
from typing import Any

import orjson
import pytest

from consumers.web.hooks import REFUSALS, Refusals
from engine.clock import SystemClock
from engine.guards.signatures import HUB_HEADER, sign_plain, sign_standard
from projections.reader import Reader
from tests.web.conftest import SIGNUP_SECRET, Site

BODY = orjson.dumps({"email": "ada@example.org", "name": "Ada"})
PATH = "/hooks/acme/signup"


async def _post(site: Site, headers: dict[str, str], *, body: bytes = BODY, path: str = PATH) -> tuple[int, bytes]:
    async with site.client.post(path, data=body, headers={"Content-Type": "application/json"} | headers) as response:
        return response.status, await response.read()


def _signed(body: bytes = BODY, message_id: str = "m1", age: timedelta = timedelta(0)) -> dict[str, str]:
    return sign_standard(message_id, SystemClock().now() - age, body, SIGNUP_SECRET)


@pytest.mark.acceptance("A8")
async def test_a_signed_body_starts_the_run_of_its_path_and_a_repeat_answers_with_it(town: Site) -> None:
    status, content = await _post(town, _signed())
    begun = orjson.loads(content)
    assert (status, begun["workflow"], begun["tenant"]) == (202, "customer-onboarding", "acme")
    again, content = await _post(town, _signed())
    assert (again, orjson.loads(content)["run_id"]) == (200, begun["run_id"])
    [row] = await town.store.claim_inputs(town.epoch, limit=10)
    assert str(row.run_id) == begun["run_id"]


@pytest.mark.acceptance("A8")
async def test_signup_takes_a_plain_hmac_or_a_token(town: Site) -> None:
    plain = {HUB_HEADER: sign_plain(BODY, SIGNUP_SECRET), "X-Tenant": "acme"}
    first, content = await _post(town, plain, path="/signup")
    second, same = await _post(town, plain, path="/signup")
    assert (first, second) == (202, 200)
    assert orjson.loads(content)["run_id"] == orjson.loads(same)["run_id"]
    token = town.headers("acme", "operator", **{"webhook-id": "m7"})
    status, content = await _post(town, token, path="/signup")
    assert (status, orjson.loads(content)["tenant"]) == (202, "acme")
    nameless, problem = await _post(town, {HUB_HEADER: sign_plain(BODY, SIGNUP_SECRET)}, path="/signup")
    assert (nameless, orjson.loads(problem)["field"]) == (422, "tenant")


async def test_every_failure_of_proof_is_one_identical_401_and_leaves_nothing_but_a_count(town: Site) -> None:
    good = _signed()
    attempts: list[tuple[dict[str, str], bytes]] = [
        ({}, BODY),
        (good | {"webhook-signature": "v1,AAAA"}, BODY),
        (good, BODY.replace(b"Ada", b"Eve")),
        (_signed(age=timedelta(minutes=6)), BODY),
        (good | {"webhook-id": "m2"}, BODY),
        ({HUB_HEADER: "sha256=ü"}, BODY),
        ({HUB_HEADER: sign_plain(BODY, "another secret")}, BODY),
        ({"Authorization": "Bearer unw_nonsense"}, BODY),
        (town.headers("globex", "admin"), BODY),
        (town.headers("acme", "viewer"), BODY),
        ({HUB_HEADER: sign_plain(BODY, SIGNUP_SECRET), "Content-Encoding": "gzip"}, gzip.compress(BODY)),
    ]
    answers = {await _post(town, headers, body=body) for headers, body in attempts}
    unknown_path = await _post(town, {}, path="/hooks/acme/nothing")
    assert len(answers | {unknown_path}) == 1
    assert next(iter(answers))[0] == 401
    assert await town.store.claim_inputs(town.epoch, limit=10) == []
    assert town.client.app is not None
    refusals = town.client.app[REFUSALS]
    refusals.count("no-such-tenant", "/signup")
    await refusals.flush()
    refusals.count("acme", "/signup")
    refusals.count("acme", "/signup")
    await refusals.flush()
    notices = await town.store.claim_outbox(town.epoch, limit=10)
    from engine.store.mapper import open_blob

    keys = await town.vault.ready("acme", [row.body for row in notices])
    told: list[Any] = []
    for row in notices:
        body = open_blob(keys, "outbox", row.message_id, row.body)
        assert isinstance(body, bytes)
        told.append((row.tenant, orjson.loads(body)["data"]))
    assert sorted(told, key=repr) == [
        ("acme", {"endpoint": "/nothing", "count": 1}),
        ("acme", {"endpoint": "/signup", "count": 11}),
        ("acme", {"endpoint": "/signup", "count": 2}),
    ]


async def test_refused_webhooks_are_in_the_audit_of_their_tenant_and_in_its_chain(town: Site) -> None:
    assert town.client.app is not None
    await _post(town, {})
    await town.client.app[REFUSALS].flush()
    other = Refusals(town.deps)  # another process, which knows nothing of that stream yet
    other.count("acme", "/signup")
    other.count("acme", "/signup")
    await other.flush()
    await town.projector.catch_up()
    async with await town.get("/v1/audit", topic="signature.refused") as response:
        entries = (await response.json())["items"]
    assert [(one["kind"], one["version"], one["actor"], one["details"]) for one in entries] == [
        ("tenant", 3, "engine", {"endpoint": "/signup", "count": 2}),
        ("tenant", 2, "engine", {"endpoint": "/signup", "count": 1}),
    ]
    async with await town.get("/v1/audit", tenant="globex", topic="signature.refused") as response:
        assert (await response.json())["items"] == []
    verdict = await Reader(town.store, town.vault).verify_audit("acme", against_log=True)
    assert verdict.broken is None


async def test_a_proven_body_that_is_no_object_is_refused_by_name(town: Site) -> None:
    for body, status in ((b"[1]", 422), (b"not json", 400), (b'{"a":' * 100 + b"1" + b"}" * 100, 400)):
        assert (await _post(town, {HUB_HEADER: sign_plain(body, SIGNUP_SECRET)}, body=body))[0] == status
    assert (await _post(town, _signed(), path="/hooks/acme/nothing"))[0] == 404
