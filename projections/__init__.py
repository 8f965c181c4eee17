"""Read models: what is seen of the log. One read model is one pure module here, answering `changes(batch)`, and its SQL
twins in `sql/postgres` and `sql/sqlite`: tables, writes, reads, reset and checksum.

    log --read--> Decoded (opened, redacted) --gather--> Batch --changes--> rows + checkpoint, in one transaction

Nothing here reads a clock, a key or a database; `consumers.projector` does, and calls this. Every row follows from the
events alone and not from how they were cut into batches, so a rebuild gives the same bytes. Times in rows are RFC 3339
texts in UTC, costs are whole micro-units: sums of floats would depend on the order of adding.

A write statement gets its rows as columns on PostgreSQL (`unnest`) and one by one on SQLite; `Change.rows` is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from contracts.envelope import format_time
from engine.store import Change
from projections.facts import RunFacts


class Decoded(NamedTuple):
    """One event of the log as projections see it: `event` is its redacted JSON-native form, `text` the same as JSON,
    `body` the stored bytes, still sealed.
    """

    position: int
    tenant: str
    run_id: UUID
    kind: str
    version: int
    topic: str
    recorded_at: datetime
    event: Mapping[str, Any]
    text: bytes
    body: bytes
    hashes: Sequence[tuple[str, bytes]] = ()
    """Searchable attributes of a `run.started`, as (name, HMAC of the value)."""


@dataclass(slots=True)
class Batch:
    """A stretch of one lane's log, looked at once for all views. `runs` are the facts after its last event."""

    events: Sequence[Decoded]
    runs: dict[UUID, RunFacts] = field(default_factory=dict)
    by_topic: dict[str, list[Decoded]] = field(default_factory=dict)

    def of(self, topic: str) -> Sequence[Decoded]:
        return self.by_topic.get(topic, ())

    def tenants(self) -> set[str]:
        return {event.tenant for event in self.events}


class View(Protocol):
    """One read model. `seed` names the statement whose rows (one per tenant of the batch) a view continues from: the
    audit chain needs its heads. `changes` brings `seeds` up to date in place. `sums`: rows count what may have left the
    archive for good, so that the view cannot be built again once a month was dropped. `outlives`: rows of a tenant stay
    when it is offboarded, though nobody can read its events any more.
    """

    name: str
    seed: str | None
    sums: bool
    outlives: bool

    def changes(self, batch: Batch, seeds: MutableMapping[str, Any]) -> list[Change]: ...


def cold(events: Iterable[Decoded], known: Mapping[UUID, RunFacts]) -> dict[UUID, tuple[str, int]]:
    """Runs whose facts before these events are not known: id to (tenant, version to fold up to)."""
    missing: dict[UUID, tuple[str, int]] = {}
    seen: set[UUID] = set()
    for event in events:
        run_id = event.run_id
        if run_id in seen or event.kind != "run":
            continue
        seen.add(run_id)
        if event.version > 1:
            facts = known.get(run_id)
            if facts is None or facts.version != event.version - 1:
                missing[run_id] = (event.tenant, event.version - 1)
    return missing


def gather(events: Sequence[Decoded], known: MutableMapping[UUID, RunFacts]) -> Batch:
    """Folds the events into the facts of their runs. `known` must hold the facts before them (`cold` says which are
    missing) and holds the facts after them when this returns; a failed write must forget them.
    """
    batch = Batch(events)
    runs, by_topic = batch.runs, batch.by_topic
    for event in events:
        topic = event.topic
        same = by_topic.get(topic)
        if same is None:
            by_topic[topic] = [event]
        else:
            same.append(event)
        if event.kind != "run":
            continue
        run_id = event.run_id
        facts = runs.get(run_id)
        if facts is None:
            if event.version == 1:
                if topic != "run.started":
                    raise ValueError(f"a run begins with run.started, not with {topic}")
                facts = known[run_id] = RunFacts(run_id, event.tenant)
            else:
                facts = known[run_id]
                facts.first = event.version
            runs[run_id] = facts
        facts.take(event.version, event.position, topic, event.event)
    return batch


def instant(text: str) -> str:
    """The one spelling of an instant in rows: UTC with microseconds, so that texts sort as times do."""
    if len(text) == 27 and text[-1] == "Z":
        return text
    return format_time(datetime.fromisoformat(text))


def archived(batch: Batch) -> list[tuple[Any, ...]]:
    """Tenant and id of every run that this batch says was archived."""
    return [(event.tenant, UUID(run_id)) for event in batch.of("runs.archived") for run_id in event.event["archived"]]


def offboarded(batch: Batch) -> list[tuple[Any, ...]]:
    """Each tenant that this batch says is gone."""
    return [(event.event["tenant"],) for event in batch.of("tenant.offboarded")]


def clean(text: str) -> str:
    """Text that every database takes: PostgreSQL refuses NUL, which JSON may carry."""
    return text.replace("\x00", "\ufffd") if "\x00" in text else text


def micros(start: str, end: str) -> int:
    """Whole microseconds between two instants, never negative."""
    passed = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    return max(0, (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds)


def day(text: str) -> str:
    """The UTC day of an instant, `2030-01-31`."""
    return text[:10] if text.endswith(("Z", "+00:00")) else instant(text)[:10]
