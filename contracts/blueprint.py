"""A blueprint: workflows as data, from which sagas with their compensations are generated (`engine.plan.blueprint`).

    {"blueprint": 1, "product": "clinic", "workflows": [
        {"template": "tenant-onboarding", "version": 2, "insert": [{"after": "entitlements", "operations": [...]}]},
        {"name": "patient-intake", "version": 1, "on": ["clinic.PatientReferredV1"], "operations": [...]}
    ]}

A workflow is written in full, or made from a template (`contracts/recipes/*.json`) by inserting operations. Values in
inputs, keys and outputs are JSON, in which

    {"$": "/steps/owner/user_id"}                     stands for what is there; {"$": ..., "default": ...} if there is
    {"$text": "/activate?user={/steps/owner/user_id}"}   for a text with such values in it

and places are JSON pointers into {"data": the trigger's data, "steps": results by name}. The guide is
docs/blueprints.md; `read_blueprint` refuses what does not fit by its place and with a remedy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, ValidationError

from contracts.pointers import pointer_of
from contracts.problems import Problem

OPERATIONS: Final = ("step", "state", "together", "wait", "sleep", "approve")
"""The word that an operation begins with says what it is."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
State = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9]{0,62}$")]
Action = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+$")]
EventType = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}\.[A-Z][A-Za-z0-9]{0,99}V[1-9][0-9]{0,3}$")]
Pointer = Annotated[str, StringConstraints(pattern=r"^(/[^\x00]*)?$")]
Seconds = Annotated[float, Field(gt=0, le=10 * 366 * 24 * 3600)]
Value = Any
"""JSON with `$` and `$text` in it."""


class BlueprintInvalid(Problem):
    """A blueprint cannot become a saga. `field` is the JSON pointer of what is wrong in its file."""

    code: ClassVar[str] = "blueprint_invalid"
    title: ClassVar[str] = "The blueprint does not describe a workflow"
    status: ClassVar[int] = 422
    exit_code: ClassVar[int] = 2


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Retry(_Part):
    """As in `contracts.calls.RetryPolicy`."""

    attempts: int = Field(3, ge=1, le=100)
    delay_seconds: float = Field(1.0, ge=0)
    factor: float = Field(2.0, ge=1)
    max_delay_seconds: float = Field(300.0, ge=0)
    jitter: float = Field(0.1, ge=0, le=1)


class StepOperation(_Part):
    """Runs an action durably; its result is /steps/<step>. `undo` left out: the action's declared undo; null: none, for
    an action that is retriable or a pivot.
    """

    step: Name
    action: Action
    input: dict[str, Value] = Field(default_factory=dict)
    undo: Action | None = None
    on_failure: Literal["compensate", "continue", "park"] | None = Field(
        None, description="Left out: the workflow's. continue: the run goes on and /steps/<step> is null"
    )
    retry: Retry | None = None
    timeout_seconds: Seconds | None = None

    @property
    def says_undo(self) -> bool:
        return "undo" in self.model_fields_set


class StateOperation(_Part):
    """Enters a named business state."""

    state: State


class TogetherOperation(_Part):
    """Branches side by side; what follows begins when all have ended."""

    together: list[list[Operation]] = Field(min_length=2, max_length=20)


class WaitOperation(_Part):
    """Waits for a fact whose declared correlation key has this value; its data is /steps/<wait>. When time is up the
    run fails and unwinds, or goes on with null.
    """

    wait: Name
    event: EventType
    key: dict[str, Value] = Field(min_length=1, max_length=1, description="One declared key and its value")
    timeout_seconds: Seconds
    on_timeout: Literal["fail", "continue"] = "fail"


class SleepOperation(_Part):
    sleep: Name
    seconds: Seconds


class ApproveOperation(_Part):
    """Asks people; refused, or when time is up, the run fails and unwinds. The decision is /steps/<approve>."""

    approve: Name
    title: str = Field(min_length=1, max_length=200)
    role: Name = "approver"
    context: Value = None
    timeout_seconds: Seconds


