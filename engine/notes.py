"""Durable inputs that do not come from the bus: what an operator, an approver or the API asks of a run, and starts by
hand or webhook.

Written sealed into an input row by whoever does not own the run; read back by its owner. A start travels as an envelope
of the engine's own, so that it is in the journal like everything else that arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from contracts.envelope import Envelope, format_time, parse_time
from contracts.notices import UNWIND
from contracts.pointers import expand_marks, resolve, segments
from contracts.problems import PayloadInvalid
from contracts.run_events import StepReused
from engine.plan.code import Saga
from engine.run.inputs import (
    AbandonAsked,
    CancelAsked,
    Decided,
    Input,
    RetryAsked,
    SkipAsked,
    StepDone,
    StepLost,
    TerminateAsked,
)
from engine.run.state import Inherited

START_TYPE: Final = "unwind.StartRequestedV1"

_NOTES: Final[dict[str, type[Input]]] = {
    "cancel": CancelAsked,
    "terminate": TerminateAsked,
    "retry": RetryAsked,
    "skip": SkipAsked,
    "abandon": AbandonAsked,
    "decide": Decided,
    "child_done": StepDone,
    "child_lost": StepLost,
}
_NAMES = {kind: name for name, kind in _NOTES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """How a run begins, whoever asked for it."""

    trigger: dict[str, Any]
    data: Any
    marks: tuple[str, ...]
    subject: str | None
    initiator: str
    key: str
    scope: str | None = None
    inherited: tuple[Inherited, ...] = ()
    """A rerun's (`engine.reruns`)."""
    adopted: tuple[StepReused, ...] = ()
    """Of a run that unwinds another (`engine.reruns`)."""


def event_start_key(workflow: str, source: str, event_id: str) -> str:
    """The permanent start key of an event: a backfill of the same event finds it taken."""
    return f"event/{workflow}/{source}/{event_id}"


def encode(given: Input) -> bytes:
    """A note as JSON; raises KeyError for an input that is no note."""
    document = {"note": _NAMES[type(given)], "at": format_time(given.at)}
    for name in given.__dataclass_fields__:
        if name not in ("at", "dedup", "settles"):
            document[name] = getattr(given, name)
    return orjson.dumps(document)


def decode(body: bytes, *, settles: tuple[int, ...]) -> Input:
    """What `encode` was given. Raises `PayloadInvalid` when it is no note this version knows."""
    document: dict[str, Any] = orjson.loads(body)
    kind = _NOTES.get(document.pop("note", ""))
    if kind is None:
        raise PayloadInvalid(
            "this note is of a kind that this version does not know; upgrade the process", field="note"
        )
    at = parse_time(document.pop("at"), "at")
    return kind(at=at, settles=settles, **document)


def start_envelope(
    tenant: str,
    workflow: str,
    data: Any,
    *,
    key: str,
    kind: str,
    initiator: str,
    at: datetime,
    run_id: UUID,
    correlation_id: str | None = None,
    traceparent: str | None = None,
    permissions: str | None = None,
) -> Envelope:
    """A start by hand or webhook, in the form in which it is journaled. Its id is its key, so the journal dedups it
    too.
    """
    return Envelope(
        id=key,
        source=UNWIND.source,
        type=START_TYPE,
        tenantid=tenant,
        time=at,
        data={
            "workflow": workflow,
            "kind": kind,
            "initiator": initiator,
            "key": key,
            "input": data,
            "run_id": str(run_id),
            **({} if permissions is None else {"permissions": permissions}),
        },
        correlationid=correlation_id or key,
        traceparent=traceparent,
    )


def continued_key(run_id: object) -> str:
    """The start key of the run that goes on after this one."""
    return f"continue/{run_id}"


def successor_key(run_id: object) -> str:
    """The start key of the one run that may follow an ended run: its rerun, or the run that unwinds it. So nobody
    undoes what another has taken over.
    """
    return f"rerun/{run_id}"


def start_of(envelope: Envelope, saga: Saga) -> Started | None:
    """How to begin from a journaled start; None when the envelope is an event of a module."""
    if envelope.type != START_TYPE:
        return None
    asked = envelope.data
    data = asked["input"]
    # A run started by a fact has none: it does what the installed saga does, as the engine.
    held = {} if asked.get("permissions") is None else {"permissions": asked["permissions"]}
    if "by" in asked:  # a run has started it
        trigger = {"kind": asked["kind"], "id": asked["by"], "type": START_TYPE, "source": envelope.source}
        if asked["parent"] is not None:
            trigger |= {"parent": asked["parent"]}
        return Started(
            trigger=trigger | {"depth": asked["depth"]} | held,
            data=data,
            marks=tuple(asked["marks"]),
            subject=asked["subject"],
            initiator=asked["initiator"],
            key=asked["key"],
            scope=asked["scope"],
        )
    subject = resolve(data, segments(saga.subject)) if saga.subject else None
    return Started(
        trigger={"kind": asked["kind"], "id": asked["key"], "type": START_TYPE, "source": envelope.source} | held,
        data=data,
        marks=expand_marks(saga.personal, data),
        subject=subject if isinstance(subject, str) else None,
        initiator=asked["initiator"],
        key=asked["key"],
    )
