"""A blueprint's workflow as a saga: its operations asked for one after the other, its compensations those that the
actions declare. Pure; `engine.blueprints` reads the files and knows what is installed.

    template + insertions -> `derive` -> Workflow -> `check` -> `saga_from` -> Saga

A generated saga is a saga: it is replayed, rehearsed, registered and audited as one written in Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from contracts.blueprint import (
    ApproveOperation,
    BlueprintInvalid,
    Derived,
    Insertion,
    SleepOperation,
    StateOperation,
    StepOperation,
    TogetherOperation,
    WaitOperation,
    Workflow,
)
from contracts.calls import ActionSpec, RetryPolicy
from contracts.pointers import MISSING, resolve, segments
from contracts.quotas import MOST_STEPS
from engine.plan.code import Run, Saga, SagaMistake, StepFailed

AnyOperation = StepOperation | StateOperation | TogetherOperation | WaitOperation | SleepOperation | ApproveOperation

_PLACE: Final = re.compile(r"\{(/[^{}]*)\}")
_RESERVED: Final = frozenset({"undo", "on_failure", "retry", "timeout_seconds"})
_WITHOUT_UNDO: Final = frozenset({"retriable", "pivot"})


@dataclass(frozen=True, slots=True)
class Installed:
    """What a workflow may name. `events` are correlation keys by event type, `inputs` the fields (required, all) of a
    command by action; an action that is not among them is read when it is performed.
    """

    actions: Mapping[str, ActionSpec]
    events: Mapping[str, frozenset[str]]
    inputs: Mapping[str, tuple[frozenset[str], frozenset[str]]]


# ------------------------------------------------------------------------------------------------------------ derive


def derive(derived: Derived, templates: Mapping[str, Workflow], *, field: str = "") -> Workflow:
    """The template with the insertions in their places. Raises `BlueprintInvalid`."""
    template = templates.get(derived.template)
    if template is None:
        raise BlueprintInvalid(
            f"{field}/template: there is no template {derived.template!r}; there is {_listed(templates)}",
            field=f"{field}/template",
        )
    if derived.version <= template.version:
        raise BlueprintInvalid(
            f"{field}/version: must be above the template's, which is {template.version}", field=f"{field}/version"
        )
    operations: Sequence[AnyOperation] = template.operations
    for number, insertion in enumerate(derived.insert):
        operations, places = _inserted(operations, insertion)
        if places != 1:
            place = f"{field}/insert/{number}/after"
            known = [label for operation in walk(operations) if (label := label_of(operation)) is not None]
            raise BlueprintInvalid(
                f"{place}: {places or 'no'} operations are called {insertion.after!r}; name one of {_listed(known)}",
                field=place,
            )
    example = {
        "input": {**template.example.input, **derived.example.input},
        "outputs": {**template.example.outputs, **derived.example.outputs},
    }
    changed: dict[str, Any] = {"version": derived.version, "operations": list(operations)}
    if derived.timeout_seconds is not None:
        changed["timeout_seconds"] = derived.timeout_seconds
    return template.model_copy(update=changed | {"example": type(template.example).model_validate(example)})


def places_of(derived: Derived, *, field: str = "") -> dict[int, str]:
    """Where in its file each inserted operation stands, by the operation's identity."""
    return {
        id(operation): f"{field}/insert/{number}/operations/{index}"
        for number, insertion in enumerate(derived.insert)
        for index, operation in enumerate(insertion.operations)
    }


def _inserted(operations: Sequence[AnyOperation], insertion: Insertion) -> tuple[list[AnyOperation], int]:
    found: list[AnyOperation] = []
    places = 0
    for operation in operations:
        if isinstance(operation, TogetherOperation):
            branches = []
            for branch in operation.together:
                inside, count = _inserted(branch, insertion)
                branches.append(inside)
                places += count
            operation = operation.model_copy(update={"together": branches})
        found.append(operation)
        if label_of(operation) == insertion.after:
            found.extend(insertion.operations)
            places += 1
    return found, places


def walk(operations: Iterable[AnyOperation]) -> Iterator[AnyOperation]:
    """Every operation, those in branches too, in the order in which they are written."""
    for operation in operations:
        yield operation
        if isinstance(operation, TogetherOperation):
            for branch in operation.together:
                yield from walk(branch)


def label_of(operation: AnyOperation) -> str | None:
    """The name by which it is found in a run and in a blueprint; None for branches."""
    match operation:
        case StepOperation():
            return operation.step
        case StateOperation():
            return f"state:{operation.state}"
        case WaitOperation():
            return operation.wait
        case SleepOperation():
            return operation.sleep
        case ApproveOperation():
            return operation.approve
        case TogetherOperation():
            return None


# ------------------------------------------------------------------------------------------------------------- check


def check(
    workflow: Workflow, installed: Installed, *, field: str = "", places: Mapping[int, str] | None = None
) -> None:
    """Everything that can be known before a run: names, actions and their inputs, undo of every step, events and their
    keys, and that a value stands in its place before it is used. Raises `BlueprintInvalid` naming the place, which is
    under `field` but for the operations in `places`.
    """
    _Checker(workflow, installed, field, places or {}).check()


