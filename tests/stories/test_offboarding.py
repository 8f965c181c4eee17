"""A tenant leaves: its runs end, everything the engine knows of it is unreadable, nothing of it begins again, and
nobody else notices."""

from __future__ import annotations

from pathlib import Path

import orjson

from tests.stories.house import House, Record, Stack, until
from tests.stories.test_command_line import SIGN_UP, SIGNED_UP
from tests.stories.understudy import fact
from tests.stories.workshop import member

MEMBER = {"email": "eve@example.org"}


async def refused(house: House, *words: str) -> tuple[int, Record]:
    code, _, complaint = await house.cli_raw(*words)
    return code, orjson.loads(complaint)


async def test_a_tenant_that_leaves_takes_everything_with_it_but_the_proof(stack: Stack, tmp_path: Path) -> None:
    async with House(stack, sagas=(member,)) as house:
        done = await house.start("member", "acme", MEMBER)
        kept = await house.start("member", "globex", MEMBER)
        waiting = await house.start("member", "acme", MEMBER | {"ask": True})
        await house.until_status(done, "succeeded")
        await house.until_status(kept, "succeeded")
        await house.until_status(waiting, "waiting")
        leave = ("tenants", "offboard", "acme", "--reason", "contract ended", "--yes")
        assert await refused(house, *leave[:-1])
        code, problem = await refused(house, *leave)
        assert (code, problem["field"]) == (4, "tenant")
        code, problem = await refused(house, *leave, "--force")
        assert (code, problem["open_runs"]) == (4, [waiting])
        assert (await house.run(waiting) or {})["status"] == "waiting"

        gone = await house.cli(*leave, "--force", "--cancel")
        assert (gone["runs"], gone["keys"] >= 2, gone["arrivals"] >= 2) == (2, True, True)
        assert (await house.api.get("/v1/runs", tenant="acme"))["items"] == []
        code, problem = await refused(house, "replay", done, "--tenant", "acme")
        assert (code, problem["code"]) == (4, "tenant_offboarded")
        code, problem = await refused(house, "runs", "start", "member", "--tenant", "acme", "--input", "{}")
        assert (code, problem["code"]) == (4, "tenant_offboarded")
        await house.ear.send(fact(SIGNED_UP, SIGN_UP, tenant="acme"))

        async def buried() -> list[Record]:
            return list((await house.api.get("/v1/dead-letters", tenant="unknown"))["items"])

        [letter] = await until(buried, bool)
        assert letter["reason"] == "tenant_offboarded"

        assert (await house.api.get("/v1/audit/verify", tenant="acme", against_log="true"))["holds"]
        [entry] = (await house.api.get("/v1/audit", tenant="platform", topic="tenant.offboarded"))["items"]
        assert entry["actor"] == "first admin"
        assert {use["tenant"] for use in (await house.api.get("/v1/usage"))["items"]} >= {"globex"}
        assert "acme" not in {use["tenant"] for use in (await house.api.get("/v1/usage"))["items"]}
        for view in ("history", "usage"):
            [verified] = await house.cli("projections", "verify", view)
            assert verified["equal"]
        code, problem = await refused(house, "projections", "verify", "audit")
        assert (code, problem["code"]) == (4, "conflict")

        [month] = await house.cli("archive", "list")
        file = tmp_path / "month.jsonl"
        assert (await house.cli("archive", "export", month["month"], str(file)))["events"] == month["events"]
        assert {orjson.loads(line)["event"] for line in file.read_bytes().splitlines()} == {None}

        again = await house.cli(*leave, "--cancel")
        assert (again["runs"], again["keys"]) == (0, 0)
        assert (await house.run(kept) or {})["status"] == "succeeded"
        next_one = await house.start("member", "globex", {"email": "mia@example.org"})
        await house.until_status(next_one, "succeeded")
