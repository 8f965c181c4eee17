"""A tenant's secrets: set by command line and API, used by steps, rotated while runs go on, audited, seen nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from contracts.calls import RetryPolicy
from contracts.tenant_events import PLATFORM
from engine.plan.code import Run, saga
from tests.stories.house import House, Record, Stack, until
from tests.stories.keeper import Keeper, api_key, basic, oauth2

ONCE = RetryPolicy(attempts=1)


@saga("proven", version=1)
async def proven(run: Run, order: dict[str, Any]) -> dict[str, Any]:
    """One call outside, proven by a secret of the tenant."""
    done = await run.step("call", "http.request", **order, retry=ONCE)
    return {"status": done["status"], "answer": done}


SAGAS = (proven,)


async def put(house: House, tenant: str, name: str, given: dict[str, Any]) -> Record:
    made: Record = await house.api.put(f"/v1/secrets/{name}", given, act_for=tenant)
    return made


async def audited(house: House, tenant: str, count: int, *about: str) -> list[tuple[str, str, Any]]:
    """Topic, actor and details of the tenant's entries about secrets, or `about` others, as soon as so many are
    there.
    """

    async def look() -> list[Record]:
        page = await house.api.get("/v1/audit", tenant=tenant, limit=100)
        return [entry for entry in reversed(page["items"]) if entry["topic"].startswith(about or ("secret.",))]

    found = await until(look, lambda entries: len(entries) >= count)
    return [(entry["topic"], entry["actor"], entry["details"]) for entry in found]


@pytest.mark.acceptance("J1")
async def test_every_kind_of_secret_proves_a_call_and_a_token_is_refreshed(stack: Stack, tmp_path: Path) -> None:
    async with Keeper() as keeper, House(stack, sagas=SAGAS, egress={"sandbox": (keeper.address,)}) as house:
        value = tmp_path / "value.json"
        value.write_bytes(orjson.dumps(api_key(keeper)["value"]))
        made = await house.cli(
            "secrets", "set", "key", "--kind", "api_key", "--host", keeper.address, "--tenant", "acme",
            "--from", str(value),
        )  # fmt: skip
        assert (made["version"], made["hosts"]) == (1, [keeper.address])
        assert keeper.canary not in orjson.dumps(made).decode()
        await put(house, "acme", "basic", basic(keeper))
        await put(house, "acme", "bearer", oauth2(keeper, refresh_token=keeper.refresh))

        for name in ("key", "basic", "bearer"):
            run = await house.start("proven", "acme", {"url": keeper.url(f"/{name}"), "auth": {"secret": name}})
            ended = await house.until_status(run, "succeeded")
            assert ended["output"]["status"] == 200
            shown = orjson.dumps([ended, await house.steps(run), await house.timeline(run)]).decode()
            assert keeper.canary not in shown
        # The token is refused: it is refreshed with the refresh token that the server gave last.
        keeper.revoke()
        run = await house.start("proven", "acme", {"url": keeper.url("/bearer"), "auth": {"secret": "bearer"}})
        await house.until_status(run, "succeeded")
        assert [form["refresh_token"] for form in keeper.granted] == [f"refresh-{keeper.canary}-{n}" for n in range(2)]
        listed = await house.cli("secrets", "list", "--tenant", "acme")
        assert [(one["name"], one["version"]) for one in listed["items"]] == [("basic", 1), ("bearer", 3), ("key", 1)]

        # Another tenant has none of them, whatever it calls them.
        run = await house.start("proven", "globex", {"url": keeper.url("/key"), "auth": {"secret": "key"}})
        failed = await house.until_status(run, "failed", "compensated")
        assert failed["error"]["code"] == "secret_unknown"


@pytest.mark.acceptance("J3")
async def test_secrets_and_keys_are_rotated_and_old_runs_stay_readable(stack: Stack, tmp_path: Path) -> None:
    async with Keeper() as keeper, House(stack, sagas=SAGAS, egress={"sandbox": (keeper.address,)}) as house:
        await put(house, "acme", "key", api_key(keeper))
        call = {"url": keeper.url("/key"), "auth": {"secret": "key"}}
        before = await house.start("proven", "acme", call)
        told = await house.until_status(before, "succeeded")

        keeper.key = "the second key"
        value = tmp_path / "value.json"
        value.write_bytes(orjson.dumps(api_key(keeper)["value"] | {"key": keeper.key}))
        rotated = await house.cli("secrets", "rotate", "key", "--tenant", "acme", "--from", str(value))
        assert rotated["version"] == 2
        await house.until_status(await house.start("proven", "acme", call), "succeeded")

        # The root key goes, too, in its four steps; the engine stands still for them on the embedded stack.
        assert house.assembly is not None
        [old] = [root["root_id"] for root in (await house.cli("keys", "list"))["root_keys"]]
        rotated = await house.cli("keys", "rotate-root")
        [new] = [root["root_id"] for root in rotated["root_keys"] if root["current"]]
        await house.restart()
        rewrapped = (await house.cli("keys", "rewrap"))["rewrapped"]
        material = house.settings.key_path.read_text()
        await house.cli("keys", "retire", old)
        await house.restart()
        said = await audited(house, PLATFORM, 3, "root_key.", "data_keys.")
        assert [(topic, details) for topic, _, details in said] == [
            ("root_key.rotated", {"root_id": new, "replaces": old}),
            ("data_keys.rewrapped", {"root_id": new, "keys": rewrapped}),
            ("root_key.retired", {"root_id": old}),
        ]
        assert rewrapped > 0
        assert all(actor.startswith("cli:") for _, actor, _ in said)
        keys = orjson.loads(material)["keys"]
        assert set(keys) == {old, new}
        assert not any(key in str(said) for key in keys.values())
        assert (await house.api.get(f"/v1/runs/{before}")) | {"as_of": ""} == told | {"as_of": ""}
        await house.until_status(await house.start("proven", "acme", call), "succeeded")

        await house.cli("secrets", "remove", "key", "--tenant", "acme")
        failed = await house.until_status(await house.start("proven", "acme", call), "failed", "compensated")
        assert failed["error"]["code"] == "secret_unknown"
        entries = await audited(house, "acme", 3)
        assert [(topic, details) for topic, _, details in entries] == [
            ("secret.stored", {"kind": "api_key", "name": "key", "version": 1}),
            ("secret.rotated", {"kind": "api_key", "name": "key", "version": 2}),
            ("secret.removed", {"kind": "api_key", "name": "key", "version": 2}),
        ]
        assert all(actor for _, actor, _ in entries)


async def test_only_an_admin_of_the_tenant_changes_its_secrets_and_nobody_reads_a_value(stack: Stack) -> None:
    async with Keeper() as keeper, House(stack, sagas=SAGAS) as house:
        given = api_key(keeper)
        await put(house, "acme", "key", given)
        rotation = {"value": given["value"]}
        operator, theirs = await house.make_token("operator", "acme"), await house.make_token("admin", "globex")
        assert (await house.refused("/v1/secrets/key/rotate", rotation, token=operator))["status"] == 403
        assert (await house.refused("/v1/secrets/key/rotate", rotation, token=theirs))["status"] == 404
        assert (await house.refused("/v1/secrets/key/rotate", rotation, token=theirs, act_for="acme"))["status"] == 404
        wrong = {"value": {"key": keeper.key, "header": "not a header"}}
        refused = await house.refused("/v1/secrets/key/rotate", wrong, act_for="acme")
        assert (refused["status"], refused["field"]) == (422, "value.header")
        assert keeper.canary not in orjson.dumps(refused).decode()
        code, _, complaint = await house.cli_raw("secrets", "rotate", "key", "--tenant", "acme", "--from", "/nowhere")
        assert (code, orjson.loads(complaint)["field"]) == (2, "from")
        assert (await house.api.get("/v1/secrets/key", tenant="acme"))["version"] == 1
