"""Signing in by an identity provider over the API: who gets in, as whom; and everybody else gets the same answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer, unused_port
from pydantic import SecretStr
from yarl import URL

from consumers.web import create_app
from consumers.web.routes import Deps
from engine.guards.oidc import Attempt, Provider
from engine.guards.permissions import make_token
from engine.settings import EgressSettings, OidcSettings
from engine.sign_in import ADDRESS_TRIES
from engine.store.people import Person
from tests.stories.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider
from tests.web.conftest import Site
from tests.web.signing import PASSWORD, ROOT, person

START, BACK = "/v1/session/oidc/start", "/v1/session/oidc/callback"


@dataclass
class Front:
    """The API with a provider. `ann` is at the browser."""

    site: Site
    there: IdentityProvider
    deps: Deps
    url: str
    browser: aiohttp.ClientSession
    server: TestServer
    kept: list[aiohttp.ClientSession] = field(default_factory=list)

    async def other_browser(self) -> aiohttp.ClientSession:
        self.kept.append(_browser())
        return self.kept[-1]

    async def get(self, path: str, browser: aiohttp.ClientSession | None = None, **query: str) -> Said:
        """Follows every redirect."""
        async with (browser or self.browser).get(self.url + path, params=query) as answer:
            return Said(answer.status, answer.url, await answer.read())

    async def sign_in(self, browser: aiohttp.ClientSession | None = None, **more: str) -> Said:
        return await self.get(START, browser, return_to="/v1/session", **more)

    async def on_the_way_back(self) -> URL:
        """Where the provider sends the browser, which has not gone there yet."""
        async with self.browser.get(self.url + START, allow_redirects=False) as there:
            onward = URL(there.headers["Location"], encoded=True)
        async with self.browser.get(onward, allow_redirects=False) as back:
            return URL(back.headers["Location"], encoded=True)

    async def server_stops(self) -> None:
        """What it counted is recorded then."""
        await self.server.close()

    async def invite(self, email: str, tenant: str | None = "acme", role: str = "viewer") -> Any:
        return (await self.deps.door.people.invite(email, tenant, [role], by=ROOT)).invitation

    async def known(self) -> Person | None:
        return await self.site.store.person_by_identity(self.there.issuer, str(self.there.account["sub"]))

    async def noted(self, topic: str, tenant: str = "acme") -> list[Mapping[str, Any]]:
        await self.site.projector.catch_up()
        return list((await self.deps.reader.audit(tenant, topic=topic, limit=200)).items)


@dataclass(frozen=True)
class Said:
    status: int
    url: URL
    body: bytes


def _browser() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


@pytest.fixture
async def front(site: Site) -> AsyncIterator[Front]:
    async with IdentityProvider() as there:
        port = unused_port()
        url = f"http://127.0.0.1:{port}"
        settings = OidcSettings(
            issuer=there.issuer,
            client_id=CLIENT_ID,
            client_secret=SecretStr(CLIENT_SECRET),
            name="The company",
            private_hosts=(there.address,),
        )
        provider = Provider.from_settings(settings, EgressSettings(), site.deps.clock, site.metrics)
        deps = replace(site.deps, oidc=provider, public_url=url)
        server = TestServer(create_app(deps), port=port)
        await server.start_server()
        made = Front(site, there, deps, url, _browser(), server)
        yield made
        for browser in (made.browser, *made.kept):
            await browser.close()
        await server.close()


def _told(said: Said) -> dict[str, Any]:
    assert said.status == 200, said.body
    found: dict[str, Any] = orjson.loads(said.body)
    return found


def _refused(said: Said) -> bytes:
    assert (said.status, orjson.loads(said.body)["code"]) == (401, "oidc_refused"), said
    return said.body


async def test_an_invited_person_comes_in_and_is_known_from_then_on(front: Front) -> None:
    await front.invite("Ann@Example.org")
    await front.invite("ann@example.org", "globex")
    told = _told(await front.sign_in())
    assert {cookie.key for cookie in front.browser.cookie_jar} == {"unwind"}
    # The newest invitation: others wait until their tokens are used.
    assert (told["user"]["email"], told["tenant"], told["roles"]) == ("ann@example.org", "globex", ["viewer"])
    assert [place["tenant"] for place in told["memberships"]] == ["globex"]
    ann = await front.known()
    assert ann is not None
    assert (str(ann.user.id), ann.user.password) == (told["user"]["id"], None)
    [signed] = await front.noted("user.signed_in", "globex")
    [linked] = await front.noted("identity.linked", "platform")
    assert (signed["actor"], signed["details"]["how"]) == (ann.user.actor, "oidc")
    assert linked["details"] == {"user": str(ann.user.id), "issuer": front.there.issuer}
    # By issuer and subject: an address that moved, or that is not verified any more, changes nothing.
    front.there.account |= {"email": "ann@elsewhere.example", "email_verified": False}
    assert _told(await front.sign_in(await front.other_browser()))["user"] == told["user"]
    assert len(await front.noted("identity.linked", "platform")) == 1


async def test_a_user_is_linked_by_a_verified_address_once(front: Front) -> None:
    bob = await person(front.site, "ann", ("acme", "operator"))
    told = _told(await front.sign_in())
    assert (told["user"]["id"], told["roles"]) == (str(bob.user.id), ["operator"])
    front.there.account["sub"] = "somebody-else-1"
    _refused(await front.sign_in(await front.other_browser()))
    assert await front.known() is None
    assert [one.subject for one in await front.site.store.identities(bob.user.id)] == ["ann-1"]
    # Until the platform takes the old one from him.
    text, token = make_token("root", ("admin",), tenant=None, now=front.deps.clock.now())
    await front.site.store.add_token(token)
    path = f"{front.url}/v1/users/{bob.user.id}/identities"
    for left in (1, 0):
        async with front.browser.delete(path, headers={"Authorization": f"Bearer {text}"}) as answer:
            assert (answer.status, await answer.json()) == (200, {"unlinked": left})
    assert _told(await front.sign_in(await front.other_browser()))["user"]["id"] == str(bob.user.id)
    [unlinked] = await front.noted("identities.unlinked", "platform")
    assert (unlinked["actor"], unlinked["details"]) == ("root", {"user": str(bob.user.id), "count": 1})


async def test_whoever_had_a_user_of_that_address_before_is_out(front: Front) -> None:
    ann = await person(front.site, "ann", ("acme", "operator"))
    squatter = await front.other_browser()
    own = {"Origin": front.url}
    form = {"email": ann.user.email, "password": PASSWORD}
    async with squatter.post(f"{front.url}/v1/session", json=form, headers=own) as answer:
        assert answer.status == 201
    _told(await front.sign_in())
    assert (await front.get("/v1/session", squatter)).status == 401
    async with squatter.post(f"{front.url}/v1/session", json=form, headers=own) as answer:
        assert answer.status == 401
    _told(await front.get("/v1/session"))


async def test_a_tenant_may_be_named_and_an_invitation_there_is_taken(front: Front) -> None:
    await front.invite("ann@example.org", "acme", "operator")
    await front.invite("ann@example.org", "globex")
    told = _told(await front.sign_in(tenant="acme"))
    assert (told["tenant"], [place["tenant"] for place in told["memberships"]]) == ("acme", ["acme"])
    front.there.account["email_verified"] = False
    _refused(await front.sign_in(tenant="globex"))
    front.there.account["email_verified"] = True
    told = _told(await front.sign_in(tenant="globex"))
    assert (told["tenant"], told["roles"]) == ("globex", ["viewer"])
    assert [place["tenant"] for place in told["memberships"]] == ["acme", "globex"]
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 302), ("none", 302)):
        there = f"{front.url}{START}?tenant=globex"
        async with front.browser.get(there, headers={"Sec-Fetch-Site": site}, allow_redirects=False) as answer:
            assert answer.status == status
    _refused(await front.sign_in(tenant="initech"))
    _refused(await front.sign_in(tenant="platform"))


@pytest.mark.parametrize("verified", [False, None, "true"])
async def test_an_address_that_is_not_verified_links_and_accepts_nothing(front: Front, verified: Any) -> None:
    front.there.account["email_verified"] = verified
    invitation = await front.invite("ann@example.org")
    first = _refused(await front.sign_in())
    ann = await person(front.site, "ann", ("acme", "admin"))
    assert _refused(await front.sign_in()) == first
    assert await front.known() is None
    assert await front.site.store.identities(ann.user.id) == []
    kept = await front.site.store.invitation(invitation.id)
    assert kept is not None
    assert kept.accepted_at is None


async def test_who_may_not_come_in_gets_one_answer_that_does_not_say_why(front: Front) -> None:
    answers = {_refused(await front.sign_in())}  # uninvited
    revoked = await front.invite("ann@example.org")
    await front.deps.door.people.revoke(revoked.id, by=ROOT)
    answers.add(_refused(await front.sign_in()))
    front.there.account["email"] = "ann@ex\u00e4mple.org"
    answers.add(_refused(await front.sign_in()))
    front.there.account["email"] = "ann@example.org"
    ann = await person(front.site, "ann", ("acme", "admin"))
    now = front.deps.clock.now()
    await front.site.store.disable_user(ann.user.id, now=now)
    answers.add(_refused(await front.sign_in()))
    assert await front.site.store.identities(ann.user.id) == []
    await front.site.store.disable_user(ann.user.id, now=None)
    _told(await front.sign_in())
    await front.site.store.disable_user(ann.user.id, now=now)
    answers.add(_refused(await front.sign_in()))
    for claims, answered in (
        ({"nonce": "another"}, {}),
        ({"aud": "another"}, {}),
        ({}, {"error": "access_denied", "code": None}),
        ({}, {"iss": "https://evil.example"}),
        ({}, {"state": "another"}),
    ):
        front.there.claims, front.there.answered = claims, answered
        answers.add(_refused(await front.sign_in()))
    assert len(answers) == 1
    page = (await front.get("/metrics")).body.decode()
    assert 'unwind_sign_ins_total{result="refused"} 10.0' in page
    assert 'unwind_sign_ins_total{result="ok"} 1.0' in page
    await front.server_stops()
    [noted] = await front.noted("sign_ins.refused", "platform")
    assert noted["details"]["count"] == 10


async def test_an_answer_counts_once_and_in_the_browser_that_began(front: Front) -> None:
    await front.invite("ann@example.org")
    back = await front.on_the_way_back()
    stranger = await front.other_browser()
    _refused(await front.get(BACK, stranger, **back.query))  # no cookie at all
    await front.get(START, stranger)
    _refused(await front.get(BACK, stranger, **back.query))  # of a sign-in of its own
    cookie = next(one.value for one in front.browser.cookie_jar if one.key == "unwind-oidc")
    changed = cookie[:30] + ("A" if cookie[30] != "A" else "B") + cookie[31:]
    stranger.cookie_jar.update_cookies({"unwind-oidc": changed}, URL(front.url))
    _refused(await front.get(BACK, stranger, **back.query))
    async with front.browser.get(back, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "/")
        assert {name: morsel["max-age"] for name, morsel in answer.cookies.items()} == {
            "unwind": "",
            "unwind-oidc": "0",
        }
    again = await front.other_browser()
    again.cookie_jar.update_cookies({"unwind-oidc": cookie}, URL(front.url))
    _refused(await front.get(BACK, again, **back.query))


async def test_the_way_there_is_redirect_and_cookie(front: Front) -> None:
    async with front.browser.get(front.url + START, allow_redirects=False) as answer:
        assert answer.status == 302
        assert answer.headers["Location"].startswith(
            f"{front.there.issuer}/authorize?audience=staff&response_type=code"
        )
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        [(name, morsel)] = answer.cookies.items()
    assert (name, morsel["httponly"], morsel["samesite"], morsel["max-age"]) == ("unwind-oidc", True, "Lax", "600")
    secure = replace(front.deps, public_url="https://unwind.example.org/app")
    async with TestClient(TestServer(create_app(secure))) as client:
        answer = await client.get(START, allow_redirects=False)
        [(name, morsel)] = answer.cookies.items()
        assert (name, morsel["secure"], morsel["path"]) == ("__Host-unwind-oidc", True, "/")
        asked = URL(answer.headers["Location"]).query
        assert asked["redirect_uri"] == "https://unwind.example.org/app/v1/session/oidc/callback"
        sealed = str(morsel.value)
        attempt = await Attempt.open(front.deps.vault, front.there.issuer, sealed, front.deps.clock.now())
        assert (attempt.state, attempt.return_to) == (asked["state"], "/app/")
    for elsewhere in ("//evil.example", "https://evil.example/", "/\\evil.example", "runs"):
        said = await front.get(START, return_to=elsewhere)
        assert (said.status, orjson.loads(said.body)["field"]) == (400, "return_to")


async def test_a_session_that_the_browser_had_ends_with_the_new_one(front: Front) -> None:
    await front.invite("ann@example.org")
    _told(await front.sign_in())
    _told(await front.sign_in())
    ann = await front.known()
    assert ann is not None
    sessions = await front.site.store.sessions(ann.user.id)
    assert sorted(one.revoked_at is None for one in sessions) == [False, True]


async def test_an_address_that_tries_again_and_again_is_slowed(front: Front) -> None:
    for _ in range(ADDRESS_TRIES):
        _refused(await front.get(BACK, state="guessed", code="guessed"))
    said = await front.get(BACK, state="guessed", code="guessed")
    assert (said.status, orjson.loads(said.body)["code"]) == (429, "rate_limited")
    assert 'unwind_sign_ins_total{result="limited"} 1.0' in (await front.get("/metrics")).body.decode()


async def test_a_provider_that_is_away_or_not_there_is_said_so(front: Front, site: Site) -> None:
    providers = await front.get("/v1/session/providers")
    assert orjson.loads(providers.body) == {"items": [{"name": "The company", "start": START}]}
    front.there.down = True
    said = await front.get(START)
    assert (said.status, orjson.loads(said.body)["code"]) == (503, "identity_provider_unavailable")
    assert front.there.address.encode() not in said.body
    assert await (await site.client.get("/v1/session/providers")).json() == {"items": []}
    for path in (START, BACK):
        assert (await site.client.get(path)).status == 404
