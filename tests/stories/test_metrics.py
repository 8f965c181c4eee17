"""What /metrics says about an installation is so: each gauge follows what waits for somebody, and is 0 again after."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from consumers.modules import NAMES
from engine.plan.code import Run, saga
from engine.settings import ROLES
from scripts.provision.places import free_port
from tests.servers.checking import check_page
from tests.stories.house import House, MovableClock, Stack, until

Page = dict[str, float]

SENT_BY_ANOTHER = tuple(role for role in ROLES if role != "relay")
DAY_SECONDS = 86_400.0

_SAMPLE = re.compile(r'^unwind_(\w+)(?:\{\w+="(\w+)"\})? (\S+)$', re.MULTILINE)

OUTBOX = b"\nunwind_outbox_rows 0.0\n"
WAITING = b'\nunwind_runs_open{status="waiting"} 1.0\n'

NOTHING: Page = {
    "runs_open/running": 0,
    "runs_open/waiting": 0,
    "runs_open/parked": 0,
    "incidents_open/saga_raised": 0,
    "dead_letters_kept": 0,
    "outbox_rows": 0,
    "outbox_age_seconds": 0,
    "timers_late": 0,
    "timers_lateness_seconds": 0,
    "outlet_backlog": 0,
    "outlet_backlog_age_seconds": 0,
    "outlets_disabled/failing": 0,
    "processes": 1,
}


@saga("sleeper", version=1)
async def sleeper(run: Run, given: dict[str, Any]) -> None:
    await run.sleep("nap", DAY_SECONDS)


@saga("stumbler", version=1)
async def stumbler(run: Run, given: dict[str, Any]) -> None:
    raise ValueError("this saga never gets far")


async def _page(house: House, url: str) -> Page:
    """Samples with one label or none, as `name/value` or `name`."""
    async with house.session.get(f"{url}/metrics") as answer:
        found = _SAMPLE.findall(await answer.text())
    return {f"{name}/{value}" if value else name: float(number) for name, value, number in found}


async def _until_said(house: House, wanted: Page) -> Page:
    return await until(
        lambda: _page(house, house.url),
        lambda page: {name: page.get(name) for name in wanted} == wanted,
    )


@pytest.mark.acceptance("L7")
async def test_the_pages_of_engines_and_modules_are_as_prometheus_wants_them(
    stack: Stack, promtool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.census.PAUSE_SECONDS", 0.1)
    monkeypatch.setattr("consumers.census.PAUSE_PER_COUNT", 1)
    modules = [name for name in NAMES if name != "audit"]
    async with House(stack, modules=modules) as house:
        await house.until_state(await house.sign_up("acme"), "AwaitingConfirmation")
        port = free_port()
        async with house.command("serve-module", "audit", UNWIND_HTTP__PROBE_PORT=str(port)):
            module = await until(lambda: house.page(f"http://127.0.0.1:{port}/metrics"), lambda page: OUTBOX in page)
        engine = await until(lambda: house.page(f"{house.url}/metrics"), lambda page: WAITING in page)
        for page in (engine, module):
            check_page(promtool, page)
        assert b'\nunwind_step_duration_seconds_bucket{action="identity.create_user",le="' in engine
        assert b"\nunwind_stuck_runs 0.0\n" in engine
        assert all(name in engine for name in (OUTBOX, b"unwind_outbox_age_seconds ", b"unwind_projection_lag_events{"))
        assert b"unwind_dead_letters_kept 0.0" in engine


async def test_gauges_show_what_waits_and_are_zero_again_when_it_is_done(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.census.PAUSE_SECONDS", 0.1)
    monkeypatch.setattr("consumers.census.PAUSE_PER_COUNT", 1)
    clock = MovableClock()
    async with House(stack, clock=clock, roles=SENT_BY_ANOTHER, sagas=(sleeper, stumbler), modules=()) as house:
        await _until_said(house, NOTHING)

        asleep = await house.start("sleeper", "acme")
        parked = await house.start("stumbler", "acme")
        await house.ear.send_raw("crm.SignupRequestedV1", b"{")
        page = await _until_said(
            house,
            {
                "runs_open/running": 0,
                "runs_open/waiting": 1,
                "runs_open/parked": 1,
                "incidents_open/saga_raised": 1,
                "dead_letters_kept": 1,
                "timers_late": 0,
            },
        )
        assert page["outbox_rows"] >= 1  # the notice that a run was parked, with nobody to send it
        clock.forward(minutes=10)
        await until(lambda: _page(house, house.url), lambda page: 600 <= page["outbox_age_seconds"] < 700)

        sender = await house.new_assembly(["relay"])
        try:
            await _until_said(house, {"outbox_rows": 0, "outbox_age_seconds": 0, "processes": 2})
            assert sender.url is not None
            # What this process does not measure, it does not show.
            assert not set(NOTHING) & set(await _page(house, sender.url))
        finally:
            await sender.stop()

        # The process that knew the saga is gone: its run sleeps on past the time to wake.
        await house.restart(sagas=(stumbler,))
        _, said, _ = await house.cli_raw("doctor", UNWIND_LEASE__DEAD_SECONDS="60")
        [wrong] = [one["detail"] for one in orjson.loads(said) if one["state"] == "wrong"]
        assert wrong.startswith(f"1 open runs of sleeper version 1, such as {asleep}, stand still")
        clock.forward(days=3)
        page = await _until_said(house, {"timers_late": 1, "runs_open/waiting": 1, "incidents_open/saga_raised": 1})
        assert 600 <= page["timers_lateness_seconds"] - 2 * DAY_SECONDS < 700

        await house.restart(sagas=(sleeper, stumbler))
        await house.until_status(asleep, "succeeded")
        await house.api.post(f"/v1/runs/{parked}/abandon", {"reason": "it never gets far"})
        letter = await house.until_letter(reason="envelope_invalid")
        await house.api.post(f"/v1/dead-letters/{letter['id']}/discard")
        sender = await house.new_assembly(["relay"])
        try:
            await _until_said(house, {**NOTHING, "processes": 2})
        finally:
            await sender.stop()
        await _until_said(house, NOTHING)
