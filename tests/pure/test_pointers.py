"""Pointers, patterns and the places they name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.pointers import MISSING, expand_marks, pointer_of, resolve, segments

DATA: dict[str, Any] = {
    "email": "ada@example.org",
    "none": None,
    "lines": [{"to": "a"}, {"to": None}, {"to": "c"}, {}],
    "people": {"x/y": {"name": "Ada"}, "~": {"name": "Bob"}},
    "a/b": 1,
}


@pytest.mark.parametrize(
    ("patterns", "pointers"),
    [
        ((), ()),
        (("/email",), ("/email",)),
        (("/none", "/absent", "/email/deeper"), ()),
        (("/lines/*/to",), ("/lines/0/to", "/lines/2/to")),
        (("/lines/1", "/lines/9", "/lines/x"), ("/lines/1",)),
        (("/people/*/name",), ("/people/x~1y/name", "/people/~0/name")),
        (("/a~1b",), ("/a~1b",)),
        (("",), ("",)),
        (("/email", "/email"), ("/email",)),
        (("/email/*",), ()),
    ],
)
def test_patterns_name_every_marked_value_that_is_there(patterns: tuple[str, ...], pointers: tuple[str, ...]) -> None:
    assert expand_marks(patterns, DATA) == pointers


def test_a_place_that_is_not_there_is_told_from_null() -> None:
    assert resolve(DATA, ("none",)) is None
    assert resolve(DATA, ("absent",)) is MISSING
    assert resolve(DATA, ("lines", "0", "to")) == "a"


def test_what_does_not_begin_with_a_slash_is_no_pointer() -> None:
    with pytest.raises(ValueError, match="begin it with /"):
        segments("email")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text()))
def test_segments_survive_escaping(parts: list[str]) -> None:
    assert segments(pointer_of(parts)) == tuple(parts)
