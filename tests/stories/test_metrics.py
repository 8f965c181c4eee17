"""What /metrics says about an installation is so: each gauge follows what waits for somebody, and is 0 again after."""

from __future__ import annotations

import re
from typing import Any

import pytest

from engine.plan.code import Run, saga
from engine.settings import ROLES
from tests.stories.house import House, MovableClock, Stack, until

Page = dict[str, float]

SENT_BY_ANOTHER = tuple(role for role in ROLES if role != "relay")
DAY_SECONDS = 86_400.0

_SAMPLE = re.compile(r'^unwind_(\w+)(?:\{\w+="(\w+)"\})? (\S+)$', re.MULTILINE)

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