def _count(operations: Sequence[Any]) -> int:
    """How many operations a run that takes every branch asks for."""
    found = 0
    for operation in operations:
        branches = operation.together if isinstance(operation, TogetherOperation) else None
        found += 1 if branches is None else sum(map(_count, branches))
    return found


class _Checker:
    def __init__(self, workflow: Workflow, installed: Installed, field: str, places: Mapping[int, str]) -> None:
        self._workflow = workflow
        self._installed = installed
        self._field = field
        self._places = places
        self._names: set[str] = set()
        self._maybe_null: set[str] = set()

    def check(self) -> None:
        for number, event in enumerate(self._workflow.on):
            self._event(event, f"{self._field}/on/{number}")
        if self._workflow.on_failure != "park" and self._workflow.parked_state is not None:
            raise self._wrong(
                f"{self._field}/parked_state", 'is never entered; say "on_failure": "park", or leave it out'
            )
        asked = _count(self._workflow.operations)
        if asked > MOST_STEPS:
            raise self._wrong(
                f"{self._field}/operations",
                f"are {asked} in all; a run may ask for {MOST_STEPS}: go on in a workflow of its own",
            )
        known = self._operations(self._workflow.operations, frozenset(), f"{self._field}/operations")
        self._value(self._workflow.output, known, f"{self._field}/output")

    def _operations(self, operations: Sequence[Any], known: frozenset[str], place: str) -> frozenset[str]:
        """What is known when they have ended."""
        for number, operation in enumerate(operations):
            here = self._places.get(id(operation), f"{place}/{number}")
            name = label_of(operation)
            if name is not None and not isinstance(operation, StateOperation):
                if name in self._names:
                    raise self._wrong(here, f"is the second operation called {name!r}; give it a name of its own")
                self._names.add(name)
            match operation:
                case StepOperation():
                    self._step(operation, known, here)
                    known |= {operation.step}
                    if operation.on_failure == "continue":
                        self._maybe_null.add(operation.step)
                case TogetherOperation():
                    ends = [
                        self._operations(branch, known, f"{here}/together/{index}")
                        for index, branch in enumerate(operation.together)
                    ]
                    known = known.union(*ends)
                case WaitOperation():
                    keys = self._event(operation.event, f"{here}/event")
                    key = next(iter(operation.key))
                    if key not in keys:
                        raise self._wrong(
                            f"{here}/key/{key}", f"is no declared key of {operation.event}; choose {_listed(keys)}"
                        )
                    self._value(operation.key[key], known, f"{here}/key/{key}")
                    known |= {operation.wait}
                    if operation.on_timeout == "continue":
                        self._maybe_null.add(operation.wait)
                case ApproveOperation():
                    self._value(operation.context, known, f"{here}/context")
                    known |= {operation.approve}
        return known

    def _step(self, step: StepOperation, known: frozenset[str], here: str) -> None:
        spec = self._action(step.action, f"{here}/action")
        if step.undo is not None:
            self._action(step.undo, f"{here}/undo")
        undo = step.undo if step.says_undo else spec.undo
        if undo is None and spec.coverage not in _WITHOUT_UNDO:
            raise self._wrong(
                f"{here}/undo",
                f"is missing: {step.action} has an effect that nothing takes back; name the action that does, or use "
                "one that is declared retriable or pivot",
            )
        for name in _RESERVED & step.input.keys():
            raise self._wrong(f"{here}/input/{name}", "cannot be passed on; it is a word of the step itself")
        fields = self._installed.inputs.get(step.action)
        if fields is not None:
            required, accepted = fields
            for name in step.input:
                if name not in accepted:
                    raise self._wrong(
                        f"{here}/input/{name}", f"is no field of {step.action}; it takes {_listed(accepted)}"
                    )
            lacking = sorted(required - step.input.keys())
            if lacking:
                raise self._wrong(f"{here}/input", f"lacks {', '.join(lacking)}, which {step.action} needs")
        self._value(step.input, known, f"{here}/input")

    def _action(self, name: str, place: str) -> ActionSpec:
        spec = self._installed.actions.get(name)
        if spec is None:
            raise self._wrong(place, f"no installed module brings {name}{_like(name, self._installed.actions)}")
        return spec

    def _event(self, kind: str, place: str) -> frozenset[str]:
        keys = self._installed.events.get(kind)
        if keys is None:
            raise self._wrong(place, f"no installed module publishes {kind}{_like(kind, self._installed.events)}")
        return keys

    def _value(self, value: Any, known: frozenset[str], place: str) -> None:
        for pointer, has_default, here in _references(value, place):
            try:
                parts = segments(pointer)
            except ValueError as error:
                raise self._wrong(here, str(error)) from None
            if parts[:1] == ("data",):
                continue
            if parts[:1] != ("steps",) or len(parts) < 2:
                raise self._wrong(here, f"{pointer!r} leads nowhere; begin with /data or /steps/<name>")
            if parts[1] not in known:
                raise self._wrong(
                    here, f"nothing called {parts[1]!r} has ended before this; before it are {_listed(known)}"
                )
            if parts[1] in self._maybe_null and not has_default:
                raise self._wrong(here, f"{parts[1]!r} may be null, since the run goes on without it; give a default")

    def _wrong(self, place: str, why: str) -> BlueprintInvalid:
        return BlueprintInvalid(f"{place}: {why}", field=place)


