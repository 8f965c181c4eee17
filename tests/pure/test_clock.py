"""The clock that goes by the database's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from engine.clock import SharedClock, VirtualClock

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("wrong_seconds", [300, -300, 0.2])
async def test_a_wrong_clock_is_set_by_the_database(wrong_seconds: float) -> None:
    machine = VirtualClock(NOON + timedelta(seconds=wrong_seconds))
    clock = SharedClock(machine)

    async def ask() -> datetime:
        return NOON

    assert await clock.keep(ask) == timedelta(seconds=-wrong_seconds)
    assert clock.now() == NOON
    machine.forward(minutes=1)
    assert clock.now() == NOON + timedelta(minutes=1)


async def test_what_the_way_of_the_answer_explains_moves_nothing() -> None:
    machine = VirtualClock(NOON)
    clock = SharedClock(machine)

    async def ask() -> datetime:
        machine.forward(seconds=2)  # the way to the database
        said = machine.now()
        machine.forward(seconds=4)  # and back
        return said

    assert await clock.keep(ask) == timedelta()
    assert clock.behind == timedelta()


async def test_a_clock_that_is_set_back_later_is_set_again() -> None:
    machine = VirtualClock(NOON)
    clock, true = SharedClock(machine), VirtualClock(NOON)

    async def ask() -> datetime:
        return true.now()

    await clock.keep(ask)
    machine.forward(seconds=-90)
    assert await clock.keep(ask) == timedelta(seconds=90)
    assert clock.now() == true.now()
