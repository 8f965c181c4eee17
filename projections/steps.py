"""The steps of a run, read off its timeline: input, output, error with stack, attempts, duration, cost, undo state.

Pure, and total over every timeline that a run can leave, also a half of one. Called by whoever shows a run: the HTTP
API and the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from contracts.calls import cost_micros
from projections import micros

Step = dict[str, Any]


def steps(timeline: Iterable[Mapping[str, Any]]) -> list[Step]:
    """One record per (step, visit), in the order of their schedules, from the entries of `Reader.timeline`."""
    found: dict[tuple[str, int], Step] = {}
    for entry in timeline:
        topic, event = entry["topic"], entry["event"]
        if topic == "step.scheduled":
            found[event["step"], event["visit"]] = _scheduled(event)
        elif topic == "step.reused":
            found[event["step"], event["visit"]] = _reused(event)
        elif topic.startswith(("step.", "undo.")) or (topic == "incident.opened" and event.get("step")):
            step = found.get((event["step"], event["visit"]))
            if step is not None:
                _take(step, topic, event)
    return list(found.values())


def _scheduled(event: Mapping[str, Any]) -> Step:
    return {
        "step": event["step"],
        "visit": event["visit"],
        "key": event["key"],
        "action": event["action"],
        "kind": event["kind"],
        "status": "open",
        "input": event.get("input"),
        "output": None,
        "progress": None,
        "error": None,
        "cost": 0.0,
        "started_at": event["at"],
        "ended_at": None,
        "duration_seconds": None,
        "ambiguous": False,
        "reused": False,
        "attempts": [_attempt(1, event)],
        "undo": _undo(event["undo"]) if event.get("undo") else None,
    }


def _reused(event: Mapping[str, Any]) -> Step:
    """A rerun's step whose effect the run before it has had: it succeeded without an attempt of its own."""
    step = _scheduled(event) | {"output": event.get("output"), "reused": True, "attempts": []}
    return step | {"status": "succeeded", "ended_at": event["at"], "duration_seconds": 0.0}


def _attempt(number: int, event: Mapping[str, Any]) -> Step:
    return {"attempt": number, "started_at": event["at"], "ended_at": None, "error": None, "retry_at": None}


def _settle(attempt: Step, event: Mapping[str, Any]) -> None:
    attempt |= {"ended_at": event["at"], "error": event.get("error"), "retry_at": event.get("retry_at")}


def _undo(action: str) -> Step:
    return {"action": action, "status": "none", "attempts": [], "output": None}


def _take(step: Step, topic: str, event: Mapping[str, Any]) -> None:
    match topic:
        case "step.attempted":
            step["status"] = "open"
            step["attempts"].append(_attempt(event["attempt"], event))
        case "step.progressed":
            step["progress"] = event.get("progress")
        case "step.succeeded":
            step["output"], step["error"], step["ambiguous"] = event.get("output"), None, False
            step["cost"] = (cost_micros(step["cost"]) + cost_micros(event.get("cost") or 0)) / 1_000_000
            _end(step, "succeeded", event["at"])
        case "step.failed":
            step["error"] = event.get("error")
            step["ambiguous"] = step["ambiguous"] or bool(event.get("ambiguous"))
            _settle(step["attempts"][-1], event)
            if event.get("final"):
                _end(step, "failed", event["at"])
            else:
                step["status"] = "backoff"
        case "step.doubted":
            step["status"], step["ambiguous"], step["error"] = "open", True, event.get("error")
        case "step.cleared" if event["closing"]:
            step["ambiguous"] = False
            _end(step, "cancelled", event["at"])
        case "step.skipped":
            step["output"], step["undo"] = event.get("output"), None
            step["skipped_by"], step["skipped_because"] = event.get("by"), event.get("reason")
            _end(step, "skipped", event["at"])
        case "step.cancelled":
            step["ambiguous"] = bool(event.get("ambiguous"))
            _end(step, "cancelled", event["at"])
        case "incident.opened":
            if event["reason"] != "undo_failed":
                step["status"] = "parked"
            elif step["undo"] is not None:
                step["undo"]["status"] = "parked"
        case "undo.scheduled":
            undo = step["undo"] = step["undo"] or _undo(event["action"])
            undo["status"] = "open"
            undo["attempts"].append(_attempt(event["attempt"], event))
        case "undo.succeeded" | "undo.failed":
            _undone(step, topic, event)
        case _:
            pass


def _end(step: Step, status: str, at: str) -> None:
    step["status"], step["ended_at"] = status, at
    step["attempts"][-1]["ended_at"] = step["attempts"][-1]["ended_at"] or at
    step["duration_seconds"] = micros(step["started_at"], at) / 1_000_000


def _undone(step: Step, topic: str, event: Mapping[str, Any]) -> None:
    undo = step["undo"]
    if undo is None or not undo["attempts"]:
        return
    _settle(undo["attempts"][-1], event)
    if topic == "undo.succeeded":
        undo["status"], undo["output"] = "done", event.get("output")
    else:
        undo["status"] = "parked" if event.get("final") else "backoff"
