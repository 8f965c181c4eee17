"""A person asks what is known, and to be forgotten; a restored backup forgets it again."""

from __future__ import annotations

from typing import Any

import orjson

from tests.stories.house import House, Record, Stack, until
from tests.stories.test_command_line import SIGN_UP, SIGNED_UP
from tests.stories.understudy import fact

SUBJECT = SIGN_UP["signup_id"]


async def signed_up(house: House, tenant: str = "acme") -> str:
    await house.ear.send(fact(SIGNED_UP, SIGN_UP, tenant=tenant))

    async def look() -> list[Record]:
        return list((await house.api.get("/v1/runs", tenant=tenant))["items"])

    [run] = await until(look, bool)
    await house.until_status(run["run_id"], "waiting")
    return str(run["run_id"])


async def exported(house: House, tenant: str = "acme") -> list[Any]:
    found = await house.cli("subjects", "export", SUBJECT, "--tenant", tenant, "--reason", "she asked")
    return [value["value"] for run in found["runs"] for value in run["values"]]


async def found_by_mail(house: House) -> list[str]:
    page = await house.api.get("/v1/runs", tenant="acme", attribute=f"email:{SIGN_UP['email']}")
    return [run["run_id"] for run in page["items"]]


async def test_a_person_is_told_what_is_known_and_forgotten_for_good(stack: Stack) -> None:
    async with House(stack) as house:
        run = await signed_up(house)
        other = await signed_up(house, "globex")
        assert SIGN_UP["email"] in await exported(house)

        code, _, complaint = await house.cli_raw("subjects", "erase", SUBJECT, "--tenant", "acme")
        problem = orjson.loads(complaint)
        assert (code, problem["code"], problem["open_runs"]) == (4, "conflict", [run])

        erased = await house.cli("subjects", "erase", SUBJECT, "--tenant", "acme", "--cancel")
        assert (erased["runs"], erased["keys"]) == (1, 1)
        assert erased["arrivals"] >= 1
        assert (await house.until_status(run, "cancelled"))["data"]["email"] == "[redacted]"

        assert await exported(house) == []
        told = orjson.dumps(await house.cli("runs", "timeline", run)).decode()
        assert SIGN_UP["email"] not in told
        assert (await house.cli("replay", run))["erased"] is not None
        # Everybody else of that name is somebody else.
        assert SIGN_UP["email"] in await exported(house, "globex")
        assert (await house.run(other) or {})["status"] == "waiting"

        again = await house.cli("subjects", "erase", SUBJECT, "--tenant", "acme")
        assert (again["scope"], again["keys"]) == (erased["scope"], 0)


async def test_what_a_person_could_be_found_by_is_gone_and_a_rebuild_brings_nothing_back(stack: Stack) -> None:
    async with House(stack) as house:
        run = await signed_up(house)
        assert await found_by_mail(house) == [run]
        await house.cli("subjects", "erase", SUBJECT, "--tenant", "acme", "--now")
        await until(lambda: found_by_mail(house), lambda found: not found)
        [rebuilt] = await house.cli("rebuild", "history")
        assert rebuilt["equal"]
        assert await found_by_mail(house) == []
        assert await exported(house) == []


async def test_an_erasure_is_applied_again_from_its_list(stack: Stack) -> None:
    async with House(stack) as house:
        await signed_up(house)
        erased = await house.cli("subjects", "erase", SUBJECT, "--tenant", "acme", "--cancel")

        async def listed() -> list[Record]:
            return list(await house.cli("subjects", "erased"))

        known = await until(listed, bool)
        assert [(one["tenant"], one["scope"]) for one in known] == [("acme", erased["scope"])]

        # As after a restore: the person is known again, the list is not in the database.
        run = await signed_up_again(house)
        assert SIGN_UP["email"] in await exported(house)
        await house.cli("runs", "terminate", run)
        await house.until_status(run, "cancelled")
        file = house.stack.folder / "erasures.json"
        file.write_bytes(orjson.dumps(known))
        [applied] = await house.cli("subjects", "apply", str(file))
        assert (applied["scope"], applied["keys"]) == (erased["scope"], 1)
        assert await exported(house) == []


async def signed_up_again(house: House) -> str:
    await house.ear.send(fact(SIGNED_UP, SIGN_UP, tenant="acme"))

    async def look() -> list[Record]:
        return list((await house.api.get("/v1/runs", tenant="acme", status="waiting"))["items"])

    [run] = await until(look, bool)
    return str(run["run_id"])
