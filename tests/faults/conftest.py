"""The place of a fault test: an empty installation on either stack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.site import Site


@pytest.fixture(
    params=[
        pytest.param("embedded", marks=pytest.mark.embedded),
        pytest.param("production", marks=[pytest.mark.postgres, pytest.mark.rabbitmq]),
    ]
)
def servers(request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings that name the servers of the stack; none on the embedded one."""
    if request.param == "embedded":
        return {}
    return {
        "UNWIND_DATABASE_URL": str(request.getfixturevalue("postgres_url")),
        "UNWIND_BUS_URL": str(request.getfixturevalue("rabbitmq_url")),
    }


@pytest.fixture
async def site(servers: dict[str, str], tmp_path: Path) -> AsyncIterator[Site]:
    """One installation on either stack, without an engine yet."""
    async with Site.over(tmp_path, servers) as there:
        yield there


@pytest.fixture
async def pair(postgres_url: str, rabbitmq_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    """An installation that several engines may share: PostgreSQL and RabbitMQ."""
    async with Site.over(tmp_path, {"UNWIND_DATABASE_URL": postgres_url, "UNWIND_BUS_URL": rabbitmq_url}) as there:
        yield there
