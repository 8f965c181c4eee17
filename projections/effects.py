"""The ledger of effects: each side effect that runs intended, with its key, what became of it, and what it cost. Read
off the steps of the runs asked about (`projections.steps`), so it costs nothing until somebody asks. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

State = Literal["intended", "happened", "reused", "supplied", "unknown", "failed", "undoing", "not_undone", "undone"]


def effects(run: Mapping[str, Any], steps: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry per step of `run` (as `Reader.runs` answers it), in the order of the schedules."""
    return [
        {
            "key": step["key"],
            "tenant": run["tenant"],
            "run_id": run["run_id"],
            "workflow": run["workflow"],
            "step": step["step"],
            "visit": step["visit"],
            "action": step["action"],
            "kind": step["kind"],
            "state": state(step),
            "attempts": len(step["attempts"]),
            "cost": step["cost"],
            "undo": step["undo"]["action"] if step["undo"] else None,
            "undo_attempts": len(step["undo"]["attempts"]) if step["undo"] else 0,
            "since": step["started_at"],
            "settled_at": step["ended_at"],
        }
        for step in steps
    ]


def state(step: Mapping[str, Any]) -> State:
    """What is known of the step's effect:

    intended     asked for, no outcome yet (also between two attempts)
    happened     it succeeded, and stands
    reused       it stands, had by the run that this one reruns
    supplied     an operator gave the output instead of the effect
    unknown      the effect may have happened; nobody could say
    failed       it did not happen, for certain
    undoing      an undo is under way
    not_undone   an undo was tried, did not succeed, and waits for an operator
    undone       the undo succeeded
    """
    undo = step["undo"]["status"] if step["undo"] else "none"
    match undo:
        case "done":
            return "undone"
        case "open" | "backoff":
            return "undoing"
        case "parked":
            return "not_undone"
    match step["status"]:
        case "succeeded":
            return "reused" if step["reused"] else "happened"
        case "skipped":
            return "supplied"
        case "open" | "backoff":
            return "unknown" if step["ambiguous"] and step["status"] == "open" else "intended"
        case _:
            return "unknown" if step["ambiguous"] else "failed"
