"""Quota usage: what each tenant used, per day and now. Counters only, one row per tenant and day in a batch.

A day is the UTC day of the event itself. `open_runs` counts runs that started and have not ended. Limits are enforced
elsewhere, on live rows (`open_runs` of the store); this view is for seeing, billing and comparing.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from contracts.calls import cost_micros
from engine.store import Change
from projections import Batch, Decoded, day, offboarded

_COUNTERS = ("runs_started", "runs_ended", "runs_failed", "steps", "attempts", "undos", "approvals", "cost_micros")
_AT = {name: at for at, name in enumerate(_COUNTERS)}
_FAILED = frozenset({"failed", "compensated", "compensation_failed", "timed_out"})


class Usage:
    """View `usage`: `usage_days` and `usage_now`."""

    name: str = "usage"
    seed: str | None = None
    sums: bool = True
    outlives: bool = False

    def changes(self, batch: Batch, seeds: MutableMapping[str, Any]) -> list[Change]:
        days: dict[tuple[str, str], list[int]] = {}
        now: dict[str, list[int]] = {}

        def count(event: Decoded, counter: str, n: int = 1) -> None:
            key = (event.tenant, day(event.event["at"]))
            counters = days.get(key)
            if counters is None:
                counters = days[key] = [0] * len(_COUNTERS)
            counters[_AT[counter]] += n

        for event in batch.of("run.started"):
            count(event, "runs_started")
            now.setdefault(event.tenant, [0, 0])[0] += 1
        for event in batch.of("run.ended"):
            count(event, "runs_ended")
            if event.event["status"] in _FAILED:
                count(event, "runs_failed")
            now.setdefault(event.tenant, [0, 0])[1] += 1
        for event in batch.of("step.scheduled"):
            count(event, "steps")
            count(event, "attempts")
        for event in batch.of("step.attempted"):
            count(event, "attempts")
        for event in batch.of("undo.scheduled"):
            count(event, "undos")
        for event in batch.of("approval.requested"):
            count(event, "approvals")
        for event in batch.of("step.succeeded"):
            cost = event.event.get("cost")
            if cost:
                count(event, "cost_micros", cost_micros(cost))
        changes = [
            Change("usage_day_add", [(*key, *counters) for key, counters in sorted(days.items())]),
            Change("usage_now_add", [(tenant, begun - ended, begun) for tenant, (begun, ended) in sorted(now.items())]),
            *(Change(f"usage_forget_{part}", offboarded(batch)) for part in ("days", "now")),
        ]
        return [change for change in changes if change.rows]
