"""People sign in by an identity provider: a certified one, with its own pages, through every redirect."""

from __future__ import annotations

import asyncio
import html
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp.test_utils import unused_port

from engine.plan.code import Run, saga
from tests import node
from tests.stories.house import DEADLINE_SECONDS, House, Stack, until

Page = aiohttp.ClientResponse

HERE = Path(__file__).parent / "oidc_provider"
CLIENT = {"CLIENT_ID": "unwind", "CLIENT_SECRET": "a secret: 100%"}
ACCOUNTS = {
    "ann": {"email": "ann@example.org", "email_verified": True, "name": "Ann"},
    "eve": {"email": "eve@example.org", "email_verified": True},
    "liar": {"email": "bob@example.org", "email_verified": False},
}


@saga("greeting", version=1)
async def greeting(run: Run, order: dict[str, Any]) -> dict[str, Any]:
    return {"greeted": order["name"]}


@pytest.fixture(scope="session")
def installed(node_folder: Callable[[Path], Path]) -> Path:
    return node_folder(HERE)


@asynccontextmanager
async def provider(folder: Path, redirect_uri: str) -> AsyncIterator[str]:
    """A provider that runs; its issuer."""
    given = {**CLIENT, "REDIRECT_URI": redirect_uri, "ACCOUNTS": orjson.dumps(ACCOUNTS).decode()}
    process = await asyncio.create_subprocess_exec(
        node.tool("node"),
        "provider.mjs",
        cwd=folder,
        env={**os.environ, **given},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def fill_in(
    browser: aiohttp.ClientSession, page: aiohttp.ClientResponse, **fields: str
) -> aiohttp.ClientResponse:
    """Sends the form of a page, and follows where it leads."""
    found = re.search(r'<form[^>]* action="([^"]+)"', await page.text())
    assert found, (page.status, page.url, await page.text())
    return await browser.post(html.unescape(found[1]), data=fields)


async def sign_in(browser: aiohttp.ClientSession, house: House, login: str) -> Page:
    """As a person does it: to the provider, through its pages, and back."""
    page = await browser.get(f"{house.url}/v1/session/oidc/start", params={"return_to": "/v1/session"})
    page = await fill_in(browser, page, prompt="login", login=login, password="any")
    return await fill_in(browser, page, prompt="consent")


def browser() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True, quote_cookie=False))


async def test_an_invited_person_signs_in_by_a_provider_and_acts_in_its_tenant_alone(
    stack: Stack, installed: Path
) -> None:
    url = f"http://127.0.0.1:{unused_port()}"
    async with provider(installed, f"{url}/v1/session/oidc/callback") as issuer:
        oidc = {"issuer": issuer, "client_id": CLIENT["CLIENT_ID"], "client_secret": CLIENT["CLIENT_SECRET"]}
        async with (
            House(
                stack,
                sagas=[greeting],
                modules=(),
                http={"port": int(url.rpartition(":")[2]), "probe_port": 0, "public_url": url},
                oidc={**oidc, "private_hosts": (issuer.removeprefix("http://"),)},
            ) as house,
            browser() as anns,
            browser() as eves,
            browser() as liars,
        ):
            for name in ("ann", "bob"):
                invitation = {"email": f"{name}@example.org", "roles": ["operator"]}
                await house.api.post("/v1/invitations", invitation, act_for="acme")

            page = await sign_in(anns, house, "ann")
            assert page.status == 200, await page.text()
            session = await page.json()
            assert (session["user"]["name"], session["tenant"], session["roles"]) == ("Ann", "acme", ["operator"])

            # Only she was invited: not who nobody knows, and not who claims an address that is not proven.
            for others, login in ((eves, "eve"), (liars, "liar")):
                refused = await sign_in(others, house, login)
                assert (refused.status, (await refused.json())["code"]) == (401, "oidc_refused")
                assert (await others.get(f"{url}/v1/runs")).status == 401

            sent = {"Origin": url, "X-CSRF-Token": session["csrf_token"]}
            begun = await anns.post(f"{url}/v1/workflows/greeting/runs", json={"input": {"name": "all"}}, headers=sent)
            assert begun.status == 202, await begun.text()
            run = await house.until_status((await begun.json())["run_id"], "succeeded")
            assert (run["tenant"], run["output"]) == ("acme", {"greeted": "all"})
            assert (await anns.get(f"{url}/v1/runs/{run['run_id']}", headers={"X-Tenant": "globex"})).status == 404

            async def noted() -> list[Any]:
                found = await house.api.get("/v1/audit", tenant="acme", topic="user.signed_in")
                return list(found["items"])

            [entry] = await until(noted, bool)
            assert entry["actor"] == f"user:{session['user']['id']}"
            assert (await house.cli("users", "unlink", "ann@example.org"))["unlinked"] == 1
