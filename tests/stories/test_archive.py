"""Ended runs leave the log when their retention is over, or when an operator says so: lists are short, an archived run
can still be looked into, run again and undone, and a month is exported and dropped."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson

from tests.stories.house import House, MovableClock, Record, Stack, until
from tests.stories.workshop import member

MEMBER = {"email": "eve@example.org"}


async def test_an_archived_run_is_off_the_lists_and_still_within_reach(stack: Stack, tmp_path: Path) -> None:
    async with House(stack, sagas=(member,)) as house:
        first = await house.start("member", "acme", MEMBER)
        second = await house.start("member", "acme", MEMBER | {"ask": True})
        await house.until_status(first, "succeeded")
        await house.until_status(second, "waiting")
        counted = await house.cli("archive", "run", "--before", "2100-01-01T00:00:00Z", "--dry-run")
        assert (counted["runs"], counted["events"]) == (1, None)
        assert (await house.cli("archive", "run", "--before", "2100-01-01T00:00:00Z"))["runs"] == 1

        async def gone() -> bool:
            listed = (await house.api.get("/v1/runs", tenant="acme"))["items"]
            return [run["run_id"] for run in listed] == [second]

        await until(gone, bool)
        [month] = await house.cli("archive", "list")
        assert (month["runs"], month["dropped"]) == (1, False)
        code, _, complaint = await house.cli_raw("runs", "show", first)
        assert (code, month["month"] in orjson.loads(complaint)["detail"]) == (3, True)
        assert (await house.cli("replay", first))["same"]
        undone = await house.cli("undo", first, "--tenant", "acme")
        await house.until_status(undone["run_id"], "compensated")

        file = tmp_path / "month.jsonl"
        assert (await house.cli("archive", "export", month["month"], str(file)))["events"] == month["events"]
        lines = [orjson.loads(line) for line in file.read_bytes().splitlines()]
        assert [lines[0]["topic"], lines[-1]["topic"]] == ["run.started", "run.ended"]
        assert {line["run_id"] for line in lines} == {first}
        code, _, complaint = await house.cli_raw("archive", "export", month["month"], str(file))
        assert (code, orjson.loads(complaint)["field"]) == (4, "file")

        code, _, complaint = await house.cli_raw("archive", "drop", month["month"])
        assert (code, orjson.loads(complaint)["field"]) == (2, "yes") or sys.stdin.isatty()
        assert (await house.cli("archive", "drop", month["month"], "--yes", "--reason", "over"))["runs"] == 1
        code, _, complaint = await house.cli_raw("replay", first)
        assert (code, "dropped" in orjson.loads(complaint)["detail"]) == (3, True)
        page = await house.api.get("/v1/audit", tenant="platform", topic="archive.dropped")
        assert [entry["details"]["month"] for entry in page["items"]] == [month["month"]]
        assert (await house.api.get("/v1/audit/verify", tenant="acme", against_log="true"))["holds"]


async def test_a_run_whose_retention_is_over_is_archived_without_a_word(stack: Stack) -> None:
    async with House(stack, sagas=(member,), retention={"run_days": 0}) as house:
        run = await house.start("member", "acme", MEMBER)
        await house.until_status(run, "succeeded")
        code, _, complaint = await house.cli_raw("archive", "run")
        assert (code, orjson.loads(complaint)["field"]) == (2, "before")
    later = MovableClock()
    later.forward(days=2)
    async with House(stack, sagas=(member,), retention={"run_days": 1}, clock=later) as house:

        async def archived() -> list[Record]:
            return list(await house.cli("archive", "list"))

        [month] = await until(archived, bool)
        assert (month["runs"], month["dropped"]) == (1, False)
