"""A view beside the view: its tables once more under names of their own (`shadow_<table>`), filled by the same
statements while everyone goes on reading and writing the living ones. Pure: names and texts; the drivers make, compare
and switch.

    making (nobody else may) -> apply ... apply -> compare at the same positions -> switch, or leave it: dropped

A shadow keeps its checkpoints under `shadow/<view>`. What a killed process left of one is dropped by the next.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from engine.store.shapes import Change
from engine.store.statements import Statement, Step

PREFIX: Final = "shadow_"
DIFFERENCES: Final = 5
"""Keys named per table where the view and its shadow differ."""

_TABLE: Final = re.compile(r"\bCREATE TABLE (?:IF NOT EXISTS )?(\w+)")
_LITERAL: Final = re.compile(r"('(?:[^']|'')*')")


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that only one side has, or that they have differently; `key` is its primary key, bytes as hex digits."""

    table: str
    key: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both sides at the same `positions` (by lane), in one snapshot. `living` and `built` are what the view's digest
    statement answers; `differences` are the first few keys per table."""

    positions: Mapping[int, int]
    living: Sequence[Mapping[str, Any]]
    built: Sequence[Mapping[str, Any]]
    differences: Sequence[Difference] = ()

    @property
    def equal(self) -> bool:
        return list(self.living) == list(self.built)


class Shadow(Protocol):
    """One view's shadow, as long as it is held."""

    async def checkpoint(self, view: str, lane: int) -> int: ...

    async def apply(self, view: str, lane: int, *, expected: int, position: int, changes: Sequence[Change]) -> bool: ...

    async def fetch(self, statement: str, *, tenant: str | None, **params: Any) -> list[dict[str, Any]]: ...

    async def compare(self) -> Comparison | None:
        """None when the two are not at the same positions."""

    async def switch(self) -> bool:
        """Puts the shadow in the view's place, in one transaction; False, and nothing done, when the living view is
        ahead of it in some lane."""


def checkpoint_of(view: str) -> str:
    return f"shadow/{view}"


def tables_of(view: str, statements: Mapping[str, Statement]) -> list[str]:
    """The view's tables, as its `<view>_create` makes them."""
    return [name for step in statements[f"{view}_create"].steps for name in _TABLE.findall(step.sql)]


def views_of(statements: Mapping[str, Statement]) -> list[str]:
    """Every view that has tables."""
    return sorted(name.removesuffix("_create") for name in statements if name.endswith("_create"))


def shadowed(statement: Statement, tables: Sequence[str]) -> Statement:
    """The statement, of the shadow's tables."""
    return Statement(
        statement.name, tuple(Step(renamed(step.sql, tables), step.parameters) for step in statement.steps)
    )


def renamed(sql: str, tables: Sequence[str]) -> str:
    """The text with each of these tables under its shadow's name; what stands in quotes stays.

    >>> renamed("SELECT 'runs' AS part, runs.id FROM runs", ["runs"])
    "SELECT 'runs' AS part, shadow_runs.id FROM shadow_runs"
    """
    names = re.compile(rf"\b({'|'.join(map(re.escape, tables))})\b")
    return "".join(part if part.startswith("'") else names.sub(rf"{PREFIX}\1", part) for part in _LITERAL.split(sql))
