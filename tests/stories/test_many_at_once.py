"""One word to many runs, past events given to a workflow, and the ledger of what all of them did."""

from __future__ import annotations

import signal
from typing import Any

import orjson

from engine.plan.code import Run, saga
from tests.stories.house import House, Record, Stack, until
from tests.stories.provider import Provider
from tests.stories.test_command_line import SIGN_UP, SIGNED_UP
from tests.stories.test_pauses import audited
from tests.stories.workshop import charge_and_ship, note


async def bulk_entries(house: House, tenant: str, count: int) -> list[Record]:
    """The entries of bulks in this tenant's audit, oldest first, as soon as there are so many."""

    async def look() -> list[Record]:
        page = await house.api.get("/v1/audit", tenant=tenant, limit=200)
        return [entry for entry in reversed(page["items"]) if entry["topic"].startswith("bulk.")]

    found = await until(look, lambda entries: len(entries) >= count)
    assert len(found) == count
    return found


async def test_many_runs_are_counted_and_then_told_one_by_one(stack: Stack) -> None:
    async with (
        Provider() as provider,
        House(stack, sagas=(charge_and_ship,), egress={"sandbox": (provider.address,)}) as house,
    ):
        order = {"charge": provider.url("/pay"), "ship": provider.url("/closed")}
        runs = [await house.start("charge-and-ship", "acme", order) for _ in range(3)]
        other = await house.start("charge-and-ship", "globex", order)
        for run in (*runs, other):
            await house.until_status(run, "failed")
        provider.release()

        counted = await house.cli("bulk", "rerun", "--tenant", "acme", "--error-code", "http_503", "--dry-run")
        assert (counted["found"], counted["groups"][0]["count"]) == (3, 3)
        code, _, complaint = await house.cli_raw("bulk", "rerun", "--tenant", "acme")
        assert (code, orjson.loads(complaint)["field"]) == (2, "yes")
        assert (await house.cli("bulk", "rerun", "--error-code", "other", "--yes"))["found"] == 0
        assert (await house.cli_raw("bulk", "dance", "--yes"))[0] == 2

        words = ("bulk", "rerun", "--tenant", "acme", "--yes", "--rate", "1000")
        told = await house.cli(*words, "--reason", "open again")
        assert (told["results"], told["refused"]) == ({"told": 3}, [])
        again = await house.cli(
            "bulk", "rerun", "--tenant", "acme", "--yes", "--rate", "1000", "--reason", "open again"
        )
        assert again["results"] == {"done before": 3}
        otherwise = await house.cli(*words, "--most", "2")
        assert otherwise["results"] == {"refused": 2}
        assert {one["code"] for one in otherwise["refused"]} == {"conflict"}

        # Neither the dry run, nor what was asked about, nor what fitted nothing is in the audit.
        begun, addressed, ended, *later = await bulk_entries(house, "acme", 9)
        assert {entry["actor"] for entry in (begun, addressed, ended)} == {later[0]["actor"]}
        assert begun["details"] == {
            "bulk": told["bulk_id"],
            "word": "rerun",
            "filter": {"status": "failed,compensated,timed_out", "most": 10_000},
            "found": 3,
            "reason": "open again",
        }
        assert addressed["details"].pop("ids") == list(reversed(runs))
        assert addressed["details"] == {"bulk": told["bulk_id"], "word": "rerun"}
        did = {"told": 3, "known": 0, "refused": 0, "failed": 0, "how": "finished"}
        assert ended["details"] == {name: begun["details"][name] for name in ("bulk", "word", "filter", "found")} | did
        ends = [entry["details"] for entry in later if entry["topic"] == "bulk.ended"]
        assert [(end["bulk"], end["told"], end["known"], end["refused"]) for end in ends] == [
            (again["bulk_id"], 0, 3, 0),
            (otherwise["bulk_id"], 0, 0, 2),
        ]
        assert len({told["bulk_id"], again["bulk_id"], otherwise["bulk_id"]}) == 3
        reruns = [(await house.cli("runs", "show", run))["followed_by"] for run in runs]
        for run in reruns:
            await house.until_status(run, "succeeded")
        assert (await house.run(other) or {})["followed_by"] is None

        ledger = await house.cli("effects", "--tenant", "acme", "--workflow", "charge-and-ship")
        states = {(one["run_id"], one["step"]): one["state"] for one in ledger["items"]}
        assert {states[run, "ship"] for run in runs} == {"failed"}
        assert {states[run, "charge"] for run in runs} == {"happened"}
        assert {(states[run, "charge"], states[run, "ship"]) for run in reruns} == {("reused", "happened")}
        assert {one["key"] for one in ledger["items"] if one["state"] == "happened"} == {
            key for key in provider.effects if not key.startswith(other)
        }
        one = await house.cli("effects", "--run", reruns[0], "--state", "reused")
        assert [(effect["step"], effect["attempts"]) for effect in one["items"]] == [("charge", 0)]


