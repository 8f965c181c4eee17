"""Sign-in over HTTP: cookies and what they prove, pages of other origins, one refusal, invitations, members of tenants.
What depends on the database is in `tests.conformance.test_people_in_store`; these run on one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from consumers.web import create_app
from consumers.web.callers import COOKIE, origin_of
from consumers.web.routes import Route
from consumers.web.sign_in import SIGN_IN_REFUSALS
from consumers.web.table import ROUTES
from contracts.tenant_events import PLATFORM
from engine.guards.permissions import permissions_of
from engine.sign_in import EMAIL_TRIES
from tests.web.conftest import Site
from tests.web.signing import PASSWORD, Browser, browser, person

NEW_PASSWORD = "amber ladder stone"


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path / 'store.db'}"


@pytest.fixture
async def page(site: Site) -> AsyncIterator[Browser]:
    made = browser(site)
    yield made
    await made.session.close()


@pytest.fixture
async def other(site: Site) -> AsyncIterator[Browser]:
    made = browser(site)
    yield made
    await made.session.close()


async def _told(answer: aiohttp.ClientResponse, status: int = 200) -> dict[str, Any]:
    told: dict[str, Any] = await answer.json()
    assert answer.status == status, told
    return told


async def _code(answer: aiohttp.ClientResponse, status: int) -> str:
    return str((await _told(answer, status))["code"])


async def _topics(site: Site, tenant: str | None) -> list[tuple[str, str, dict[str, Any]]]:
    await site.projector.catch_up()
    page = await site.deps.reader.audit(tenant or PLATFORM, limit=100)
    return [(entry["topic"], entry["actor"], entry["details"]) for entry in reversed(page.items)]


# ---------------------------------------------------------------------------------------------------------- the session


async def test_who_signs_in_acts_as_a_member_until_he_signs_out(site: Site, page: Browser) -> None:
    ann = await person(site, "ann", ("acme", "operator"))
    told = await page.sign_in("ann")
    assert told["user"] == {"id": str(ann.user.id), "email": "ann@example.org", "name": "Ann"}
    assert (told["tenant"], told["roles"]) == ("acme", ["operator"])
    assert told["permissions"] == sorted(permissions_of(("operator",), "acme"))
    assert await _told(await page.send("GET", "/v1/session")) == told
    form = {"input": {"email": "eve@example.org", "name": "Eve"}}
    begun = await _told(await page.send("POST", "/v1/workflows/customer-onboarding/runs", form), 202)
    assert begun["run_id"]
    assert (await page.send("GET", "/v1/runs")).status == 200
    assert (await page.send("PUT", "/v1/secrets/x", {})).status == 403
    cookie = page.cookies()[COOKIE]
    assert await _told(await page.send("DELETE", "/v1/session")) == {"ended": 1}
    assert COOKIE not in page.cookies()
    again = await page.send("GET", "/v1/runs", Cookie=f"{COOKIE}={cookie}")
    assert await _code(again, 401) == "unauthenticated"
    said = [(topic, actor) for topic, actor, _ in await _topics(site, "acme")]
    assert said == [("user.signed_in", ann.user.actor), ("sessions.ended", ann.user.actor)]


async def test_the_cookie_is_for_this_host_alone_and_seen_by_no_script(site: Site, page: Browser) -> None:
    await person(site, "ann", ("acme", "viewer"))
    given = {"email": "ann@example.org", "password": PASSWORD}

    async def cookies(deps: Any) -> SimpleCookie:
        async with TestClient(TestServer(create_app(deps))) as client:
            origin = deps.public_url or str(client.make_url("/")).rstrip("/")
            answer = await client.post("/v1/session", json=given, headers={"Origin": origin})
            assert answer.status == 201
            found = SimpleCookie()
            for header in answer.headers.getall("Set-Cookie"):
                found.load(header)
            body = await answer.text()
            assert [one.value for name, one in found.items() if "browser" not in name and one.value in body] == []
            return found

    plain = await cookies(replace(site.deps))
    https = await cookies(replace(site.deps, public_url="https://unwind.example.org"))
    assert set(plain) == {"unwind", "unwind-browser"}
    assert set(https) == {"__Host-unwind", "__Host-unwind-browser"}
    for found, secure in ((plain, ""), (https, True)):
        for name, one in found.items():
            assert (one["httponly"], one["samesite"], one["path"], one["domain"]) == (True, "Lax", "/", ""), name
            assert one["secure"] == secure
            assert bool(one["max-age"]) == ("browser" in name)
            assert len(one.value) >= 43


async def test_a_new_sign_in_has_a_new_id_and_ends_what_the_browser_had(
    site: Site, page: Browser, other: Browser
) -> None:
    ann = await person(site, "ann", ("acme", "viewer"))
    await page.sign_in("ann")
    first = page.cookies()[COOKIE]
    await page.sign_in("ann")
    assert page.cookies()[COOKIE] != first
    assert (await other.send("GET", "/v1/session", Cookie=f"{COOKIE}={first}")).status == 401
    kept = await site.store.sessions(ann.user.id)
    assert sorted(one.revoked_at is None for one in kept) == [False, True]


async def test_one_s_own_sessions_are_seen_and_ended_elsewhere(site: Site, page: Browser, other: Browser) -> None:
    await person(site, "ann", ("acme", "viewer"))
    await page.sign_in("ann")
    await other.sign_in("ann")
    items = (await _told(await page.send("GET", "/v1/sessions")))["items"]
    assert [one["current"] for one in items] == [False, True]
    assert {one["address"] for one in items} == {"127.0.0.1"}
    assert await _told(await page.send("DELETE", "/v1/sessions")) == {"ended": 1}
    assert (await other.send("GET", "/v1/session")).status == 401
    assert len((await _told(await page.send("GET", "/v1/sessions")))["items"]) == 1


# ------------------------------------------------------------------------------------------------------ pages elsewhere

CHANGING = [route for route in ROUTES if route.method != "GET" and (route.permission is not None or route.session)]


def _path(route: Route) -> str:
    return route.path.replace("{", "").replace("}", "")


async def test_nothing_is_changed_without_the_session_s_token(site: Site, page: Browser, other: Browser) -> None:
    await person(site, "ann", (None, "admin"))
    await person(site, "bob", (None, "admin"))
    await other.sign_in("bob")
    await page.sign_in("ann")
    mine, page.token = page.token, ""
    for token in ("", "x", other.token, mine[:-1], mine + "x", "\u00e9"):
        for route in CHANGING:
            answer = await page.send(route.method, _path(route), {}, X_CSRF_Token=token)
            assert await _code(answer, 403) == "csrf_refused", route.name
    assert (await page.send("GET", "/v1/session")).status == 200
    assert (await page.send("DELETE", "/v1/sessions", X_CSRF_Token=mine)).status == 200


async def test_nothing_is_changed_by_a_page_of_another_origin(site: Site, page: Browser) -> None:
    await person(site, "ann", (None, "admin"))
    await page.sign_in("ann")
    own = str(site.client.make_url("/")).rstrip("/")
    others: list[dict[str, str]] = [
        {"Origin": "https://evil.example"},
        {"Origin": own + "0"},
        {"Origin": own.replace("http:", "https:")},
        {"Origin": "null"},
        {"Origin": own + "/"},
        {"Origin": "", "Sec_Fetch_Site": "cross-site"},
        {"Origin": "", "Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.example", "Sec_Fetch_Site": "same-origin"},
        {"Origin": ""},
    ]
    for route in CHANGING:
        for headers in others:
            assert await _code(await page.send(route.method, _path(route), {}, **headers), 403) == "origin_refused"
    for headers in others[:-1]:
        for path in ("/v1/session", "/v1/invitations/accept"):
            body = {"email": "ann@example.org", "password": PASSWORD} if path == "/v1/session" else {"token": "x"}
            assert await _code(await page.send("POST", path, body, **headers), 403) == "origin_refused", headers
    assert (await page.send("DELETE", "/v1/sessions", Origin="", Sec_Fetch_Site="same-origin")).status == 200


async def test_the_public_address_is_the_only_origin_where_there_is_one(site: Site) -> None:
    await person(site, "ann", ("acme", "viewer"))
    deps = replace(site.deps, public_url="http://unwind.example.org:80/somewhere")
    given = {"email": "ann@example.org", "password": PASSWORD}
    async with TestClient(TestServer(create_app(deps))) as client:
        for origin, status in (("http://unwind.example.org", 201), (str(client.make_url("/")).rstrip("/"), 403)):
            assert (await client.post("/v1/session", json=given, headers={"Origin": origin})).status == status
    assert origin_of("https://Unwind.example.org:443") == "https://unwind.example.org"
    assert origin_of("https://unwind.example.org:8443/x") == "https://unwind.example.org:8443"


async def test_nobody_signs_in_over_an_open_line(site: Site) -> None:
    await person(site, "ann", ("acme", "viewer"))
    given = {"email": "ann@example.org", "password": PASSWORD}
    for host, status in (
        ("unwind.example.org", 403),
        ("10.0.0.7:8080", 403),
        ("[", 403),
        ("localhost:8080", 201),
        ("[::1]:8080", 201),
    ):
        answer = await site.client.post("/v1/session", json=given, headers={"Host": host})
        assert answer.status == status, host
        if status == 403:
            assert "UNWIND_HTTP__PUBLIC_URL" in (await answer.json())["detail"]


async def test_a_token_speaks_for_itself_whatever_cookie_comes_with_it(town: Site, page: Browser) -> None:
    await person(town, "ann", ("globex", "viewer"))
    await page.sign_in("ann")
    bearer = town.headers("acme", "operator")["Authorization"]
    form = {"input": {"email": "eve@example.org", "name": "Eve"}}
    path = "/v1/workflows/customer-onboarding/runs"
    answer = await page.send("POST", path, form, Authorization=bearer, Origin="https://evil.example", X_CSRF_Token="")
    assert answer.status == 202
    assert (await page.send("GET", "/v1/runs", Authorization="Bearer nonsense")).status == 401
    # What is a user's own needs his session.
    assert await _code(await page.send("GET", "/v1/session", Authorization=bearer), 401) == "unauthenticated"


# ------------------------------------------------------------------------------------------------------------- refusals


async def test_every_refused_sign_in_is_one_identical_401_and_leaves_nothing_but_a_count(
    site: Site, page: Browser
) -> None:
    await person(site, "ann", ("acme", "viewer"))
    gone = await person(site, "gone", ("acme", "viewer"))
    await site.store.disable_user(gone.user.id, now=site.deps.clock.now())
    blank = await person(site, "blank", ("acme", "viewer"))
    await site.store.set_password(blank.user.id, None, was=blank.user.password)
    await person(site, "homeless")
    seen = set()
    tries = [{"email": "ann@example.org", "password": "x"}, {"email": "", "password": ""}]
    tries += [{"email": f"{name}@example.org", "password": PASSWORD} for name in ("gone", "blank", "homeless", "who")]
    tries += [{"email": "ann@example.org", "password": PASSWORD, "tenant": "globex"}]
    for body in tries:
        answer = await page.send("POST", "/v1/session", body)
        headers = {name: value for name, value in answer.headers.items() if name not in ("X-Request-ID", "Date")}
        seen.add((answer.status, await answer.read(), tuple(sorted(headers.items()))))
    assert len(seen) == 1
    [(status, content, said)] = seen
    assert status == 401
    assert b"sign_in_refused" in content
    assert "Set-Cookie" not in dict(said)
    app = site.client.app
    assert app is not None
    await app[SIGN_IN_REFUSALS].flush()
    await app[SIGN_IN_REFUSALS].flush()
    assert await _topics(site, None) == [("sign_ins.refused", "engine", {"count": len(tries)})]


async def test_a_sign_in_that_is_tried_too_often_says_when_to_come_again(site: Site, page: Browser) -> None:
    await person(site, "ann", ("acme", "viewer"))
    for _ in range(EMAIL_TRIES):
        assert (await page.send("POST", "/v1/session", {"email": "ann@example.org", "password": "x"})).status == 401
    limited = await page.send("POST", "/v1/session", {"email": "ann@example.org", "password": PASSWORD})
    assert await _code(limited, 429) == "rate_limited"
    assert 890 < int(limited.headers["Retry-After"]) <= 900


async def test_a_member_of_a_suspended_tenant_is_refused_by_name_and_may_sign_out(site: Site, page: Browser) -> None:
    await person(site, "ann", ("acme", "admin"))
    await person(site, "bob", ("acme", "admin"), ("globex", "viewer"))
    await page.sign_in("ann")
    await site.store.note_standing("acme", "Suspended", 2)
    refused = await _told(await page.send("GET", "/v1/runs"), 403)
    assert (refused["code"], refused["detail"]) == (
        "tenant_suspended",
        "the tenant is suspended; this works again when it is reinstated",
    )
    assert [one["barred"] for one in (await _told(await page.send("GET", "/v1/session")))["memberships"]] == [
        "tenant_suspended"
    ]
    assert (await page.send("DELETE", "/v1/session")).status == 200
    again = await page.send("POST", "/v1/session", {"email": "ann@example.org", "password": PASSWORD})
    assert await _code(again, 403) == "tenant_suspended"
    assert (await page.sign_in("bob"))["tenant"] == "globex"
    assert await _code(await page.send("PUT", "/v1/session/tenant", {"tenant": "acme"}), 403) == "tenant_suspended"
    await site.store.note_standing("acme", "Active", 3)
    assert (await _told(await page.send("PUT", "/v1/session/tenant", {"tenant": "acme"})))["roles"] == ["admin"]


# --------------------------------------------------------------------------------------------------------------- people


async def test_a_member_of_several_tenants_has_in_each_what_he_may_do_there(town: Site, page: Browser) -> None:
    await person(town, "ann", ("acme", "admin"), ("globex", "viewer"))
    assert (await page.sign_in("ann", tenant="globex"))["tenant"] == "globex"
    assert (await page.send("POST", "/v1/pauses", {})).status == 403
    runs = (await _told(await page.send("GET", "/v1/runs")))["items"]
    assert {one["tenant"] for one in runs} == {"globex"}
    named = (await _told(await page.send("GET", "/v1/runs", X_Tenant="acme")))["items"]
    assert {one["tenant"] for one in named} == {"acme"}
    assert (await page.send("POST", "/v1/pauses", {}, X_Tenant="acme")).status == 200
    moved = await _told(await page.send("PUT", "/v1/session/tenant", {"tenant": "acme"}))
    assert (moved["tenant"], moved["roles"]) == ("acme", ["admin"])
    assert (await _told(await page.send("GET", "/v1/session")))["tenant"] == "acme"
    answers = {
        await (await page.send("PUT", "/v1/session/tenant", {"tenant": where})).read()
        for where in ("initech", "nobody", None)
    }
    assert len(answers) == 1
    answers = {await (await page.send("GET", "/v1/runs", X_Tenant=where)).read() for where in ("initech", "nobody")}
    assert len(answers) == 1


async def test_an_invitation_is_accepted_by_who_is_new_and_by_who_is_known(
    site: Site, page: Browser, other: Browser
) -> None:
    ann = await person(site, "ann", ("acme", "admin"))
    await page.sign_in("ann")
    invited = await _told(
        await page.send("POST", "/v1/invitations", {"email": "Bob@Example.org", "roles": ["viewer"]}), 201
    )
    assert (invited["tenant"], invited["state"], invited["invited_by"]) == ("acme", "open", ann.user.actor)
    listed = (await _told(await page.send("GET", "/v1/invitations")))["items"]
    assert listed == [{name: value for name, value in invited.items() if name != "token"}]
    accept = {"token": invited["token"], "name": "Bob", "password": NEW_PASSWORD}
    for change, field in (
        ({"password": "short"}, "password"),
        ({"password": None}, "password"),
        ({"name": None}, "name"),
    ):
        refused = await _told(await other.send("POST", "/v1/invitations/accept", accept | change), 422)
        assert refused["field"] == field
    told = await _told(await other.send("POST", "/v1/invitations/accept", accept), 201)
    assert (told["tenant"], told["roles"]) == ("acme", ["viewer"])
    assert await _code(await other.send("POST", "/v1/invitations/accept", accept), 403) == "csrf_refused"
    other.token = told["csrf_token"]
    assert await _code(await other.send("POST", "/v1/invitations/accept", accept), 404) == "invitation_over"
    # Known by now: whoever invites him again cannot choose his password.
    root = await person(site, "root", (None, "admin"))
    await page.sign_in("root")
    more = await _told(
        await page.send(
            "POST", "/v1/invitations", {"email": "bob@example.org", "roles": ["author"]}, X_Tenant="globex"
        ),
        201,
    )
    stolen = {"token": more["token"], "name": "Eve", "password": "eve's own password"}
    await page.send("DELETE", "/v1/session")
    page.token = ""
    assert await _code(await page.send("POST", "/v1/invitations/accept", stolen), 401) == "sign_in_refused"
    joined = await _told(await other.send("POST", "/v1/invitations/accept", {"token": more["token"]}), 201)
    assert [one["tenant"] for one in joined["memberships"]] == ["acme", "globex"]
    assert joined["user"]["name"] == "Bob"
    bob = f"user:{joined['user']['id']}"
    assert [(topic, actor) for topic, actor, _ in await _topics(site, "globex")] == [
        ("user.invited", root.user.actor),
        ("invitation.accepted", bob),
    ]
    audit = str(await _topics(site, "acme") + await _topics(site, "globex") + await _topics(site, None))
    for secret in ("example.org", "Bob", invited["token"], NEW_PASSWORD):
        assert secret not in audit


async def test_an_admin_manages_the_members_of_his_tenant_and_nobody_else(
    town: Site, page: Browser, other: Browser
) -> None:
    await person(town, "ann", ("acme", "admin"))
    both = await person(town, "bob", ("acme", "viewer"), ("globex", "admin"))
    stranger = await person(town, "eve", ("globex", "viewer"))
    await page.sign_in("ann")
    await other.sign_in("bob", tenant="globex")
    users = {one["email"]: one for one in (await _told(await page.send("GET", "/v1/users")))["items"]}
    assert set(users) == {"ann@example.org", "bob@example.org", "member@acme.example"}
    assert [one["tenant"] for one in users["bob@example.org"]["memberships"]] == ["acme"]
    assert {one["signed_in_at"] for one in users.values()} == {None}
    path = f"/v1/users/{both.user.id}"
    changed = await _told(await page.send("PATCH", path, {"roles": ["operator", "author"]}))
    assert changed["memberships"][0]["roles"] == ["operator", "author"]
    off = await _told(await page.send("PATCH", path, {"disabled": True}))
    assert (off["disabled"], off["memberships"][0]["disabled"]) == (False, True)
    assert (await other.send("GET", "/v1/runs")).status == 200
    assert (await other.send("GET", "/v1/runs", X_Tenant="acme")).status == 404
    assert await _told(await page.send("DELETE", path + "/sessions")) == {"ended": 0}
    both_said = await page.send("PATCH", path, {"roles": [], "disabled": False})
    assert await _code(both_said, 422) == "payload_invalid"
    assert (await _told(await page.send("PATCH", path, {"roles": []})))["memberships"] == []
    for method, body in (("GET", None), ("PATCH", {"disabled": True}), ("DELETE", None)):
        assert (await page.send(method, f"/v1/users/{stranger.user.id}", body)).status == (
            403 if method == "DELETE" else 404
        )
    assert (await page.send("GET", f"/v1/users?email={stranger.user.email}")).status == 200
    found = await _told(await page.send("GET", f"/v1/users?email={stranger.user.email}"))
    assert found["items"] == []
    assert (await other.send("GET", "/v1/runs")).status == 200


async def test_the_platform_s_admin_shuts_a_person_out_everywhere_and_erases_him(
    site: Site, page: Browser, other: Browser
) -> None:
    await person(site, "root", (None, "admin"))
    bob = await person(site, "bob", ("acme", "admin"))
    await page.sign_in("root")
    await other.sign_in("bob")
    path = f"/v1/users/{bob.user.id}"
    assert await _told(await page.send("DELETE", path + "/sessions")) == {"ended": 1}
    assert (await other.send("GET", "/v1/session")).status == 401
    await other.sign_in("bob")
    assert (await _told(await page.send("PATCH", path, {"disabled": True})))["disabled"] is True
    assert (await other.send("GET", "/v1/session")).status == 401
    refused = await other.send("POST", "/v1/session", {"email": "bob@example.org", "password": PASSWORD})
    assert await _code(refused, 401) == "sign_in_refused"
    assert (await _told(await page.send("PATCH", path, {"disabled": False})))["disabled"] is False
    added = await _told(await page.send("PATCH", path, {"roles": ["viewer"]}, X_Tenant="globex"))
    assert [one["tenant"] for one in added["memberships"]] == ["globex"]
    assert len((await _told(await page.send("GET", path)))["memberships"]) == 2
    assert await _told(await page.send("DELETE", path)) == {"id": str(bob.user.id)}
    assert (await page.send("GET", path)).status == 404
    own = await _told(await page.send("GET", "/v1/session"))
    assert await _code(await page.send("DELETE", f"/v1/users/{own['user']['id']}"), 409) == "conflict"
    topics = [topic for topic, _, details in await _topics(site, None) if details.get("user") == str(bob.user.id)]
    assert topics == ["sessions.ended", "user.disabled", "user.enabled", "user.erased"]


async def test_one_s_password_is_changed_with_the_old_one_and_ends_the_other_sessions(
    site: Site, page: Browser, other: Browser
) -> None:
    await person(site, "ann", ("acme", "viewer"))
    await page.sign_in("ann")
    await other.sign_in("ann")
    change = {"old_password": PASSWORD, "password": NEW_PASSWORD}
    for wrong, field in (({"old_password": "x"}, "old_password"), ({"password": "short"}, "password")):
        assert (await _told(await page.send("POST", "/v1/session/password", change | wrong), 422))["field"] == field
    assert await _told(await page.send("POST", "/v1/session/password", change)) == {"ended": 1}
    assert (await page.send("GET", "/v1/session")).status == 200
    assert (await other.send("GET", "/v1/session")).status == 401
    with pytest.raises(AssertionError):
        await other.sign_in("ann")
    await other.sign_in("ann", NEW_PASSWORD)


async def test_everybody_is_listed_page_by_page(site: Site, page: Browser) -> None:
    await person(site, "root", (None, "admin"))
    await page.sign_in("root")
    for number in range(4):
        user = await site.deps.door.people.newcomer(f"u{number}@example.org", "U", None)
        await site.store.add_user(user)
    seen: list[str] = []
    query = "/v1/users?limit=2"
    while True:
        told = await _told(await page.send("GET", query))
        seen += [one["email"] for one in told["items"]]
        if told["next"] is None:
            break
        query = f"/v1/users?limit=2&cursor={told['next']}"
    assert sorted(seen) == ["root@example.org", *(f"u{number}@example.org" for number in range(4))]
    assert len(seen) == len(set(seen))
