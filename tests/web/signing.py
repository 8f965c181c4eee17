"""People for tests of the API: made in the store, signed in as a browser would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import aiohttp
from aiohttp import ClientResponse
from yarl import URL

from engine.guards.permissions import Principal, permissions_of
from engine.store.people import Membership, Person
from tests.web.conftest import Site

PASSWORD = "violet harbour lamp"
ROOT = Principal("root", None, ("admin",), permissions_of(("admin",), None))


async def person(site: Site, name: str, *places: tuple[str | None, str], password: str = PASSWORD) -> Person:
    """A user with that role in each of these places."""
    people = site.deps.door.people
    user = await people.newcomer(f"{name}@example.org", name.capitalize(), password)
    assert await site.store.add_user(user)
    for tenant, role in places:
        await site.store.put_membership(
            Membership(user_id=user.id, tenant=tenant, roles=(role,), created_at=user.created_at)
        )
    return await people.person(user.id, None)


@dataclass
class Browser:
    """Keeps cookies, and sends the session's token as a page does."""

    session: aiohttp.ClientSession
    site: Site
    token: str = ""

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> ClientResponse:
        """As a page of ours: with Origin, and the token once it is known. An empty header is left out."""
        own = str(self.site.client.make_url("/")).rstrip("/")
        sent = {"Origin": own, "X-CSRF-Token": self.token} | {name.replace("_", "-"): v for name, v in headers.items()}
        sent = {name: value for name, value in sent.items() if value}
        return await self.session.request(method, self.site.client.make_url(path), json=body, headers=sent)

    async def sign_in(self, name: str, password: str = PASSWORD, **more: Any) -> dict[str, Any]:
        answer = await self.send("POST", "/v1/session", {"email": f"{name}@example.org", "password": password, **more})
        told: dict[str, Any] = await answer.json()
        assert answer.status == 201, told
        self.token = told["csrf_token"]
        return told

    def cookies(self) -> dict[str, str]:
        url = URL(str(self.site.client.make_url("/")))
        return {name: morsel.value for name, morsel in self.session.cookie_jar.filter_cookies(url).items()}


def browser(site: Site) -> Browser:
    """A new one; the test closes its session."""
    return Browser(aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)), site)


def ident(person: Person) -> UUID:
    return person.user.id
