"""`unwind chaos --smoke`: sixty kills on the two stacks, and every law holds."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

ROOT = Path(__file__).resolve().parents[2]


async def chaos(*words: str) -> tuple[int, Any]:
    """Exit code and answer of `unwind chaos <words> --json`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UNWIND_TEST_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts", "chaos", *words, "--json",
        cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.terminate()
        raise
    assert process.returncode is not None
    return process.returncode, orjson.loads(said)


@pytest.mark.timeout(420)
@pytest.mark.acceptance("G2")
@pytest.mark.parametrize(
    ("stack", "kills"),
    [
        pytest.param("embedded", 30, marks=pytest.mark.embedded),
        pytest.param("production", 32, marks=[pytest.mark.postgres, pytest.mark.rabbitmq]),
    ],
)
async def test_whatever_is_killed_every_law_holds(stack: str, kills: int) -> None:
    code, told = await chaos("--smoke", f"--{stack}")
    [site] = told["stacks"]
    assert (site["broken"], code) == ([], 0)
    assert site["kills"] == kills
    assert site["runs"] > 0
    assert site["effects"] > 0
    assert site["memory_growth_percent"] < 30
    assert site["log_lines_per_minute"] < 600


async def test_the_faults_are_listed_with_what_they_need_and_a_wrong_name_is_refused() -> None:
    code, listed = await chaos("--list")
    assert code == 0
    assert {one["place"] for one in listed} == {"process", "server", "wire", "input"}
    assert {one["needs"] for one in listed} == {"", "servers", "three nodes"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts", "chaos", "--only", "nonsense", "--json",
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, complaint = await process.communicate()
    problem = orjson.loads(complaint)
    assert (process.returncode, problem["code"], problem["field"]) == (3, "not_found", "only")
