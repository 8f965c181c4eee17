"""Run history: one row per run, its timeline, and its searchable attributes.

The timeline is every event of the run in redacted form, as lines of JSON in blocks of `BLOCK` events that only grow;
the steps of a run (input, output, error, attempts, durations, undo) are read off it by `projections.steps`, so
recording a step costs no row of its own. A run's row is written once per batch, however much happened to it. Attributes
are stored as HMACs only: equal values meet, nothing can be read back.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final
from uuid import UUID

import orjson

from contracts.traceparent import read
from engine.store import Change
from projections import Batch, archived, clean, instant
from projections.facts import RunFacts

SUBJECT: Final = "*subject"
"""Name of the attribute under which a run is found by its data subject; its hash is the subject's scope."""

BLOCK: Final = 64
"""Events per timeline block: a long run rewrites at most one block per batch."""

_MESSAGE: Final = 500

# Later versions of the header may say more at its end, never less.


class History:
    """Views `runs`, `timeline` and `attributes` under one checkpoint."""

    name: str = "history"
    seed: str | None = None
    sums: bool = False
    outlives: bool = False

    def changes(self, batch: Batch, seeds: MutableMapping[str, Any]) -> list[Change]:
        started: list[tuple[Any, ...]] = []
        moved: list[tuple[Any, ...]] = []
        for run in batch.runs.values():
            if run.first == 1:
                started.append((*_beginning(run), *_progress(run)))
            else:
                moved.append((run.tenant, run.run_id, *_progress(run)))
        erased = batch.of("subject.erased")
        gone = archived(batch)
        changes = [
            # First: what is inserted below was not erased, and must stay.
            Change("history_subject_erase", [(event.tenant, bytes.fromhex(event.event["scope"])) for event in erased]),
            Change("history_run_insert", started),
            Change("history_run_update", moved),
            Change("history_timeline_append", _timeline(batch)),
            Change("history_attribute_insert", _attributes(batch)),
            # Last: an ended run has no event after this one.
            *(Change(f"history_archive_{part}", gone) for part in ("attributes", "timeline", "run")),
        ]
        return [change for change in changes if change.rows]


def _beginning(run: RunFacts) -> tuple[Any, ...]:
    event = run.started
    trigger = event["trigger"]
    return (
        run.tenant,
        run.run_id,
        clean(event["workflow"]),
        event["workflow_version"],
        clean(trigger.get("kind", "")),
        orjson.dumps(trigger).decode(),
        clean(event["initiator"]),
        clean(event["correlation_id"]),
        _clean(event.get("causation_id")),
        trace_id(event.get("traceparent")),
        orjson.dumps(event.get("attributes") or {}).decode(),
        instant(event["at"]),
        instant(event["deadline"]) if event.get("deadline") else None,
    )


def trace_id(traceparent: str | None) -> str | None:
    """The trace that a W3C `traceparent` is part of; None for a text that is none.

    >>> trace_id("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    '0af7651916cd43dd8448eb211c80319c'
    """
    found = read(traceparent)
    return None if found is None else f"{found.trace_id:032x}"


def _progress(run: RunFacts) -> tuple[Any, ...]:
    code = message = None
    if run.error is not None:
        code = clean(str(run.error.get("code", ""))[:_MESSAGE])
        message = clean(str(run.error.get("message", ""))[:_MESSAGE])
    return (
        run.version,
        run.position,
        run.status,
        _clean(run.business_state),
        clean(run.parked[:_MESSAGE]) if run.parked and run.ended is None else None,
        code,
        message,
        run.steps,
        run.attempts,
        run.undone,
        run.cost_micros,
        instant(run.updated_at),
        instant(run.ended_at) if run.ended_at else None,
    )


def _clean(text: str | None) -> str | None:
    return None if text is None else clean(text)


def _timeline(batch: Batch) -> list[tuple[Any, ...]]:
    blocks: dict[tuple[UUID, int], list[Any]] = {}
    for position, tenant, run_id, kind, version, topic, _, _, text, _, _ in batch.events:
        if kind != "run":
            continue
        key = (run_id, (version - 1) // BLOCK)
        line = b'{"version":%d,"topic":"%b","position":%d,"event":%b}\n' % (version, topic.encode(), position, text)
        block = blocks.get(key)
        if block is None:
            blocks[key] = [tenant, version, version, [line]]
        else:
            block[2] = version
            block[3].append(line)
    return [
        (tenant, run_id, number, first, last, b"".join(lines))
        for (run_id, number), (tenant, first, last, lines) in blocks.items()
    ]


def _attributes(batch: Batch) -> list[tuple[Any, ...]]:
    """Rows of the runs that started in this batch, but for those whose data subject is erased later in it."""
    erased = {
        (event.tenant, bytes.fromhex(event.event["scope"])): event.position for event in batch.of("subject.erased")
    }
    return [
        (event.tenant, clean(name), digest, event.run_id)
        for event in batch.of("run.started")
        if not (erased and any(erased.get((event.tenant, h), 0) > event.position for _, h in event.hashes))
        for name, digest in event.hashes
    ]
