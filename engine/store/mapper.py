"""Between run events and stored bodies: encodes, seals, opens, decodes. It knows no database and no bus.

    unmarked event    tenant frame(whole document)
    marked event      0x03 · length · tenant frame(skeleton) · subject frame([[pointer, value], ...])

Personal values (the event's `marks`) leave the skeleton and travel in the data subject's own frame, so that dropping
that key erases them and nothing else. Every frame is bound to its place: AAD is tenant, stream, version and topic, or
tenant, purpose and identity for a blob. Topics resolve in the closed registry of `contracts.codec` only, and a body
written by a newer class version is refused. The verbs are those of the `eventsourcing` Mapper; its own `Mapper` has
no
AAD, one key and no slots, which is why this one stands in its place. Called by the coordinator, the projector,
intake.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal
from uuid import UUID

import orjson

from contracts.codec import RUN_EVENTS, VERSION_KEY, Codec
from contracts.pointers import ERASED_VALUE, Segments, expand_marks, resolve, segments
from contracts.run_events import RunEvent, RunStarted
from contracts.tenant_events import LOG_EVENTS
from engine.guards.redaction import Redactor, tells
from engine.store import InputRow, Notification, Recorded, Stored
from engine.store.data_keys import (
    FRAME_MARKED,
    FRAME_SUBJECT,
    Erased,
    SubjectKeys,
    TenantKeys,
    join_frames,
    scope_of_frame,
    split_frames,
)

Purpose = Literal["arrival", "outbox", "input", "dead_letter", "snapshot", "hook", "sign_in", "outlet", "delivery"]

_BLOB: Final = b"\xff\xff"
"""Begins the AAD of blobs; a log AAD begins with the length of a tenant name, which is never that long."""

_SUBJECT_BYTE: Final = bytes((FRAME_SUBJECT,))
_MARKED_BYTE: Final = bytes((FRAME_MARKED,))
_UNMARKED = Redactor()


class Mapper:
    """Turns events into what the log stores, and back; every event of a log, unless told otherwise. One per codec is
    enough for a process.
    """

    __slots__ = ("_codec", "_decode_body", "_encode", "_versions")

    def __init__(self, codec: Codec = LOG_EVENTS) -> None:
        self._codec = codec
        self._encode = codec.encode
        self._decode_body = codec.decode_body
        self._versions = {topic: codec.version(topic) for topic in codec.topics}

    def encode(
        self, keys: TenantKeys, stream: UUID, version: int, event: RunEvent, subject: SubjectKeys | Erased | None = None
    ) -> Recorded:
        """The event as version `version` of `stream`, sealed. Without `subject`, marked values stay in the skeleton;
        those of an erased one are erased before they are recorded.
        """
        topic = event.TOPIC
        aad = keys.aad_prefix + stream.bytes + version.to_bytes(8, "big") + topic.encode()
        plain = self._encode(event)
        if subject is None or not (event.marks or isinstance(event, RunStarted)):
            return Recorded(topic, keys.seal(aad, plain))
        document = orjson.loads(plain)
        # Who a run is about is personal itself: often a mail address.
        moved = _take_out(document, _marks(document))
        if not moved:
            return Recorded(topic, keys.seal(aad, plain))
        if isinstance(subject, Erased):
            for pointer, _ in moved:
                _put(document, segments(pointer), dict(ERASED_VALUE))
            _forget_subject(document)
            return Recorded(topic, keys.seal(aad, orjson.dumps(document)))
        skeleton = keys.seal(aad, orjson.dumps(document))
        return Recorded(topic, join_frames(skeleton, subject.seal(aad, orjson.dumps(moved))))

    def decode(self, keys: TenantKeys, stream: UUID, stored: Stored | Notification) -> RunEvent:
        """The event that `encode` was given; erased values read `{"$erased": true}`. Raises `SealBroken` for a body
        that
        was changed or moved, `KeysNotLoaded` when `Vault.ready` was not asked for it, `codec` refusals for its shape.
        """
        aad = keys.aad_prefix + stream.bytes + stored.version.to_bytes(8, "big") + stored.topic.encode()
        body = stored.body
        if body[:1] != _MARKED_BYTE:
            return self._decode_body(stored.topic, keys.open(aad, body))
        return self._codec.decode_document(stored.topic, _rejoin(keys, aad, body))

    def show(self, keys: TenantKeys, stream: UUID, stored: Stored | Notification) -> tuple[dict[str, Any], bytes]:
        """What `redacted` says of the event, and the same as JSON, without building it and without opening what is
        personal: for projections, which read every event. Raises as `decode` does.
        """
        topic, body = stored.topic, stored.body
        aad = keys.aad_prefix + stream.bytes + stored.version.to_bytes(8, "big") + topic.encode()
        plain = keys.open(aad, body if body[:1] != _MARKED_BYTE else split_frames(body)[0])
        document = orjson.loads(plain)
        current = document.get(VERSION_KEY) == self._versions.get(topic, -1)
        if current:
            del document[VERSION_KEY]
        else:
            document = self._codec.lift(topic, document)
        marks = _marks(document)
        telling = _telling(document)
        if not marks and not telling:
            # Of the current shape it is what was encoded, without the version in front.
            return document, b"{" + plain[plain.index(b",") + 1 :] if current else orjson.dumps(document)
        redactor = _redactor(tuple(marks)) if marks else _UNMARKED
        shown = redactor.record(document, OURS) if telling else redactor.marked(document)
        if not isinstance(shown, dict):
            shown = {"at": document["at"], "redacted": shown}
        return shown, orjson.dumps(shown)

    def decode_all(self, keys: TenantKeys, stream: UUID, stored: Iterable[Stored]) -> list[RunEvent]:
        return [self.decode(keys, stream, one) for one in stored]


OURS: Final = frozenset({
    "at", "step", "visit", "key", "action", "kind", "workflow", "correlation_id", "causation_id",
    "traceparent", "initiator", "by", "run_id", "name", "incident", "event", "event_id", "key_name", "role", "undo",
    "digest", "input_hash", "endpoint", "scheme", "tenant", "scope", "bulk", "word", "month", "previous", "what",
    "deadline", "due", "retry_at", "since", "until", "look_back", "status", "how", "fate", "on_failure", "left", "ids",
    "run_ids", "archived",
})  # fmt: skip
"""Fields of events that hold names, ids and times, by which runs are found and their events matched, and who acted: not
what somebody's data is. All others, and those of events to come, are looked at.
"""


def _marks(document: dict[str, Any]) -> Sequence[str]:
    """Its own, and the data subject itself: who a run is about is told to nobody who reads of it."""
    marks: Sequence[str] = document.get("marks") or ()
    return [*marks, "/subject"] if document.get("subject") is not None else marks


def _telling(document: dict[str, Any]) -> bool:
    """Whether a field that is looked at holds what must not be shown."""
    for name, item in document.items():
        kind = type(item)
        if (kind is dict or kind is list or kind is str) and item and name not in OURS and tells(item):
            return True
    return False


@lru_cache(maxsize=1024)
def _redactor(marks: tuple[str, ...]) -> Redactor:
    return Redactor(marks)


def redacted(event: RunEvent) -> dict[str, Any]:
    """The event as JSON-native data with marked and secret values masked: for projections, logs and answers."""
    plain = RUN_EVENTS.encode(event)
    document: dict[str, Any] = orjson.loads(plain)
    del document[VERSION_KEY]
    marks = _marks(document)
    redactor = _redactor(tuple(marks)) if marks else _UNMARKED
    shown = redactor.record(document, OURS) if _telling(document) else redactor.marked(document)
    return shown if isinstance(shown, dict) else {"at": document["at"], "redacted": shown}


# --------------------------------------------------------------------------------------------------------- whole blobs


def seal_blob(
    keys: TenantKeys, purpose: Purpose, ident: str, plain: bytes, subject: SubjectKeys | Erased | None = None
) -> bytes:
    """Bytes sealed for one purpose and identity; under the data subject's key when there is one, so that erasing takes
    the whole blob.
    """
    aad = _blob_aad(keys, purpose, ident)
    return subject.seal(aad, plain) if isinstance(subject, SubjectKeys) else keys.seal(aad, plain)


def open_blob(keys: TenantKeys, purpose: Purpose, ident: str, body: bytes) -> bytes | Erased:
    """What `seal_blob` was given. Raises `SealBroken` when it was changed, or sealed for another purpose or place."""
    aad = _blob_aad(keys, purpose, ident)
    if body[:1] == _SUBJECT_BYTE:
        return keys.open_subject(aad, body)
    return keys.open(aad, body)


def scope_of_body(body: bytes) -> str | None:
    """The scope of the data subject whose frame an event's body has; it is told without any key."""
    return scope_of_frame(split_frames(body)[1]) if body[:1] == _MARKED_BYTE else None