async def test_parked_runs_are_retried_and_dead_letters_redriven_together(stack: Stack) -> None:
    async with House(stack) as house:
        for tenant in ("acme", "globex"):
            await house.script(tenant, "billing.CreateSubscriptionV1", "retryable", times=1000)
        runs = [await house.register(tenant) for tenant in ("acme", "globex")]
        for run in runs:
            await house.until_status(run, "parked")
        for tenant in ("acme", "globex"):
            await house.script(tenant, "billing.CreateSubscriptionV1", "retryable", times=0)
        told = await house.cli("bulk", "retry", "--workflow", "tenant-onboarding", "--yes", "--rate", "1000")
        assert told["results"] == {"told": 2}
        for run in runs:
            await house.until_status(run, "succeeded")
        assert (await house.cli("bulk", "redrive", "--letter-type", "nothing.LikeThisV1", "--yes"))["found"] == 0

        # All tenants were looked through: the whole is the platform's, each tenant's audit has its own runs.
        begun, ended = await bulk_entries(house, "platform", 2)
        assert (begun["topic"], ended["topic"]) == ("bulk.begun", "bulk.ended")
        assert (begun["details"]["found"], ended["details"]["told"]) == (2, 2)
        for tenant, run in zip(("acme", "globex"), runs, strict=True):
            [addressed] = await bulk_entries(house, tenant, 1)
            assert addressed["details"] == {"bulk": told["bulk_id"], "word": "retry", "ids": [run]}
            assert (await house.api.get("/v1/audit/verify", tenant=tenant, against_log="true"))["holds"]


async def test_a_bulk_that_is_stopped_part_way_says_so(stack: Stack) -> None:
    async with (
        Provider() as provider,
        House(stack, sagas=(charge_and_ship,), egress={"sandbox": (provider.address,)}) as house,
    ):
        order = {"charge": provider.url("/pay"), "ship": provider.url("/closed")}
        runs = [await house.start("charge-and-ship", "acme", order) for _ in range(2)]
        for run in runs:
            await house.until_status(run, "failed")
        provider.release()
        words = ("bulk", "rerun", "--tenant", "acme", "--yes", "--rate", "0.1")
        environment = {"UNWIND_API_URL": house.url, "UNWIND_TOKEN": house.token}
        async with house.command(*words, stopped_by=signal.SIGINT, ends=130, **environment):
            # The second is told ten seconds after the first.
            await house.until_run(runs[1], lambda run: run["followed_by"] is not None)
        _, _, ended = await bulk_entries(house, "acme", 3)
        assert {name: ended["details"][name] for name in ("found", "told", "refused", "failed", "how")} == {
            "found": 2,
            "told": 1,
            "refused": 0,
            "failed": 0,
            "how": "cancelled",
        }


async def sign_up(house: House, tenant: str, number: int) -> None:
    data = orjson.dumps(SIGN_UP | {"signup_id": f"s-{number}"}).decode()
    await house.cli("publish", SIGNED_UP, "--tenant", tenant, "--id", f"e-{number}", "--data", data)


async def until_begun(house: House, tenant: str, number: int, workflow: str) -> str:
    """The one run of this workflow that the event has begun."""

    async def begun() -> list[str]:
        page = await house.api.get("/v1/runs", tenant=tenant, workflow=workflow)
        return [run["run_id"] for run in page["items"] if run["trigger"]["id"] == f"e-{number}"]

    [run] = await until(begun, bool)
    return run


@saga("late-comer", version=1, on=SIGNED_UP)
async def late_comer(run: Run, signup: dict[str, Any]) -> Any:
    """Installed after the events have come."""
    return await run.step("note", note, text=signup["signup_id"])


async def test_a_workflow_that_came_late_is_started_on_past_events_once(stack: Stack) -> None:
    async with House(stack) as house:
        for number in range(5):
            tenant = "acme" if number < 4 else "globex"
            await sign_up(house, tenant, number)
            await until_begun(house, tenant, number, "customer-onboarding")
        await house.restart(sagas=(late_comer, charge_and_ship))
        span = ("--since", "2000-01-01T00:00:00Z", "--until", "2100-01-01T00:00:00Z")
        counted = await house.cli("backfill", "late-comer", "--tenant", "acme", *span, "--dry-run")
        assert counted["found"] == 4
        first = await house.cli("backfill", "late-comer", "--tenant", "acme", *span, "--rate", "3")
        assert (first["started"], first["known"]) == (4, 0)
        outputs = []
        for number in range(4):
            run = await until_begun(house, "acme", number, "late-comer")
            outputs.append((await house.until_status(run, "succeeded"))["output"]["noted"])
        assert outputs == ["s-0", "s-1", "s-2", "s-3"]
        second = await house.cli("backfill", "late-comer", "--tenant", "acme", *span)
        assert (second["started"], second["known"]) == (0, 4)
        await sign_up(house, "acme", 9)
        await until_begun(house, "acme", 9, "late-comer")
        assert (await house.cli("backfill", "late-comer", "--tenant", "acme", *span))["started"] == 0
        code, _, complaint = await house.cli_raw("backfill", "charge-and-ship", "--tenant", "acme", *span)
        assert (code, orjson.loads(complaint)["field"]) == (4, "workflow")
        await audited(house, "acme", "workflow.backfilled", "workflow.backfilled")
