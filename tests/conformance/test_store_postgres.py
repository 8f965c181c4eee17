"""The store on PostgreSQL passes the common suites."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from engine.store import Store, open_store
from tests.conformance.store import CapsConformance, LogConformance, ReadModelConformance, write_views
from tests.conformance.store_archive import ArchiveConformance
from tests.conformance.store_budgets import BudgetsConformance
from tests.conformance.store_catalog import CatalogConformance, DeadLetterConformance, JournalConformance
from tests.conformance.store_faults import KillConformance, MigrationConformance
from tests.conformance.store_making import NOW, Opening
from tests.conformance.store_matching import MatchingConformance
from tests.conformance.store_outlets import OutletConformance
from tests.conformance.store_people import PeopleConformance
from tests.conformance.store_postgres_database import SharedDatabase
from tests.conformance.store_quotas import QuotasConformance
from tests.conformance.store_work import (
    CensusConformance,
    EpochConformance,
    LeaseConformance,
    OutboxConformance,
    TimerConformance,
)

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def shared(postgres_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedDatabase]:
    made = SharedDatabase(postgres_server_url, write_views(tmp_path_factory.mktemp("views"), "postgres"))
    asyncio.run(made.create())
    yield made
    asyncio.run(made.drop())


@pytest.fixture
async def database(shared: SharedDatabase) -> str:
    await shared.wipe()
    return shared.url


@pytest.fixture
async def opening(database: str, shared: SharedDatabase) -> AsyncIterator[Opening]:
    opened: list[Store] = []

    async def open_another() -> Store:
        store = open_store(database, views=shared.views)
        opened.append(store)
        await store.start()
        return store

    yield open_another
    for store in opened:
        await store.stop()


@pytest.fixture
def location(database: str, shared: SharedDatabase) -> tuple[str, Path]:
    return database, shared.views


@pytest.fixture
def empty(postgres_url: str, shared: SharedDatabase) -> tuple[str, Path]:
    return postgres_url, shared.views


@pytest.fixture
async def store(opening: Opening) -> Store:
    return await opening()


@pytest.fixture
async def epoch(store: Store) -> int:
    return await store.register("test", ["all"], now=NOW)


class TestLog(LogConformance):
    pass


class TestCaps(CapsConformance):
    pass


class TestQuotas(QuotasConformance):
    pass


class TestBudgets(BudgetsConformance):
    pass


class TestOutlets(OutletConformance):
    pass


class TestMatching(MatchingConformance):
    pass


class TestEpochs(EpochConformance):
    pass


class TestLeases(LeaseConformance):
    pass


class TestOutbox(OutboxConformance):
    pass


class TestTimers(TimerConformance):
    pass


class TestCensus(CensusConformance):
    pass


class TestJournal(JournalConformance):
    pass


class TestDeadLetters(DeadLetterConformance):
    pass


class TestArchive(ArchiveConformance):
    pass


class TestCatalog(CatalogConformance):
    pass


class TestPeople(PeopleConformance):
    pass


class TestReadModels(ReadModelConformance):
    pass


class TestKill(KillConformance):
    pass


class TestMigrations(MigrationConformance):
    async def test_a_migration_may_take_longer_than_a_statement(self, empty: tuple[str, Path], tmp_path: Path) -> None:
        script = "CREATE TABLE IF NOT EXISTS slow AS SELECT current_setting('statement_timeout') AS deadline;"
        (tmp_path / "slow.sql").write_text(f"-- name: slow_create\n{script}\n")
        store = open_store(empty[0], views=tmp_path)
        await store.migrate()
        await store.stop()
        connection = await asyncpg.connect(empty[0])
        assert await connection.fetchval("SELECT deadline FROM views.slow") == "0"
        await connection.close()
