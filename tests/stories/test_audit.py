"""The audit: every act is one entry, and whoever changes what was recorded underneath is found out."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import asyncpg
import orjson
import pytest

from tests.stories.house import House, Record, Stack, until
from tests.stories.workshop import member

MEMBER = {"email": "eve@example.org"}


async def entries(house: House, tenant: str, least: int, **query: str) -> list[Record]:
    """The tenant's entries of that kind, oldest first, once there are as many."""

    async def listed() -> list[Record]:
        return list((await house.api.get("/v1/audit", tenant=tenant, limit=200, **query))["items"])

    found = await until(listed, lambda items: len(items) >= least)
    return found[::-1]


@pytest.mark.acceptance("J9")
async def test_a_token_that_is_made_and_revoked_is_in_the_audit_of_its_tenant(stack: Stack) -> None:
    async with House(stack, sagas=(member,)) as house:
        made = await house.cli("tokens", "create", "ann", "--role", "viewer", "--role", "auditor", "--tenant", "acme")
        await house.cli("tokens", "revoke", made["prefix"])
        code, _, _ = await house.cli_raw("tokens", "revoke", made["prefix"])
        assert code == 3
        created, revoked = await entries(house, "acme", 2)
        assert (created["topic"], revoked["topic"]) == ("token.created", "token.revoked")
        for entry in (created, revoked):
            assert entry["actor"].startswith("cli:")
            assert entry["details"] | {"expires_at": None} == {
                "prefix": made["prefix"], "name": "ann", "roles": ["viewer", "auditor"], "expires_at": None,
            }  # fmt: skip
        assert made["token"] not in orjson.dumps([created, revoked]).decode()
        # By HTTP, by a tenant's admin: the same entries, under his name.
        admin = {"Authorization": f"Bearer {await house.make_token('admin', 'acme')}"}
        body = {"name": "bob", "roles": ["viewer"], "expires_at": None}
        async with house.session.post(f"{house.url}/v1/tokens", json=body, headers=admin) as answer:
            bob = await answer.json()
        as_bob = {"Authorization": f"Bearer {bob['token']}"}
        gone = f"{house.url}/v1/tokens/{bob['prefix']}"
        for method, url, headers, status in (
            ("GET", f"{house.url}/v1/runs", as_bob, 200),
            ("GET", f"{house.url}/v1/tokens", as_bob, 403),
            ("DELETE", gone, {"Authorization": f"Bearer {await house.make_token('admin', 'globex')}"}, 404),
            ("DELETE", gone, admin, 200),
            ("GET", f"{house.url}/v1/runs", as_bob, 401),
        ):
            async with house.session.request(method, url, headers=headers) as answer:
                assert answer.status == status, (method, url)
        *_, made_by_admin, revoked_by_admin = await entries(house, "acme", 5)
        assert (made_by_admin["topic"], revoked_by_admin["topic"]) == ("token.created", "token.revoked")
        assert {made_by_admin["actor"], revoked_by_admin["actor"]} == {"admin of acme"}
        assert made_by_admin["details"]["prefix"] == revoked_by_admin["details"]["prefix"] == bob["prefix"]
        assert bob["token"] not in orjson.dumps([made_by_admin, revoked_by_admin]).decode()
        # The first admin's token was made before anybody could ask for one.
        [first] = await entries(house, "platform", 1, topic="token.created")
        assert (first["actor"], first["details"]["roles"]) == ("the house", ["admin"])


@pytest.mark.acceptance("J9")
async def test_each_act_of_an_operator_is_one_entry_with_his_name(stack: Stack) -> None:
    async with House(stack, sagas=(member,)) as house:
        run = await house.start("member", "acme", MEMBER)
        await house.until_status(run, "succeeded")
        again = await house.cli("rerun", run, "--tenant", "acme")
        await house.until_status(again["run_id"], "succeeded")
        await house.cli("subjects", "erase", "eve@example.org", "--tenant", "acme", "--reason", "asked")
        found = await entries(house, "acme", 5)
        counted = Counter(entry["topic"] for entry in found)
        assert (counted["run.started"], counted["run.ended"], counted["subject.erased"]) == (2, 2, 1)
        starts = [entry for entry in found if entry["topic"] == "run.started"]
        assert {entry["actor"] for entry in starts} == {"first admin"}


@pytest.mark.acceptance("J9")
async def test_a_letter_sent_again_and_one_given_up_are_one_entry_each(stack: Stack) -> None:
    async with House(stack) as house:
        for number, word in enumerate(("redrive", "discard")):
            tenant = f"tenant-{number}"
            await house.script(tenant, "billing.CreateCustomerV1", "crash", times=1000)
            await house.sign_up(tenant)
            letter = await house.until_letter(tenant=tenant, type="billing.CreateCustomerV1")
            await house.script(tenant, "billing.CreateCustomerV1", "crash", times=0)
            for changed in (True, False):
                told = await house.api.post(f"/v1/dead-letters/{letter['id']}/{word}")
                assert told["changed"] == changed
            topic = {"redrive": "letter.redriven", "discard": "letter.discarded"}[word]
            [entry] = await entries(house, tenant, 1, topic=topic)
            assert (entry["actor"], entry["details"]) == ("first admin", {"letter": letter["id"]})


@pytest.mark.acceptance("J9")
async def test_a_change_underneath_is_found_by_the_command_line(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "away" / "heads.json"
    async with House(stack, sagas=(member,)) as house:
        for tenant in ("acme", "globex"):
            await house.until_status(await house.start("member", tenant, MEMBER), "succeeded")
        await entries(house, "globex", 2)
        await house.cli("audit", "head", "--out", str(file))
        code, _, complaint = await house.cli_raw("audit", "head", "--out", str(file))
        assert (code, orjson.loads(complaint)["field"]) == (4, "out")
        whole = await house.cli("audit", "verify", "--head", str(file))
        assert {one["tenant"] for one in whole} >= {"acme", "globex", "platform"}
        assert all(one["holds"] and one["compared_with_head"] for one in whole)
        await forget_last(stack)
        code, said, _ = await house.cli_raw("audit", "verify", "--head", str(file))
        verdicts = {one["tenant"]: one["broken"] for one in orjson.loads(said)}
        assert code == 1
        assert "cut off: the exported head names entry" in verdicts.pop("acme")
        assert set(verdicts.values()) == {None}
        (tmp_path / "other").write_text("{}")
        code, _, complaint = await house.cli_raw("audit", "verify", "--head", str(tmp_path / "other"))
        assert (code, orjson.loads(complaint)["field"]) == (2, "head")


async def forget_last(stack: Stack) -> None:
    """Removes the last entry of acme and sets its head back, as the master of the database's server can."""
    none = "substr(hash, 1, 0)"
    before = "(SELECT hash FROM audit_entries e WHERE e.tenant = 'acme' AND e.number = audit_heads.number - 1)"
    last = "(SELECT number FROM audit_heads WHERE tenant = 'acme')"
    statements = (
        f"DELETE FROM audit_entries WHERE tenant = 'acme' AND number = {last}",
        f"UPDATE audit_heads SET number = number - 1, leaves = {none}, hash = {before} WHERE tenant = 'acme'",
    )
    if stack.database_url is None:
        with closing(sqlite3.connect(stack.folder / "unwind.db")) as file:
            file.execute("DROP TRIGGER audit_entries_remain")
            for statement in statements:
                file.execute(statement)
            file.commit()
        return
    own = await asyncpg.connect(stack.database_url, server_settings={"search_path": "views, unwind"})
    try:
        for statement in ("SET session_replication_role = replica", *statements):
            await own.execute(statement)
    finally:
        await own.close()
