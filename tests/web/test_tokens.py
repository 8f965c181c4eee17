"""API tokens over HTTP: made by whoever may, never beyond what he may himself, told once, revoked for good, and worth
nothing while their tenant or their maker is barred."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from engine.clock import SystemClock
from engine.guards import permissions
from engine.guards.permissions import ROLES, make_token
from tests.web.conftest import Site
from tests.web.signing import ROOT, Browser, browser, person

RUNS = "/v1/workflows/customer-onboarding/runs"
RUN = {"input": {"email": "a@b.c", "name": "A"}}


@pytest.fixture
async def page(site: Site) -> AsyncIterator[Browser]:
    made = browser(site)
    yield made
    await made.session.close()


async def refused(site: Site, text: str, method: str = "GET", path: str = "/v1/runs", **headers: str) -> Any:
    """None when it is not, else the code and the words."""
    sent = {"Authorization": f"Bearer {text}", **headers}
    answer = await site.client.request(method, path, json=RUN if method == "POST" else None, headers=sent)
    if answer.status < 400:
        return None
    assert (answer.status, answer.content_type) == (403, "application/problem+json")
    said = await answer.json()
    return said["code"], said["detail"]


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


# ------------------------------------------------------------------------------------------------------- what bars them


@pytest.mark.acceptance("H6")
async def test_tokens_of_a_suspended_tenant_are_refused_by_that_name_and_the_platform_s_are_not(town: Site) -> None:
    ours, theirs = town.tokens["acme", "admin"], town.tokens["globex", "admin"]
    suspended = ("tenant_suspended", "the tenant is suspended; this works again when it is reinstated")
    for revision, state, expected in (
        (2, "Suspended", suspended),
        (3, "Active", None),
        (4, "Decommissioned", ("tenant_closed", "the tenant is closed")),
    ):
        await town.store.note_standing("acme", state, revision)
        assert await refused(town, ours) == expected
        for path in (RUNS, "/hooks/acme/signup"):
            assert await refused(town, ours, "POST", path) == expected
        assert await refused(town, theirs) is None
        assert await refused(town, town.tokens[None, "operator"], "POST", RUNS, **{"X-Tenant": "acme"}) is None
    # Of whoever does not have it, nobody says so.
    assert (await town.client.get("/v1/runs", headers={"Authorization": f"Bearer {ours[:-1]}!"})).status == 401


ONE_LOOK = ("presented", "token", "touch_token", "standing", "person")


async def test_what_a_token_stands_on_is_asked_in_one_look(town: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """However its tenant stands: a request with a token costs no second question."""
    real, asked = town.store.call, []  # type: ignore[attr-defined]

    async def noted(statement: str, **values: Any) -> Any:
        asked.append(statement)
        return await real(statement, **values)

    await refused(town, town.tokens["acme", "viewer"])
    monkeypatch.setattr(town.store, "call", noted)
    for state, revision in (("Suspended", 1), ("Active", 2)):
        await town.store.note_standing("acme", state, revision)
        asked.clear()
        await refused(town, town.tokens["acme", "viewer"])
        assert [one for one in asked if one in ONE_LOOK] == ["presented"]


async def test_what_a_token_makes_does_not_outlast_it(town: Site) -> None:
    now = SystemClock().now()
    end, earlier, later = ((now + timedelta(days=days)).isoformat() for days in (30, 7, 31))
    _, own = await made(town, "acme", {"name": "ci", "roles": ["admin"], "expires_at": end})
    bearer = {"Authorization": f"Bearer {own['token']}"}
    for asked, expected in ((None, own["expires_at"]), (end, own["expires_at"]), (earlier, None)):
        body = {"name": "deploy", "roles": ["viewer"], "expires_at": asked}
        answer = await town.client.post("/v1/tokens", json=body, headers=bearer)
        told = await answer.json()
        assert answer.status == 201, told
        assert told["expires_at"] == (expected or told["expires_at"]) <= own["expires_at"]
        assert (told["made_by"], told["made_with"]) == ("ci", own["prefix"])
    before = len(await town.store.tokens("acme"))
    late = await town.client.post(
        "/v1/tokens", json={"name": "deploy", "roles": ["viewer"], "expires_at": later}, headers=bearer
    )
    said = await late.json()
    assert (late.status, said["field"]) == (422, "expires_at")
    assert own["expires_at"] in said["detail"]
    assert "name no later moment" in said["detail"]
    assert len(await town.store.tokens("acme")) == before
    # One without an end makes what lasts as long as it is asked to.
    status, lasting = await made(town, "acme", {"name": "ci", "roles": ["viewer"]})
    assert (status, lasting["expires_at"]) == (201, None)


async def test_a_token_is_worth_no_more_than_its_maker_may_do(town: Site, page: Browser) -> None:
    people = town.deps.door.people
    ann = await person(town, "ann", ("acme", "admin"), ("globex", "admin"))
    await page.sign_in("ann", tenant="acme")
    texts: dict[str, str] = {}
    for name, roles in (("all", ["admin"]), ("part", ["viewer", "operator"]), ("look", ["viewer"])):
        answer = await page.send("POST", "/v1/tokens", {"name": name, "roles": roles})
        told = await answer.json()
        assert answer.status == 201, told
        assert (told["made_by"], told["made_with"]) == (ann.user.actor, None)
        texts[name] = told["token"]
    # What is made with it stands on her rights, too.
    bearer = {"Authorization": f"Bearer {texts['all']}"}
    child = await town.client.post("/v1/tokens", json={"name": "child", "roles": ["admin"]}, headers=bearer)
    texts["child"] = (await child.json())["token"]

    async def codes(method: str = "GET", path: str = "/v1/runs") -> dict[str, str | None]:
        found = {name: await refused(town, text, method, path) for name, text in texts.items()}
        return {name: None if one is None else one[0] for name, one in found.items()}

    good = dict.fromkeys(texts)
    gone = dict.fromkeys(texts, "token_maker_gone")
    assert await codes() == await codes("POST", RUNS) | {"look": None} == good

    await people.set_roles(await people.person(ann.user.id, None), "acme", ["viewer"], by=ROOT)
    assert await codes() == {"all": "token_maker_gone", "part": None, "look": None, "child": "token_maker_gone"}
    code, words = await refused(town, texts["part"], "POST", RUNS)
    assert code == "forbidden"
    assert words.endswith(f"runs.start; {ann.user.actor}, on whose rights this token stands, lost the role operator")
    assert (await refused(town, texts["all"]))[1].startswith(f"{ann.user.actor}, on whose rights this token stands")

    await people.set_roles(await people.person(ann.user.id, None), "acme", ["admin"], by=ROOT)
    assert await codes() == good
    for place in ("acme", None):
        await people.disable(await people.person(ann.user.id, None), place, by=ROOT)
        assert await codes() == gone
        await people.enable(await people.person(ann.user.id, None), place, by=ROOT)
        assert await codes() == good
    await people.set_roles(await people.person(ann.user.id, None), "acme", [], by=ROOT)
    assert await codes() == gone
    await people.erase(await people.person(ann.user.id, None), by=ROOT)
    assert await codes() == gone
    items = (await (await town.get("/v1/tokens")).json())["items"]
    makers = {one["name"]: (one["made_by"], one["made_with"]) for one in items if one["name"] in texts}
    first = texts["all"][4:12]
    assert makers == dict.fromkeys(("all", "part", "look"), (ann.user.actor, None)) | {"child": ("all", first)}


async def test_a_member_of_the_platform_gives_a_tenant_s_token_what_he_may_do_there(town: Site, page: Browser) -> None:
    bob = await person(town, "bob", (None, "admin"))
    await page.sign_in("bob")
    answer = await page.send("POST", "/v1/tokens", {"name": "ci", "roles": ["admin"]}, X_Tenant="acme")
    text = (await answer.json())["token"]
    own = await page.send("POST", "/v1/tokens", {"name": "own", "roles": ["operator"], "platform": True})
    platform = (await own.json())["token"]
    assert await refused(town, text) is None
    assert await refused(town, platform) is None
    people = town.deps.door.people
    # A place in the tenant alone carries a token of the tenant, and none of the platform.
    await people.set_roles(bob, "acme", ["admin"], by=ROOT)
    await people.set_roles(bob, None, [], by=ROOT)
    assert await refused(town, text) is None
    assert (await refused(town, platform))[0] == "token_maker_gone"


async def test_tokens_of_whoever_opened_the_store_stand_on_nobody_s_rights(town: Site) -> None:
    kept = {token.prefix: token for token in await town.store.tokens(None)}
    assert {(one.made_by, one.made_with, one.maker) for one in kept.values()} == {(None, None, None)}
    assert await refused(town, town.tokens["acme", "viewer"]) is None
