"""The fixtures of the stories: `stack`, an empty place for an installation, on both stacks; and log lines as the entry
points set them up.

`House(stack)` (tests/stories/house.py) is the installation itself; every story opens its own, as it needs it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from engine.logs import configure
from tests.stories.house import Stack


@pytest.fixture(autouse=True)
def log_lines() -> Iterator[None]:
    """Warnings and errors alone, in the form of a served engine, shown with the story that fails."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure(format="json", level="warning", stream=sys.stderr)
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(
    params=[
        pytest.param("embedded", marks=pytest.mark.embedded),
        pytest.param("production", marks=[pytest.mark.postgres, pytest.mark.rabbitmq]),
    ]
)
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Stack:
    if request.param == "embedded":
        return Stack("embedded", tmp_path)
    return Stack(
        "production",
        tmp_path,
        database_url=str(request.getfixturevalue("postgres_url")),
        bus_url=str(request.getfixturevalue("rabbitmq_url")),
    )
