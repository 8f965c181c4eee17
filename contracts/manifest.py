"""What a module brings, as data: its events, commands, queries and permissions. Declared once by the module, read by
the registry, the SDK and the docs.

    class SignUpCompletedV1(EventModel):
        customer_id: str
        email: Personal

    class CreateUserV1(CommandModel): ...
    class UserCreatedV1(EventModel): ...            # its success outcome
    class CreateUserFailedV1(FailureModel): ...     # its failure outcome
    class DeleteUserV1(UndoModel[CreateUserV1, UserCreatedV1]): ...

    MODULE = Module(
        name="identity",
        version="1.0.0",
        events=(Event(SignUpCompletedV1, keys={"customer": "/customer_id"}, subject="/customer_id"),),
        commands=(
            Command(CreateUserV1, success=UserCreatedV1, failures=(CreateUserFailedV1,), undo="DeleteUserV1"),
            Command(DeleteUserV1, success=UserDeletedV1, coverage="retriable"),
        ),
    )

Every model is a pydantic model whose name ends in its version, `V1`; its wire type is `<module>.<ModelName>`. A
published model is never edited in a way that breaks its readers: add `V2` beside it (`contracts.compatibility` names
what breaks). Values are read strictly, as JSON means them: `"12"` is no number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Final, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticUndefined

from contracts.calls import RetryPolicy
from contracts.pointers import expand_marks
from contracts.problems import ManifestInvalid
from contracts.shapes import PERSONAL_KEY, marks_of

__all__ = [
    "PERSONAL_KEY",
    "AnswerModel",
    "Command",
    "CommandModel",
    "Event",
    "EventModel",
    "FailureModel",
    "FateModel",
    "FateQueryModel",
    "Message",
    "Module",
    "Personal",
    "Query",
    "QueryModel",
    "QueryRefusedV1",
    "UndoModel",
    "action_name",
    "base_name",
    "expand_marks",
    "marks_of",
    "personal",
    "version_of",
]

MODULE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
MODEL_NAME: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,99}V[1-9][0-9]{0,3}\Z")
_KEY_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
_PERMISSION = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+\Z")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[a-z]+|[0-9]+")

Personal = Annotated[str, Field(json_schema_extra={PERSONAL_KEY: True})]
"""A text about a person: sealed under the data subject's key at rest, shown redacted everywhere."""


def personal(default: Any = PydanticUndefined, **options: Any) -> Any:
    """Marks a field of any type as personal; takes the options of `pydantic.Field`: `address: Address = personal()`."""
    return Field(default, json_schema_extra={PERSONAL_KEY: True}, **options)


class Message(BaseModel):
    """What travels in an envelope's `data`. Frozen and strict. Unknown fields are ignored, and not kept: what is not
    declared cannot be marked personal.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False, serialize_by_alias=True)


class EventModel(Message):
    """A fact, past tense: `UserCreatedV1`. A producer may add fields at any time; readers that do not know them ignore
    them.
    """


class FailureModel(EventModel):
    """An outcome that says a command failed. `code` is stable and for programs, `message` is for people and never
    carries personal values. `put_off_seconds`: nothing was tried, it was not the order's turn; it is sent again after
    so long, an hour at most, and that counts for none of its attempts.
    """

    code: str
    message: str = ""
    put_off_seconds: float | None = None


class CommandModel(Message):
    """An order, imperative: `CreateUserV1`. Unknown fields are refused: acting on half of an order is worse than not
    acting.
    """

    model_config = ConfigDict(extra="forbid")


InputT = TypeVar("InputT", bound=CommandModel)
ReceiptT = TypeVar("ReceiptT", bound=EventModel)


class UndoModel(CommandModel, Generic[InputT, ReceiptT]):
    """The order to undo another: what that one was given, and what it left behind. `receipt` is None when nobody knows
    whether it happened. `cause` is why the run unwinds.
    """

    input: InputT
    receipt: ReceiptT | None = None
    cause: Literal["failed", "cancelled", "timed_out", "abandoned"] = "failed"


class QueryModel(CommandModel):
    """A question: `FindCustomerV1`. It changes nothing, is answered at once or never, and may be asked again."""


class AnswerModel(Message):
    """What a query answers. Unknown fields are ignored, as in events."""


class FateQueryModel(QueryModel):
    """The question what became of a command that nobody answered: `class FindChargeV1(FateQueryModel): pass`.

    `key` is the command's idempotency key (its envelope's subject), `command_id` its envelope's id. With `closing` the
    engine will never send it again: whoever then answers that it did not happen must refuse it from now on (the SDK
    does).
    """

    key: str
    command_id: str
    closing: bool = False


class FateModel(AnswerModel, Generic[ReceiptT]):
    """The answer: `class ChargeFoundV1(FateModel[ChargedV1]): pass`. `receipt` is the command's success outcome, if it
    happened.
    """

    happened: bool
    receipt: ReceiptT | None = None

    @model_validator(mode="after")
    def _receipt_goes_with_it(self) -> Self:
        if self.happened != (self.receipt is not None):
            raise ValueError("what happened comes with its receipt, what did not comes without")
        return self


class QueryRefusedV1(AnswerModel):
    """What any module answers when it cannot answer a question: it does not fit, or its handler failed."""

    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A fact the module publishes.

    `keys` are its correlation keys, name to JSON pointer: only these, `correlationid` and `subject` can be waited on.
    `subject` points at the value that names the person its personal values are about; None: they are sealed under the
    tenant's key.
    """

    model: type[EventModel]
    keys: Mapping[str, str] = field(default_factory=dict)
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """An order the module obeys, with everything the engine needs to know to send, repeat and undo it.

    success        the outcome that means done; its data is the step's output and the receipt its undo gets
    failures       outcomes after which another attempt may succeed; the module does not remember them
    irrecoverable  outcomes after which none will: retries are skipped and the run unwinds; the module remembers them
    undo           the command (its model's name) that undoes this one; its model is UndoModel[this model, success]
    coverage       compensatable: has an undo. retriable: needs none, it is repeated until it succeeds. pivot: past it
                   there is no way back
    ambiguous      how an attempt of unknown fate is closed: tombstone (the undo also refuses a late do), query (the
                   module is asked whether it happened), or park for an operator
    cost           where the success says what it has cost: a JSON pointer to a number, in the platform's currency
    query          with "query": the query (its model's name) that answers it; its model derives from FateQueryModel,
                   its answer from FateModel[success]
    """

    model: type[CommandModel]
    success: type[EventModel]
    failures: tuple[type[FailureModel], ...] = ()
    irrecoverable: tuple[type[FailureModel], ...] = ()
    undo: str | None = None
    coverage: Literal["compensatable", "retriable", "pivot"] = "compensatable"
    ambiguous: Literal["tombstone", "query", "park"] = "tombstone"
    timeout_seconds: float = 30.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    permission: str | None = None
    query: str | None = None
    cost: str | None = None

    @property
    def outcomes(self) -> tuple[type[EventModel], ...]:
        return (self.success, *self.failures, *self.irrecoverable)


