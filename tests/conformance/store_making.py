"""Commits for the store suites, with everything said that a test does not care about."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.store import Arrival, Commit, InputRow, Opened, Outcome, Recorded, Start, Store, open_store

NOW = datetime(2030, 3, 1, 12, tzinfo=UTC)

Refusals = dict[int, str]
Opening = Callable[[], Awaitable[Store]]


async def running(url: str) -> AsyncIterator[Store]:
    """A store of today's schema, for as long as a fixture holds it."""
    store = open_store(url)
    await store.migrate()
    await store.start()
    yield store
    await store.stop()


def later(**span: float) -> datetime:
    return NOW + timedelta(**span)


def events(*topics: str) -> tuple[Recorded, ...]:
    return tuple(Recorded(topic, f"body of {topic}".encode()) for topic in topics)


def started(run: uuid.UUID | None = None, *, tenant: str = "acme", key: str | None = None, **more: Any) -> Commit:
    """A new run: its start key, its first event, its row in open_runs."""
    run = run or uuid.uuid4()
    start = Start(
        key=key or f"event/w/{run}",
        workflow=more.pop("workflow", "onboarding"),
        workflow_version=more.pop("workflow_version", 1),
        workflow_cap=more.pop("workflow_cap", None),
        tenant_cap=more.pop("tenant_cap", None),
        counted=more.pop("counted", False),
    )
    opened = Opened(
        status=more.pop("status", "running"), slot=more.pop("slot", True), deadline=more.pop("deadline", None)
    )
    commit = Commit(tenant=tenant, stream=run, events=events("run.started"), start=start, open_run=opened)
    return replace(commit, **more)


def arrival(event_id: str = "e1", **more: Any) -> Arrival:
    values: dict[str, Any] = {
        "source": "/modules/billing",
        "event_id": event_id,
        "type": "billing.PaidV1",
        "body_hash": b"hash of " + event_id.encode(),
        "body": b"envelope of " + event_id.encode(),
        "received_at": NOW,
    }
    return Arrival(**(values | more))


def arrived(event_id: str = "e1", *, tenant: str = "acme", **more: Any) -> Commit:
    """Only an arrival, and the inputs that come with it."""
    inputs = more.pop("inputs", ())
    return Commit(tenant=tenant, stream=None, arrival=arrival(event_id, **more), inputs=inputs)


async def open_a_run(store: Store, epoch: int, **more: Any) -> uuid.UUID:
    commit = started(**more)
    assert commit.stream is not None
    await append(store, epoch, commit)
    return commit.stream


async def append(store: Store, epoch: int, *commits: Commit) -> list[Outcome]:
    return await store.append(commits, epoch=epoch, now=NOW)


def matched(outcome: Outcome) -> tuple[InputRow, ...]:
    found: tuple[InputRow, ...] = getattr(outcome, "matched", ())
    return found
