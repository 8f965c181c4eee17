"""The heart has no clock, no dice and no I/O: what `engine.run` and `engine.plan` import and call is read from their
source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for folder in ("run", "plan") for path in (ROOT / "engine" / folder).glob("*.py"))
# The standard library without anything that tells the time, rolls dice, waits, or reaches out of the process.
LIBRARY = {
    "__future__",
    "abc",
    "bisect",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "inspect",
    "itertools",
    "json",
    "linecache",
    "math",
    "operator",
    "re",
    "string",
    "sys",
    "textwrap",
    "traceback",
    "types",
    "typing",
    "uuid",
    "warnings",
    "weakref",
    "zoneinfo",
}
PURE_PACKAGES = {"orjson"}
FORBIDDEN_CALLS = {
    "now",
    "utcnow",
    "today",
    "uuid1",
    "uuid4",
    "uuid7",
    "time",
    "monotonic",
    "perf_counter",
    "open",
    "print",
    "input",
}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""


def allowed(name: str) -> bool:
    root = name.split(".", 1)[0]
    if root == "contracts":
        return not name.startswith("contracts.sdk")
    if root == "engine":
        return name.startswith(("engine.run", "engine.plan"))
    return root in LIBRARY | PURE_PACKAGES


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_heart_imports_only_contracts_and_pure_libraries(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [name for name in imports(tree) if not allowed(name)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_heart_asks_no_clock_and_rolls_no_dice(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            # `run.now()` is how a saga asks for recorded time; it is declared here and called by sagas, never by the
            # heart.
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in FORBIDDEN_CALLS:
                called.append(f"line {node.lineno}: {name}()")
    assert called == []
