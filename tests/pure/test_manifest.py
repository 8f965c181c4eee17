"""Manifests: what a module may declare, what is refused when it is declared, and where its personal values are."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from contracts.calls import RetryPolicy
from contracts.manifest import (
    AnswerModel,
    Command,
    CommandModel,
    Event,
    EventModel,
    FailureModel,
    FateModel,
    FateQueryModel,
    Message,
    Module,
    Personal,
    Query,
    QueryModel,
    QueryRefusedV1,
    UndoModel,
    action_name,
    expand_marks,
    marks_of,
    personal,
)
from contracts.problems import ManifestInvalid
from contracts.registry import Registry


class CreateUserV1(CommandModel):
    email: Personal
    name: str = ""


class CreateUserV2(CommandModel):
    email: Personal


class UserCreatedV1(EventModel):
    user_id: str


class UserDeletedV1(EventModel):
    user_id: str | None = None


class CreateUserRefusedV1(FailureModel):
    pass


class DeleteUserV1(UndoModel[CreateUserV1, UserCreatedV1]):
    pass


class FindUserV1(QueryModel):
    email: Personal


class UserFoundV1(AnswerModel):
    user_id: str


class FindCreatedV1(FateQueryModel):
    pass


class CreatedFoundV1(FateModel[UserCreatedV1]):
    pass


class Unversioned(EventModel):
    pass


DELETE = Command(DeleteUserV1, success=UserDeletedV1, coverage="retriable")


def create(**changes: Any) -> Command:
    return Command(**{"model": CreateUserV1, "success": UserCreatedV1, "undo": "DeleteUserV1", **changes})


def module(**parts: Any) -> Module:
    return Module(**{"name": "identity", "version": "1.0.0", **parts})


def test_outcomes_are_events_of_the_module_without_being_listed() -> None:
    listed = Event(UserCreatedV1, keys={"user": "/user_id"})
    whole = module(events=(listed,), commands=(create(irrecoverable=(CreateUserRefusedV1,)), DELETE))
    assert [event.model for event in whole.all_events] == [UserCreatedV1, CreateUserRefusedV1, UserDeletedV1]
    assert whole.all_events[0] is listed


def test_types_sources_and_actions_follow_from_names() -> None:
    whole = module(commands=(create(), DELETE))
    assert whole.type_of(CreateUserV1) == "identity.CreateUserV1"
    assert whole.type_of(UserCreatedV1(user_id="u1")) == "identity.UserCreatedV1"
    assert whole.source == "/modules/identity"


@pytest.mark.parametrize(
    ("model", "action"),
    [
        ("CreateUserV1", "identity.create_user"),
        ("CreateUserV12", "identity.create_user"),
        ("SendSMSV1", "identity.send_sms"),
        ("PostHTTPRequestV2", "identity.post_http_request"),
        ("Verify2FACodeV1", "identity.verify_2_fa_code"),
    ],
)
def test_an_action_is_the_command_in_snake_case_without_its_version(model: str, action: str) -> None:
    assert action_name("identity", type(model, (CommandModel,), {})) == action


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("module name", {"name": "Identity"}, "lower-case"),
    ("unversioned model", {"events": (Event(Unversioned),)}, "end in its version"),
    ("event that is a command", {"events": (Event(CreateUserV1),)}, "subclass of EventModel"),  # type: ignore[arg-type]
    ("event twice", {"events": (Event(UserCreatedV1), Event(UserCreatedV1))}, "listed twice"),
    ("key name", {"events": (Event(UserCreatedV1, keys={"User-Id": "/user_id"}),)}, "User-Id"),
    ("command twice", {"commands": (create(), create(), DELETE)}, "listed twice"),
    ("no undo", {"commands": (create(undo=None),)}, "name one, or declare retriable or pivot"),
    ("undo that is not there", {"commands": (create(),)}, "no command of the module"),
    (
        "undo of another pair",
        {"commands": (create(model=CreateUserV2), DELETE)},
        r"derive its model from UndoModel\[CreateUserV2, UserCreatedV1\]",
    ),
    (
        "undo that is a plain command",
        {"commands": (create(undo="CreateUserV2"), create(model=CreateUserV2, undo=None, coverage="retriable"))},
        r"derive its model from UndoModel\[CreateUserV1, UserCreatedV1\]",
    ),
    (
        "success that is a failure",
        {"commands": (create(success=CreateUserRefusedV1, undo=None, coverage="pivot"),)},
        "move it to failures",
    ),
    ("failure that is a fact", {"commands": (create(failures=(UserDeletedV1,)), DELETE)}, "subclass of FailureModel"),
    (
        "outcome twice",
        {"commands": (create(failures=(CreateUserRefusedV1,), irrecoverable=(CreateUserRefusedV1,)), DELETE)},
        "each means one thing",
    ),
    ("no time", {"commands": (create(timeout_seconds=0), DELETE)}, "timeout above 0"),
    ("no attempts", {"commands": (create(retry=RetryPolicy(attempts=0)), DELETE)}, "at least 1 attempt"),
    ("permission undeclared", {"commands": (create(permission="identity.manage"), DELETE)}, "declare it"),
    ("permission spelled", {"permissions": ("manage",)}, "must look like identity.manage"),
    (
        "query as a command",
        {"commands": (create(model=FindUserV1, undo=None, coverage="pivot"),)},
        "declare it under queries",
    ),
    ("query nobody named", {"commands": (create(ambiguous="query"), DELETE)}, "without a query; name the one"),
    (
        "query that is not there",
        {"commands": (create(ambiguous="query", query="FindCreatedV1"), DELETE)},
        "no query of the module; declare it",
    ),
    (
        "query about something else",
        {
            "commands": (create(ambiguous="query", query="FindUserV1"), DELETE),
            "queries": (Query(FindUserV1, answer=UserFoundV1),),
        },
        "derive its model from FateQueryModel",
    ),
    (
        "query with another answer",
        {
            "commands": (create(ambiguous="query", query="FindCreatedV1"), DELETE),
            "queries": (Query(FindCreatedV1, answer=UserFoundV1),),
        },
        r"derive its answer from FateModel\[UserCreatedV1\]",
    ),
    (
        "query that nobody asks",
        {
            "commands": (create(query="FindCreatedV1"), DELETE),
            "queries": (Query(FindCreatedV1, answer=CreatedFoundV1),),
        },
        'declare ambiguous="query" or drop it',
    ),
    ("answer that is an event", {"queries": (Query(FindUserV1, answer=UserCreatedV1),)}, "AnswerModel"),  # type: ignore[arg-type]
    ("reserved name", {"queries": (Query(FindUserV1, answer=QueryRefusedV1),)}, "what every module answers"),
]


@pytest.mark.parametrize(("parts", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_wrong_declaration_is_refused_with_its_remedy(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(ManifestInvalid, match=message):
        module(**parts)


def test_a_command_closed_by_a_query_names_it_on_the_wire() -> None:
    whole = module(
        commands=(create(ambiguous="query", query="FindCreatedV1"), DELETE),
        queries=(Query(FindCreatedV1, answer=CreatedFoundV1),),
    )
    spec = Registry([whole]).action_specs()["identity.create_user"]
    assert (spec.ambiguous, spec.query, spec.lacks) == ("query", "identity.FindCreatedV1", None)


@pytest.mark.parametrize("answer", [{"happened": True}, {"happened": False, "receipt": {"user_id": "u1"}}])
def test_what_happened_comes_with_its_receipt_and_what_did_not_comes_without(answer: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="receipt"):
        CreatedFoundV1.model_validate(answer)


def test_one_type_has_one_meaning() -> None:
    other = type("UserCreatedV1", (EventModel,), {"__annotations__": {"id": str}})
    with pytest.raises(ManifestInvalid, match="a type has one meaning"):
        module(events=(Event(other),), commands=(create(), DELETE))


# ------------------------------------------------------------------------------------------------------- models


def test_events_ignore_fields_they_do_not_know_and_commands_refuse_them() -> None:
    assert UserCreatedV1.model_validate({"user_id": "u1", "later": 1}).model_dump() == {"user_id": "u1"}
    with pytest.raises(ValidationError):
        CreateUserV1.model_validate({"email": "a@example.org", "later": 1})


def test_messages_are_frozen_and_read_strictly() -> None:
    created = UserCreatedV1(user_id="u1")
    with pytest.raises(ValidationError):
        created.user_id = "u2"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        UserCreatedV1.model_validate({"user_id": 7})


def test_an_undo_reads_what_do_was_given_and_left_behind() -> None:
    undo = DeleteUserV1.model_validate(
        {"input": {"email": "a@example.org"}, "receipt": {"user_id": "u1", "later": True}, "cause": "cancelled"}
    )
    assert undo.input.email == "a@example.org"
    assert undo.receipt == UserCreatedV1(user_id="u1")
    assert DeleteUserV1.model_validate({"input": {"email": "a@example.org"}}).receipt is None


# -------------------------------------------------------------------------------------------------------- marks


class AddressV1(Message):
    street: Personal
    city: str


class DeepV1(EventModel):
    plain: str
    email: Personal
    phone: Personal | None = None
    home: AddressV1
    others: list[AddressV1] = Field(default_factory=list)
    by_name: dict[str, AddressV1] = Field(default_factory=dict)
    nicknames: list[Personal] = Field(default_factory=list)
    whole: AddressV1 = personal()
    notes: list[str] = personal(default_factory=list)
    either: AddressV1 | int = 1
    pair: tuple[str, Personal] = ("", "")


def test_marks_are_found_wherever_a_model_holds_them() -> None:
    assert marks_of(DeepV1) == (
        "/email",
        "/phone",
        "/home/street",
        "/others/*/street",
        "/by_name/*/street",
        "/nicknames/*",
        "/whole",
        "/notes",
        "/either/street",
        "/pair/1",
    )


def test_marks_of_a_payload_are_the_marked_values_that_are_there() -> None:
    payload = {
        "email": "a@example.org",
        "phone": None,
        "others": [{"street": "x"}, {"city": "y"}],
        "by_name": {"a/b": {"street": "z"}},
        "either": 1,
    }
    assert expand_marks(marks_of(DeepV1), payload) == ("/email", "/others/0/street", "/by_name/a~1b/street")


class TreeV1(EventModel):
    name: str
    children: list[TreeV1] = Field(default_factory=list)


class FamilyV1(EventModel):
    name: Personal
    children: list[FamilyV1] = Field(default_factory=list)


class SealedFamilyV1(EventModel):
    family: FamilyV1 = personal()


def test_a_model_within_itself_may_not_hold_marks_of_its_own() -> None:
    assert marks_of(TreeV1) == ()
    assert marks_of(SealedFamilyV1) == ("/family",)
    with pytest.raises(ManifestInvalid, match="mark the field that holds it"):
        marks_of(FamilyV1)


def test_a_field_named_like_the_pattern_for_every_element_is_refused() -> None:
    class Starred(BaseModel):
        model_config = {"extra": "forbid"}

    Starred.model_json_schema = classmethod(  # type: ignore[method-assign, assignment]
        lambda cls, **_: {"properties": {"*": {"type": "string"}}}
    )
    with pytest.raises(ManifestInvalid, match="rename it"):
        marks_of(Starred)
