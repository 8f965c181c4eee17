"""The one fixture of the stories: `stack`, an empty place for an installation, on both stacks.

`House(stack)` (tests/stories/house.py) is the installation itself; every story opens its own, as it needs it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stories.house import Stack


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
