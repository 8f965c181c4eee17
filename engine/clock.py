"""Time comes in by this door: the system clock in production, a hand-turned one in tests and simulations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol


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