@dataclass(frozen=True, slots=True)
class Query:
    """A question the module answers directly to the asker's reply queue."""

    model: type[QueryModel]
    answer: type[AnswerModel]
    permission: str | None = None


@dataclass(frozen=True)
class Module:
    """One module's whole contract. Outcomes of commands are events of the module without being listed again. Raises
    `ManifestInvalid` when made wrongly.
    """

    name: str
    version: str
    events: tuple[Event, ...] = ()
    commands: tuple[Command, ...] = ()
    queries: tuple[Query, ...] = ()
    permissions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(self)

    @cached_property
    def all_events(self) -> tuple[Event, ...]:
        """The listed events, then every outcome of a command that is not among them."""
        events = {event.model: event for event in self.events}
        for command in self.commands:
            for outcome in command.outcomes:
                events.setdefault(outcome, Event(outcome))
        return tuple(events.values())

    @property
    def source(self) -> str:
        """The `source` of every envelope this module sends."""
        return f"/modules/{self.name}"

    def type_of(self, model: type[Message] | Message) -> str:
        """The wire type and routing key of a model of this module."""
        return f"{self.name}.{model.__name__ if isinstance(model, type) else type(model).__name__}"


def version_of(model: type[Message]) -> int:
    """1 for `CreateUserV1`."""
    return int(model.__name__.rpartition("V")[2])


def base_name(model: type[Message]) -> str:
    """`CreateUser` for `CreateUserV1`."""
    return model.__name__.rpartition("V")[0]


def action_name(module: str, model: type[Message]) -> str:
    """How a saga's step names a command, without its version: `identity.create_user` for `CreateUserV1` of module
    identity.
    """
    return f"{module}." + "_".join(word.lower() for word in _WORDS.findall(base_name(model)))


def _check(module: Module) -> None:
    if not MODULE_NAME.match(module.name):
        raise _refusal(module, "name it with 1 to 63 lower-case letters, digits and underscores, a letter first")
    for permission in module.permissions:
        if not _PERMISSION.match(permission):
            raise _refusal(module, f"permission {permission!r} must look like {module.name}.manage")
    roles: dict[str, tuple[str, type[Message]]] = {}
    listed = [event.model for event in module.events]
    for event in module.all_events:
        _claim(module, roles, "event", event.model, EventModel)
        if listed.count(event.model) > 1:
            raise _refusal(module, f"event {event.model.__name__} is listed twice; list it once")
        for name in event.keys:
            if not _KEY_NAME.match(name):
                raise _refusal(module, f"key {name!r} of {event.model.__name__} must be lower-case letters and digits")
    commands: dict[str, Command] = {}
    for command in module.commands:
        _claim(module, roles, "command", command.model, CommandModel)
        if commands.setdefault(command.model.__name__, command) is not command:
            raise _refusal(module, f"command {command.model.__name__} is listed twice; list it once")
        _check_command(module, command, roles)
    for query in module.queries:
        _claim(module, roles, "query", query.model, QueryModel)
        _claim(module, roles, "answer", query.answer, AnswerModel)
        _check_permission(module, query)
    queries = {query.model.__name__: query for query in module.queries}
    for command in module.commands:
        _check_undo(module, command, commands)
        _check_query(module, command, queries)


