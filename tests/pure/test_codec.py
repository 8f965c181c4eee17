"""Run events to bytes and back: nothing is lost, older shapes are lifted, newer ones and strangers are refused."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar, Literal

import orjson
import pytest

from contracts import codec
from contracts.codec import Codec
from contracts.problems import EventBroken, EventNewer, TopicUnknown
from contracts.run_events import RunEnded, RunEvent, RunStarted, StepScheduled, StepSucceeded, all_run_events
from contracts.values import value

AT = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


def example(hint: Any) -> Any:
    """A value of a field's type that differs from its default."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if hint is datetime:
        return AT
    if origin is tuple:
        return ("/data/email", "/data/name")
    if origin is Literal:
        return options[-1]
    if origin is Mapping:
        return {"kind": "event"}
    if type(None) in options:
        return example(next(option for option in options if option is not type(None)))
    return {str: "text", int: 7, float: 1.5, bool: True}.get(hint, {"deep": [1, None, {"er": "value"}]})


def full(cls: type[RunEvent]) -> RunEvent:
    hints = typing.get_type_hints(cls)
    return cls(**{field.name: example(hints[field.name]) for field in dataclasses.fields(cls)})


def sparse(cls: type[RunEvent]) -> RunEvent:
    hints = typing.get_type_hints(cls)
    required = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    return cls(**{name: example(hints[name]) for name in required})


@pytest.mark.parametrize("cls", all_run_events(), ids=lambda cls: cls.TOPIC)
@pytest.mark.parametrize("make", [full, sparse])
def test_every_run_event_comes_back_as_it_went(cls: type[RunEvent], make: Any) -> None:
    event = make(cls)
    assert codec.decode_body(cls.TOPIC, codec.encode(event)) == event


def test_every_topic_is_there_once() -> None:
    assert len(codec.RUN_EVENTS.topics) == len(all_run_events())
    assert codec.RUN_EVENTS.topics == tuple(cls.TOPIC for cls in all_run_events())


def test_the_shape_version_travels_in_the_body() -> None:
    body = codec.encode(StepSucceeded(at=AT, step="billing", visit=1, attempt=1, output=None))
    assert orjson.loads(body)["v"] == 1
    assert body.startswith(b'{"v":1,"at":"2026-01-31T12:00:00.123456Z"')


def test_instants_come_back_in_utc_however_they_went() -> None:
    east = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    for at in (AT, east, AT.replace(tzinfo=None)):
        event = codec.decode_body("run.admitted", codec.encode(_event("run.admitted", at=at)))
        assert (event.at, event.at.tzinfo) == (AT, UTC)


def _event(topic: str, **fields: Any) -> RunEvent:
    return next(cls for cls in all_run_events() if topic == cls.TOPIC)(**fields)


def test_an_unknown_topic_is_refused() -> None:
    with pytest.raises(TopicUnknown, match=r"run\.exploded"):
        codec.decode("run.exploded", 1, {})


def test_a_class_outside_the_table_is_refused() -> None:
    with pytest.raises(TopicUnknown, match="PaidV3"):
        codec.encode(PaidV3(at=AT, amount_minor=1, currency="EUR"))


def test_a_value_that_is_not_json_is_refused_when_it_is_written() -> None:
    with pytest.raises(TypeError):
        codec.encode(StepSucceeded(at=AT, step="s", visit=1, attempt=1, output=object()))


# ---------------------------------------------------------------------------------------------- shapes that change


@value(kw_only=True)
class PaidV1(RunEvent):
    """As it was first: an amount as a decimal text."""

    TOPIC: ClassVar[str] = "paid"

    amount: str


@value(kw_only=True)
class PaidV2(RunEvent):
    """Then the currency was told apart."""

    TOPIC: ClassVar[str] = "paid"
    VERSION: ClassVar[int] = 2

    amount: str
    currency: str = "EUR"

    @staticmethod
    def upcast_v1_v2(document: dict[str, Any]) -> dict[str, Any]:
        amount, _, currency = document["amount"].partition(" ")
        return {**document, "amount": amount, "currency": currency or "EUR"}


@value(kw_only=True)
class PaidV3(RunEvent):
    """Now the amount counts cents, and there is a note."""

    TOPIC: ClassVar[str] = "paid"
    VERSION: ClassVar[int] = 3

    amount_minor: int
    currency: str
    note: str = ""
    due: datetime | None = None

    upcast_v1_v2 = PaidV2.upcast_v1_v2

    @staticmethod
    def upcast_v2_v3(document: dict[str, Any]) -> dict[str, Any]:
        whole, _, cents = document.pop("amount").partition(".")
        document["amount_minor"] = int(whole) * 100 + int(cents.ljust(2, "0"))
        return document


