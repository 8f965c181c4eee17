"""Named SQL: reads `.sql` files of `-- name: x` blocks and turns `:name` parameters into the driver's positional ones.
It executes nothing; the drivers load their twins with it at start, and the read models' statements too."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Driver = Literal["postgres", "sqlite"]

_NAME = re.compile(r"^-- name:\s*(\w+)\s*$", re.MULTILINE)
_TOKEN = re.compile(r"'(?:[^']|'')*'|--[^\n]*|::|(?<![:$\w])[:$](\w+)")
_OPTIONAL = re.compile(r"\(\?(\d+) IS NULL OR ")
_SEPARATOR = re.compile(r";[ \t]*(?:\n|$)")


@dataclass(frozen=True, slots=True)
class Step:
    """One statement; `parameters` names its positions ("1", "2", ... where the text was positional already)."""

    sql: str
    parameters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """A named block: usually one step; several run in one transaction and the last one answers."""

    name: str
    steps: tuple[Step, ...]
    reads: bool = field(init=False)
    """Whether it only reads, told by its first word."""

    def __post_init__(self) -> None:
        reads = all(step.sql.split(None, 1)[0].upper() == "SELECT" for step in self.steps)
        object.__setattr__(self, "reads", reads)


class Caller(ABC):
    """What the verbs of `work`, `journal` and `catalog` ask of a driver: run a named statement in a transaction of its
    own."""

    @abstractmethod
    async def call(self, statement: str, **values: Any) -> Sequence[Mapping[str, Any]]:
        """Its rows. Raises `Unavailable` when the database does not answer."""


def parse(text: str, driver: Driver) -> dict[str, Statement]:
    """The blocks of one file by name."""
    pieces = _NAME.split(text)
    found: dict[str, Statement] = {}
    for name, body in zip(pieces[1::2], pieces[2::2], strict=True):
        if name in found:
            raise ValueError(f"statement {name} is defined twice; rename one")
        steps = tuple(_step(part, driver) for part in _split(body, driver))
        if not steps:
            raise ValueError(f"statement {name} is empty; write it or remove its name")
        found[name] = Statement(name, steps)
    return found


def load(folders: Iterable[Path], driver: Driver) -> dict[str, Statement]:
    """Every statement of every `.sql` file directly in these folders; a missing folder has none."""
    found: dict[str, Statement] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.sql")):
            for name, statement in parse(file.read_text(encoding="utf-8"), driver).items():
                if name in found:
                    raise ValueError(f"statement {name} of {file.name} is defined elsewhere too; rename one")
                found[name] = statement
    return found


def bind(step: Step, values: Mapping[str, object]) -> list[object]:
    """The values in the step's order; a missing one is an error that names it."""
    try:
        return [values[name] for name in step.parameters]
    except KeyError as missing:
        raise KeyError(
            f"parameter {missing.args[0]} is missing; the statement needs {', '.join(step.parameters)}"
        ) from None


def narrowed(sql: str, values: Sequence[object]) -> str:
    """The statement with `(?n IS NULL OR ...)` decided, for SQLite, which plans before it knows a value and rides no
    index under such an OR. Every parameter stays.

    >>> narrowed("SELECT * FROM t WHERE (?1 IS NULL OR a = ?1) AND (?2 IS NULL OR b = ?2)", ["x", None])
    'SELECT * FROM t WHERE (?1 IS NOT NULL AND a = ?1) AND (?2 IS NULL)'
    """
    pieces, at = [], 0
    for match in _OPTIONAL.finditer(sql):
        if match.start() < at:
            continue
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(sql[end], 0)
            end += 1
        if values[int(match.group(1)) - 1] is None:
            pieces.append(sql[at : match.start()] + f"(?{match.group(1)} IS NULL)")
        else:
            pieces.append(sql[at : match.start()] + f"(?{match.group(1)} IS NOT NULL AND " + sql[match.end() : end])
        at = end
    return "".join(pieces) + sql[at:]


def _split(body: str, driver: Driver) -> list[str]:
    text = "\n".join(line for line in body.splitlines() if line.strip() and not line.lstrip().startswith("--"))
    if driver == "postgres":  # its server runs a script whole, and function bodies hold semicolons
        return [text] if text else []
    return [part.strip() for part in _SEPARATOR.split(text) if part.strip()]


def _step(sql: str, driver: Driver) -> Step:
    order: dict[str, int] = {}
    mark = "$" if driver == "postgres" else "?"

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return match.group(0)
        if match.group(0)[0] == "$" and name.isdigit():
            for n in range(len(order) + 1, int(name) + 1):
                order.setdefault(str(n), n)
            return f"{mark}{name}"
        return f"{mark}{order.setdefault(name, len(order) + 1)}"

    text = _TOKEN.sub(replace, sql)
    return Step(text, tuple(order))
