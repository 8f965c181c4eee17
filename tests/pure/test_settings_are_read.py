"""A setting that nothing reads is a promise broken in silence: every one is read somewhere, by code whose types say
that it is this setting and not a namesake. What cannot be traced to the settings does not count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from engine.settings import Settings, describe

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("contracts", "engine", "projections", "consumers", "scripts")
NOT_THE_PRODUCT = ("scripts/bench", "scripts/mutants", "scripts/wheel")
HOME = "engine/settings.py"
CHECKS_ONLY = "load"
Types = dict[str, str]
Attributes = dict[tuple[str, str], str]


def groups() -> dict[str, type[BaseModel]]:
    nested = (field.annotation for field in Settings.model_fields.values())
    return {"Settings": Settings} | {
        kind.__name__: kind for kind in nested if isinstance(kind, type) and issubclass(kind, BaseModel)
    }


GROUPS = groups()


def sources() -> Iterator[tuple[str, ast.Module]]:
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if not name.startswith(NOT_THE_PRODUCT):
                yield name, ast.parse(path.read_text(encoding="utf-8"))


def named(annotation: ast.expr | None, classes: set[str]) -> str | None:
    """The one class that an annotation names; `Settings | None` is one."""
    if annotation is None:
        return None
    found = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)} & classes
    return found.pop() if len(found) == 1 and not isinstance(annotation, ast.Subscript) else None


class Reading(ast.NodeVisitor):
    """Follows the settings through annotated parameters, assignments and attributes of one module. Run twice: first to
    learn what attributes of classes hold, then to note what is read.
    """

    def __init__(self, module: str, classes: set[str], attributes: Attributes) -> None:
        self.module, self.classes, self.attributes = module, classes, attributes
        self.scopes: list[Types] = [{}]
        self.within: list[str] = []
        self.owner = ""
        self.reads: set[tuple[str, str, str]] = set()

    def type_of(self, node: ast.expr) -> str | None:
        match node:
            case ast.Name(id=name):
                return next((scope[name] for scope in reversed(self.scopes) if name in scope), None)
            case ast.Attribute(value=value, attr=attr):
                holder = self.type_of(value)
                if holder in GROUPS:
                    field = GROUPS[holder].model_fields.get(attr)
                    kind = None if field is None else field.annotation
                    return kind.__name__ if isinstance(kind, type) and kind.__name__ in GROUPS else None
                return None if holder is None else self.attributes.get((holder, attr))
            case ast.Call(func=ast.Name(id=name)) if name in self.classes:
                return name
            case ast.Call(func=ast.Name(id="load")) if "load" in self.scopes[0]:
                return "Settings"
        return None

    def bind(self, target: ast.expr, kind: str | None) -> None:
        if isinstance(target, ast.Name):
            self.scopes[-1].pop(target.id, None)
            if kind is not None:
                self.scopes[-1][target.id] = kind
        elif isinstance(target, ast.Attribute) and kind is not None:
            holder = self.type_of(target.value)
            if holder is not None:
                self.attributes[holder, target.attr] = kind

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for left, right in zip(target.elts, node.value.elts, strict=False):
                    self.bind(left, self.type_of(right))
            else:
                self.bind(target, self.type_of(node.value))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        kind = named(node.annotation, self.classes)
        if self.owner and not self.within and isinstance(node.target, ast.Name) and kind is not None:
            self.attributes[self.owner, node.target.id] = kind
        else:
            self.bind(node.target, kind)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module == "engine.settings":
            for alias in node.names:
                self.reads.add(("engine.settings", alias.name, ""))
                if alias.name == "load" and alias.asname is None:
                    self.scopes[0]["load"] = "loads settings"

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer, self.owner = self.owner, node.name
        self.generic_visit(node)
        self.owner = outer

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        given = node.args
        scope = {} if not self.owner or self.within else {"self": self.owner}
        for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs):
            kind = named(arg.annotation, self.classes)
            if kind is not None:
                scope[arg.arg] = kind
        self.scopes.append(scope)
        self.within.append(node.name)
        self.generic_visit(node)
        self.within.pop()
        self.scopes.pop()

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        holder = self.type_of(node.value)
        if holder in GROUPS and isinstance(node.ctx, ast.Load):
            self.reads.add((holder, node.attr, self.within[0] if self.module == HOME and self.within else ""))
        self.generic_visit(node)


def reads() -> set[tuple[str, str]]:
    """(group, field) of every setting that the product reads. What `engine.settings` itself reads counts only where
    somebody uses the function or property that reads it; that `load` compares two settings is no use of them.
    """
    modules = list(sources())
    classes = {node.name for _, tree in modules for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    attributes: Attributes = {}
    found: set[tuple[str, str, str]] = set()
    for _ in range(2):
        found = set()
        for name, tree in modules:
            reading = Reading(name, classes, attributes)
            reading.visit(tree)
            found |= reading.reads
    used = {field for _, field, via in found if not via} - {CHECKS_ONLY}
    return {(group, field) for group, field, via in found if not via or via in used}


def group_of(path: tuple[str, ...]) -> str:
    if len(path) == 1:
        return "Settings"
    kind = Settings.model_fields[path[0]].annotation
    assert isinstance(kind, type), get_args(kind)
    return kind.__name__


def test_every_setting_is_read_somewhere() -> None:
    known = reads()
    unread = [setting.name for setting in describe() if (group_of(setting.path), setting.path[-1]) not in known]
    assert unread == []


def test_a_namesake_of_a_setting_is_no_reading_of_it() -> None:
    text = """
class Other:
    hot_runs: int
def work(given: Other, settings: Settings, anything):
    given.hot_runs, anything.hot_runs, settings.hot_runs
    limits = settings.limits
    limits.prefetch
"""
    reading = Reading("x.py", {"Other", *GROUPS}, {})
    reading.visit(ast.parse(text))
    assert reading.reads == {
        ("Settings", "limits", ""),
        ("LimitSettings", "prefetch", ""),
        ("Settings", "hot_runs", ""),
    }
