"""Rows of either database as the store's dataclasses. SQLite keeps instants as microseconds, uuids as hex and lists as
JSON; asyncpg hands over the real types. Read by the verbs of both drivers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from engine.store import (
    Census,
    DeadLetter,
    DueTimer,
    Hook,
    InputRow,
    Notification,
    OpenRun,
    OutboxRow,
    Outlet,
    OutletDelivery,
    OutletQueue,
    PresentedToken,
    Process,
    SealedSecret,
    SecretNote,
    Stored,
    Token,
    WrappedKey,
)

Row = Mapping[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def instant(value: datetime | int) -> datetime:
    return value if isinstance(value, datetime) else _EPOCH + timedelta(microseconds=value)


def microseconds(value: datetime) -> int:
    return (value - _EPOCH) // _MICROSECOND


def maybe_instant(value: datetime | int | None) -> datetime | None:
    return None if value is None else instant(value)


def uuid(value: UUID | str) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


def document(value: Any) -> Any:
    return orjson.loads(value) if isinstance(value, str | bytes) else value


def wake(value: Any) -> dict[str, Any]:
    """One reason to wake, JSON-native: instants as RFC 3339 texts."""
    detail: dict[str, Any] = document(value)
    for name in ("due", "available_at", "look_back"):
        if name in detail:
            moment = detail[name]
            detail[name] = (instant(moment) if isinstance(moment, int) else datetime.fromisoformat(moment)).isoformat()
    if isinstance(detail.get("types"), str):
        detail["types"] = detail["types"].split(" ")
    return detail


def stored(row: Row) -> Stored:
    return Stored(row["version"], row["topic"], row["body"], instant(row["recorded_at"]))


def notification(row: Row) -> Notification:
    return Notification(
        row["pos"],
        row["tenant"],
        uuid(row["stream"]),
        row["kind"],
        row["version"],
        row["topic"],
        row["body"],
        instant(row["recorded_at"]),
    )


def open_run(row: Row) -> OpenRun:
    return OpenRun(
        tenant=row["tenant"],
        run_id=uuid(row["run_id"]),
        workflow=row["workflow"],
        workflow_version=row["workflow_version"],
        status=row["status"],
        slot=bool(row["slot"]),
        owner=row["owner"],
        takeovers=row["takeovers"],
        deadline=maybe_instant(row["deadline"]),
        started_at=instant(row["started_at"]),
    )


def input_row(row: Row) -> InputRow:
    return InputRow(
        id=row["id"],
        tenant=row["tenant"],
        kind=row["kind"],
        run_id=None if row["run_id"] is None else uuid(row["run_id"]),
        workflow=row["workflow"],
        name=row["name"],
        visit=row["visit"],
        arrival=None if row["source"] is None else (row["source"], row["event_id"]),
        body=row["body"],
    )


def outbox_row(row: Row) -> OutboxRow:
    return OutboxRow(
        row["id"],
        row["tenant"],
        row["message_id"],
        row["exchange"],
        row["routing_key"],
        row["body"],
        instant(row["created_at"]),
    )


def due_timer(row: Row) -> DueTimer:
    return DueTimer(row["tenant"], uuid(row["run_id"]), row["key"], instant(row["due"]))


def process(row: Row) -> Process:
    return Process(
        epoch=row["epoch"],
        name=row["name"],
        roles=tuple(document(row["roles"])),
        started_at=instant(row["started_at"]),
        seen_at=instant(row["seen_at"]),
        dead=bool(row["dead"]),
        version=row["version"] if "version" in row.keys() else "",  # noqa: SIM118 - a driver's row is no dict
    )


def census(row: Row) -> Census:
    return Census(
        runs=document(row["runs"]),
        outbox_rows=row["outbox_rows"],
        outbox_age_seconds=max(0.0, row["outbox_age"]),
        timers_late=row["timers_late"],
        timers_lateness_seconds=max(0.0, row["timers_lateness"]),
        dead_letters=row["dead_letters"],
        processes=row["processes"],
    )


def dead_letter(row: Row) -> DeadLetter:
    return DeadLetter(
        id=uuid(row["id"]),
        tenant=row["tenant"],
        reason=row["reason"],
        detail=row["detail"],
        source=row["source"],
        routing_key=row["routing_key"],
        event_id=row["event_id"],
        type=row["type"],
        attempts=document(row["attempts"]),
        envelope=row["envelope"],
        headers=document(row["headers"]),
        state=row["state"],
        created_at=instant(row["created_at"]),
        settled_at=maybe_instant(row["settled_at"]),
        settled_by=row["settled_by"],
    )


def token(row: Row) -> Token:
    return Token(
        prefix=row["prefix"],
        digest=row["digest"],
        tenant=row["tenant"],
        name=row["name"],
        roles=tuple(document(row["roles"])),
        created_at=instant(row["created_at"]),
        expires_at=maybe_instant(row["expires_at"]),
        revoked_at=maybe_instant(row["revoked_at"]),
        last_used_at=maybe_instant(row["last_used_at"]),
        made_by=row["made_by"],
        made_with=row["made_with"],
        maker=None if row["maker"] is None else uuid(row["maker"]),
    )


def presented_token(row: Row) -> PresentedToken:
    roles = row["maker_roles"]
    return PresentedToken(token(row), row["state"], None if roles is None else tuple(document(roles)))


def secret_note(row: Row) -> SecretNote:
    return SecretNote(
        tenant=row["tenant"],
        name=row["name"],
        kind=row["kind"],
        version=row["version"],
        hosts=tuple(row["hosts"].split()),
        created_at=instant(row["created_at"]),
        changed_at=instant(row["changed_at"]),
        changed_by=row["changed_by"],
    )


def sealed_secret(row: Row) -> SealedSecret:
    return SealedSecret(
        tenant=row["tenant"],
        name=row["name"],
        kind=row["kind"],
        version=row["version"],
        hosts=tuple(row["hosts"].split()),
        sealed=row["sealed"],
        key=WrappedKey(row["tenant"], row["scope"], row["version"], row["wrapped"], row["root_id"]),
    )


def hook(row: Row) -> Hook:
    return Hook(
        tenant=row["tenant"],
        name=row["name"],
        workflow=row["workflow"],
        scheme=row["scheme"],
        fields=document(row["fields"]),
        secret=row["secret"],
        created_at=instant(row["created_at"]),
        created_by=row["created_by"],
        id_pointer=row["id_pointer"],
        version=row["version"],
        old_secret=row["old_secret"],
        old_until=maybe_instant(row["old_until"]),
        rotated_at=maybe_instant(row["rotated_at"]),
    )


def outlet(row: Row) -> Outlet:
    return Outlet(
        tenant=row["tenant"],
        name=row["name"],
        url=row["url"],
        types=tuple(row["types"].split()),
        secret=row["secret"],
        created_at=instant(row["created_at"]),
        created_by=row["created_by"],
        enabled=bool(row["enabled"]),
        version=row["version"],
        old_secret=row["old_secret"],
        old_until=maybe_instant(row["old_until"]),
        rotated_at=maybe_instant(row["rotated_at"]),
        failing_since=maybe_instant(row["failing_since"]),
        switched_at=maybe_instant(row["switched_at"]),
        switched_why=row["switched_why"],
    )


def outlet_delivery(row: Row) -> OutletDelivery:
    return OutletDelivery(
        tenant=row["tenant"],
        outlet=row["outlet"],
        message_id=row["message_id"],
        about=row["about"],
        type=row["type"],
        body=row["body"],
        created_at=instant(row["created_at"]),
        due_at=instant(row["due_at"]),
        state=row["state"],
        attempts=row["attempts"],
        status=row["status"],
        error=row["error"],
        settled_at=maybe_instant(row["settled_at"]),
    )


def outlet_queue(row: Row) -> OutletQueue:
    return OutletQueue(
        tenant=row["tenant"],
        outlet=row["outlet"],
        enabled=bool(row["enabled"]),
        switched_why=row["switched_why"],
        failing_since=maybe_instant(row["failing_since"]),
        waiting=row["waiting"],
        oldest=maybe_instant(row["oldest"]),
    )


def wrapped_key(row: Row) -> WrappedKey:
    return WrappedKey(row["tenant"], row["scope"], row["key_id"], row["wrapped"], row["root_id"])
