"""Rows of the read models as JSON-native records, the same from every database: ids and instants as texts, costs as
numbers. Pure; `projections.reader` calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from contracts.envelope import format_time
from projections import stats

Record = dict[str, Any]


def entries_of(rows: Sequence[Mapping[str, Any]]) -> list[Record]:
    return [orjson.loads(line) for row in rows for line in bytes(row["entries"]).splitlines()]


def _time(value: Any) -> str | None:
    if isinstance(value, datetime):
        return format_time(value if value.tzinfo else value.replace(tzinfo=UTC))
    return value if value is None else str(value)


def run_of(row: Mapping[str, Any]) -> Record:
    return {
        "run_id": str(row["run_id"]),
        "tenant": row["tenant"],
        "workflow": row["workflow"],
        "workflow_version": row["workflow_version"],
        "status": row["status"],
        "business_state": row["business_state"],
        "trigger": orjson.loads(row["trigger"]),
        "initiator": row["initiator"],
        "correlation_id": row["correlation_id"],
        "causation_id": row["causation_id"],
        "trace_id": row["trace_id"],
        "attributes": orjson.loads(row["attributes"]),
        "started_at": _time(row["started_at"]),
        "updated_at": _time(row["updated_at"]),
        "ended_at": _time(row["ended_at"]),
        "deadline": _time(row["deadline"]),
        "parked": row["parked"],
        "error_code": row["error_code"],
        "error_message": row["error_message"],
        "steps": row["steps"],
        "attempts": row["attempts"],
        "undone": row["undone"],
        "cost": row["cost_micros"] / 1_000_000,
        "version": row["version"],
    }


def approval_of(row: Mapping[str, Any]) -> Record:
    return {
        "run_id": str(row["run_id"]),
        "tenant": row["tenant"],
        "name": row["name"],
        "visit": row["visit"],
        "workflow": row["workflow"],
        "title": row["title"],
        "role": row["role"],
        "context": orjson.loads(row["context"]),
        "requested_at": _time(row["requested_at"]),
        "due": _time(row["due"]),
        "state": row["state"],
        "decided_by": row["decided_by"] or None,
        "comment": row["comment"] or None,
        "decided_at": _time(row["decided_at"]),
    }


def day_of(row: Mapping[str, Any]) -> Record:
    counters = ("runs_started", "runs_ended", "runs_failed", "steps", "attempts", "undos", "approvals")
    return {"day": str(row["day"]), **{name: row[name] for name in counters}, "cost": row["cost_micros"] / 1_000_000}


def statistics_of(
    key: tuple[str, str], started: Sequence[Mapping[str, Any]], ended: Sequence[Mapping[str, Any]]
) -> Record:
    mine = [row for row in ended if (row["tenant"], row["workflow"]) == key]
    by_status: dict[str, int] = {}
    for row in mine:
        by_status[row["status"]] = by_status.get(row["status"], 0) + row["runs"]
    total = sum(by_status.values())
    counted = total - by_status.get("skipped", 0)
    passed = sum(row["duration_micros"] for row in mine)
    return {
        "tenant": key[0],
        "workflow": key[1],
        "started": sum(row["runs"] for row in started if (row["tenant"], row["workflow"]) == key),
        "ended": total,
        "by_status": dict(sorted(by_status.items())),
        "success_rate": by_status.get("succeeded", 0) / counted if counted else None,
        "average_seconds": passed / total / 1_000_000 if total else None,
        "p50_seconds": stats.percentile(mine, 0.5),
        "p95_seconds": stats.percentile(mine, 0.95),
        "longest_seconds": max((row["longest_micros"] for row in mine), default=0) / 1_000_000 if mine else None,
        "cost": sum(row["cost_micros"] for row in mine) / 1_000_000,
    }


def erasure_of(row: Mapping[str, Any]) -> Record:
    details = orjson.loads(row["details"])
    return {
        "tenant": row["tenant"],
        "scope": details["scope"],
        "runs": details["runs"],
        "by": row["actor"],
        "at": _time(row["recorded_at"]),
    }


def audit_of(row: Mapping[str, Any]) -> Record:
    return {
        "tenant": row["tenant"],
        "number": row["number"],
        "position": row["position"],
        "stream": str(row["stream"]),
        "kind": row["kind"],
        "version": row["version"],
        "topic": row["topic"],
        "actor": row["actor"],
        "details": orjson.loads(row["details"]),
        "recorded_at": row["recorded_at"],
        "hash": bytes(row["hash"]).hex(),
    }
