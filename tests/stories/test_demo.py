"""What a person sees first: `unwind up --demo --once` on an empty folder shows every chapter and ends with 0."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import orjson
import pytest

from tests.stories.house import ROOT

CHAPTERS = {
    "A tenant signs up": ("succeeded", "Active"),
    "A tenant's owner cannot be invited": ("compensated", "ProvisioningFailed"),
    "The mail server is down": ("parked", "ProvisioningFailed"),
    "An operator repairs it": ("succeeded", "Active"),
    "A customer cannot be entered into the CRM": ("compensated", None),
    "A customer confirms her address": ("succeeded", "Active"),
    "A customer has not confirmed": ("waiting", "AwaitingConfirmation"),
}


@pytest.mark.embedded
async def test_the_demo_shows_success_unwinding_repair_and_waiting(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UNWIND_")}
    environment |= {"UNWIND_DATA_DIR": str(tmp_path / "home"), "UNWIND_LOG__LEVEL": "warning"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts", "up", "--demo", "--once", "--port", "0", "--json"),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, told = await asyncio.wait_for(process.communicate(), timeout=110)
    assert process.returncode == 0, told.decode()
    chapters = orjson.loads(said)["demo"]
    shown = {
        beginning: (chapter["status"], chapter["state"])
        for chapter in chapters
        for beginning in CHAPTERS
        if chapter["title"].startswith(beginning)
    }
    assert shown == CHAPTERS
    assert b"Unwind is ready at http://" in told
    assert all(chapter["title"].encode() in told for chapter in chapters)
