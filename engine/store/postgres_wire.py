"""The batch in PostgreSQL's binary form. asyncpg asks of every array element whether it is a container, which costs
more than encoding it; here a column is joined bytes. Used through `install`; where asyncpg has no place for it, the
plain columns go through asyncpg."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from struct import pack
from typing import Any

from engine.store.batch import ALWAYS, GROUPS, Batch

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NULL = b"\xff\xff\xff\xff"

BOOL, INT8, INT4, TEXT, BYTEA, TIMESTAMPTZ, UUID = 16, 20, 23, 25, 17, 1184, 2950
_ARRAY_OF = {BOOL: 1000, INT8: 1016, INT4: 1007, TEXT: 1009, BYTEA: 1001, TIMESTAMPTZ: 1185, UUID: 2951}
_TYPES = (
    dict.fromkeys(("ord", "version", "expected", "arrival", "visit", "workflow_cap", "tenant_cap"), INT4)
    | dict.fromkeys(("stream", "run"), UUID)
    | dict.fromkeys(("body", "hash", "key_hash"), BYTEA)
    | dict.fromkeys(("received", "due", "not_before", "look_back", "deadline"), TIMESTAMPTZ)
    | {"slot": BOOL, "bare": BOOL, "id": INT8}
)

packed_uuid: Callable[[Any], bytes] = attrgetter("bytes")


def packed_instant(value: datetime) -> int:
    return (value - _EPOCH) // _MICROSECOND


def _element_type(name: str) -> int:
    return _TYPES.get(name, TEXT)


_EMPTY = {
    prefix: b"".join(pack(">IiiiI", _ARRAY_OF[t], 12, 0, 0, t) for t in map(_element_type, names))
    for prefix, names in GROUPS.items()
}
_ELEMENTS = {prefix: tuple(map(_element_type, names)) for prefix, names in GROUPS.items()}
_OWN = {prefix: elements for prefix, elements in _ELEMENTS.items() if prefix in ALWAYS}
_REST = {prefix: elements for prefix, elements in _ELEMENTS.items() if prefix not in ALWAYS}
_OWN_FIELDS = pack(">i", sum(map(len, _OWN.values())) + 1)
_REST_FIELDS = pack(">i", sum(map(len, _REST.values())))


def encode(batch: Batch, rest_type: int) -> bytes:
    """A value of type `batch`, whose `rest` is of the type with that OID. The rows hold uuids as bytes and instants as
    microseconds since 2000.
    """
    texts: dict[str | None, bytes] = {None: _NULL}
    parts = [_OWN_FIELDS]
    _encode_groups(parts, batch, _OWN, texts)
    parts.append(rest_type.to_bytes(4))
    if not _has_rest(batch):
        parts.append(_NULL)
        return b"".join(parts)
    rest = [_REST_FIELDS]
    _encode_groups(rest, batch, _REST, texts)
    parts.append(sum(map(len, rest)).to_bytes(4))
    return b"".join(parts + rest)


def _has_rest(batch: Batch) -> bool:
    return any(batch.rows[prefix] for prefix in _REST)


def _encode_groups(
    parts: list[bytes], batch: Batch, groups: Mapping[str, Sequence[int]], texts: dict[str | None, bytes]
) -> None:
    for prefix, elements in groups.items():
        rows = batch.rows[prefix]
        if not rows:
            parts.append(_EMPTY[prefix])
            continue
        count = len(rows)
        for element, column in zip(elements, zip(*rows, strict=True), strict=True):
            data, nulls = _column(element, column, texts)
            parts.append(pack(">IiiiIii", _ARRAY_OF[element], 20 + len(data), 1, nulls, element, count, 1))
            parts.append(data)


def _column(element: int, column: Sequence[Any], texts: dict[str | None, bytes]) -> tuple[bytes, int]:
    if element == TEXT:
        pieces = []
        for text in column:
            known = texts.get(text)
            if known is None:
                raw = text.encode()
                known = texts[text] = len(raw).to_bytes(4) + raw
            pieces.append(known)
        return b"".join(pieces), None in column
    if element == INT4:
        if None not in column:
            size = len(column)
            spread = [4] * (2 * size)
            spread[1::2] = column
            return pack(f">{2 * size}i", *spread), 0
        return b"".join([_NULL if n is None else pack(">ii", 4, n) for n in column]), 1
    if element == BOOL:
        return b"".join([b"\x00\x00\x00\x01\x01" if value else b"\x00\x00\x00\x01\x00" for value in column]), 0
    if element in (INT8, TIMESTAMPTZ):
        return b"".join([_NULL if n is None else pack(">iq", 8, n) for n in column]), None in column
    pieces = []
    for raw in column:  # uuid and bytea
        if raw is None:
            pieces.append(_NULL)
        else:
            pieces.append(len(raw).to_bytes(4))
            pieces.append(raw)
    return b"".join(pieces), None in column


def columns(batch: Batch) -> tuple[Any, ...]:
    """The same value for asyncpg's own encoding."""
    return (*_group_columns(batch, _OWN), tuple(_group_columns(batch, _REST)) if _has_rest(batch) else None)


def _group_columns(batch: Batch, groups: Mapping[str, Sequence[int]]) -> list[list[Any]]:
    found: list[list[Any]] = []
    for prefix, elements in groups.items():
        rows = batch.rows[prefix]
        values = zip(*rows, strict=True) if rows else ([] for _ in elements)
        for element, column in zip(elements, values, strict=True):
            if element == UUID:
                found.append([None if v is None else uuid.UUID(bytes=v) for v in column])
            elif element == TIMESTAMPTZ:
                found.append([None if v is None else _EPOCH + timedelta(microseconds=v) for v in column])
            else:
                found.append(list(column))
    return found


def _array(element: int) -> Callable[[Sequence[Any]], bytes]:
    def encode(column: Sequence[Any]) -> bytes:
        if not column:
            return pack(">iiI", 0, 0, element)
        if element == UUID:
            column = [None if value is None else value.bytes for value in column]
        data, nulls = _column(element, column, {None: _NULL})
        return pack(">iiIii", 1, nulls, element, len(column), 1) + data

    return encode


def install_arrays(connection: Any) -> bool:
    """Teaches the connection to send lists as arrays in the same way: for writers that never read an array. UUIDs come
    as UUID objects. False when this asyncpg cannot be taught; it then encodes them itself.
    """
    try:
        settings = connection._protocol.get_settings()
        for element, array in _ARRAY_OF.items():
            if element in (INT4, INT8, TEXT, BYTEA, UUID):
                settings.add_python_codec(array, "array", "pg_catalog", [], "scalar", _array(element), bytes, "binary")
    except (AttributeError, TypeError):
        return False
    connection._drop_local_statement_cache()
    return True


async def install(connection: Any, find_types: str) -> bool:
    """Teaches the connection to send a `Batch` as it is. False when this asyncpg cannot be taught; then send
    `columns`.
    """
    found = await connection.fetchrow(find_types)

    def send(batch: Batch) -> bytes:
        return encode(batch, found["rest"])

    try:
        settings = connection._protocol.get_settings()
        settings.add_python_codec(found["batch"], "batch", "unwind", [], "scalar", send, bytes, "binary")
    except (AttributeError, TypeError):
        return False
    connection._drop_local_statement_cache()
    return True
