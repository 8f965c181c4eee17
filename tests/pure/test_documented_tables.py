"""The tables of the documentation say what the code says."""

from __future__ import annotations

from pathlib import Path

from engine.metrics import table as metrics_table
from engine.settings import ROLES
from scripts.border import EXIT_CODES

ROOT = Path(__file__).resolve().parents[2]


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table whose header begins with `heading`, code marks taken off."""
    found: list[list[str]] = []
    inside = False
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if line.startswith(f"| {heading} |"):
            inside = True
        elif inside and line.startswith("|---"):
            continue
        elif inside and line.startswith("|"):
            found.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
        elif inside:
            break
    assert found, f"{page} has no table that begins with {heading}"
    return found


def test_exit_codes_are_documented() -> None:
    documented = {int(code): (name, meaning) for code, name, meaning in rows("docs/operations.md", "code")}
    assert documented == EXIT_CODES


def test_roles_are_documented() -> None:
    assert [row[0] for row in rows("docs/operations.md", "role")] == list(ROLES)


def test_metrics_named_in_the_operations_page_exist() -> None:
    known = {name for name, *_ in metrics_table()}
    named = {
        word.strip("`") for row in rows("docs/operations.md", "you see") for word in row[0].split() if "unwind_" in word
    }
    assert named
    assert named <= known
