"""The command line as an operator uses it: against a running engine over HTTP, on the files alone when nobody runs,
and the exit code of each refusal."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.stories.house import ROOT, House, Stack

SIGN_UP = {"signup_id": "s-1", "email": "ann@example.org", "name": "Ann", "plan": "starter"}
SIGNED_UP = "crm.SignupRequestedV1"


async def unwind(environment: dict[str, str], *words: str) -> tuple[int, Any, str]:
    """Exit code, answer and complaint of `unwind <words> --json` in this environment alone."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "scripts",
        *words,
        "--json",
        cwd=ROOT,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("UNWIND_")}, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaint = await process.communicate()
    assert process.returncode is not None
    return process.returncode, orjson.loads(said) if said.strip() else None, complaint.decode()


@pytest.mark.acceptance("G7")
async def test_an_operator_follows_moves_and_ends_runs_by_command(stack: Stack) -> None:
    async with House(stack) as house:
        data = orjson.dumps(SIGN_UP).decode()
        published = await house.cli("publish", SIGNED_UP, "--tenant", "acme", "--id", "e-1", "--data", data)
        again = await house.cli("publish", SIGNED_UP, "--tenant", "acme", "--id", "e-1", "--data", data)
        assert published["id"] == again["id"] == "e-1"

        async def waiting() -> list[Any]:
            page = await house.cli("runs", "list", "--tenant", "acme", "--status", "waiting")
            return list(page["items"])

        deadline = asyncio.get_running_loop().time() + 30
        while not (found := await waiting()):
            assert asyncio.get_running_loop().time() < deadline
        [run] = found
        shown = await house.cli("runs", "show", run["run_id"])
        assert shown["steps"][0]["step"] == "create-account"
        assert shown["data"]["email"] == "[redacted]"
        explained = await house.cli("runs", "explain", run["run_id"])
        assert explained["wakes"]["subscriptions"][0]["name"] == "mail-confirmed"
        await house.cli("runs", "cancel", run["run_id"], "--reason", "changed her mind")
        await house.until_status(run["run_id"], "cancelled")
        events = await house.cli("runs", "timeline", run["run_id"])
        assert [entry["topic"] for entry in events][-1] == "run.ended"
        undone = [entry["event"]["step"] for entry in events if entry["topic"] == "undo.succeeded"]
        assert undone == ["create-crm-contact", "create-billing", "create-account"]
        again = await house.cli("replay", run["run_id"])
        assert (again["same"], again["events"], again["recorded"]) == (True, len(events), len(events))
        assert await house.cli("runs", "timeline", run["run_id"]) == events


async def test_a_parked_run_is_retried_skipped_or_abandoned_by_command(stack: Stack) -> None:
    async with House(stack) as house:
        await house.script("acme", "billing.CreateSubscriptionV1", "retryable", times=1000)
        run = await house.register("acme")
        await house.until_status(run, "parked")
        code, _, complaint = await house.cli_raw("runs", "skip", run, "owner", "--output", "{}")
        assert (code, orjson.loads(complaint)["field"]) == (4, "step")
        await house.script("acme", "billing.CreateSubscriptionV1", "retryable", times=0)
        await house.cli("runs", "retry", run, "--step", "subscription")
        assert (await house.until_status(run, "succeeded"))["business_state"] == "Active"

        await house.script("globex", "billing.CreateSubscriptionV1", "retryable", times=1000)
        abandoned = await house.register("globex")
        await house.until_status(abandoned, "parked")
        await house.cli("runs", "abandon", abandoned, "--reason", "will not pay")
        await house.until_status(abandoned, "compensated")


REFUSALS = (
    (("runs", "show", "00000000-0000-7000-8000-000000000000"), 3, "not_found"),
    (("runs", "list", "--status", "sleeping"), 2, "request_invalid"),
    (("runs", "start", "no-such-workflow", "--tenant", "acme"), 3, "not_found"),
    (("runs", "start", "tenant-onboarding", "--tenant", "acme", "--input", "{"), 2, "payload_invalid"),
    (("publish", "nowhere.NothingHappenedV1", "--tenant", "acme"), 2, "contract_unknown"),
    (("deadletters", "redrive", "00000000-0000-7000-8000-000000000000"), 3, "not_found"),
    (("rebuild", "nonsense"), 3, "not_found"),
)


@pytest.mark.embedded
async def test_every_refusal_has_its_exit_code_and_names_its_remedy(tmp_path: Path) -> None:
    async with House(Stack("embedded", tmp_path), modules=()) as house:
        for words, exit_code, code in REFUSALS:
            found, said, complaint = await house.cli_raw(*words)
            problem = orjson.loads(complaint)
            assert (words, found, said, problem["code"]) == (words, exit_code, "", code)
            assert problem["detail"]