def test_older_shapes_are_lifted_step_by_step() -> None:
    now = Codec([PaidV3])
    first = Codec([PaidV1]).encode(PaidV1(at=AT, amount="12.5 USD"))
    second = Codec([PaidV2]).encode(PaidV2(at=AT, amount="7", marks=("/note",)))
    assert now.decode_body("paid", first) == PaidV3(at=AT, amount_minor=1250, currency="USD")
    assert now.decode_body("paid", second) == PaidV3(at=AT, amount_minor=700, currency="EUR", marks=("/note",))


def test_a_newer_shape_is_refused_rather_than_guessed() -> None:
    body = Codec([PaidV3]).encode(PaidV3(at=AT, amount_minor=1, currency="EUR"))
    with pytest.raises(EventNewer, match="shape 3") as caught:
        Codec([PaidV2]).decode_body("paid", body)
    assert caught.value.context == {"topic": "paid", "version": 3}


@pytest.mark.parametrize(
    "body",
    [
        b'{"v":1,"at":"2026-01-31T12:00:00Z","marks":[]}',
        b'{"v":1,"at":"2026-01-31T12:00:00Z","marks":[],"amount":"1","extra":1}',
        b'{"v":1,"at":"2026-01-31T12:00:00Z","marks":[],"extra":1}',
        b'{"v":1,"at":"yesterday","marks":[],"amount":"1"}',
        b'{"v":1,"at":5,"marks":[],"amount":"1"}',
        b'{"v":0,"at":"2026-01-31T12:00:00Z","marks":[],"amount":"1"}',
        b'{"v":true,"at":"2026-01-31T12:00:00Z","marks":[],"amount":"1"}',
        b'{"at":"2026-01-31T12:00:00Z","marks":[],"amount":"1"}',
        b"[]",
        b"{",
    ],
)
def test_a_body_that_does_not_fit_its_shape_is_broken(body: bytes) -> None:
    with pytest.raises(EventBroken, match="paid"):
        Codec([PaidV1]).decode_body("paid", body)


def test_a_codec_without_an_upcast_cannot_be_made() -> None:
    @value(kw_only=True)
    class Gap(RunEvent):
        TOPIC: ClassVar[str] = "gap"
        VERSION: ClassVar[int] = 2

    with pytest.raises(ValueError, match="without upcast_v1_v2"):
        Codec([Gap])


def test_topics_may_not_repeat_nor_be_empty() -> None:
    for classes in ([PaidV1, PaidV3], [RunEvent]):
        with pytest.raises(ValueError, match="topic of its own"):
            Codec(classes)


def test_a_field_that_json_cannot_give_back_is_refused_at_once() -> None:
    @value(kw_only=True)
    class Fancy(RunEvent):
        TOPIC: ClassVar[str] = "fancy"

        when: timedelta

    @value(kw_only=True)
    class Hidden(RunEvent):
        TOPIC: ClassVar[str] = "hidden"

        v: int

    for cls in (Fancy, Hidden):
        with pytest.raises(ValueError, match=cls.__name__):
            Codec([cls])


def test_large_events_keep_their_order_of_keys() -> None:
    data = {f"k{number}": number for number in range(100)}
    event = RunStarted(
        at=AT,
        workflow="w",
        workflow_version=1,
        trigger={},
        data=data,
        scope="s",
        initiator="i",
        correlation_id="c",
    )
    back = codec.decode_body("run.started", codec.encode(event))
    assert isinstance(back, RunStarted)
    assert list(back.data) == list(data)


def test_a_decoded_event_is_equal_to_what_was_encoded() -> None:
    event = codec.decode_body("run.ended", codec.encode(RunEnded(at=AT, status="failed", left=("a", "b"))))
    assert event == RunEnded(at=AT, status="failed", left=("a", "b"))


def test_the_document_form_is_what_sealing_takes_apart_and_puts_together() -> None:
    event = StepScheduled(
        at=AT,
        step="s",
        visit=1,
        key="k/s/1",
        action="a.b",
        kind="local",
        input={"email": "ada@example.org"},
        input_hash="h",
        marks=("/input/email",),
    )
    document = orjson.loads(codec.encode(event))
    assert document["input"]["email"] == "ada@example.org"
    assert codec.decode_document("step.scheduled", document) == event