def _references(value: Any, place: str) -> Iterator[tuple[str, bool, str]]:
    """(pointer, whether it has a default, where it stands) of everything in `value`."""
    if isinstance(value, Mapping):
        if "$" in value:
            yield str(value["$"]), "default" in value, place
        elif "$text" in value:
            for found in _PLACE.finditer(str(value["$text"])):
                yield found[1], False, place
        else:
            for name, part in value.items():
                yield from _references(part, f"{place}/{name}")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _references(part, f"{place}/{index}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _like(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=3)
    return f"; do you mean {' or '.join(close)}?" if close else "; install the module, or correct the name"


# ---------------------------------------------------------------------------------------------------------- generate


def saga_from(workflow: Workflow) -> Saga:
    """The saga that the workflow describes; `check` it first. A value that is missing in a run parks it."""

    async def generated(run: Run, data: Any) -> Any:
        scope: dict[str, Any] = {"data": data, "steps": {}}
        await _perform(run, workflow.operations, scope)
        return fill(workflow.output, scope)

    return Saga(
        name=workflow.name,
        version=workflow.version,
        function=generated,
        on=tuple(workflow.on),
        hook=workflow.hook,
        on_failure=workflow.on_failure,
        parked_state=workflow.parked_state,
        unwound_states=dict[str, str](workflow.unwound_states.items()),
        timeout_seconds=workflow.timeout_seconds,
        attributes=dict(workflow.attributes),
        subject=workflow.subject,
        personal=tuple(workflow.personal),
        permission=workflow.permission,
    )


async def _perform(run: Run, operations: Sequence[Any], scope: dict[str, Any]) -> None:
    results = scope["steps"]
    for operation in operations:
        match operation:
            case StepOperation():
                results[operation.step] = await _step(run, operation, scope)
            case StateOperation():
                await run.state(operation.state)
            case TogetherOperation():
                await run.gather(*(_perform(run, branch, scope) for branch in operation.together))
            case WaitOperation():
                [(key, value)] = operation.key.items()
                fact = await run.wait_for(
                    operation.wait,
                    operation.event,
                    key=(key, fill(value, scope)),
                    timeout_seconds=operation.timeout_seconds,
                )
                if fact is None and operation.on_timeout == "fail":
                    raise run.fail(f"{_code(operation.wait)}_missing", f"{operation.event} did not come in time")
                results[operation.wait] = fact
            case SleepOperation():
                await run.sleep(operation.sleep, operation.seconds)
            case ApproveOperation():
                decision = await run.approve(
                    operation.approve,
                    operation.title,
                    role=operation.role,
                    context=fill(operation.context, scope),
                    timeout_seconds=operation.timeout_seconds,
                )
                if not decision["approved"]:
                    raise run.fail(f"{_code(operation.approve)}_refused", f"{operation.title}: not approved")
                results[operation.approve] = decision


async def _step(run: Run, step: StepOperation, scope: dict[str, Any]) -> Any:
    more: dict[str, Any] = {"undo": step.undo} if step.says_undo else {}
    if step.retry is not None:
        more["retry"] = RetryPolicy(**step.retry.model_dump())
    try:
        return await run.step(
            step.step,
            step.action,
            on_failure=step.on_failure,
            timeout_seconds=step.timeout_seconds,
            **more,
            **{name: fill(value, scope) for name, value in step.input.items()},
        )
    except StepFailed:
        return None


def _code(name: str) -> str:
    return name.replace("-", "_")


def fill(value: Any, scope: Mapping[str, Any]) -> Any:
    """`value` with what its references lead to. Raises `SagaMistake` for a place where nothing is."""
    if isinstance(value, Mapping):
        if "$" in value:
            found = resolve(scope, segments(value["$"]))
            if found is MISSING or (found is None and "default" in value):
                if "default" not in value:
                    raise SagaMistake(f"the blueprint takes {value['$']}, where this run has nothing")
                return value["default"]
            return found
        if "$text" in value:
            return _PLACE.sub(lambda place: _text(place[1], scope), value["$text"])
        return {name: fill(part, scope) for name, part in value.items()}
    if isinstance(value, list):
        return [fill(part, scope) for part in value]
    return value


def _text(pointer: str, scope: Mapping[str, Any]) -> str:
    found = resolve(scope, segments(pointer))
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        raise SagaMistake(f"the blueprint puts {pointer} into a text, where this run has no text or number")
    return str(found)
