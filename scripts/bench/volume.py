"""Figures of what grows with the log: how fast a read model is written anew from it and in how much memory, and how
fast a very long one answers. Each is measured in a database and by a process of its own (`scripts.bench.rebuilding`,
`scripts.bench.listing`); no engine runs meanwhile.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Final

from contracts.problems import Conflict
from scripts.bench.figures import Round
from scripts.bench.listing import Listed, Listing
from scripts.bench.processes import ask
from scripts.bench.rebuilding import Rebuilding, Rebuilt

ASKED: Final = 15


class Volume:
    """One round of them, each measured at most once."""

    def __init__(
        self,
        database: Callable[[], AbstractContextManager[str]],
        events: int,
        runs: int,
        tell: Callable[[str], None],
    ) -> None:
        self._database, self._events, self._runs, self._tell = database, events, runs, tell

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

    def list_page(self) -> Round:
        return _worst(self.listed.pages, self._runs)

    def find_by_attribute(self) -> Round:
        return _worst(self.listed.searches, self._runs)

    @cached_property
    def listed(self) -> Listed:
        self._tell(f"lists of {self._runs} runs")
        with self._own() as environment:
            return Listed(**ask("scripts.bench.listing", Listing(runs=self._runs, asked=ASKED), environment))

    @cached_property
    def rebuilt(self) -> Rebuilt:
        self._tell(f"history rebuilt from {self._events} events")
        with self._own() as environment:
            ask("scripts.bench.rebuilding", Rebuilding(events=self._events, fill=True), environment)
            done = Rebuilt(**ask("scripts.bench.rebuilding", Rebuilding(events=self._events), environment))
        if not done.equal:
            raise Conflict("the rebuilt history differs from the living one; nothing is said of its speed")
        return done

    @contextmanager
    def _own(self) -> Iterator[dict[str, str]]:
        """Settings with an empty database and a folder for the key file."""
        with self._database() as url, tempfile.TemporaryDirectory(prefix="unwind-bench-") as folder:
            yield {"UNWIND_DATA_DIR": folder, "UNWIND_DATABASE_URL": url}


def _worst(medians: Mapping[str, float], runs: int) -> Round:
    """The slowest kind stands for all; every kind is beside it in the document, the median of them in the table."""
    return Round(
        max(medians.values()), {"runs": runs, "median_kind_ms": statistics.median(medians.values()), **medians}
    )
