"""Time comes in by this door: in production the machine's clock as the database corrects it, a hand-turned one in tests
and simulations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

NEAR: Final = timedelta(milliseconds=50)
"""So far apart two clocks count as the same."""


class Clock(Protocol):
    """Engine time. `database_now` is what statements get as `now`: None (the database's own clock) unless time is
    virtual.
    """

    def now(self) -> datetime: ...

    def database_now(self) -> datetime | None: ...


class SystemClock:
    """The machine's clock, in UTC."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def database_now(self) -> datetime | None:
        return None


class SharedClock:
    """The machine's clock, set by the database's: what one process says is due in a minute is due in a minute to the
    database, which tells all of them, however wrong the clock of its machine is.
    """

    def __init__(self, machine: Clock | None = None) -> None:
        self._machine: Clock = machine or SystemClock()
        self.behind = timedelta()
        """How far the machine's clock is behind the database's; negative when it is ahead."""

    def now(self) -> datetime:
        return self._machine.now() + self.behind

    def database_now(self) -> datetime | None:
        return None

    async def keep(self, ask: Callable[[], Awaitable[datetime]]) -> timedelta:
        """Asks the database for its time and goes by it; answers by how much this clock was moved, zero if not. An
        answer is as exact as it was fast: what is within half its way is no difference.
        """
        before = self._machine.now()
        theirs = await ask()
        way = (self._machine.now() - before) / 2
        moved = theirs - (before + way) - self.behind
        if abs(moved) <= abs(way) + NEAR:
            return timedelta()
        self.behind += moved
        return moved


class VirtualClock:
    """A clock turned by hand: `clock.forward(days=2)`."""

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def database_now(self) -> datetime | None:
        return self._now

    def forward(self, **delta: float) -> datetime:
        """Moves time by a `timedelta` given in keywords and answers the new instant."""
        self._now += timedelta(**delta)
        return self._now
