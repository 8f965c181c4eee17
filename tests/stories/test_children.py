"""Runs that start runs: they wait for them without a slot, pass on what became of them, and undo what they did."""

from __future__ import annotations

from typing import Any

import orjson

from tests.stories.house import House, Stack, until
from tests.stories.workshop import household, member, rolling, rolls

SAGAS = (household, member, rolling, rolls)


async def child_of(house: House, parent: str, step: str) -> str:
    """The run that this step has started, as soon as it is there."""

    async def look() -> list[str]:
        page = await house.api.get("/v1/runs", tenant="acme", workflow="member")
        runs = [run for run in page["items"] if run["trigger"].get("parent", {}).get("run_id") == parent]
        return [
            run["run_id"]
            for run in runs
            if run["trigger"]["kind"] == "child" and run["trigger"]["parent"]["step"] == step
        ]

    [run] = await until(look, bool)
    return run


async def admit(house: House, run: str) -> None:
    await house.until_run(run, lambda found: found["status"] == "waiting")
    await house.api.post(f"/v1/runs/{run}/approvals/admit", {"approved": True}, tenant="acme")


async def users(house: House) -> int:
    """Effects of `identity.create_user` that stand, by the ledger."""
    page = await house.api.get("/v1/effects", tenant="acme", limit=100)
    keys = {one["key"]: one["state"] for one in reversed(page["items"]) if one["action"] == "identity.create_user"}
    return sum(state == "happened" for state in keys.values())


async def test_a_run_waits_for_its_children_and_takes_their_outputs(stack: Stack) -> None:
    async with House(stack, sagas=SAGAS) as house:
        parent = await house.start("household", "acme", {"email": "eve@home.example"})
        first, second = await child_of(house, parent, "first"), await child_of(house, parent, "second")
        assert (await house.until_status(first, "succeeded"))["correlation_id"] == (await house.run(parent) or {})[
            "correlation_id"
        ]
        assert (await house.run(parent) or {})["status"] == "waiting"
        assert "waits in 'second' for a run of 'member'" in (await house.cli("runs", "explain", parent))["sentence"]
        code, _, complaint = await house.cli_raw("undo", first)
        assert (code, parent in orjson.loads(complaint)["detail"]) == (4, True)
        await house.restart()
        await admit(house, second)
        ended = await house.until_status(parent, "succeeded")
        steps = await house.steps(parent)
        assert [step["output"]["run_id"] for step in steps.values()] == [first, second]
        assert ended["output"]["members"] == [step["output"]["output"]["user_id"] for step in steps.values()]
        for run in (parent, first, second):
            assert (await house.cli("replay", run))["same"]


async def test_what_children_did_is_undone_with_their_parent(stack: Stack) -> None:
    async with House(stack, sagas=SAGAS) as house:
        parent = await house.start("household", "acme", {"email": "eve@home.example", "unwanted": True})
        first, second = await child_of(house, parent, "first"), await child_of(house, parent, "second")
        await admit(house, second)
        await house.until_status(parent, "compensated")
        undone: list[Any] = []
        for child in (first, second):
            follower = (await house.cli("runs", "show", child))["followed_by"]
            ended = await house.until_status(follower, "compensated")
            assert (ended["trigger"]["kind"], ended["trigger"]["id"]) == ("unwind", child)
            undone.append(ended["ended_at"])
            assert (await house.cli("replay", follower))["same"]
        assert undone == sorted(undone, reverse=True)
        assert (await house.cli("replay", parent))["same"]

        stopped = await house.start("household", "acme", {"email": "adam@home.example"})
        waits = await child_of(house, stopped, "second")
        await house.until_run(waits, lambda run: run["status"] == "waiting")
        await house.cli("runs", "cancel", stopped, "--reason", "moved away")
        await house.until_status(stopped, "cancelled")
        await house.until_status(waits, "cancelled")
        assert await users(house) == 0


async def test_a_parent_that_is_terminated_takes_its_open_children_with_it_and_undoes_nothing(stack: Stack) -> None:
    async with House(stack, sagas=SAGAS) as house:
        parent = await house.start("household", "acme", {"email": "eve@home.example"})
        waits = await child_of(house, parent, "second")
        await house.until_run(waits, lambda run: run["status"] == "waiting")
        await house.api.post(f"/v1/runs/{parent}/terminate", {"reason": "enough"}, tenant="acme")
        ended = await house.until_status(parent, "cancelled")
        assert (ended["error_code"], ended["left"]) == ("terminated", ["first/1", "second/1"])
        assert (await house.until_status(waits, "cancelled"))["error_code"] == "terminated"
        assert await users(house) == 1
        for run in (parent, waits):
            assert (await house.cli("replay", run))["same"]


async def test_what_a_finished_run_did_is_undone_by_command_and_done_again(stack: Stack) -> None:
    async with House(stack, sagas=SAGAS) as house:
        run = await house.start("member", "acme", {"email": "eve@home.example"})
        await house.until_status(run, "succeeded")
        undoing = (await house.cli("undo", run, "--reason", "was a mistake"))["run_id"]
        await house.until_status(undoing, "compensated")
        assert (await house.cli("undo", run, "--reason", "was a mistake"))["duplicate"]
        assert await users(house) == 0
        code, _, complaint = await house.cli_raw("rerun", run)
        assert (code, undoing in orjson.loads(complaint)["detail"]) == (4, True)
        code, _, complaint = await house.cli_raw("undo", undoing)
        assert (code, orjson.loads(complaint)["field"]) == (4, "run_id")
        again = (await house.cli("rerun", undoing))["run_id"]
        await house.until_status(again, "succeeded")
        assert (await house.steps(again))["user"]["key"] == f"{run}/user/2"
        assert await users(house) == 1


async def test_a_saga_goes_on_in_run_after_run_and_whoever_waits_hears_of_the_last(stack: Stack) -> None:
    async with House(stack, sagas=SAGAS) as house:
        parent = await house.start("rolls", "acme", {})
        assert (await house.until_status(parent, "succeeded"))["output"] == {"last": "pass 0"}
        passes = (await house.api.get("/v1/runs", tenant="acme", workflow="rolling"))["items"]
        assert [run["status"] for run in passes] == ["succeeded"] * 4
        newest_first = [run["trigger"] for run in passes]
        assert [trigger["kind"] for trigger in newest_first] == ["continue", "continue", "continue", "child"]
        assert [trigger["id"] for trigger in newest_first] == [*[run["run_id"] for run in passes[1:]], parent]
        for run in passes:
            assert (await house.cli("replay", run["run_id"]))["same"]