def arrival_ident(source: str, event_id: str) -> str:
    """Identity of an arrival's body in the journal."""
    return f"{source}|{event_id}"


def open_input(keys: TenantKeys, row: InputRow) -> bytes | Erased | None:
    """The body of a pending input, whichever it carries: the journal's envelope, or its own (`seal_blob` purpose
    `input`, identity = run id).
    """
    if row.body is None:
        return None
    if row.arrival is not None:
        return open_blob(keys, "arrival", arrival_ident(*row.arrival), row.body)
    return open_blob(keys, "input", str(row.run_id), row.body)


def _blob_aad(keys: TenantKeys, purpose: Purpose, ident: str) -> bytes:
    return b"%s%s\x00%s%s" % (_BLOB, purpose.encode(), keys.aad_prefix, ident.encode())


# ------------------------------------------------------------------------------------------------------- marked values


@dataclass(frozen=True, slots=True)
class _Place:
    holder: Any
    at: Any


def _take_out(document: dict[str, Any], marks: Iterable[str]) -> list[tuple[str, Any]]:
    """Moves marked values out, leaving `{"$sealed": n}` in their places. `at` and `marks` themselves stay."""
    moved: list[tuple[str, Any]] = []
    for pointer in expand_marks(marks, document):
        parts = segments(pointer)
        if not parts or parts[0] in _STAY:
            continue
        place = _find(document, parts)
        if place is not None:
            value = place.holder[place.at]
            place.holder[place.at] = {"$sealed": len(moved)}
            moved.append((pointer, value))
    return moved


