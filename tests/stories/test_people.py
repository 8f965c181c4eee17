"""People sign in: the first admin by command line, others by invitation; each acts where he is a member and is out at
once when he is not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.stories.house import House, Record, Stack, until
from tests.stories.understudy import fact
from tests.stories.workshop import member

PASSWORD = "violet harbour lamp"
OTHERS = "amber ladder stone"
FORM: Record = {"input": {"email": "eve@example.org"}}


class Page:
    """A page of the installation in a browser of its own."""

    def __init__(self, house: House, session: aiohttp.ClientSession) -> None:
        self._house, self._session = house, session
        self.token = ""

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Record]:
        own = {"Origin": self._house.url, "X-CSRF-Token": self.token} | headers
        async with self._session.request(method, self._house.url + path, json=body, headers=own) as answer:
            return answer.status, await answer.json()

    async def enter(self, path: str, body: Record) -> Record:
        """Signs in, by whichever way."""
        status, told = await self.ask("POST", path, body)
        assert status == 201, told
        self.token = told["csrf_token"]
        return told


@asynccontextmanager
async def page(house: House) -> AsyncIterator[Page]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield Page(house, session)


@pytest.mark.acceptance("H6")
@pytest.mark.acceptance("J10")
async def test_people_come_by_invitation_act_in_their_tenant_and_are_out_at_once(stack: Stack) -> None:
    async with House(stack, sagas=(member,), modules=("identity",)) as house, page(house) as ann, page(house) as bob:
        made = await house.cli("users", "create", "ann@example.org", "--name", "Ann", "--admin", typed=PASSWORD + "\n")
        assert made["roles"] == ["admin"]
        told = await ann.enter("/v1/session", {"email": "Ann@example.org", "password": PASSWORD})
        assert (told["tenant"], told["user"]["id"]) == (None, made["id"])

        invited = {"email": "bob@example.org", "roles": ["operator"]}
        status, invitation = await ann.ask("POST", "/v1/invitations", invited, **{"X-Tenant": "acme"})
        assert status == 201, invitation
        accept = {"token": invitation["token"], "name": "Bob", "password": OTHERS}
        told = await bob.enter("/v1/invitations/accept", accept)
        assert (told["tenant"], told["roles"]) == ("acme", ["operator"])
        actor = f"user:{told['user']['id']}"

        status, begun = await bob.ask("POST", "/v1/workflows/member/runs", FORM)
        assert status == 202, begun
        run = await house.until_status(begun["run_id"], "succeeded")
        assert (run["tenant"], run["initiator"]) == ("acme", actor)
        elsewhere = [await bob.ask("GET", "/v1/runs", **{"X-Tenant": name}) for name in ("globex", "nobody")]
        assert elsewhere[0] == elsewhere[1]
        assert elsewhere[0][0] == 404
        assert (await bob.ask("GET", "/v1/users"))[0] == 403
        assert (await bob.ask("POST", "/v1/workflows/member/runs", FORM, Origin="https://evil.example"))[0] == 403

        state = {"tenant": "acme", "state": "Suspended", "revision": 7, "reason": "it mines coins", "cause": "operator"}
        await house.ear.send(fact("tenancy.TenantSuspendedV1", state, tenant="acme", id="suspended"))
        status, refused = await until(lambda: bob.ask("GET", "/v1/runs"), lambda answer: answer[0] != 200)
        assert (status, refused["code"]) == (403, "tenant_suspended")
        assert (await bob.ask("POST", "/v1/session", {"email": "bob@example.org", "password": OTHERS}))[0] == 403
        assert (await ann.ask("GET", "/v1/runs", **{"X-Tenant": "acme"}))[0] == 200
        back = state | {"state": "Active", "revision": 8}
        await house.ear.send(fact("tenancy.TenantReinstatedV1", back, tenant="acme", id="reinstated"))
        await until(lambda: bob.ask("GET", "/v1/runs"), lambda answer: answer[0] == 200)

        await house.cli("users", "disable", "bob@example.org", "--tenant", "acme")
        assert (await bob.ask("GET", "/v1/runs"))[0] == 401
        assert (await bob.ask("POST", "/v1/session", {"email": "bob@example.org", "password": OTHERS}))[0] == 401
        assert (await ann.ask("GET", "/v1/session"))[0] == 200

        async def acts() -> list[tuple[str, str]]:
            found = await house.api.get("/v1/audit", tenant="acme", limit=200)
            people = ("user.", "invitation.", "run.started")
            return [(one["topic"], one["actor"]) for one in reversed(found["items"]) if one["topic"].startswith(people)]

        said = await until(acts, lambda found: len(found) >= 5)
        assert said == [
            ("user.invited", f"user:{made['id']}"),
            ("invitation.accepted", actor),
            ("user.signed_in", actor),
            ("run.started", actor),
            ("user.disabled", "first admin"),
        ]
        users = await house.api.get("/v1/users")
        assert {one["email"]: len(one["memberships"]) for one in users["items"]} == {
            "ann@example.org": 1,
            "bob@example.org": 1,
        }
        secrets = (PASSWORD, OTHERS, invitation["token"], bob.token)
        if stack.database_url is None:
            assert _found_in(stack.folder, secrets) == []


def _found_in(folder: Path, secrets: tuple[str, ...]) -> list[str]:
    """Where one of them lies in clear."""
    kept = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert any(b"ann@example.org" in content for content in kept.values())
    return [file.name for file, content in kept.items() for one in secrets if one.encode() in content]
