"""The store of a world passes the suites that the real drivers pass."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.store import Store
from scripts.simulation.store import Open, SimDatabase, SimStore
from tests.conformance.store import CapsConformance, LogConformance, ReadModelConformance, write_views
from tests.conformance.store_archive import ArchiveConformance
from tests.conformance.store_catalog import CatalogConformance, DeadLetterConformance, JournalConformance
from tests.conformance.store_making import NOW, Opening
from tests.conformance.store_matching import MatchingConformance
from tests.conformance.store_work import (
    CensusConformance,
    EpochConformance,
    LeaseConformance,
    OutboxConformance,
    TimerConformance,
)


@pytest.fixture
def database(tmp_path: Path) -> SimDatabase:
    return SimDatabase(write_views(tmp_path / "views", "sqlite"))


@pytest.fixture
async def opening(database: SimDatabase) -> AsyncIterator[Opening]:
    async def open_another() -> Store:
        return SimStore(database, Open())

    yield open_another
    database.close()


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


class TestMatching(MatchingConformance):
    pass


class TestReadModels(ReadModelConformance):
    pass


class TestArchive(ArchiveConformance):
    pass


class TestCatalog(CatalogConformance):
    pass


class TestJournal(JournalConformance):
    pass


class TestDeadLetters(DeadLetterConformance):
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
