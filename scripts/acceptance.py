"""The acceptance table: which rows the project promises (docs/acceptance.md), and how each fared on each stack in the
last test run. The results are written by the pytest plug-in `tests.acceptance_plugin`; this module only reads and
folds them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import orjson

from contracts.problems import NotFound

Stack = Literal["embedded", "production"]
STACKS: Final[tuple[Stack, ...]] = ("embedded", "production")
State = Literal["pass", "fail", "skipped", "no story", "no test"]
STORIES: Final = ("tests/stories/", "tests/faults/")
"""Where tests touch the product from outside alone. The marked tests elsewhere can spoil a row and cannot prove it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One promise: its id, the stacks it must hold on, and its two sentences."""

    id: str
    stacks: tuple[Stack, ...]
    capability: str
    proof: str


@dataclass(frozen=True, slots=True)
class Result:
    """How one marked test ended. A test that names no stack counts for both: it proves a rule that no stack takes
    part in."""

    test: str
    rows: tuple[str, ...]
    stacks: tuple[Stack, ...]
    outcome: Literal["passed", "failed", "skipped"]
    at: str

    @property
    def story(self) -> bool:
        return self.test.startswith(STORIES)


def rows_file() -> Path:
    return Path(__file__).resolve().parent.parent / "docs" / "acceptance.md"


def results_file() -> Path:
    """UNWIND_ACCEPTANCE_FILE, else inside the Python environment, so that a test run leaves nothing in the checkout."""
    named = os.environ.get("UNWIND_ACCEPTANCE_FILE")
    return Path(named) if named else Path(sys.prefix) / "share" / "unwind" / "acceptance.json"


def read_rows(path: Path | None = None) -> tuple[Row, ...]:
    """The rows of the table in docs/acceptance.md, in its order."""
    path = path or rows_file()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(
            f"{path} does not exist; run this verb in a checkout of the project", field="docs/acceptance.md"
        ) from None
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("| ") or len(cells) != 4 or cells[0] == "row":
            continue
        stacks = STACKS if cells[1] == "both" else tuple(stack for stack in STACKS if stack == cells[1])
        rows.append(Row(cells[0], stacks, cells[2], cells[3]))
    return tuple(rows)


def read_results(path: Path | None = None) -> tuple[Result, ...]:
    path = path or results_file()
    if not path.is_file():
        return ()
    return tuple(
        Result(item["test"], tuple(item["rows"]), tuple(item["stacks"]), item["outcome"], item["at"])
        for item in orjson.loads(path.read_bytes())["results"]
    )


def merge(before: Iterable[Result], now: Iterable[Result], collected: Iterable[str]) -> list[Result]:
    """What a run adds to the results known: its own tests replace themselves, and tests that are gone from the files
    it collected are forgotten."""
    fresh = {result.test: result for result in now}
    present = set(collected)
    files = {test.split("::", 1)[0] for test in present}
    kept = [
        result
        for result in before
        if result.test not in fresh and (result.test in present or result.test.split("::", 1)[0] not in files)
    ]
    return sorted([*kept, *fresh.values()], key=lambda result: result.test)


def write_results(results: Sequence[Result], path: Path | None = None) -> None:
    path = path or results_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "results": [
            {
                "test": result.test,
                "rows": list(result.rows),
                "stacks": list(result.stacks),
                "outcome": result.outcome,
                "at": result.at,
            }
            for result in results
        ]
    }
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    scratch.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    scratch.replace(path)


def state_of(row: str, stack: Stack, results: Iterable[Result]) -> State:
    """A row passes when every test of it passed and one of them is a story. One failure spoils it, and so does one
    test that was left out: what nobody looked at is not proven."""
    found = [result for result in results if row in result.rows and stack in result.stacks]
    outcomes = {result.outcome for result in found}
    if not found:
        return "no test"
    if "failed" in outcomes:
        return "fail"
    if "skipped" in outcomes:
        return "skipped"
    return "pass" if any(result.story for result in found) else "no story"


def summary(found: Mapping[str, Mapping[Stack, State]], results: Sequence[Result]) -> str:
    """How many rows pass, on which stack, by tests of which time; and what the others lack."""
    counts = []
    for stack in STACKS:
        of_stack = [row[stack] for row in found.values() if stack in row]
        counts.append(f"{stack} {of_stack.count('pass')} of {len(of_stack)}")
    whole = sum(all(state == "pass" for state in row.values()) for row in found.values())
    lines = [f"{whole} of {len(found)} rows pass on their stacks: {', '.join(counts)}."]
    missing = {state for row in found.values() for state in row.values()} - {"pass"}
    lines += [f"{state}: {why}" for state, why in _MEANING.items() if state in missing]
    if results:
        lines.append(f"Tested from {min(result.at for result in results)} to {max(result.at for result in results)}.")
    if whole < len(found):
        lines.append("To test them: scripts/test --no-checks -m acceptance")
    return "\n".join(lines)


_MEANING: Final[Mapping[State, str]] = {
    "fail": "a test of the row failed when it was last run.",
    "skipped": "a test of the row was left out; on production, for want of a PostgreSQL or RabbitMQ.",
    "no story": "nothing has shown the row from outside on this stack.",
    "no test": "no test of the row has been run on this stack.",
}


def states(rows: Iterable[Row], results: Sequence[Result]) -> dict[str, Mapping[Stack, State]]:
    return {row.id: {stack: state_of(row.id, stack, results) for stack in row.stacks} for row in rows}
