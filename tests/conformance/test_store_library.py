"""Both drivers pass the recorder test cases that ship in the `eventsourcing` wheel. Subscriptions and non-interleaving
ids are PostgreSQL's: the library has no subscriptions on SQLite, and one writer cannot interleave."""

from __future__ import annotations

import asyncio
import unittest
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from eventsourcing.tests.persistence import (
    AggregateRecorderTestCase,
    ApplicationRecorderTestCase,
    NonInterleavingNotificationIDsBaseCase,
    ProcessRecorderTestCase,
    TrackingRecorderTestCase,
)

from engine.store import open_store
from tests.conformance.adapter import LoopThread, StoreRecorder, StoreSnapshots, StrictStore
from tests.conformance.store_postgres_database import SharedDatabase


class OnStore:
    """Opens a store on `url` in a thread of its own, for one test."""

    url: ClassVar[str]
    views: ClassVar[Path]

    def recorder(self) -> StoreRecorder:
        thread = LoopThread()

        async def opened() -> tuple[StrictStore, int]:
            store = cast(StrictStore, open_store(self.url, views=self.views))
            await store.migrate()
            await store.start()
            await store.lane_of("library")
            return store, await store.register("library", ["all"])

        store, epoch = thread.call(opened())
        test = cast(unittest.TestCase, self)
        test.addCleanup(thread.stop)
        test.addCleanup(lambda: thread.call(store.stop()))
        return StoreRecorder(thread, store, epoch)

    def create_recorder(self) -> Any:
        return self.recorder()


@pytest.mark.embedded
class OnSqlite(OnStore):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        type(self).url = f"sqlite://{tmp_path / 'store.db'}"
        type(self).views = tmp_path


@pytest.mark.postgres
class OnPostgres(OnStore):
    @pytest.fixture(autouse=True)
    def _place(self, shared: SharedDatabase) -> None:
        asyncio.run(shared.wipe())
        type(self).url = shared.url
        type(self).views = shared.views


class TestSqliteApplicationRecorder(OnSqlite, ApplicationRecorderTestCase[Any]):
    pass


class TestPostgresApplicationRecorder(OnPostgres, ApplicationRecorderTestCase[Any]):
    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestSqliteSnapshotRecorder(OnSqlite, AggregateRecorderTestCase):
    def create_recorder(self) -> StoreSnapshots:
        return StoreSnapshots(self.recorder())


class TestPostgresSnapshotRecorder(OnPostgres, AggregateRecorderTestCase):
    def create_recorder(self) -> StoreSnapshots:
        return StoreSnapshots(self.recorder())


class TestSqliteTrackingRecorder(OnSqlite, TrackingRecorderTestCase):
    pass


class TestPostgresTrackingRecorder(OnPostgres, TrackingRecorderTestCase):
    pass


class TestSqliteProcessRecorder(OnSqlite, ProcessRecorderTestCase):
    pass


class TestPostgresProcessRecorder(OnPostgres, ProcessRecorderTestCase):
    pass


class TestPostgresNonInterleaving(OnPostgres, NonInterleavingNotificationIDsBaseCase):
    pass


# Imported names are collected too; the abstract cases must not be.
del AggregateRecorderTestCase, ApplicationRecorderTestCase, NonInterleavingNotificationIDsBaseCase
del ProcessRecorderTestCase, TrackingRecorderTestCase