def _claim(
    module: Module, roles: dict[str, tuple[str, type[Message]]], role: str, model: type[Message], base: type[Message]
) -> None:
    if not (isinstance(model, type) and issubclass(model, base)):
        raise _refusal(module, f"{role} {getattr(model, '__name__', model)!r} must be a subclass of {base.__name__}")
    name = model.__name__
    if not MODEL_NAME.match(name):
        raise _refusal(module, f"{role} {name} must be named in CamelCase and end in its version, such as {name}V1")
    if name == QueryRefusedV1.__name__:
        raise _refusal(module, f"{name} is what every module answers when it cannot; call the {role} otherwise")
    known = roles.setdefault(name, (role, model))
    if known != (role, model):
        raise _refusal(module, f"{name} is declared as {known[0]} and as {role}; a type has one meaning, rename one")


def _check_command(module: Module, command: Command, roles: dict[str, tuple[str, type[Message]]]) -> None:
    name = command.model.__name__
    if issubclass(command.model, QueryModel):
        raise _refusal(module, f"{name} is a QueryModel; declare it under queries")
    _claim(module, roles, "event", command.success, EventModel)
    if issubclass(command.success, FailureModel):
        raise _refusal(module, f"the success outcome of {name} is a FailureModel; move it to failures")
    for failure in (*command.failures, *command.irrecoverable):
        _claim(module, roles, "event", failure, FailureModel)
    if len(set(command.outcomes)) != len(command.outcomes):
        raise _refusal(module, f"{name} names an outcome twice; each means one thing")
    if command.timeout_seconds <= 0 or command.retry.attempts < 1:
        raise _refusal(module, f"{name} needs a timeout above 0 seconds and at least 1 attempt")
    if command.cost is not None:
        field_name = command.cost.split("/")[1] if command.cost.startswith("/") else None
        if field_name not in command.success.model_fields:
            success = command.success.__name__
            raise _refusal(
                module, f"cost of {name} must point into {success}, such as /price; {command.cost!r} does not"
            )
    _check_permission(module, command)


def _check_permission(module: Module, item: Command | Query) -> None:
    if item.permission is not None and item.permission not in module.permissions:
        raise _refusal(module, f"{item.model.__name__} needs {item.permission}; declare it among the permissions")


def _check_undo(module: Module, command: Command, commands: Mapping[str, Command]) -> None:
    name, wanted = command.model.__name__, f"UndoModel[{command.model.__name__}, {command.success.__name__}]"
    if command.undo is None:
        if command.coverage == "compensatable":
            raise _refusal(module, f"{name} is compensatable without an undo; name one, or declare retriable or pivot")
        return
    undo = commands.get(command.undo)
    if undo is None:
        raise _refusal(module, f"{name} is undone by {command.undo}, which is no command of the module")
    if not issubclass(undo.model, UndoModel):
        raise _refusal(module, f"{command.undo} undoes {name}; derive its model from {wanted}")
    fields = undo.model.model_fields
    if fields["input"].annotation is not command.model or fields["receipt"].annotation != command.success | None:
        raise _refusal(module, f"{command.undo} undoes {name}; derive its model from {wanted}, not from another pair")


def _check_query(module: Module, command: Command, queries: Mapping[str, Query]) -> None:
    name = command.model.__name__
    if command.ambiguous != "query":
        if command.query is not None:
            raise _refusal(module, f'{name} names the query {command.query}; declare ambiguous="query" or drop it')
        return
    if command.query is None:
        raise _refusal(module, f'{name} is ambiguous="query" without a query; name the one that says what became of it')
    query = queries.get(command.query)
    if query is None:
        raise _refusal(module, f"{name} asks {command.query}, which is no query of the module; declare it")
    if not issubclass(query.model, FateQueryModel):
        raise _refusal(module, f"{command.query} says what became of {name}; derive its model from FateQueryModel")
    if not (
        issubclass(query.answer, FateModel)
        and query.answer.model_fields["receipt"].annotation == command.success | None
    ):
        raise _refusal(
            module,
            f"{command.query} says what became of {name}; derive its answer from FateModel[{command.success.__name__}]",
        )


def _refusal(module: Module, detail: str) -> ManifestInvalid:
    return ManifestInvalid(f"module {module.name}: {detail}", module=module.name)
