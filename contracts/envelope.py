"""The one envelope every message travels in: CloudEvents 1.0 with Unwind's extension attributes.

Facts, outcomes and commands all use it. It is parsed by hand rather than by pydantic because intake does it for every
delivery; the payload in `data` is validated by the model that the owning module's manifest declares
(`contracts.manifest`). Sources: CloudEvents 1.0 (attributes, structured JSON mode), CloudEvents AMQP binding (binary
mode, `ce-` headers).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from contracts.problems import EnvelopeInvalid
from contracts.values import value

SPEC_VERSION: Final = "1.0"
CONTENT_TYPE: Final = "application/cloudevents+json"
MAX_ENVELOPE_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 64
MAX_NAMES: Final = 10_000
"""Names in all objects of a body together."""
MAX_ID_LENGTH: Final = 200

_TYPE = re.compile(r"[a-z][a-z0-9_]{0,62}\.[A-Z][A-Za-z0-9]{0,99}V[1-9][0-9]{0,3}\Z")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
_SOURCE = re.compile(r"/modules/[a-z][a-z0-9_]{0,62}\Z")
_HEADER_PREFIXES: Final = ("ce-", "cloudEvents:", "cloudEvents_")
_OPTIONAL: Final = ("subject", "correlationid", "causationid", "traceparent", "dataschema")
_HEADER_ATTRIBUTES: Final = ("specversion", "id", "source", "type", "time", "tenantid", *_OPTIONAL)

# What the cheap byte scans below take apart, only when they have found something to look at.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS_AS_ROUND = bytes.maketrans(b"[{]}", b"(())")
_ALL_BUT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")
_NINETEEN_DIGITS = b"0" * 19
_LONG_INTEGER = re.compile(rb"(?<![0-9.eE+-])-?[0-9]{19,}(?![0-9.eE])")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


@value(kw_only=True)
class Envelope:
    """One message. `type` is `<module>.<Name>V<n>` and is also its routing key; `source` is `/modules/<module>`.

    `id` is the dedup key together with (`tenantid`, `source`). `correlationid` ties a whole story together and is
    inherited; `causationid` is the id of the message this one answers or follows from. `subject` names the aggregate
    the fact is about. `data` is JSON-native.
    """

    id: str
    source: str
    type: str
    tenantid: str
    time: datetime
    data: Mapping[str, Any] = field(default_factory=dict)
    subject: str | None = None
    correlationid: str | None = None
    causationid: str | None = None
    traceparent: str | None = None
    dataschema: str | None = None

    @property
    def module(self) -> str:
        return self.type.split(".", 1)[0]

    def to_json(self) -> bytes:
        """The structured form, with a stable key order; absent attributes are left out."""
        document: dict[str, Any] = {
            "specversion": SPEC_VERSION,
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "time": format_time(self.time),
            "datacontenttype": "application/json",
            "tenantid": self.tenantid,
        }
        for name in ("subject", "correlationid", "causationid", "traceparent", "dataschema"):
            value = getattr(self, name)
            if value is not None:
                document[name] = value
        document["data"] = self.data
        return orjson.dumps(document)


def is_tenant(text: str) -> bool:
    """Whether `text` can be a tenant's name."""
    return _TENANT.match(text) is not None


