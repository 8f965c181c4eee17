"""The embedded store passes the common suites, and keeps its own promises: triggers, a second process on the same
file, a kill in mid-batch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.store import Store, open_store
from tests.conformance.store import CapsConformance, LogConformance, ReadModelConformance, write_views
from tests.conformance.store_catalog import CatalogConformance, DeadLetterConformance, JournalConformance
from tests.conformance.store_faults import KillConformance, MigrationConformance
from tests.conformance.store_making import NOW, Opening
from tests.conformance.store_matching import MatchingConformance
from tests.conformance.store_work import EpochConformance, LeaseConformance, OutboxConformance, TimerConformance

pytestmark = pytest.mark.embedded


@pytest.fixture
async def opening(tmp_path: Path) -> AsyncIterator[Opening]:
    opened: list[Store] = []

    async def open_another() -> Store:
        store = open_store(f"sqlite://{tmp_path / 'store.db'}", views=write_views(tmp_path / "views", "sqlite"))
        opened.append(store)
        await store.migrate()
        await store.start()
        return store

    yield open_another
    for store in opened:
        await store.stop()


@pytest.fixture
def location(tmp_path: Path) -> tuple[str, Path]:
    return f"sqlite://{tmp_path / 'store.db'}", tmp_path / "views"


@pytest.fixture
def empty(tmp_path: Path) -> tuple[str, Path]:
    return f"sqlite://{tmp_path / 'empty.db'}", write_views(tmp_path / "views", "sqlite")


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


class TestEpochs(EpochConformance):
    pass


class TestLeases(LeaseConformance):
    pass


class TestOutbox(OutboxConformance):
    pass


class TestTimers(TimerConformance):
    pass


class TestJournal(JournalConformance):
    pass


class TestDeadLetters(DeadLetterConformance):
    pass


class TestCatalog(CatalogConformance):
    pass


class TestReadModels(ReadModelConformance):
    pass


class TestKill(KillConformance):
    pass


class TestMigrations(MigrationConformance):
    pass
