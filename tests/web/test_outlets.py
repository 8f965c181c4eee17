"""Outlets over HTTP: what is refused, and by which field. That they deliver is a story."""

from __future__ import annotations

from typing import Any

import pytest

from tests.web.conftest import Site

GIVEN: dict[str, Any] = {"name": "ops", "url": "https://ops.example.org/notices?token=t0ken"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a/b"),
        ("name", ""),
        ("url", "http://ops.example.org/"),
        ("url", "https://user@ops.example.org/"),
        ("url", "ftp://ops.example.org/"),
        ("types", ["unwind.NoSuchNoticeV1"]),
        ("types", ["crm.SignupRequestedV1"]),
        ("secret", "whsec_short"),
        ("secret", "a secret without the prefix that is long"),
        ("enabled", True),
    ],
)
async def test_an_outlet_that_cannot_be_is_refused_by_its_field(town: Site, field: str, value: Any) -> None:
    response = await town.post("/v1/outlets", GIVEN | {field: value})
    refused = await response.json()
    assert (response.status, refused["field"]) == (422, field)
    assert await town.store.outlets(None) == []


async def test_an_outlet_is_its_tenants_and_its_secret_is_told_once(town: Site) -> None:
    made = await (await town.post("/v1/outlets", GIVEN)).json()
    assert made["secret"].startswith("whsec_")
    assert (await town.post("/v1/outlets", GIVEN)).status == 409
    assert (await town.post("/v1/outlets", GIVEN, role="operator")).status == 403
    for address in ("/v1/outlets/ops/rotate", "/v1/outlets/ops/test"):
        assert (await town.post(address, tenant="globex")).status == 404
    assert (await town.get("/v1/outlets/ops/deliveries", tenant="globex")).status == 404
    # The platform's outlets are nobody else's, whatever name a tenant gives.
    assert (await town.post("/v1/outlets", GIVEN, headers={"X-Tenant": "platform"})).status == 404
    assert (await town.post("/v1/outlets", GIVEN, tenant=None)).status == 422
    assert (await town.post("/v1/outlets", GIVEN, tenant=None, headers={"X-Tenant": "platform"})).status == 201

    rotated = await (await town.post("/v1/outlets/ops/rotate", {"overlap_seconds": 60})).json()
    assert rotated["secret"] != made["secret"]
    assert rotated["old_secret_until"] is not None
    listed = await town.get("/v1/outlets")
    text = await listed.text()
    assert made["secret"] not in text
    assert rotated["secret"] not in text
    assert [(one["tenant"], one["name"]) for one in (await listed.json())["items"]] == [("acme", "ops")]

    assert (await town.post("/v1/outlets/ops/test")).status == 202
    [waiting] = (await (await town.get("/v1/outlets/ops/deliveries")).json())["items"]
    assert (waiting["type"], waiting["state"], waiting["attempts"]) == ("unwind.OutletTestV1", "waiting", 0)
    assert (await town.get("/v1/outlets/ops/deliveries", state="done")).status == 400
    again = {"message_id": waiting["message_id"]}
    since = {"since": waiting["created_at"]}
    for given, status, field in (
        ({}, 422, "body"), (again | since, 422, "body"), ({"since": "yesterday"}, 400, "since"),
        ({"message_id": "nothing"}, 404, "message_id"),
    ):  # fmt: skip
        refused = await town.post("/v1/outlets/ops/redeliver", given)
        assert (refused.status, (await refused.json()).get("field")) == (status, field)
    # It comes by itself.
    for role in ("operator", "admin"):
        sent = await town.post("/v1/outlets/ops/redeliver", again, role=role)
        assert (sent.status, await sent.json()) == (202, {"redelivered": 0, "more": False})
    assert (await town.post("/v1/outlets/ops/redeliver", since, role="viewer")).status == 403
    assert (await town.post("/v1/outlets/ops/redeliver", since, tenant="globex")).status == 404
    off = {"enabled": False, "reason": "moving"}
    assert (await (await town.post("/v1/outlets/ops/switch", off)).json())["switched_why"] == "moving"
    for address, given in (("test", {}), ("redeliver", again), ("redeliver", since)):
        assert (await town.post(f"/v1/outlets/ops/{address}", given)).status == 409
    for expected in (200, 404):
        gone = await town.client.delete("/v1/outlets/ops", headers=town.headers())
        assert gone.status == expected
