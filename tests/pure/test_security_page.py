"""SECURITY.md promises nothing without naming the tests that hold it, and every test it names is there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.pure.test_documented_tables import rows

ROOT = Path(__file__).resolve().parents[2]


def test_every_promise_names_tests_that_exist() -> None:
    there = set()
    for file in (ROOT / "tests").rglob("*.py"):
        there |= set(re.findall(r"def (test_\w+)\(", file.read_text(encoding="utf-8")))
    promises = rows("SECURITY.md", "promise")
    assert len(promises) > 10
    for promise, _, tested in promises:
        named = re.findall(r"test_\w+", tested)
        assert named, f"{promise}: by which test is it held?"
        assert [name for name in named if name not in there] == [], promise
