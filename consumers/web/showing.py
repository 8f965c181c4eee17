"""Handlers that show everything besides runs: approvals, dead letters, usage, statistics, the audit, workflows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

from consumers.web import asked
from consumers.web.dispatch import RequestInvalid, uuid_text
from consumers.web.routes import Answer, Call
from contracts.envelope import format_time, is_tenant
from contracts.modules import tenancy
from contracts.problems import Conflict, NotFound, Problem
from engine.guards.redaction import REDACTED, redact, redact_text
from engine.store import Account, DeadLetter
from projections.reader import Page

_SHOWN_ATTRIBUTES = (
    "specversion", "id", "source", "type", "subject", "time", "tenantid", "correlationid", "causationid", "traceparent",
)  # fmt: skip


async def show_tenant(call: Call) -> Answer:
    """As tenancy says now. Raises `QueryTimedOut` when no tenancy module answers."""
    tenant = call.path("tenant")
    missing = NotFound("there is no such tenant", field="tenant")
    if not is_tenant(tenant) or not call.principal.reaches(tenant):
        raise missing
    found = await call.deps.asker.ask(tenancy.MODULE, tenancy.GetTenantV1(), tenancy.TenantSnapshotV1, tenant=tenant)
    if found.state is None:
        raise missing
    return Answer(content=found.model_dump(mode="json"))


async def list_approvals(call: Call) -> Answer:
    query: asked.ApprovalsQuery = call.query
    page = await call.deps.reader.approvals(
        call.tenant,
        state=None if query.state == "any" else query.state,
        run_id=uuid_text(query.run_id, "run_id"),
        before=_approval_cursor(query.cursor),
        limit=query.limit,
    )
    return _page(page)


async def list_dead_letters(call: Call) -> Answer:
    query: asked.DeadLettersQuery = call.query
    found = await call.deps.store.dead_letters(
        tenant=call.tenant,
        state=None if query.state == "any" else query.state,
        limit=query.limit + 1,
        after=uuid_text(query.cursor, "cursor"),
    )
    items = [_letter(letter) for letter in found[: query.limit]]
    more = items[-1]["id"] if len(found) > query.limit else None
    return Answer(content={"items": items, "next": more})


async def get_dead_letter(call: Call) -> Answer:
    """The letter with its message redacted; the digest tells that a redrive sends the bytes as received."""
    letter = await _find(call)
    shown = _letter(letter) | {
        "attempts": [redact(dict(attempt)) for attempt in letter.attempts],
        "headers": redact({name: _text(value) for name, value in letter.headers.items()}),
    }
    try:
        body = await call.deps.door.letter_body(letter.tenant, letter.id)
    except Conflict:
        return Answer(content=shown | {"size": 0, "sha256": "", "envelope": "[erased]"})
    shown |= {"size": len(body), "sha256": hashlib.sha256(body).hexdigest(), "envelope": _redacted(call, body)}
    return Answer(content=shown)


async def redrive_dead_letter(call: Call) -> Answer:
    letter = await _find(call)
    changed = await call.deps.door.redrive(letter.tenant, letter.id, by=call.principal.name)
    return await _settled(call, letter, changed)


async def discard_dead_letter(call: Call) -> Answer:
    letter = await _find(call)
    changed = await call.deps.door.discard(letter.tenant, letter.id, by=call.principal.name)
    return await _settled(call, letter, changed)


async def get_usage(call: Call) -> Answer:
    first, last = _span(call)
    page = await call.deps.reader.usage(call.tenant, first=first, last=last)
    return Answer(content={"items": page.items, "as_of": page.as_of})


async def get_accounting(call: Call) -> Answer:
    first, last = _span(call)
    found = await call.deps.store.accounts(call.tenant, first=first.isoformat(), last=last.isoformat())
    by_tenant: dict[str, list[Account]] = {}
    for account in found:
        by_tenant.setdefault(account.tenant, []).append(account)
    items = [
        {
            "tenant": tenant,
            "cpu_seconds": sum(day.decide_seconds + day.project_seconds for day in days),
            **{name: sum(getattr(day, name) for day in days) for name in ("rows", "sends", "actions")},
            "days": [
                {
                    "day": day.day,
                    "decide_seconds": day.decide_seconds,
                    "project_seconds": day.project_seconds,
                    "rows": day.rows,
                    "sends": day.sends,
                    "actions": day.actions,
                }
                for day in days
            ],
        }
        for tenant, days in sorted(by_tenant.items())
    ]
    return Answer(content={"items": items})


async def get_stats(call: Call) -> Answer:
    first, last = _span(call)
    page = await call.deps.reader.stats(call.tenant, first=first, last=last, workflow=call.query.workflow)
    return Answer(content={"items": page.items, "as_of": page.as_of})


async def list_audit(call: Call) -> Answer:
    query: asked.AuditQuery = call.query
    if query.cursor is not None and not (query.cursor.isascii() and query.cursor.isdigit() and len(query.cursor) < 18):
        raise RequestInvalid("cursor must be the `next` of the page before", field="cursor")
    page = await call.deps.reader.audit(
        call.named_tenant,
        stream=uuid_text(query.run_id, "run_id"),
        topic=query.topic,
        actor=query.actor,
        before=query.cursor,
        limit=query.limit,
    )
    return _page(page)


async def get_audit_head(call: Call) -> Answer:
    return Answer(content=await call.deps.reader.audit_head(call.named_tenant))


async def verify_audit(call: Call) -> Answer:
    query: asked.VerifyQuery = call.query
    verdict = await call.deps.reader.verify_audit(call.named_tenant, against_log=query.against_log)
    return Answer(
        content={
            "tenant": call.named_tenant,
            "holds": verdict.broken is None,
            "entries": verdict.number,
            "head": verdict.head.hex(),
            "position": verdict.position,
            "broken": verdict.broken,
        }
    )


async def list_workflows(call: Call) -> Answer:
    plans = call.deps.plans
    items = []
    for name in plans.names:
        saga = plans.saga(name)
        items.append(
            {
                "name": name,
                "version": saga.version,
                "versions": sorted(version for known, version in plans.known if known == name),
                "events": list(saga.on),
                "hook": saga.hook,
                "attributes": sorted(saga.attributes or ()),
            }
        )
    return Answer(content={"items": items})


def _page(page: Page) -> Answer:
    return Answer(content={"items": page.items, "next": page.next, "as_of": page.as_of})


def _span(call: Call) -> tuple[Any, Any]:
    query: asked.SpanQuery = call.query
    today = call.deps.clock.now().date()
    last = query.to_day or today
    return query.from_day or last - timedelta(days=30), last


def _approval_cursor(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    try:
        run_id, name, visit = orjson.loads(cursor)
        UUID(run_id)
        if not isinstance(name, str) or "\x00" in name or not isinstance(visit, int) or not 0 <= visit < 2**31:
            raise ValueError
    except (ValueError, TypeError, AttributeError):
        raise RequestInvalid("cursor must be the `next` of the page before", field="cursor") from None
    return cursor


async def _find(call: Call) -> DeadLetter:
    letter = await call.deps.store.dead_letter(call.tenant, call.identifier("letter_id", "dead letter"))
    if letter is None:
        raise NotFound("there is no such dead letter", field="letter_id")
    return letter


async def _settled(call: Call, letter: DeadLetter, changed: bool) -> Answer:
    now = await call.deps.store.dead_letter(letter.tenant, letter.id)
    return Answer(content={"id": str(letter.id), "changed": changed, "state": now.state if now else letter.state})


def _letter(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": str(letter.id),
        "tenant": letter.tenant,
        "reason": letter.reason,
        "detail": redact_text(letter.detail),
        "source": letter.source,
        "routing_key": letter.routing_key,
        "event_id": letter.event_id,
        "type": letter.type,
        "state": letter.state,
        "created_at": format_time(letter.created_at),
        "settled_at": format_time(letter.settled_at) if letter.settled_at else None,
        "settled_by": letter.settled_by,
    }


def _redacted(call: Call, body: bytes) -> Any:
    """The envelope's attributes, and its data by the marks of its contract; what has no contract is masked whole."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return REDACTED
    if not isinstance(document, dict):
        return REDACTED
    shown: dict[str, Any] = {
        name: document[name] for name in _SHOWN_ATTRIBUTES if isinstance(document.get(name), str | int)
    }
    data = document.get("data")
    try:
        checked = call.deps.registry.check_event_data(call.deps.registry.event(str(document.get("type"))), data or {})
    except (Problem, TypeError, ValueError, AttributeError):
        return shown | {"data": REDACTED}
    return shown | {"data": redact(checked.payload, checked.marks)}


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {str(name): _text(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_text(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
