"""API tokens over HTTP: made by whoever may, never beyond what he may himself, told once, revoked for good."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from engine.clock import SystemClock
from engine.guards import permissions
from engine.guards.permissions import ROLES, make_token
from tests.web.conftest import Site


async def made(site: Site, tenant: str | None, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
    response = await site.post("/v1/tokens", body, tenant=tenant, headers=headers)
    return response.status, await response.json()


async def test_a_tenants_admin_makes_a_token_of_his_tenant_that_is_told_once(town: Site) -> None:
    until = (SystemClock().now() + timedelta(days=1)).isoformat()
    status, token = await made(town, "acme", {"name": "ann", "roles": ["viewer", "auditor"], "expires_at": until})
    assert status == 201
    assert (token["tenant"], token["name"], token["roles"]) == ("acme", "ann", ["viewer", "auditor"])
    bearer = {"Authorization": f"Bearer {token['token']}"}
    assert (await town.client.get("/v1/runs", headers=bearer)).status == 200
    assert (await town.client.get("/v1/runs", headers={**bearer, "X-Tenant": "globex"})).status == 404
    assert (await town.client.get("/v1/tokens", headers=bearer)).status == 403

    listed = await town.get("/v1/tokens")
    text = await listed.text()
    assert token["token"] not in text
    items = {one["prefix"]: one for one in (await listed.json())["items"]}
    assert {one["tenant"] for one in items.values()} == {"acme"}
    assert items[token["prefix"]]["expires_at"] == token["expires_at"]
    assert items[token["prefix"]]["last_used_at"] is not None

    for expected in (200, 404):
        gone = await town.client.delete(f"/v1/tokens/{token['prefix']}", headers=town.headers())
        assert gone.status == expected
    assert (await town.client.get("/v1/runs", headers=bearer)).status == 401


async def test_nobody_gives_away_more_than_he_holds(town: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await made(town, "acme", {"name": "eve", "roles": ["admin"], "platform": True}))[0] == 403
    assert (await made(town, "acme", {"name": "eve", "roles": ["admin"]}, **{"X-Tenant": "globex"}))[0] == 404
    text, token = make_token("narrow", ("viewer",), tenant="acme", now=SystemClock().now())
    await town.store.add_token(token)
    for role in ROLES:
        narrow = await town.client.post(
            "/v1/tokens", json={"name": "x", "roles": [role]}, headers={"Authorization": f"Bearer {text}"}
        )
        assert narrow.status == 403
        assert (await made(town, "acme", {"name": role, "roles": [role]}))[0] == 201
    status, own = await made(town, "acme", {"name": "second", "roles": ["admin"]})
    assert status == 201
    bearer = {"Authorization": f"Bearer {own['token']}"}
    refused = await town.client.put("/v1/egress", json={"allow": ["10.0.0.0/8"]}, headers=bearer)
    assert refused.status == 403
    # A role that may make tokens, and little else.
    monkeypatch.setitem(permissions.PERMISSIONS, "viewer", frozenset({"tokens.manage", "runs.read"}))
    bearer = town.headers("acme", "viewer")
    for role, expected in (("viewer", 201), ("approver", 403)):
        answer = await town.client.post("/v1/tokens", json={"name": "x", "roles": [role]}, headers=bearer)
        assert answer.status == expected


async def test_the_platform_says_whose_token_it_makes(town: Site) -> None:
    status, refused = await made(town, None, {"name": "ann", "roles": ["viewer"]})
    assert (status, refused["field"]) == (422, "tenant")
    status, theirs = await made(town, None, {"name": "ann", "roles": ["viewer"]}, **{"X-Tenant": "globex"})
    assert (status, theirs["tenant"]) == (201, "globex")
    status, own = await made(town, None, {"name": "ann", "roles": ["operator"], "platform": True})
    assert (status, own["tenant"]) == (201, None)
    listed = (await (await town.get("/v1/tokens", tenant=None)).json())["items"]
    assert {one["tenant"] for one in listed} == {"acme", "globex", None}
    # Acting for a tenant, it knows the tokens of that tenant alone.
    acting = town.headers(None, **{"X-Tenant": "acme"})
    assert (await town.client.delete(f"/v1/tokens/{theirs['prefix']}", headers=acting)).status == 404
    assert (await town.client.delete(f"/v1/tokens/{theirs['prefix']}", headers=town.headers(None))).status == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"roles": ["viewer"]}, "name"),
        ({"name": "ann"}, "roles"),
        ({"name": "ann", "roles": []}, "roles"),
        ({"name": "ann", "roles": ["king"]}, "roles"),
        ({"name": "", "roles": ["viewer"]}, "name"),
        ({"name": "ann", "roles": ["viewer"], "expires_at": "soon"}, "expires_at"),
        ({"name": "ann", "roles": ["viewer"], "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "ann", "roles": ["viewer"], "expires_at": "2999-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "ann", "roles": ["viewer"], "tenant": "globex"}, "tenant"),
    ],
)
async def test_a_wrong_order_is_refused_by_its_field(town: Site, body: dict[str, Any], field: str) -> None:
    before = len(await town.store.tokens(None))
    status, refused = await made(town, "acme", body)
    assert (status, refused["field"]) == (400 if body.get("expires_at") == "soon" else 422, field)
    assert len(await town.store.tokens(None)) == before