def _forget_subject(document: dict[str, Any]) -> None:
    """An event that no longer tells whom it is about says nobody."""
    if isinstance(document.get("subject"), dict):
        document["subject"] = None


_STAY: Final = frozenset({"at", "marks", VERSION_KEY})


def _rejoin(keys: TenantKeys, aad: bytes, body: bytes) -> dict[str, Any]:
    skeleton, personal = split_frames(body)
    document: dict[str, Any] = orjson.loads(keys.open(aad, skeleton))
    opened = keys.open_subject(aad, personal)
    if isinstance(opened, Erased):
        for pointer in document.get("marks", ()):
            _put(document, segments(pointer), dict(ERASED_VALUE))
        _forget_subject(document)
    else:
        # Backwards, so that a value that was moved out of an already moved one finds its place again.
        for pointer, value in reversed(orjson.loads(opened)):
            _put(document, segments(pointer), value)
    return document


def _put(document: dict[str, Any], parts: Segments, value: Any) -> None:
    place = _find(document, parts)
    if place is not None:
        place.holder[place.at] = value


def _find(document: dict[str, Any], parts: Segments) -> _Place | None:
    holder = resolve(document, parts[:-1])
    last = parts[-1]
    if isinstance(holder, dict) and last in holder:
        return _Place(holder, last)
    if isinstance(holder, list) and last.isdecimal() and int(last) < len(holder):
        return _Place(holder, int(last))
    return None
