"""Two tenants with the very same data: what is said to one, or in its name, never reaches the other, on any way in."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.stories.house import House, Stack
from tests.stories.understudy import asked, fact, reply
from tests.stories.workshop import mirrored

TENANTS = ("acme", "globex")
NOBODYS = "0190b2f4-7c1e-7e58-b1b2-3c4d5e6f7a8b"
DATA = {"user_id": "usr_same", "email": "eve@example.org"}
ORDER = "identity.CreateUserV1"


def other(tenant: str) -> str:
    return TENANTS[1 - TENANTS.index(tenant)]


async def both(house: House) -> dict[str, str]:
    """A run of each tenant, with one key and one story, waiting for the same fact."""
    runs = {}
    for tenant in TENANTS:
        begun = await house.api.post(
            "/v1/workflows/mirrored/runs", {"input": DATA, "correlation_id": "story"}, key="same", tenant=tenant
        )
        assert not begun["duplicate"]
        runs[tenant] = str(begun["run_id"])
    for run in runs.values():
        await house.until_status(run, "waiting")
    assert len(set(runs.values())) == 2
    return runs


@pytest.mark.acceptance("J11")
@pytest.mark.parametrize("first", TENANTS)
async def test_a_fact_and_an_outcome_reach_the_run_of_their_tenant_alone(stack: Stack, first: str) -> None:
    """Same ids of facts and users; and an outcome that names another tenant's command as its cause."""
    second = other(first)
    async with House(stack, sagas=(mirrored,), modules=()) as house:
        runs = await both(house)
        confirmed = {"user_id": DATA["user_id"], "email": DATA["email"]}
        await house.ear.send(fact("identity.EmailConfirmedV1", confirmed, tenant=first, id="fact"))
        command = await asked(house, ORDER, first)
        shown = await house.run(runs[second])
        assert shown is not None
        assert shown["status"] == "waiting"
        assert house.ear.commands(ORDER, tenant=second) == []
        await house.ear.send(fact("identity.EmailConfirmedV1", confirmed, tenant=second, id="fact"))
        theirs = await asked(house, ORDER, second)
        user = {"user_id": "usr_1", "email": DATA["email"], "name": "Eve"}
        # In the name of the second tenant, about the first one's order: it answers nobody.
        await house.ear.send(reply(command, "identity.UserCreatedV1", user | {"user_id": "usr_x"}, tenant=second))
        await house.ear.send(reply(theirs, "identity.UserCreatedV1", user))
        assert (await house.until_status(runs[second], "succeeded"))["output"] == {"user_id": "usr_1"}
        first_run = await house.run(runs[first])
        assert first_run is not None
        assert first_run["ended_at"] is None
        await house.ear.send(reply(command, "identity.UserCreatedV1", user | {"user_id": "usr_2"}))
        assert (await house.until_status(runs[first], "succeeded"))["output"] == {"user_id": "usr_2"}
        for tenant in TENANTS:
            audit = await house.api.get("/v1/audit", tenant=tenant, limit=200)
            assert {one["tenant"] for one in audit["items"]} == {tenant}
            assert runs[other(tenant)] not in str(audit)


@pytest.mark.acceptance("J11")
async def test_every_route_with_another_tenants_run_answers_as_for_none(stack: Stack) -> None:
    async with House(stack, sagas=(mirrored,), modules=()) as house:
        runs = await both(house)
        tokens = {tenant: await house.make_token("admin", tenant) for tenant in TENANTS}
        async with house.session.get(f"{house.url}/openapi.json") as answer:
            paths: dict[str, dict[str, Any]] = (await answer.json())["paths"]

        async def call(method: str, path: str, tenant: str, run: str) -> tuple[int, bytes]:
            address = re.sub(r"{(\w+)}", lambda found: run if found.group(1) == "run_id" else "confirmed", path)
            headers = {"Authorization": f"Bearer {tokens[tenant]}"}
            body = BODIES.get(path.rsplit("/", 1)[-1], {}) if method == "post" else None
            async with house.session.request(method, house.url + address, headers=headers, json=body) as answer:
                return answer.status, await answer.read()

        walked = 0
        for path, methods in paths.items():
            for method in methods if "{run_id}" in path else ():
                walked += 1
                for tenant in TENANTS:
                    theirs = await call(method, path, tenant, runs[other(tenant)])
                    assert theirs[0] == 404, (method, path)
                    assert theirs == await call(method, path, tenant, NOBODYS), (method, path)
        assert walked >= 12
        for tenant in TENANTS:
            waits = await house.run(runs[tenant])
            assert waits is not None
            assert waits["status"] == "waiting"


BODIES: dict[str, Any] = {
    "skip": {"step": "user", "output": {}},
    "confirmed": {"approved": True},
    "{name}": {"approved": True},
}


@pytest.mark.acceptance("J11")
async def test_a_tenants_token_speaks_for_no_other_tenant(stack: Stack) -> None:
    async with House(stack, sagas=(mirrored,), modules=()) as house:
        runs = await both(house)
        for tenant in TENANTS:
            token, name = await house.make_token("admin", tenant), other(tenant)
            event = {"type": "identity.EmailConfirmedV1", "data": {"user_id": "usr_same", "email": DATA["email"]}}
            refusals = [
                await house.refused("/v1/events", event | {"tenantid": who}, token=token) for who in (name, "nobody")
            ]
            refusals += [
                await house.refused("/v1/commands", {"type": ORDER, "data": DATA}, token=token, tenant=who)
                for who in (name, "nobody")
            ]
            refusals += [
                await house.refused("/v1/workflows/mirrored/runs", {"input": DATA}, token=token, tenant=who)
                for who in (name, "nobody")
            ]
            assert {one["status"] for one in refusals} == {404}
            assert refusals[0::2] == refusals[1::2]
        await house.ear.catch_up()
        assert house.ear.events("identity.EmailConfirmedV1") == []
        for tenant in TENANTS:
            waits = await house.run(runs[tenant])
            assert waits is not None
            assert waits["status"] == "waiting"
