"""What breaks when a contract changes: each kind of change is named with its field, and what is safe is not."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from pydantic import Field, create_model

from contracts.compatibility import breaking_changes, load, of_document
from contracts.manifest import (
    AnswerModel,
    Command,
    CommandModel,
    Event,
    EventModel,
    FailureModel,
    Module,
    Personal,
    Query,
    QueryModel,
    UndoModel,
    personal,
)
from contracts.problems import ContractUnknown
from contracts.registry import Registry
from contracts.schema import asyncapi, generate, schemas


def event_of(**fields: Any) -> type[EventModel]:
    return create_model("PaidV1", __base__=EventModel, **fields)


def command_of(**fields: Any) -> type[CommandModel]:
    return create_model("PayV1", __base__=CommandModel, **fields)


class RefusedV1(FailureModel):
    pass


class BusyV1(FailureModel):
    pass


PAID = event_of(invoice=(str, ...))
PAY = command_of(invoice=(str, ...))
UNDONE = create_model("UnpaidV1", __base__=EventModel)


def module(
    *,
    event: Event | None = None,
    pay: type[CommandModel] = PAY,
    failures: tuple[type[FailureModel], ...] = (BusyV1,),
    irrecoverable: tuple[type[FailureModel], ...] = (RefusedV1,),
    undo: bool = True,
    permission: str | None = None,
    answer: type[AnswerModel] | None = None,
) -> Module:
    """A small module with one of everything, changed in one place."""
    event = event or Event(PAID, keys={"invoice": "/invoice"}, subject="/invoice")
    make, undo_model = cast(Any, create_model), cast(Any, UndoModel)
    unpay = make("UnpayV1", __base__=undo_model[pay, event.model])
    return Module(
        name="billing",
        version="1",
        events=(event,),
        commands=(
            Command(
                pay,
                success=event.model,
                failures=failures,
                irrecoverable=irrecoverable,
                undo="UnpayV1" if undo else None,
                coverage="compensatable" if undo else "pivot",
                permission=permission,
            ),
            Command(unpay, success=UNDONE, coverage="retriable"),
        ),
        queries=(
            Query(
                create_model("FindV1", __base__=QueryModel),
                answer=answer or create_model("FoundV1", __base__=AnswerModel, invoice=(str, ...)),
            ),
        ),
        permissions=("billing.pay",),
    )


def changes(before: Module, after: Module) -> set[tuple[str, str, str]]:
    """(type without its module, field, code) of each breaking change."""
    old, new = (
        {name: found for whole in schemas(Registry([each])).values() for name, found in of_document(whole).items()}
        for each in (before, after)
    )
    return {(change.type.partition(".")[2], change.pointer, change.code) for change in breaking_changes(old, new)}


def event_changes(before: dict[str, Any], after: dict[str, Any]) -> set[tuple[str, str]]:
    found = changes(module(event=Event(event_of(**before))), module(event=Event(event_of(**after))))
    return {(pointer, code) for name, pointer, code in found if name == "PaidV1"}


def command_changes(before: dict[str, Any], after: dict[str, Any]) -> set[tuple[str, str]]:
    found = changes(module(pay=command_of(**before)), module(pay=command_of(**after)))
    return {(pointer, code) for name, pointer, code in found if name == "PayV1"}


def test_the_same_contract_breaks_nothing() -> None:
    assert changes(module(), module()) == set()


def test_a_removed_type_is_named() -> None:
    found = changes(module(failures=(BusyV1,)), module(failures=()))
    assert ("BusyV1", "", "type_removed") in found


class LineV1(EventModel):
    sku: str


class LineWithoutSkuV1(EventModel):
    name: str


EVENTS: list[tuple[str, Any, Any, set[tuple[str, str]]]] = [
    ("optional field added", {}, {"note": (str, "")}, set()),
    ("required field added", {}, {"note": (str, ...)}, {("/note", "required_added")}),
    ("field removed", {"note": (str, "")}, {}, {("/note", "field_removed")}),
    ("made required", {"note": (str, "")}, {"note": (str, ...)}, {("/note", "made_required")}),
    ("made optional", {"note": (str, ...)}, {"note": (str, "")}, {("/note", "made_optional")}),
    ("may be null now", {"note": (str, ...)}, {"note": (str | None, ...)}, {("/note", "type_widened")}),
    ("null no longer", {"note": (str | None, ...)}, {"note": (str, ...)}, {("/note", "type_narrowed")}),
    (
        "another type",
        {"note": (str, ...)},
        {"note": (int, ...)},
        {("/note", "type_narrowed"), ("/note", "type_widened")},
    ),
    ("whole number to number", {"n": (int, ...)}, {"n": (float, ...)}, {("/n", "type_widened")}),
    (
        "text to instant",
        {"at": (str, ...)},
        {"at": (datetime, ...)},
        {("/at", "type_narrowed")},
    ),
    ("instant to text", {"at": (datetime, ...)}, {"at": (str, ...)}, {("/at", "type_widened")}),
    ("enum widened", {"s": (Literal["a"], ...)}, {"s": (Literal["a", "b"], ...)}, {("/s", "enum_widened")}),
    ("enum narrowed", {"s": (Literal["a", "b"], ...)}, {"s": (Literal["a"], ...)}, {("/s", "enum_narrowed")}),
    (
        "list elements",
        {"lines": (list[LineV1], ...)},
        {"lines": (list[LineWithoutSkuV1], ...)},
        {("/lines/*/sku", "field_removed"), ("/lines/*/name", "required_added")},
    ),
    (
        "map values",
        {"m": (dict[str, int], ...)},
        {"m": (dict[str, str], ...)},
        {("/m/*", "type_narrowed"), ("/m/*", "type_widened")},
    ),
    ("default changed", {"n": (int, 1)}, {"n": (int, 2)}, {("/n", "default_changed")}),
    ("bound tightened", {"n": (int, Field(le=10))}, {"n": (int, Field(le=5))}, {("/n", "bound_tightened")}),
    ("bound loosened", {"n": (int, Field(ge=5))}, {"n": (int, Field(ge=1))}, set()),
    ("mark removed", {"email": (Personal, ...)}, {"email": (str, ...)}, {("/email", "mark_removed")}),
    ("mark added", {"email": (str, ...)}, {"email": (Personal, ...)}, set()),
    ("marked field removed", {"email": (Personal, "")}, {}, {("/email", "field_removed")}),
]


@pytest.mark.parametrize(("before", "after", "expected"), [row[1:] for row in EVENTS], ids=[row[0] for row in EVENTS])
def test_events_promise_their_readers_and_take_what_is_stored(
    before: dict[str, Any], after: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    assert event_changes(before, after) == expected


COMMANDS: list[tuple[str, Any, Any, set[tuple[str, str]]]] = [
    ("optional field added", {}, {"note": (str, "")}, set()),
    ("required field added", {}, {"note": (str, ...)}, {("/note", "required_added")}),
    ("field removed", {"note": (str, "")}, {}, {("/note", "field_removed")}),
    ("made optional", {"note": (str, ...)}, {"note": (str, "")}, set()),
    ("made required", {"note": (str, "")}, {"note": (str, ...)}, {("/note", "made_required")}),
    ("may be null now", {"note": (str, ...)}, {"note": (str | None, ...)}, set()),
    ("null no longer", {"note": (str | None, ...)}, {"note": (str, ...)}, {("/note", "type_narrowed")}),
    ("whole number to number", {"n": (int, ...)}, {"n": (float, ...)}, set()),
    ("number to whole number", {"n": (float, ...)}, {"n": (int, ...)}, {("/n", "type_narrowed")}),
    ("enum widened", {"s": (Literal["a"], ...)}, {"s": (Literal["a", "b"], ...)}, set()),
    ("enum narrowed", {"s": (Literal["a", "b"], ...)}, {"s": (Literal["a"], ...)}, {("/s", "enum_narrowed")}),
    ("any text to an enum", {"s": (str, ...)}, {"s": (Literal["a"], ...)}, {("/s", "enum_narrowed")}),
    ("pattern added", {"s": (str, ...)}, {"s": (str, Field(pattern="^a"))}, {("/s", "type_narrowed")}),
    ("longer texts", {"s": (str, Field(max_length=5))}, {"s": (str, Field(max_length=9))}, set()),
    ("mark removed", {"email": (Personal, ...)}, {"email": (str, ...)}, {("/email", "mark_removed")}),
]


@pytest.mark.parametrize(
    ("before", "after", "expected"), [row[1:] for row in COMMANDS], ids=[row[0] for row in COMMANDS]
)
def test_commands_go_on_taking_what_older_senders_send(
    before: dict[str, Any], after: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    assert command_changes(before, after) == expected


def test_a_mark_on_the_whole_covers_its_parts() -> None:
    class AddressV1(EventModel):
        street: Personal

    class WholeV1(EventModel):
        street: str

    before = {"address": (AddressV1, ...)}
    assert event_changes(before, {"address": (WholeV1, personal())}) == set()
    assert event_changes(before, {"address": (WholeV1, ...)}) == {("/address/street", "mark_removed")}


@pytest.mark.parametrize(
    ("after", "code"),
    [
        (module(event=Event(PAID, subject="/invoice")), "key_removed"),
        (module(event=Event(PAID, keys={"invoice": "/invoice"})), "subject_changed"),
    ],
)
def test_keys_and_the_data_subject_are_part_of_an_event(after: Module, code: str) -> None:
    assert changes(module(), after) == {("PaidV1", "", code)}


def test_a_key_that_moved_is_named() -> None:
    model = event_of(invoice=(str, ...), other=(str, ...))
    before, after = (module(event=Event(model, keys={"invoice": place})) for place in ("/invoice", "/other"))
    assert changes(before, after) == {("PaidV1", "", "key_moved")}


def test_outcomes_undo_coverage_and_permission_are_part_of_a_command() -> None:
    assert ("PayV1", "", "outcome_removed") in changes(module(), module(failures=()))
    moved = changes(module(), module(failures=(BusyV1, RefusedV1), irrecoverable=()))
    assert moved == {("PayV1", "", "outcome_moved")}
    assert changes(module(), module(undo=False)) == {("PayV1", "", "undo_changed"), ("PayV1", "", "coverage_weakened")}
    assert changes(module(), module(permission="billing.pay")) == {("PayV1", "", "permission_changed")}
    assert changes(module(permission="billing.pay"), module()) == set()


def test_answers_promise_like_events() -> None:
    after = module(answer=create_model("FoundV1", __base__=AnswerModel, invoice=(str | None, ...)))
    assert changes(module(), after) == {("FoundV1", "/invoice", "type_widened")}
    other = module(answer=create_model("FoundOtherV1", __base__=AnswerModel, invoice=(str, ...)))
    assert ("FindV1", "", "answer_changed") in changes(module(), other)


def test_every_change_says_why_and_what_to_do_instead() -> None:
    old, new = (
        of_document(schemas(Registry([module(pay=each)]))["billing.PayV1"])
        for each in (PAY, command_of(invoice=(str, ...), more=(int, ...)))
    )
    (change,) = breaking_changes(old, new)
    assert str(change) == (
        "billing.PayV1 /more: is new and required: older messages do not have it; "
        "keep it and publish billing.PayV2 beside it"
    )


def test_a_folder_one_file_and_the_asyncapi_document_say_the_same(tmp_path: Path) -> None:
    before, after = Registry([module()]), Registry([module(pay=command_of(invoice=(int, ...)), failures=())])
    folders = []
    for name, registry in (("old", before), ("new", after)):
        folder = tmp_path / name
        folder.mkdir()
        for file, content in generate(registry).items():
            (folder / file).write_bytes(content)
        folders.append(folder)
    old, new = folders
    found = breaking_changes(load(old), load(new))
    assert found
    assert breaking_changes(load(old / "asyncapi.json"), load(new / "asyncapi.json")) == found
    assert breaking_changes(load(old), load(new / "asyncapi.json")) == found
    one = breaking_changes(load(old / "billing.PayV1.json"), load(new / "billing.PayV1.json"))
    assert one == [change for change in found if change.type == "billing.PayV1"]
    assert of_document(asyncapi(before)).keys() == load(old).keys()


def test_what_holds_no_contract_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "broken.json"):
        with pytest.raises(ContractUnknown):
            load(path)
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ContractUnknown):
        load(tmp_path)
