"""`unwind blueprints ...`: workflows as data. Works on files and on the installed contracts; no engine is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.answer import Answer, table
from scripts.border import verb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contracts.calls import ActionSpec
    from contracts.manifest import Module
    from engine.blueprints import Generated

app = typer.Typer(no_args_is_help=True, help="Sagas generated from blueprints: check them and rehearse them.")

File = Annotated[Path, typer.Argument(help="A blueprint, as docs/blueprints.md describes it.", metavar="FILE")]


Modules = Annotated[
    list[str] | None,
    typer.Option("--with", help="A manifest beside the installed ones, as package.module:MODULE.", metavar="MODULE"),
]


@verb(app, "check")
def check(file: File, modules: Modules = None) -> Answer:
    """Check a blueprint and show the sagas that it makes, with the undo of each step."""
    generated, actions = _generate(file, modules or [])
    document = [_shown(one, actions) for one in generated]
    rows = [
        (f"{workflow['name']} v{workflow['version']}", step["step"], step["action"], step["undo"] or step["coverage"])
        for workflow in document
        for step in workflow["steps"]
    ]
    return Answer(document, table(("WORKFLOW", "STEP", "ACTION", "UNDO"), rows))


@verb(app, "rehearse")
def rehearse(file: File, modules: Modules = None) -> Answer:
    """Fail every step of each workflow's example in turn; ends with 1 when an effect is left standing."""
    from engine.rehearsal import rehearse_workflow

    generated, actions = _generate(file, modules or [])
    found = [(one.workflow, rehearse_workflow(one.workflow, actions)) for one in generated]
    document = [
        {
            "name": workflow.name,
            "version": workflow.version,
            "neutral": rehearsal.neutral,
            "uncovered": rehearsal.uncovered,
            "cases": [
                {"step": case.step, "way": case.way, "status": case.status, "standing": case.standing}
                for case in rehearsal.cases
            ],
        }
        for workflow, rehearsal in found
    ]
    rows = [
        (
            f"{workflow.name} v{workflow.version}",
            case.step,
            case.way,
            case.status,
            ", ".join(case.standing) or "neutral",
        )
        for workflow, rehearsal in found
        for case in rehearsal.cases
    ]
    whole = all(rehearsal.neutral and not rehearsal.uncovered for _, rehearsal in found)
    return Answer(document, table(("WORKFLOW", "STEP", "FAILS", "ENDS", "LEFT STANDING"), rows), 0 if whole else 1)


def _generate(file: Path, modules: list[str]) -> tuple[tuple[Generated, ...], Mapping[str, ActionSpec]]:
    from contracts.modules import SHIPPED
    from contracts.notices import UNWIND
    from contracts.registry import Registry, discover
    from engine.actions.registry import ActionRegistry
    from engine.blueprints import installed, load
    from engine.settings import load as load_settings

    registry = Registry((*SHIPPED, UNWIND, *discover(), *(_manifest(name) for name in modules)))
    actions = ActionRegistry.assemble(registry, load_settings())
    return load(file, installed(registry, actions)), actions


def _manifest(name: str) -> Module:
    import sys
    from importlib import import_module

    from contracts.manifest import Module
    from contracts.problems import NotFound

    module, _, attribute = name.partition(":")
    # As `python -m` would: a product's module lies where its developer stands.
    sys.path.insert(0, "")
    try:
        found = getattr(import_module(module), attribute or "MODULE")
    except (ImportError, AttributeError, ValueError) as error:
        raise NotFound(f"{name} cannot be loaded: {error}; name it as package.module:MODULE", field="with") from None
    if not isinstance(found, Module):
        raise NotFound(f"{name} is no contracts.manifest.Module", field="with")
    return found


def _shown(one: Generated, actions: Mapping[str, ActionSpec]) -> dict[str, Any]:
    from contracts.blueprint import StepOperation
    from engine.plan.blueprint import walk

    steps = [operation for operation in walk(one.workflow.operations) if isinstance(operation, StepOperation)]
    return {
        "product": one.product,
        "name": one.workflow.name,
        "version": one.workflow.version,
        "on": one.workflow.on,
        "steps": [
            {
                "step": step.step,
                "action": step.action,
                "undo": step.undo if step.says_undo else actions[step.action].undo,
                "coverage": actions[step.action].coverage,
            }
            for step in steps
        ],
    }
