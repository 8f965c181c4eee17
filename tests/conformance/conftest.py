"""What the suites of the store share on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from engine.store import Store, open_store
from tests.conformance.store_postgres_database import SharedDatabase


@pytest.fixture(scope="module")
def shared(postgres_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedDatabase]:
    """One database for the file, without read models; a suite that needs them brings its own."""
    made = SharedDatabase(postgres_server_url, tmp_path_factory.mktemp("views"))
    asyncio.run(made.create())
    yield made
    asyncio.run(made.drop())


@pytest.fixture
async def store(shared: SharedDatabase) -> AsyncIterator[Store]:
    """On that database, emptied; a suite of another driver brings its own."""
    await shared.wipe()
    opened = open_store(shared.url, views=shared.views)
    await opened.start()
    yield opened
    await opened.stop()