@pytest.mark.embedded
async def test_who_may_not_is_5_and_what_does_not_answer_is_7(tmp_path: Path) -> None:
    async with House(Stack("embedded", tmp_path), modules=()) as house:
        url = {"UNWIND_API_URL": house.url}
        code, _, complaint = await unwind({**url, "UNWIND_TOKEN": "unw_wrong"}, "runs", "list")
        assert (code, orjson.loads(complaint)["code"]) == (5, "unauthenticated")
        viewer = await house.make_token("viewer", "acme")
        words = ("runs", "start", "tenant-onboarding", "--tenant", "acme")
        code, _, complaint = await unwind({**url, "UNWIND_TOKEN": viewer}, *words)
        assert (code, orjson.loads(complaint)["code"]) == (5, "forbidden")
    code, _, complaint = await unwind({**url, "UNWIND_TOKEN": house.token}, "runs", "list")
    assert (code, orjson.loads(complaint)["field"]) == (7, "UNWIND_API_URL")
    code, _, complaint = await unwind(url, "runs", "list")
    assert (code, orjson.loads(complaint)["field"]) == (5, "UNWIND_TOKEN")


@pytest.mark.embedded
async def test_with_nobody_serving_the_verbs_open_the_folder_themselves(tmp_path: Path) -> None:
    environment = {"UNWIND_DATA_DIR": str(tmp_path / "home"), "UNWIND_HTTP__PORT": "0", "UNWIND_LOG__LEVEL": "warning"}
    code, made, _ = await unwind(environment, "keys", "init")
    assert (code, made["key_file_made"], made["admin_token_made"]) == (0, True, True)
    code, begun, complaint = await unwind(
        environment, "runs", "start", "direct-command", "--tenant", "acme", "--key", "k"
    )
    assert code == 0, complaint
    code, again, _ = await unwind(environment, "runs", "start", "direct-command", "--tenant", "acme", "--key", "k")
    assert (code, again["duplicate"], again["run_id"]) == (0, True, begun["run_id"])
    code, findings, _ = await unwind(environment, "doctor")
    assert (code, [one["check"] for one in findings if one["state"] == "wrong"]) == (0, [])


@pytest.mark.embedded
async def test_a_root_key_is_replaced_without_touching_a_body(tmp_path: Path) -> None:
    environment = {"UNWIND_DATA_DIR": str(tmp_path / "home"), "UNWIND_HTTP__PORT": "0", "UNWIND_LOG__LEVEL": "warning"}
    await unwind(environment, "keys", "init")
    await unwind(environment, "runs", "start", "direct-command", "--tenant", "acme")
    _, rotated, _ = await unwind(environment, "keys", "rotate-root")
    [old] = [root["root_id"] for root in rotated["root_keys"] if not root["current"]]
    code, _, complaint = await unwind(environment, "keys", "retire", old)
    assert (code, orjson.loads(complaint)["code"]) == (4, "conflict")
    _, rewrapped, _ = await unwind(environment, "keys", "rewrap")
    assert rewrapped["rewrapped"] > 0
    code, after, _ = await unwind(environment, "keys", "retire", old)
    assert (code, [root["wraps"] for root in after["root_keys"]]) == (0, [rewrapped["rewrapped"]])
    code, _, complaint = await unwind(environment, "runs", "list", "--tenant", "acme")
    assert code == 0, complaint


@pytest.mark.embedded
async def test_a_folder_has_one_up_and_its_neighbours_find_it(tmp_path: Path) -> None:
    environment = {"UNWIND_DATA_DIR": str(tmp_path / "home"), "UNWIND_HTTP__PORT": "0", "UNWIND_LOG__LEVEL": "warning"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("UNWIND_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts", "up", cwd=ROOT, env={**clean, **environment}, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert (await process.stdout.readline()).startswith(b"Unwind is ready at http://")
        code, _, complaint = await unwind(environment, "up", "--once")
        assert (code, orjson.loads(complaint)["field"]) == (4, "data_dir")
        code, page, complaint = await unwind(environment, "runs", "list")
        assert (code, page["items"]) == (0, []), complaint
        code, _, complaint = await unwind(environment, "keys", "rotate-root")
        assert (code, orjson.loads(complaint)["code"]) == (4, "conflict")
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
    assert process.returncode == 0
    assert not (tmp_path / "home" / "up.json").exists()
