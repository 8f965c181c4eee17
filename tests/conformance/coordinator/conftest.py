"""A house of engine processes on either store, and one process in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import projections
from tests.conformance import coordinating
from tests.conformance.coordinating import House, Node, World
from tests.conformance.store_postgres_database import SharedDatabase


@pytest.fixture(autouse=True)
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(coordinating, "WORLD", made)
    return made


@pytest.fixture(scope="module")
def shared(postgres_server_url: str) -> Iterator[SharedDatabase]:
    made = SharedDatabase(postgres_server_url, Path(projections.__file__).parent / "sql" / "postgres")
    asyncio.run(made.create())
    yield made
    asyncio.run(made.drop())


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Callable[[], Awaitable[None]] | None]:
    """Where the store is, and how it is emptied."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path / 'store.db'}", None
    shared: SharedDatabase = request.getfixturevalue("shared")
    return shared.url, shared.wipe


@pytest.fixture
async def house(database: tuple[str, Callable[[], Awaitable[None]] | None], tmp_path: Path) -> AsyncIterator[House]:
    url, wipe = database
    if wipe is not None:
        await wipe()
    made = House(url, tmp_path / "keys.json")
    yield made
    await made.stop()


@pytest.fixture
async def node(house: House) -> Node:
    return await house.node()
