"""The one envelope every message travels in: CloudEvents 1.0 with Unwind's extension attributes.

Facts, outcomes and commands all use it. It is parsed by hand rather than by pydantic because intake does it for every
delivery; the payload in `data` is validated by the model that the owning module's manifest declares
(`contracts.manifest`). Sources: CloudEvents 1.0 (attributes, structured JSON mode), CloudEvents AMQP binding (binary
mode, `ce-` headers).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from contracts.problems import EnvelopeInvalid

SPEC_VERSION: Final = "1.0"
CONTENT_TYPE: Final = "application/cloudevents+json"
MAX_ENVELOPE_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 64
MAX_ID_LENGTH: Final = 200

_TYPE = re.compile(r"[a-z][a-z0-9_]{0,62}\.[A-Z][A-Za-z0-9]{0,99}V[1-9][0-9]{0,3}\Z")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
_SOURCE = re.compile(r"/modules/[a-z][a-z0-9_]{0,62}\Z")
_HEADER_ATTRIBUTES: Final = (
    "id", "source", "type", "subject", "time", "dataschema", "tenantid", "correlationid", "causationid", "traceparent",
)


@dataclass(frozen=True, slots=True, kw_only=True)
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


def format_time(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds, the one spelling used in messages, logs and answers."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(text: str, field_name: str = "time") -> datetime:
    """An RFC 3339 instant with a zone. Raises `EnvelopeInvalid` naming `field_name`."""
    try:
        at = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        raise EnvelopeInvalid(field_name, "must be an RFC 3339 instant such as 2026-01-31T12:00:00Z") from None
    if at.tzinfo is None:
        raise EnvelopeInvalid(field_name, "must carry a time zone, for example a trailing Z")
    return at.astimezone(UTC)


def parse(body: bytes, headers: Mapping[str, Any] | None = None) -> Envelope:
    """Reads the structured form, or the binary form when `ce-`/`cloudEvents:` headers carry the attributes.

    Raises `EnvelopeInvalid` naming the first wrong field and its remedy. Caps: 256 KiB, depth 64.
    """
    if len(body) > MAX_ENVELOPE_BYTES:
        raise EnvelopeInvalid("body", f"is {len(body)} bytes; send at most {MAX_ENVELOPE_BYTES}, larger by reference")
    check_depth(body)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise EnvelopeInvalid("body", f"is not JSON: {error.msg}") from None
    attributes = _header_attributes(headers) if headers else None
    if attributes is not None:
        attributes["data"] = document
        document = attributes
    if not isinstance(document, dict):
        raise EnvelopeInvalid("body", "must be a JSON object in CloudEvents structured form")
    return from_document(document)


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
    identity = _text(get("id"), "id", required=True)
    tenant = get("tenantid")
    if not isinstance(tenant, str) or not _TENANT.match(tenant):
        raise EnvelopeInvalid("tenantid", "must be 1 to 100 letters, digits, dots, dashes or underscores")
    data = get("data")
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise EnvelopeInvalid("data", "must be a JSON object")
    time = get("time")
    if not isinstance(time, str):
        raise EnvelopeInvalid("time", "is missing; send the instant the fact happened, in RFC 3339")
    assert identity is not None
    return Envelope(
        id=identity,
        source=source,
        type=kind,
        tenantid=tenant,
        time=parse_time(time),
        data=data,
        subject=_text(get("subject"), "subject"),
        correlationid=_text(get("correlationid"), "correlationid"),
        causationid=_text(get("causationid"), "causationid"),
        traceparent=_text(get("traceparent"), "traceparent"),
        dataschema=_text(get("dataschema"), "dataschema"),
    )


def check_depth(body: bytes, limit: int = MAX_DEPTH) -> None:
    """Refuses nesting beyond `limit` before any parser recurses into it. Counts brackets outside strings only when
    their plain count could exceed the limit.
    """
    if body.count(b"{") + body.count(b"[") <= limit:
        return
    depth = 0
    in_string = escaped = False
    for byte in body:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in (0x7B, 0x5B):
            depth += 1
            if depth > limit:
                raise EnvelopeInvalid("body", f"is nested deeper than {limit} levels; flatten it")
        elif byte in (0x7D, 0x5D):
            depth -= 1


def _text(value: Any, name: str, *, required: bool = False) -> str | None:
    if value is None and not required:
        return None
    if not isinstance(value, str) or not value or len(value) > MAX_ID_LENGTH or "\x00" in value:
        raise EnvelopeInvalid(name, f"must be a string of 1 to {MAX_ID_LENGTH} characters without NUL")
    return value


def _header_attributes(headers: Mapping[str, Any]) -> dict[str, Any] | None:
    """Binary mode: attributes under `ce-<name>`, `cloudEvents:<name>` or `cloudEvents_<name>`; None when the delivery
    is structured.
    """
    for prefix in ("ce-", "cloudEvents:", "cloudEvents_"):
        if prefix + "specversion" in headers:
            found: dict[str, Any] = {"specversion": _decode(headers[prefix + "specversion"])}
            for name in _HEADER_ATTRIBUTES:
                if prefix + name in headers:
                    found[name] = _decode(headers[prefix + name])
            return found
    return None


def _decode(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
