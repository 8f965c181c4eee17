"""The tables of the documentation say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from typer.core import TyperGroup
from typer.main import get_command

from engine.metrics import table as metrics_table
from engine.settings import ROLES, describe
from scripts.border import EXIT_CODES
from scripts.cli import app

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


def test_every_setting_stands_in_the_readme_with_its_default_and_meaning() -> None:
    documented = [(row[0], row[1], row[2]) for row in rows("README.md", "name | default | meaning")]
    assert documented == [(setting.name, setting.default, setting.meaning) for setting in describe()]


def test_every_metric_stands_in_the_readme() -> None:
    documented = [tuple(row) for row in rows("README.md", "name | kind | labels | meaning")]
    assert documented == list(metrics_table())


def test_the_readme_shows_the_example_as_it_stands() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    saga = (ROOT / "docs/examples/booking.py").read_text(encoding="utf-8")
    tests = (ROOT / "docs/examples/test_booking.py").read_text(encoding="utf-8")
    assert shown[0].strip() == saga.strip()
    assert shown[1].strip() in tests


def test_every_file_that_the_documentation_names_exists() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    missing = [
        f"{page.name}: {name}"
        for page in pages
        for name in re.findall(
            r"`((?:docs|engine|scripts|contracts|tests|consumers|projections)/[\w/.-]+)`", page.read_text()
        )
        if not (ROOT / name).exists()
    ]
    assert missing == []


def test_every_command_that_the_documentation_names_exists() -> None:
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    known = {name: set(getattr(command, "commands", {})) for name, command in root.commands.items()}
    wrong = []
    for page in [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for verb, word in re.findall(r"`(?:\$ )?unwind ([a-z-]+)(?: ([a-z-]+))?", page.read_text(encoding="utf-8")):
            if verb not in known or (word and known[verb] and word not in known[verb]):
                wrong.append(f"{page.name}: unwind {verb} {word}")
    assert wrong == []


def test_exit_codes_are_documented() -> None:
    documented = {int(code): (name, meaning) for code, name, meaning in rows("docs/operations.md", "code")}
    assert documented == EXIT_CODES


def test_roles_are_documented() -> None:
    assert [row[0] for row in rows("docs/operations.md", "role")] == list(ROLES)


def test_every_gauge_is_described_in_the_operations_page() -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert [name for name, kind, *_ in metrics_table() if kind == "gauge" and f"`{name}`" not in page] == []
    known = {name for name, *_ in metrics_table()}
    assert [name for name, *_ in rows("docs/operations.md", "gauge") if name not in known] == []


def test_metrics_named_in_the_operations_page_exist() -> None:
    known = {name for name, *_ in metrics_table()}
    named = {
        word.strip("`") for row in rows("docs/operations.md", "you see") for word in row[0].split() if "unwind_" in word
    }
    assert named
    assert named <= known
