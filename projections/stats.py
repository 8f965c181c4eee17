"""Statistics per workflow and day: how runs ended, how long they took, what they cost.

Durations are counted in buckets whose bounds grow by a quarter of a power of two (about 19 %), exact sums and maxima
beside them, so that percentiles of any span of days follow from adding rows. A run counts on the UTC day it ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from math import ceil, log2
from typing import Any

from engine.store import Change
from projections import Batch, clean, day, micros, offboarded


class Stats:
    """View `stats`: `stats_runs`, one row per (tenant, workflow, day, status, bucket), and `stats_started`."""

    name: str = "stats"
    seed: str | None = None
    sums: bool = True
    outlives: bool = False

    def changes(self, batch: Batch, seeds: MutableMapping[str, Any]) -> list[Change]:
        started: dict[tuple[str, str, str], int] = {}
        for event in batch.of("run.started"):
            begun = (event.tenant, clean(event.event["workflow"]), day(event.event["at"]))
            started[begun] = started.get(begun, 0) + 1
        ended: dict[tuple[str, str, str, str, int], list[int]] = {}
        for event in batch.of("run.ended"):
            run, at = batch.runs[event.run_id], event.event["at"]
            took = micros(run.started["at"], at)
            key = (event.tenant, clean(run.workflow), day(at), event.event["status"], bucket(took))
            row = ended.get(key)
            if row is None:
                ended[key] = [1, took, took, run.cost_micros]
            else:
                row[0] += 1
                row[1] += took
                row[2] = max(row[2], took)
                row[3] += run.cost_micros
        changes = [
            Change("stats_started_add", [(*key, n) for key, n in sorted(started.items())]),
            Change("stats_ended_add", [(*key, *row) for key, row in sorted(ended.items())]),
            *(Change(f"stats_forget_{part}", offboarded(batch)) for part in ("started", "ended")),
        ]
        return [change for change in changes if change.rows]


def bucket(duration_micros: int) -> int:
    """The number of the smallest bucket that holds this duration; bucket b holds up to 2 ** (b / 4) microseconds."""
    return ceil(log2(duration_micros) * 4) if duration_micros > 1 else 0


def upper_seconds(number: int) -> float:
    """The largest duration of a bucket, in seconds."""
    return float(2 ** (number / 4) / 1_000_000)


def percentile(rows: Iterable[Mapping[str, Any]], share: float) -> float | None:
    """The duration in seconds below which `share` of the counted runs stayed, to the bucket's bound; None without runs.
    `rows` have `bucket` and `runs`.
    """
    counts: dict[int, int] = {}
    for row in rows:
        counts[row["bucket"]] = counts.get(row["bucket"], 0) + row["runs"]
    total = sum(counts.values())
    reached = 0
    for number in sorted(counts):
        reached += counts[number]
        if reached >= share * total:
            return upper_seconds(number)
    return None