def _kind(given: Any) -> str | None:
    if isinstance(given, dict):
        found = [word for word in OPERATIONS if word in given]
        return found[0] if len(found) == 1 else None
    return next((word for word in OPERATIONS if hasattr(given, word)), None)


Operation = Annotated[
    Annotated[StepOperation, Tag("step")]
    | Annotated[StateOperation, Tag("state")]
    | Annotated[TogetherOperation, Tag("together")]
    | Annotated[WaitOperation, Tag("wait")]
    | Annotated[SleepOperation, Tag("sleep")]
    | Annotated[ApproveOperation, Tag("approve")],
    Discriminator(
        _kind,
        custom_error_type="operation_unknown",
        custom_error_message="an operation has exactly one of the words " + ", ".join(OPERATIONS),
    ),
]


class Example(_Part):
    """A good run, to rehearse the workflow with: the data it begins with, and the result of each step and wait."""

    input: dict[str, Any] = Field(default_factory=dict)
    outputs: dict[str, Any] = Field(default_factory=dict)


class Workflow(_Part):
    """A workflow in full. The fields beside `operations` are those of `engine.plan.code.saga`."""

    name: Name
    version: int = Field(ge=1)
    summary: str = ""
    on: list[EventType] = Field(default_factory=list)
    hook: Annotated[str, StringConstraints(pattern=r"^/[a-z0-9/_-]{1,100}$")] | None = None
    on_failure: Literal["compensate", "park"] = "compensate"
    parked_state: State | None = None
    unwound_states: dict[Literal["failed", "cancelled", "timed_out", "abandoned"], State] = Field(default_factory=dict)
    timeout_seconds: Seconds | None = None
    attributes: dict[Name, Pointer] = Field(default_factory=dict)
    subject: Pointer | None = None
    personal: list[Pointer] = Field(default_factory=list)
    permission: str | None = None
    operations: list[Operation] = Field(min_length=1, max_length=200)
    output: Value = None
    example: Example = Example()


class Insertion(_Part):
    """`operations` go in behind the operation named `after`: a step, wait, sleep or approval, or state:<State>. Where
    that one stands in a branch, they are in the branch.
    """

    after: str = Field(min_length=1, max_length=80)
    operations: list[Operation] = Field(min_length=1, max_length=50)


class Derived(_Part):
    """A workflow made from a template: the same name, a later version, and the product's own operations."""

    template: Name
    version: int = Field(ge=2, description="Above the template's: new runs begin on the highest version")
    insert: list[Insertion] = Field(min_length=1, max_length=50)
    timeout_seconds: Seconds | None = Field(None, description="Left out: the template's")
    example: Example = Example()


def _written(given: Any) -> str:
    fields = given if isinstance(given, dict) else given.__dict__
    return "template" if "template" in fields else "workflow"


AnyWorkflow = Annotated[
    Annotated[Workflow, Tag("workflow")] | Annotated[Derived, Tag("template")], Discriminator(_written)
]


class Blueprint(_Part):
    """One file: a product's workflows."""

    schema_: str | None = Field(None, alias="$schema")
    blueprint: Literal[1]
    product: Name
    summary: str = ""
    workflows: list[AnyWorkflow] = Field(min_length=1, max_length=100)


def read_blueprint(document: Any) -> Blueprint:
    """Raises `BlueprintInvalid` with the place of the first thing that does not fit."""
    try:
        return Blueprint.model_validate(document)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        place = pointer_of(_fields(errors[0]["loc"]))
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise BlueprintInvalid(
            f"{place or '/'}: {errors[0]['msg']}{more}; docs/blueprints.md tells what can stand there", field=place
        ) from None


def _fields(place: tuple[str | int, ...]) -> Iterator[str | int]:
    """Without the tags of the unions, each of which follows an index."""
    before: str | int = ""
    for part in place:
        if not (isinstance(before, int) and part in _TAGS):
            yield part
        before = part


_TAGS: Final = frozenset((*OPERATIONS, "workflow", "template"))
