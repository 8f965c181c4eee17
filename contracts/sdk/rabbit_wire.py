"""The hot frames of AMQP 0-9-1 as bytes: publishing, delivering, settling and confirming, nothing else.

Connecting, negotiating, heartbeats, channels and topology are aio-pika's. These few frames are ours because they are
most of what a busy process does: building and reading them directly takes a fraction of the time, and a delivery never
becomes a task that a lost connection could cancel. Pure functions; called by `contracts.sdk.rabbit_lanes`. Source:
AMQP 0-9-1 specification, sections 2.3.5 (framing) and 4.2; RabbitMQ's field types (`l`, `t`, `V`, `x`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from pamqp import decode

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
END: Final = b"\xce"
HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"

DELIVER: Final = 60 << 16 | 60
RETURN: Final = 60 << 16 | 50
ACK: Final = 60 << 16 | 80
NACK: Final = 60 << 16 | 120
BLOCKED: Final = 10 << 16 | 60
UNBLOCKED: Final = 10 << 16 | 61

FRAME: Final = Struct(">BHI")
NUMBER: Final = Struct(">I")
TAG: Final = Struct(">Q")
_CONTENT: Final = Struct(">HHQH")
_SETTLE: Final = Struct(">BHIHHQBB")
_SHORT: Final = Struct(">H")
_DOUBLE: Final = Struct(">d")
_INTEGER: Final = Struct(">q")

_CONTENT_TYPE: Final = 0x8000
_HEADERS: Final = 0x2000
_DELIVERY_MODE: Final = 0x1000
_CORRELATION_ID: Final = 0x0400
_REPLY_TO: Final = 0x0200
_EXPIRATION: Final = 0x0100
_MESSAGE_ID: Final = 0x0080
_USER_ID: Final = 0x0010


MAX_SHORT_STRING: Final = 255
MAX_DEPTH: Final = 32


@dataclass(frozen=True, slots=True)
class Properties:
    """What travels with a body, as far as we use it."""

    content_type: str | None
    headers: dict[str, Any]
    correlation_id: str | None
    reply_to: str | None
    message_id: str | None
    user_id: str | None


def short_string(text: str, what: str) -> bytes:
    raw = text.encode()
    if len(raw) > MAX_SHORT_STRING or b"\x00" in raw:
        raise ValueError(f"{what} must be at most {MAX_SHORT_STRING} bytes without NUL: {text[:80]!r}")
    return bytes((len(raw),)) + raw


def publish_frame(channel: int, exchange: str, routing_key: str, *, mandatory: bool) -> bytes:
    payload = (
        b"\x00\x3c\x00\x28\x00\x00"
        + short_string(exchange, "exchange")
        + short_string(routing_key, "routing_key")
        + (b"\x01" if mandatory else b"\x00")
    )
    return FRAME.pack(METHOD, channel, len(payload)) + payload + END


def properties_before_id(
    *,
    content_type: str,
    headers: Mapping[str, Any],
    persistent: bool,
    correlation_id: str | None,
    reply_to: str | None,
    expiration_seconds: float | None,
) -> tuple[int, bytes]:
    """The flags of these properties, and the properties that the format puts before the message id."""
    flags = _CONTENT_TYPE | _DELIVERY_MODE
    parts = [short_string(content_type, "content_type")]
    if headers:
        flags |= _HEADERS
        parts.append(table(headers))
    parts.append(b"\x02" if persistent else b"\x01")
    if correlation_id is not None:
        flags |= _CORRELATION_ID
        parts.append(short_string(correlation_id, "correlation_id"))
    if reply_to is not None:
        flags |= _REPLY_TO
        parts.append(short_string(reply_to, "reply_to"))
    if expiration_seconds is not None:
        flags |= _EXPIRATION
        parts.append(short_string(str(max(0, round(expiration_seconds * 1000))), "expiration_seconds"))
    return flags, b"".join(parts)


def content_frames(
    channel: int, flags: int, before_id: bytes, message_id: bytes, user_id: bytes, body: bytes, max_body: int
) -> list[bytes]:
    """Header and body frames. `user_id` is a short string or empty."""
    flags |= _MESSAGE_ID | _USER_ID if user_id else _MESSAGE_ID
    size = 14 + len(before_id) + 1 + len(message_id) + len(user_id)
    frames = [
        FRAME.pack(HEADER, channel, size),
        _CONTENT.pack(60, 0, len(body), flags),
        before_id,
        bytes((len(message_id),)),
        message_id,
        user_id,
        END,
    ]
    if len(body) <= max_body:
        if body:
            frames += (FRAME.pack(BODY, channel, len(body)), body, END)
        return frames
    for start in range(0, len(body), max_body):
        piece = body[start : start + max_body]
        frames += (FRAME.pack(BODY, channel, len(piece)), piece, END)
    return frames


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    return _SETTLE.pack(METHOD, channel, 13, 60, 80, tag, multiple, 0xCE)


def reject_frame(channel: int, tag: int, *, requeue: bool) -> bytes:
    # basic.reject rather than nack: from RabbitMQ 4.3 on only a reject counts towards the delivery limit.
    return _SETTLE.pack(METHOD, channel, 13, 60, 90, tag, requeue, 0xCE)


def read_deliver(data: bytes, at: int) -> tuple[int, bool, str, str]:
    """Delivery tag, redelivered, exchange, routing key of a deliver method whose arguments begin at `at`."""
    at += 1 + data[at]
    (tag,) = TAG.unpack_from(data, at)
    redelivered = data[at + 8] != 0
    at += 9
    end = at + 1 + data[at]
    exchange = data[at + 1 : end].decode()
    return tag, redelivered, exchange, data[end + 1 : end + 1 + data[end]].decode()


def read_body_size(data: bytes, at: int) -> int:
    """Of a content header whose payload begins at `at`."""
    return int(TAG.unpack_from(data, at + 4)[0])


def read_properties(data: bytes, at: int) -> Properties:
    """Of a content header whose payload begins at `at`."""
    (flags,) = _SHORT.unpack_from(data, at + 12)
    at += 14
    content_type: str | None = None
    headers: dict[str, Any] = {}
    if flags & _CONTENT_TYPE:
        content_type, at = _read_short(data, at)
    if flags & 0x4000:
        _, at = _read_short(data, at)
    if flags & _HEADERS:
        (size,) = NUMBER.unpack_from(data, at)
        headers = decode.field_table(bytes(data[at : at + 4 + size]))[1]
        at += 4 + size
    if flags & _DELIVERY_MODE:
        at += 1
    if flags & 0x0800:
        at += 1
    correlation_id = reply_to = message_id = user_id = None
    if flags & _CORRELATION_ID:
        correlation_id, at = _read_short(data, at)
    if flags & _REPLY_TO:
        reply_to, at = _read_short(data, at)
    if flags & _EXPIRATION:
        _, at = _read_short(data, at)
    if flags & _MESSAGE_ID:
        message_id, at = _read_short(data, at)
    if flags & 0x0040:
        at += 8
    if flags & 0x0020:
        _, at = _read_short(data, at)
    if flags & _USER_ID:
        user_id, at = _read_short(data, at)
    return Properties(content_type, headers, correlation_id, reply_to, message_id, user_id)


def _read_short(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    return data[at + 1 : end].decode("utf-8", "replace"), end


def table(values: Mapping[str, Any], depth: int = 0) -> bytes:
    """A field table of JSON-native values and bytes. Floats keep all their bits, which pamqp's single precision would
    not."""
    parts = []
    for key, value in values.items():
        if not isinstance(key, str):
            raise ValueError(f"headers must have text as keys, got {key!r}")
        parts.append(short_string(key, "headers key"))
        parts.append(_value(value, depth))
    payload = b"".join(parts)
    return NUMBER.pack(len(payload)) + payload


def _value(value: Any, depth: int) -> bytes:
    if depth > MAX_DEPTH:
        raise ValueError(f"headers must not be nested deeper than {MAX_DEPTH} levels")
    match value:
        case bool():
            return b"t\x01" if value else b"t\x00"
        case int():
            if not -(2**63) <= value < 2**63:
                raise ValueError(f"headers must hold integers of 64 bits, got {value}")
            return b"l" + _INTEGER.pack(value)
        case float():
            if not math.isfinite(value):
                raise ValueError("headers must hold finite numbers")
            return b"d" + _DOUBLE.pack(value)
        case str():
            raw = value.encode()
            return b"S" + NUMBER.pack(len(raw)) + raw
        case bytes() | bytearray():
            return b"x" + NUMBER.pack(len(value)) + bytes(value)
        case None:
            return b"V"
        case Mapping():
            return b"F" + table(value, depth + 1)
        case Sequence():
            payload = b"".join(_value(item, depth + 1) for item in value)
            return b"A" + NUMBER.pack(len(payload)) + payload
        case _:
            raise ValueError(f"headers must hold JSON values, got {type(value).__name__}")