def format_time(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds, the one spelling used in messages, logs and answers."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def parse_time(text: str, field_name: str = "time") -> datetime:
    """An RFC 3339 instant with a zone. Raises `EnvelopeInvalid` naming `field_name`."""
    try:
        at = datetime.fromisoformat(text)
        # ISO 8601 has spellings that RFC 3339 and other languages do not: 20260131T120000Z, 2026-W05-6, no seconds.
        if text[4] != "-" or text[7] != "-" or text[10] not in "Tt " or text[16] != ":":
            raise ValueError(text)
        if at.tzinfo is None:
            raise EnvelopeInvalid(field_name, "must carry a time zone, for example a trailing Z")
        return at if at.tzinfo is UTC else at.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        raise EnvelopeInvalid(field_name, "must be an RFC 3339 instant such as 2026-01-31T12:00:00Z") from None


def parse(body: bytes, headers: Mapping[str, Any] | None = None, content_type: str | None = None) -> Envelope:
    """Reads the structured form, or the binary form when `ce-`/`cloudEvents:` headers carry the attributes.

    `content_type` application/cloudevents+json always means structured. Raises `EnvelopeInvalid` naming the first
    wrong field and its remedy. Refused: more than 256 KiB, depth beyond 64, integers beyond 64 bits (JSON readers
    would round them), NUL in a text (databases refuse it), what RFC 8259 refuses.
    """
    document = load_json(body)
    if headers and not (content_type is not None and content_type.startswith("application/cloudevents")):
        attributes = _header_attributes(headers)
        if attributes is not None:
            attributes["data"] = document
            document = attributes
    if not isinstance(document, dict):
        raise EnvelopeInvalid("body", "must be one JSON object in CloudEvents structured form")
    return from_document(document)


def load_json(body: bytes, *, max_bytes: int = MAX_ENVELOPE_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """JSON from outside that every part behind it can hold: bounded size, depth and number of names, 64-bit integers,
    no NUL, no lone surrogate. For messages of the bus and bodies of requests alike. Raises `EnvelopeInvalid`.
    """
    if len(body) > max_bytes:
        raise EnvelopeInvalid("body", f"is {len(body)} bytes; send at most {max_bytes}, larger by reference")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise EnvelopeInvalid("body", f"is not JSON: {error.msg}; send RFC 8259 JSON in UTF-8") from None
    # The parser bounds its own recursion; the cap here keeps what is stored readable by every other one.
    if body.count(b"{") + body.count(b"[") > max_depth:
        _check_depth(body, max_depth)
    if body.count(b":") > MAX_NAMES and _STRINGS.sub(b"", body).count(b":") > MAX_NAMES:
        raise EnvelopeInvalid("body", f"holds more than {MAX_NAMES} names; send it in pieces")
    if _NINETEEN_DIGITS in body.translate(_DIGITS_AS_ZERO):
        _check_integers(body)
    if b"\\u0000" in body and _NUL.search(body):
        raise EnvelopeInvalid("body", "holds the character NUL (\\u0000) in a text; leave it out")
    return document


def from_document(document: Mapping[str, Any]) -> Envelope:
    """An envelope from its parsed structured form; every attribute is checked, unknown extensions are ignored."""
    get = document.get
    if get("specversion") != SPEC_VERSION:
        raise EnvelopeInvalid("specversion", "must be the string 1.0")
    kind = get("type")
    if not isinstance(kind, str) or not _TYPE.match(kind):
        raise EnvelopeInvalid("type", "must look like billing.SubscriptionActivatedV1 (<module>.<Name>V<n>)")
    source = get("source")
    if not isinstance(source, str) or not _SOURCE.match(source):
        raise EnvelopeInvalid("source", "must look like /modules/billing")
    identity = _text(get("id"), "id")
    tenant = get("tenantid")
    if not isinstance(tenant, str) or not _TENANT.match(tenant):
        raise EnvelopeInvalid("tenantid", "must be 1 to 100 letters, digits, dots, dashes or underscores")
    data = get("data")
    if data is None:
        if "data_base64" in document:
            raise EnvelopeInvalid("data_base64", "is not taken; send the payload as a JSON object in data")
        data = {}
    if not isinstance(data, dict):
        raise EnvelopeInvalid("data", "must be a JSON object")
    content_type = get("datacontenttype")
    if content_type is not None and content_type != "application/json" and not _is_json_type(content_type):
        raise EnvelopeInvalid("datacontenttype", "must be application/json, or be left out")
    time = get("time")
    if not isinstance(time, str):
        raise EnvelopeInvalid("time", "is missing; send the instant the fact happened, in RFC 3339")
    at = parse_time(time)
    return Envelope(
        id=identity,
        source=source,
        type=kind,
        tenantid=tenant,
        time=at,
        data=data,
        subject=_optional(document, "subject"),
        correlationid=_optional(document, "correlationid"),
        causationid=_optional(document, "causationid"),
        traceparent=_optional(document, "traceparent"),
        dataschema=_optional(document, "dataschema"),
    )


def check_depth(body: bytes, limit: int = MAX_DEPTH) -> None:
    """Refuses nesting of valid JSON beyond `limit`. Raises `EnvelopeInvalid`."""
    if body.count(b"{") + body.count(b"[") > limit:
        _check_depth(body, limit)


def _check_depth(body: bytes, limit: int) -> None:
    brackets = _STRINGS.sub(b"", body).translate(_BRACKETS_AS_ROUND, _ALL_BUT_BRACKETS)
    # Taking every innermost pair away lowers the depth by exactly one, and runs at the speed of memory.
    for _ in range(limit):
        if not brackets:
            return
        brackets = brackets.replace(b"()", b"")
    if brackets:
        raise EnvelopeInvalid("body", f"is nested deeper than {limit} levels; flatten it")


def _check_integers(body: bytes) -> None:
    for found in _LONG_INTEGER.finditer(_STRINGS.sub(b'""', body)):
        digits = found.group()
        if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
            shown = digits[:24].decode()
            raise EnvelopeInvalid("body", f"holds the integer {shown}, beyond 64 bits; send it as a string")


def _text(value: Any, name: str) -> str:
    if isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH and "\x00" not in value:
        return value
    raise EnvelopeInvalid(name, f"must be a string of 1 to {MAX_ID_LENGTH} characters without NUL")


def _optional(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    return None if value is None else _text(value, name)


def _is_json_type(value: Any) -> bool:
    kind = value.partition(";")[0].strip().lower() if isinstance(value, str) else ""
    return kind == "application/json" or kind.endswith("+json")


def _header_attributes(headers: Mapping[str, Any]) -> dict[str, Any] | None:
    """Binary mode: attributes under `ce-<name>`, `cloudEvents:<name>` or `cloudEvents_<name>`; None when the delivery
    is structured.
    """
    for prefix in _HEADER_PREFIXES:
        if prefix + "specversion" in headers:
            return {
                name: _header_text(name, headers[prefix + name])
                for name in _HEADER_ATTRIBUTES
                if prefix + name in headers
            }
    return None


def _header_text(name: str, value: Any) -> Any:
    """AMQP carries texts as str or bytes and may carry `time` as a timestamp."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise EnvelopeInvalid(name, "is not UTF-8 in its header; encode it") from None
    if isinstance(value, datetime):
        return format_time(value if value.tzinfo is not None else value.replace(tzinfo=UTC))
    return value
