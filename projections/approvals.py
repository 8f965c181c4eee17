"""Approvals: what waits for a person, and what was decided, by whom. One row per approval of a run.

An approval whose run began to unwind, or ended, is `closed`: nobody can decide it any more.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import orjson

from engine.store import Change
from projections import Batch, Decoded, archived, clean, instant


class Approvals:
    """View `approvals`."""

    name: str = "approvals"
    seed: str | None = None
    sums: bool = False
    outlives: bool = False

    def changes(self, batch: Batch, seeds: MutableMapping[str, Any]) -> list[Change]:
        requested = [_request(batch, event) for event in batch.of("approval.requested")]
        settled = [_decision(event) for event in batch.of("approval.decided")]
        settled += [_timeout(event) for event in batch.of("approval.timed_out")]
        closed = {
            event.run_id: (event.tenant, event.run_id, instant(event.event["at"]))
            for topic in ("run.ended", "compensation.started")
            for event in batch.of(topic)
        }
        # An approval decided in this batch was decided before its run ended: settle first, close what is left.
        changes = [
            Change("approvals_insert", requested),
            Change("approvals_settle", settled),
            Change("approvals_close", list(closed.values())),
            Change("approvals_archive", archived(batch)),
        ]
        return [change for change in changes if change.rows]


def _request(batch: Batch, event: Decoded) -> tuple[Any, ...]:
    asked = event.event
    return (
        event.tenant,
        event.run_id,
        clean(asked["name"]),
        asked["visit"],
        clean(batch.runs[event.run_id].workflow),
        clean(asked["title"]),
        clean(asked["role"]),
        orjson.dumps(asked.get("context")).decode(),
        instant(asked["at"]),
        instant(asked["due"]) if asked.get("due") else None,
    )


def _decision(event: Decoded) -> tuple[Any, ...]:
    decided = event.event
    return (
        event.tenant,
        event.run_id,
        clean(decided["name"]),
        decided["visit"],
        "approved" if decided["approved"] else "rejected",
        clean(decided["by"]),
        clean(decided.get("comment", "")),
        instant(decided["at"]),
    )


def _timeout(event: Decoded) -> tuple[Any, ...]:
    ended = event.event
    name, at = clean(ended["name"]), instant(ended["at"])
    return (event.tenant, event.run_id, name, ended["visit"], "timed_out", "", "", at)
