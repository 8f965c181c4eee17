"""Blueprints of an installation: read from files, checked against what is installed, made into sagas. Called
by the assembly (`UNWIND_BLUEPRINTS`) and by `unwind blueprints`.

Templates are the blueprints that ship in `contracts/recipes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import orjson

from contracts.blueprint import (
    Blueprint,
    BlueprintInvalid,
    Derived,
    Workflow,
    read_blueprint,
)
from contracts.calls import ActionSpec
from contracts.registry import Registry
from engine.guards.permissions import ALL_PERMISSIONS
from engine.plan.blueprint import Installed, check, derive, places_of, saga_from
from engine.plan.code import Saga


@dataclass(frozen=True, slots=True)
class Generated:
    """One workflow of a blueprint, and the saga made of it."""

    product: str
    workflow: Workflow
    saga: Saga


def templates() -> Mapping[str, Workflow]:
    """Every workflow that ships as a template, by name."""
    return _templates()


@cache
def _templates() -> Mapping[str, Workflow]:
    found: dict[str, Workflow] = {}
    for entry in sorted(files("contracts").joinpath("recipes").iterdir(), key=lambda one: one.name):
        if entry.name.endswith(".json"):
            blueprint = read_blueprint(orjson.loads(entry.read_bytes()))
            found |= {one.name: one for one in blueprint.workflows if isinstance(one, Workflow)}
    return found


def template_saga(name: str) -> Saga:
    """The saga of a template as it ships. Raises KeyError."""
    return saga_from(_templates()[name])


def installed(registry: Registry, actions: Mapping[str, ActionSpec]) -> Installed:
    """What the workflows of an installation may name."""
    inputs: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
    for name, spec in actions.items():
        if spec.command is not None:
            fields = registry.command(spec.command).command.model.model_fields
            required = frozenset(field for field, about in fields.items() if about.is_required())
            inputs[name] = (required, frozenset(fields))
    return Installed(
        actions=actions,
        events={kind: frozenset(entry.event.keys) for kind, entry in registry.events.items()},
        inputs=inputs,
    )


def generate(blueprint: Blueprint, what: Installed) -> tuple[Generated, ...]:
    """The sagas of one blueprint, in its order. Raises `BlueprintInvalid`."""
    found: list[Generated] = []
    for number, written in enumerate(blueprint.workflows):
        place = f"/workflows/{number}"
        if isinstance(written, Derived):
            workflow, places = derive(written, templates(), field=place), places_of(written, field=place)
        else:
            workflow, places = written, {}
        if any((one.workflow.name, one.workflow.version) == (workflow.name, workflow.version) for one in found):
            raise BlueprintInvalid(
                f"{place}: is the second {workflow.name!r} version {workflow.version}; give it another version",
                field=place,
            )
        if workflow.permission is not None and workflow.permission not in ALL_PERMISSIONS:
            raise BlueprintInvalid(
                f"{place}/permission: nobody holds {workflow.permission!r}; choose one of "
                f"{', '.join(sorted(ALL_PERMISSIONS))}",
                field=f"{place}/permission",
            )
        check(workflow, what, field=place, places=places)
        found.append(Generated(blueprint.product, workflow, saga_from(workflow)))
    return tuple(found)


def load(path: Path, what: Installed) -> tuple[Generated, ...]:
    """The sagas of the blueprint in this file. Raises `BlueprintInvalid` naming the file and the place in it."""
    try:
        document = orjson.loads(path.read_bytes())
    except OSError as error:
        raise BlueprintInvalid(f"{path}: cannot be read ({error.strerror}); name a file", field="blueprint") from None
    except orjson.JSONDecodeError as error:
        raise BlueprintInvalid(f"{path}: is not JSON: {error}", field="blueprint") from None
    try:
        return generate(read_blueprint(document), what)
    except BlueprintInvalid as error:
        raise BlueprintInvalid(f"{path.name}{error.detail}", field=error.field) from None


def with_blueprints(
    sagas: Iterable[Saga], paths: Iterable[Path], registry: Registry, actions: Mapping[str, ActionSpec]
) -> tuple[Saga, ...]:
    """The installation's sagas: those in Python, then those of its blueprints. Raises `BlueprintInvalid`, also when
    two have one name and version.
    """
    found = list(sagas)
    what = installed(registry, actions)
    for path in paths:
        for one in load(path, what):
            if any((saga.name, saga.version) == (one.saga.name, one.saga.version) for saga in found):
                raise BlueprintInvalid(
                    f"{path.name}: there is a workflow {one.saga.name!r} version {one.saga.version} already; give it "
                    "another version",
                    field="version",
                )
            found.append(one.saga)
    return tuple(found)
