"""The envelope: what it reads, what it refuses, and that it says which field is wrong and what to do."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.envelope import MAX_ENVELOPE_BYTES, MAX_NAMES, Envelope, format_time, load_json, parse, parse_time
from contracts.problems import EnvelopeInvalid

AT = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


def document(**changes: Any) -> dict[str, Any]:
    """A right envelope in structured form, with attributes changed; None leaves one out."""
    whole: dict[str, Any] = {
        "specversion": "1.0",
        "id": "0190f3c2-7b7e-7c3e-8f63-7f6f1c2d3e4f",
        "source": "/modules/billing",
        "type": "billing.SubscriptionActivatedV1",
        "time": "2026-01-31T12:00:00.123456Z",
        "tenantid": "acme",
        "data": {"customer_id": "c1"},
    }
    whole.update(changes)
    return {name: value for name, value in whole.items() if value is not None}


def body(**changes: Any) -> bytes:
    return orjson.dumps(document(**changes))


def with_data(literal: str) -> bytes:
    """A right envelope whose `data.x` is this JSON literal, byte for byte."""
    return body(data={"x": "@"}).replace(b'"@"', literal.encode("utf-8", "surrogatepass"))


def refusal(raw: bytes, headers: dict[str, Any] | None = None, content_type: str | None = None) -> EnvelopeInvalid:
    with pytest.raises(EnvelopeInvalid) as caught:
        parse(raw, headers, content_type)
    return caught.value


def test_an_envelope_comes_back_as_it_was_sent() -> None:
    sent = Envelope(
        id="e1",
        source="/modules/billing",
        type="billing.SubscriptionActivatedV1",
        tenantid="acme",
        time=AT,
        data={"customer_id": "c1", "lines": [{"n": 1}, {"n": 2.5}]},
        subject="c1",
        correlationid="k",
        causationid="cmd",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        dataschema="https://schemas.example/billing.SubscriptionActivatedV1.json",
    )
    assert parse(sent.to_json()) == sent


def test_absent_attributes_are_left_out_and_unknown_extensions_are_ignored() -> None:
    sent = parse(body(flavour="vanilla"))
    assert sent.subject is None
    assert set(orjson.loads(sent.to_json())) == set(document()) | {"datacontenttype"}


def test_missing_data_is_an_empty_object() -> None:
    assert parse(body(data=None)).data == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("specversion", "0.3"),
        ("specversion", 1.0),
        ("type", "billing.SubscriptionActivated"),
        ("type", "SubscriptionActivatedV1"),
        ("type", "billing.SubscriptionActivatedV0"),
        ("type", "billing.SubscriptionActivatedV1\n"),
        ("type", 7),
        ("source", "/tenants/acme/modules/billing"),
        ("source", "/modules/Billing"),
        ("id", ""),
        ("id", 5),
        ("id", "x" * 201),
        ("tenantid", "a/b"),
        ("tenantid", "../acme"),
        ("tenantid", ""),
        ("data", [1]),
        ("data", "text"),
        ("time", "yesterday"),
        ("time", "2026-01-31T12:00:00"),
        ("time", "20260131T120000Z"),
        ("time", "2026-W05-6T12:00:00Z"),
        ("time", "2026-01-31"),
        ("time", "0001-01-01T00:00:00+14:00"),
        ("time", "9999-12-31T23:59:59-14:00"),
        ("time", 1769860800),
        ("subject", ""),
        ("subject", {"id": 1}),
        ("correlationid", "x" * 201),
        ("causationid", False),
        ("traceparent", 1),
        ("datacontenttype", "application/xml"),
    ],
)
def test_a_wrong_attribute_is_named_with_its_remedy(field: str, value: Any) -> None:
    problem = refusal(body(**{field: value}))
    assert problem.field == field
    assert problem.detail.startswith(f"{field} ")
    assert problem.status == 400


@pytest.mark.parametrize("field", ["specversion", "id", "source", "type", "time", "tenantid"])
def test_a_missing_required_attribute_is_named(field: str) -> None:
    assert refusal(body(**{field: None})).field == field


@pytest.mark.parametrize("raw", [b"", b"{", b"null", b"[]", b'"text"', b"[" * 100_000, b"\xef\xbb\xbf{}", b"\xff\xfe"])
def test_what_is_not_one_json_object_is_refused_as_a_body(raw: bytes) -> None:
    assert refusal(raw).field == "body"


def test_payload_bytes_in_base64_are_refused_by_name() -> None:
    assert refusal(body(data=None, data_base64="AAAA")).field == "data_base64"


def test_json_with_a_charset_and_vendor_json_are_json() -> None:
    assert parse(body(datacontenttype="application/json; charset=utf-8")).id
    assert parse(body(datacontenttype="application/vnd.acme+json")).id


def test_a_body_at_the_cap_is_read_and_one_byte_more_is_not() -> None:
    room = MAX_ENVELOPE_BYTES - len(body(data={"x": ""}))
    assert len(parse(body(data={"x": "a" * room})).data["x"]) == room
    assert "at most" in refusal(body(data={"x": "a" * (room + 1)})).detail


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_64_is_read_and_65_is_not(opening: str, closing: str) -> None:
    # The envelope and its data are two levels already.
    assert parse(with_data(opening * 62 + "1" + closing * 62))
    assert "nested deeper" in refusal(with_data(opening * 63 + "1" + closing * 63)).detail


def test_brackets_within_texts_are_no_depth() -> None:
    text = '[[{"' * 200 + "\\"
    assert parse(body(data={"x": text})).data["x"] == text


def test_width_is_no_depth() -> None:
    assert len(parse(body(data={"x": [{"y": [i]} for i in range(500)]})).data["x"]) == 500


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" * 200_000,
        b'{"a":' * 40_000,
        b"[" + b"[]," * 80_000 + b"[]]",
        b'{"a":"' + b"\\\\" * 120_000 + b'"}',
        b'"' + b'\\"[' * 80_000 + b'"',
        b"[" + b"1" * 250_000 + b"]",
        b"[" + b"1111111111111111111," * 12_000 + b"1]",
    ],
    ids=["arrays", "objects", "wide", "backslashes", "quotes", "one number", "numbers"],
)
def test_a_bomb_is_answered_within_a_fraction_of_a_second(bomb: bytes) -> None:
    assert len(bomb) <= MAX_ENVELOPE_BYTES
    # At most 0.01 s on a quiet machine; a parser whose work grows faster than the body needs many seconds every time,
    # while a busy neighbour or a collection of garbage spoils one try.
    took: list[float] = []
    while not took or (min(took) > 0.25 and len(took) < 3):
        began = time.process_time()
        refusal(bomb)
        took.append(time.process_time() - began)
    assert min(took) <= 0.25


@pytest.mark.parametrize(
    "digits",
    [str(2**63), str(-(2**63) - 1), str(2**64), "1" + "0" * 30, "-1" + "0" * 30, "9" * 300],
    ids=["2^63", "-2^63-1", "2^64", "10^30", "-10^30", "300 digits"],
)
def test_an_integer_beyond_64_bits_is_refused_rather_than_rounded(digits: str) -> None:
    assert "64 bits" in refusal(with_data(digits)).detail


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        ('"99999999999999999999999"', "99999999999999999999999"),
        ("0.12345678901234567890123", 0.12345678901234567890123),
        ("12345678901234567890.5", 12345678901234567890.5),
        ("1e300", 1e300),
        ("12345678901234567890e2", 12345678901234567890e2),
    ],
)
def test_numbers_that_keep_their_meaning_are_read(literal: str, value: Any) -> None:
    read = parse(with_data(literal)).data["x"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "literal",
    ["NaN", "Infinity", "-Infinity", "1e400", '"\\ud800"', '"\\udc00\\ud800"', '"\ud800"', "01", "'a'", "tru"],
)
def test_what_json_does_not_know_is_refused(literal: str) -> None:
    assert "not JSON" in refusal(with_data(literal)).detail


def test_nul_is_refused_in_every_text_and_spelled_out_it_is_a_text() -> None:
    assert "NUL" in refusal(with_data('"a\\u0000b"')).detail
    assert "NUL" in refusal(with_data('"\\\\\\u0000"')).detail
    assert "NUL" in refusal(with_data('{"\\u0000":1}')).detail
    assert parse(with_data('"\\\\u0000"')).data["x"] == "\\u0000"


def headers(prefix: str = "ce-", **changes: Any) -> dict[str, Any]:
    attributes = {**document(), **changes}
    attributes.pop("data")
    return {prefix + name: value for name, value in attributes.items() if value is not None}


@pytest.mark.parametrize("prefix", ["ce-", "cloudEvents:", "cloudEvents_"])
def test_binary_mode_says_the_same_as_structured_mode(prefix: str) -> None:
    assert parse(b'{"customer_id":"c1"}', headers(prefix, subject="c1")) == parse(body(subject="c1"))


def test_binary_mode_takes_bytes_and_amqp_timestamps() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    read = parse(b"{}", headers(id=b"e1", time=noon))
    assert (read.id, read.time) == ("e1", noon)
    assert parse(b"{}", headers(time=noon.replace(tzinfo=None))).time == noon


def test_a_header_that_is_not_text_is_refused_by_name() -> None:
    assert refusal(b"{}", headers(id=b"\xff")).field == "id"
    assert refusal(b"{}", headers(id=17)).field == "id"
    assert refusal(b"[]", headers()).field == "data"
    assert refusal(b"{}", headers(tenantid=None)).field == "tenantid"


def test_headers_do_not_override_a_structured_message() -> None:
    read = parse(body(id="inside"), headers(id="outside"), "application/cloudevents+json; charset=utf-8")
    assert read.id == "inside"


def test_a_batch_of_events_is_refused() -> None:
    assert refusal(orjson.dumps([document()]), None, "application/cloudevents-batch+json").field == "body"


def test_times_are_written_in_utc_with_microseconds() -> None:
    east = timezone(timedelta(hours=2))
    assert format_time(datetime(2026, 1, 31, 14, tzinfo=east)) == "2026-01-31T12:00:00.000000Z"
    assert parse_time("2026-01-31T14:00:00+02:00") == datetime(2026, 1, 31, 12, tzinfo=UTC)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"))
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=30,
)


@settings(max_examples=60, deadline=None)
@given(json_values)
def test_every_json_payload_survives_the_envelope(value: Any) -> None:
    read = parse(orjson.dumps(document(data={"x": value})))
    assert read.data == {"x": value}
    assert parse(read.to_json()) == read


@settings(max_examples=60, deadline=None)
@given(st.integers(-(2**70), 2**70))
def test_an_integer_is_read_exactly_or_refused(number: int) -> None:
    raw = b'{"x":[' + str(number).encode() + b"]}"
    if -(2**63) <= number < 2**63:
        assert load_json(raw) == {"x": [number]}
    else:
        with pytest.raises(EnvelopeInvalid):
            load_json(raw)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_bring_the_reader_down(raw: bytes) -> None:
    with pytest.raises(EnvelopeInvalid):
        parse(raw)


def test_names_are_counted_wherever_they_stand_and_colons_in_texts_are_not() -> None:
    fitting = orjson.dumps([{str(n): ":" * 3} for n in range(MAX_NAMES)])
    assert len(load_json(fitting)) == MAX_NAMES
    for raw in (
        orjson.dumps({str(n): 0 for n in range(MAX_NAMES + 1)}),
        orjson.dumps([{str(n): {}} for n in range(MAX_NAMES + 1)]),
        b'{"a":1' + b',"a":1' * MAX_NAMES + b"}",
    ):
        with pytest.raises(EnvelopeInvalid, match="names"):
            load_json(raw)
