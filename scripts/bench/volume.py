"""Figures of what grows with the log: how fast a read model is written anew from it, and in how much memory. Measured
in a database and by a process of its own (`scripts.bench.rebuilding`); no engine runs meanwhile.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property

from contracts.problems import Conflict
from scripts.bench.figures import Round
from scripts.bench.processes import ask
from scripts.bench.rebuilding import Rebuilding, Rebuilt


class Volume:
    """One round of them, each measured at most once."""

    def __init__(
        self, database: Callable[[], AbstractContextManager[str]], events: int, tell: Callable[[str], None]
    ) -> None:
        self._database, self._events, self._tell = database, events, tell

    def rebuild(self) -> Round:
        done = self.rebuilt
        return Round(
            done.events / done.seconds,
            {
                "events": done.events,
                "read_and_written_per_second": done.events / done.reading,
                "cpu_us_per_event": done.cpu_seconds / done.events * 1e6,
            },
        )

    def memory_growth(self) -> Round:
        early, late = self.rebuilt.early_bytes / 2**20, self.rebuilt.late_bytes / 2**20
        return Round((late / early - 1) * 100, {"early_mib": early, "late_mib": late, "events": self.rebuilt.events})

    @cached_property
    def rebuilt(self) -> Rebuilt:
        self._tell(f"history rebuilt from {self._events} events")
        with self._database() as url, tempfile.TemporaryDirectory(prefix="unwind-bench-") as folder:
            environment = {"UNWIND_DATA_DIR": folder, "UNWIND_DATABASE_URL": url}
            ask("scripts.bench.rebuilding", Rebuilding(events=self._events, fill=True), environment)
            done = Rebuilt(**ask("scripts.bench.rebuilding", Rebuilding(events=self._events), environment))
        if not done.equal:
            raise Conflict("the rebuilt history differs from the living one; nothing is said of its speed")
        return done
