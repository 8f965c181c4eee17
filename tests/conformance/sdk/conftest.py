"""One module on every pair of bus and database: the SDK promises the same on all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.sdk import open_database, open_transport
from tests.conformance.sdk.depot import Depot
from tests.conformance.sdk.witness import Witness


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def bus_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "rabbitmq":
        return str(request.getfixturevalue("rabbitmq_url"))
    return f"embedded://{tmp_path / 'bus.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return f"{request.getfixturevalue('postgres_url')}?schema=depot"
    return f"sqlite://{tmp_path / 'depot.db'}"


@pytest.fixture
async def witness(bus_url: str) -> AsyncIterator[Witness]:
    witness = Witness(open_transport(bus_url, name="witness"))
    await witness.start()
    yield witness
    await witness.stop()


@pytest.fixture
async def make_depot(bus_url: str, database_url: str) -> AsyncIterator[Callable[..., Depot]]:
    """Depots with connections of their own on one bus and one database, as so many processes would have."""
    made: list[Depot] = []

    def make(**options: Any) -> Depot:
        depot = Depot(open_transport(bus_url, name="depot"), open_database(database_url), **options)
        made.append(depot)
        return depot

    yield make
    for depot in made:
        await depot.service.stop()


@pytest.fixture
async def depot(witness: Witness, make_depot: Callable[..., Depot]) -> Depot:
    depot = make_depot()
    await depot.service.start()
    return depot
