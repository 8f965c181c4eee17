"""The registry: payloads checked once, refused by field, handed on JSON-native; commands as actions; discovery."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from importlib.metadata import EntryPoint
from typing import Any, Literal
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, field_serializer, field_validator

from contracts import registry as registry_module
from contracts.calls import RetryPolicy
from contracts.envelope import Envelope
from contracts.manifest import (
    AnswerModel,
    Command,
    CommandModel,
    Event,
    EventModel,
    FailureModel,
    Message,
    Module,
    Personal,
    Query,
    QueryModel,
    UndoModel,
)
from contracts.problems import ContractUnknown, EnvelopeInvalid, ManifestInvalid, PayloadInvalid
from contracts.registry import Registry, discover


class SignUpCompletedV1(EventModel):
    customer_id: str
    email: Personal
    plan: str = "free"
    seats: int = 1
    ratio: float = 1.0
    tags: list[str] = Field(default_factory=list)
    size: Literal["s", "l"] | None = None


class LineV1(Message):
    sku: str
    to: Personal | None = None


class OrderPlacedV1(EventModel):
    order_id: UUID
    number: int
    at: datetime
    total: Decimal
    lines: list[LineV1] = Field(default_factory=list)


class Colour(Enum):
    RED = "red"


class PaintedV1(EventModel):
    colour: Colour
    name: str = Field(default="", max_length=5)

    @field_validator("name")
    @classmethod
    def _tidy(cls, name: str) -> str:
        return name.strip()


class HeatedV1(EventModel):
    degrees: int

    @field_serializer("degrees")
    def _as_text(self, degrees: int) -> str:
        return f"{degrees} C"


class CreateUserV1(CommandModel):
    email: Personal


class CreateUserV2(CommandModel):
    email: Personal
    name: Personal


class UserCreatedV1(EventModel):
    user_id: str
    email: Personal | None = None


class UserDeletedV1(EventModel):
    pass


class BusyV1(FailureModel):
    pass


class TakenV1(FailureModel):
    pass


class DeleteUserV1(UndoModel[CreateUserV1, UserCreatedV1]):
    pass


class DeleteUserV2(UndoModel[CreateUserV2, UserCreatedV1]):
    pass


class FindUserV1(QueryModel):
    email: Personal


class UserFoundV1(AnswerModel):
    user_id: str


RETRY = RetryPolicy(attempts=7)
IDENTITY = Module(
    name="identity",
    version="1.0.0",
    events=(
        Event(SignUpCompletedV1, keys={"customer": "/customer_id"}, subject="/customer_id"),
        Event(OrderPlacedV1, keys={"order": "/order_id", "number": "/number"}),
        Event(PaintedV1, keys={"colour": "/colour"}),
        Event(HeatedV1),
    ),
    commands=(
        Command(
            CreateUserV1,
            success=UserCreatedV1,
            failures=(BusyV1,),
            irrecoverable=(TakenV1,),
            undo="DeleteUserV1",
            timeout_seconds=5,
            retry=RETRY,
            permission="identity.manage",
        ),
        Command(CreateUserV2, success=UserCreatedV1, undo="DeleteUserV2", ambiguous="park"),
        Command(DeleteUserV1, success=UserDeletedV1, coverage="retriable"),
        Command(DeleteUserV2, success=UserDeletedV1, coverage="retriable"),
    ),
    queries=(Query(FindUserV1, answer=UserFoundV1),),
    permissions=("identity.manage",),
)
REGISTRY = Registry([IDENTITY])
ORDER: dict[str, Any] = {
    "order_id": "0190f3c2-7b7e-7c3e-8f63-7f6f1c2d3e4f",
    "number": 17,
    "at": "2026-01-31T12:00:00Z",
    "total": "12.50",
    "lines": [{"sku": "a", "to": "Ada"}, {"sku": "b"}],
}


def envelope(kind: str, data: dict[str, Any], source: str = "/modules/identity") -> Envelope:
    return Envelope(id="e1", source=source, type=kind, tenantid="acme", time=datetime.now(UTC), data=data)


def check(kind: str, data: Any) -> Any:
    return REGISTRY.check_event_data(REGISTRY.event(f"identity.{kind}"), data)


# ------------------------------------------------------------------------------------------------------- payloads


def test_a_payload_that_is_exactly_what_is_declared_is_handed_on_as_it_came() -> None:
    data = {
        "customer_id": "c1",
        "email": "ada@example.org",
        "plan": "pro",
        "seats": 3,
        "ratio": 2,
        "tags": ["a"],
        "size": None,
    }
    checked = REGISTRY.check_event(envelope("identity.SignUpCompletedV1", data))
    assert checked.payload is data
    assert checked[1:] == (("/email",), {"customer": "c1"}, "c1")


def test_defaults_are_filled_in_and_undeclared_fields_are_not_kept() -> None:
    checked = check("SignUpCompletedV1", {"customer_id": "c1", "email": "ada@example.org", "phone": "+43 1"})
    assert checked.payload == {
        "customer_id": "c1",
        "email": "ada@example.org",
        "plan": "free",
        "seats": 1,
        "ratio": 1.0,
        "tags": [],
        "size": None,
    }


def test_rich_types_are_read_from_their_json_form_and_handed_on_json_native() -> None:
    checked = check("OrderPlacedV1", {**ORDER, "lines": [{"sku": "a", "to": "Ada", "colour": "x"}, {"sku": "b"}]})
    assert checked.payload == {**ORDER, "lines": [{"sku": "a", "to": "Ada"}, {"sku": "b", "to": None}]}
    assert checked.marks == ("/lines/0/to",)
    assert checked.keys == {"order": ORDER["order_id"], "number": "17"}
    assert checked.subject is None
    assert orjson.loads(orjson.dumps(checked.payload)) == checked.payload


def test_a_model_that_changes_what_it_reads_is_believed() -> None:
    assert check("PaintedV1", {"colour": "red", "name": " ab "}) == (
        {"colour": "red", "name": "ab"},
        (),
        {"colour": "red"},
        None,
    )
    assert check("HeatedV1", {"degrees": 5}).payload == {"degrees": "5 C"}


def test_keys_that_are_absent_or_empty_identify_nothing() -> None:
    assert check("SignUpCompletedV1", {"customer_id": "", "email": "x"})[2:] == ({}, None)


@pytest.mark.parametrize(
    ("kind", "data", "pointer"),
    [
        ("SignUpCompletedV1", {"email": "x"}, "/customer_id"),
        ("SignUpCompletedV1", {"customer_id": 7, "email": "x"}, "/customer_id"),
        ("SignUpCompletedV1", {"customer_id": "c", "email": None}, "/email"),
        ("SignUpCompletedV1", {"customer_id": "c", "email": "x", "seats": "3"}, "/seats"),
        ("SignUpCompletedV1", {"customer_id": "c", "email": "x", "seats": 3.5}, "/seats"),
        ("SignUpCompletedV1", {"customer_id": "c", "email": "x", "seats": True}, "/seats"),
        ("SignUpCompletedV1", {"customer_id": "c", "email": "x", "size": "m"}, "/size"),
        ("SignUpCompletedV1", {"customer_id": "c", "email": "x", "tags": ["a", 1]}, "/tags/1"),
        ("OrderPlacedV1", {**ORDER, "at": "soon"}, "/at"),
        ("OrderPlacedV1", {**ORDER, "at": 1769860800}, "/at"),
        ("OrderPlacedV1", {**ORDER, "order_id": "17"}, "/order_id"),
        ("OrderPlacedV1", {**ORDER, "lines": [{"sku": "a"}, {}]}, "/lines/1/sku"),
        ("PaintedV1", {"colour": "blue"}, "/colour"),
        ("PaintedV1", {"colour": "red", "name": "too long"}, "/name"),
    ],
)
def test_a_wrong_payload_names_the_field_by_its_pointer(kind: str, data: dict[str, Any], pointer: str) -> None:
    with pytest.raises(PayloadInvalid) as caught:
        check(kind, data)
    assert caught.value.field == pointer
    assert caught.value.detail.startswith(f"identity.{kind}: {pointer}: ")
    assert caught.value.context == {"message_type": f"identity.{kind}"}


def test_a_refusal_never_repeats_the_value_it_refuses() -> None:
    with pytest.raises(PayloadInvalid) as caught:
        check("SignUpCompletedV1", {"customer_id": ["ada@example.org"], "email": "ada@example.org"})
    assert "ada" not in str(caught.value.to_document())


def test_how_many_more_fields_are_wrong_is_said() -> None:
    with pytest.raises(PayloadInvalid, match=r"\(and 1 more\)"):
        check("SignUpCompletedV1", {})


def test_what_is_not_json_is_refused_not_raised_through() -> None:
    with pytest.raises(PayloadInvalid, match="JSON values only"):
        check("OrderPlacedV1", {**ORDER, "number": object()})


def test_commands_are_checked_strictly() -> None:
    assert REGISTRY.check_command("identity.CreateUserV1", {"email": "x"}) == {"email": "x"}
    with pytest.raises(PayloadInvalid, match=r"/nmae: .*leave the field out"):
        REGISTRY.check_command("identity.CreateUserV1", {"email": "x", "nmae": "y"})


texts = st.text(max_size=5)
loose = st.fixed_dictionaries(
    {"customer_id": texts, "email": texts},
    optional={
        "plan": texts | st.none(),
        "seats": st.integers(-5, 5) | texts,
        "ratio": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5),
        "tags": st.lists(texts | st.integers(0, 1), max_size=2),
        "size": st.sampled_from(["s", "l", "m", None]),
        "other": texts,
    },
)


@settings(max_examples=100, deadline=None)
@given(loose)
def test_the_quick_way_and_the_models_own_way_agree(data: dict[str, Any]) -> None:
    try:
        expected = SignUpCompletedV1.model_validate_json(orjson.dumps(data)).model_dump(mode="json")
    except ValueError:
        with pytest.raises(PayloadInvalid):
            check("SignUpCompletedV1", data)
    else:
        assert check("SignUpCompletedV1", data).payload == expected


# -------------------------------------------------------------------------------------------------------- look-ups


def test_an_unknown_type_says_what_is_known() -> None:
    with pytest.raises(ContractUnknown, match="module crm is not installed; known are identity"):
        REGISTRY.event("crm.ContactCreatedV1")
    with pytest.raises(ContractUnknown, match=r"known versions are identity\.SignUpCompletedV1"):
        REGISTRY.event("identity.SignUpCompletedV9")
    with pytest.raises(ContractUnknown, match="module identity declares no such command"):
        REGISTRY.command("identity.SignUpCompletedV1")
    with pytest.raises(ContractUnknown, match="declares no such query"):
        REGISTRY.query("identity.CreateUserV1")


def test_only_the_declaring_module_publishes_its_events() -> None:
    with pytest.raises(EnvelopeInvalid) as caught:
        REGISTRY.check_event(envelope("identity.UserCreatedV1", {"user_id": "u"}, source="/modules/crm"))
    assert caught.value.field == "source"


def test_queries_are_found_with_their_answers() -> None:
    entry = REGISTRY.query("identity.FindUserV1")
    assert entry.answer.type == "identity.UserFoundV1"
    assert entry.answer.read({"user_id": "u", "more": 1}) == UserFoundV1(user_id="u")


def test_two_modules_may_not_share_a_name() -> None:
    other = Module(name="identity", version="2")
    with pytest.raises(ManifestInvalid, match="two modules are called identity"):
        Registry([IDENTITY, other])


@pytest.mark.parametrize("pointer", ["customer_id", "/customer", "/tags", "/ratio", "/tags/0", ""])
def test_a_key_or_subject_must_point_at_a_text_or_whole_number(pointer: str) -> None:
    for event in (Event(SignUpCompletedV1, keys={"k": pointer}), Event(SignUpCompletedV1, subject=pointer)):
        with pytest.raises(ManifestInvalid, match=r"identity\.SignUpCompletedV1"):
            Registry([Module(name="identity", version="1", events=(event,))])


# --------------------------------------------------------------------------------------------------------- actions


def test_commands_are_actions_by_version_and_the_highest_version_has_the_plain_name() -> None:
    specs = REGISTRY.action_specs()
    assert set(specs) == {
        "identity.create_user",
        "identity.create_user@1",
        "identity.create_user@2",
        "identity.delete_user",
        "identity.delete_user@1",
        "identity.delete_user@2",
    }
    assert specs["identity.create_user"].command == "identity.CreateUserV2"
    assert specs["identity.create_user"].undo == "identity.delete_user@2"
    assert specs["identity.create_user@1"].undo == "identity.delete_user@1"
    assert all(spec.name == name for name, spec in specs.items())


def test_an_action_carries_all_that_the_engine_needs_to_send_repeat_and_undo() -> None:
    spec = REGISTRY.action_specs()["identity.create_user@1"]
    assert spec.kind == "command"
    assert spec.command == "identity.CreateUserV1"
    assert spec.input_marks == ("/email",)
    assert spec.output_marks == ("/email",)
    assert spec.outcomes == ("identity.UserCreatedV1", "identity.BusyV1", "identity.TakenV1")
    assert spec.success == "identity.UserCreatedV1"
    assert spec.irrecoverable == ("identity.TakenV1",)
    assert spec.retry == RETRY
    assert (spec.timeout_seconds, spec.coverage, spec.ambiguous) == (5, "compensatable", "tombstone")
    assert spec.permission == "identity.manage"


def test_marks_of_an_undo_reach_into_what_do_was_given_and_left_behind() -> None:
    spec = REGISTRY.action_specs()["identity.delete_user@1"]
    assert spec.input_marks == ("/input/email", "/receipt/email")


# ------------------------------------------------------------------------------------------------------- discovery


def points(*values: str) -> Iterator[EntryPoint]:
    return (EntryPoint(name=f"p{number}", value=value, group="unwind.modules") for number, value in enumerate(values))


def test_modules_of_other_distributions_are_found_by_their_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def found(*, group: str) -> Iterator[EntryPoint]:
        asked.append(group)
        return points("contracts.notices:UNWIND")

    monkeypatch.setattr(registry_module, "entry_points", found)
    assert [module.name for module in discover()] == ["unwind"]
    assert asked == ["unwind.modules"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("contracts.notices:ABSENT", "cannot be loaded"),
        ("no_such_distribution:MODULE", "cannot be loaded"),
        ("contracts.version:__version__", "is no contracts.manifest.Module"),
    ],
)
def test_an_entry_point_that_is_no_module_is_named(monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    monkeypatch.setattr(registry_module, "entry_points", lambda group: points(value))
    with pytest.raises(ManifestInvalid, match=message):
        discover()
