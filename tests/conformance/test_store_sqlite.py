"""The embedded store passes the common suites, and keeps its own promises: triggers, a second process on the same
file, a kill in mid-batch."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from engine.store import Appended, Recorded, Store, open_store
from engine.store.errors import CommitRefused, Unavailable
from engine.store.es import open_recorder
from engine.store.migrate import FOLDER
from engine.store.statements import load
from tests.conformance.store import CapsConformance, LogConformance, ReadModelConformance, write_views
from tests.conformance.store_archive import ArchiveConformance
from tests.conformance.store_budgets import BudgetsConformance
from tests.conformance.store_catalog import CatalogConformance, DeadLetterConformance, JournalConformance
from tests.conformance.store_faults import KillConformance, MigrationConformance
from tests.conformance.store_making import NOW, Opening, append, open_a_run, started
from tests.conformance.store_matching import MatchingConformance
from tests.conformance.store_outlets import OutletConformance
from tests.conformance.store_people import PeopleConformance
from tests.conformance.store_quotas import QuotasConformance
from tests.conformance.store_work import (
    CensusConformance,
    EpochConformance,
    LeaseConformance,
    OutboxConformance,
    TimerConformance,
)

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
    pass


class TestFile:
    async def test_the_log_and_the_start_keys_are_append_only_whoever_opens_the_file(
        self, store: Store, epoch: int, location: tuple[str, Path]
    ) -> None:
        await open_a_run(store, epoch)
        with closing(sqlite3.connect(location[0].removeprefix("sqlite://"))) as connection:
            for table in ("log", "starts"):
                for statement in (f"UPDATE {table} SET tenant = 'x'", f"DELETE FROM {table}"):
                    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                        connection.execute(statement)

    async def test_every_commit_is_synced_to_the_disk(self, location: tuple[str, Path]) -> None:
        recorder = open_recorder(
            Path(location[0].removeprefix("sqlite://")), load([FOLDER / "sqlite"], "sqlite"), lock_timeout_seconds=1
        )
        with recorder.writing() as cursor:
            pragmas = [cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
        recorder.close()
        assert pragmas == ["wal", 2]

    async def test_a_position_is_never_given_twice(self, store: Store, epoch: int, location: tuple[str, Path]) -> None:
        """Even when the newest rows are gone, as after a restore; a projection would otherwise take the new for the
        old."""
        await open_a_run(store, epoch)
        last = await open_a_run(store, epoch)
        with closing(sqlite3.connect(location[0].removeprefix("sqlite://"))) as connection, connection:
            connection.execute("DROP TRIGGER log_no_delete")
            connection.execute("DELETE FROM log WHERE originator_id = ?", (last.hex,))
        await open_a_run(store, epoch)
        assert [n.position for n in await store.read(0, after=0, limit=10)] == [1, 3]

    async def test_waiting_callers_share_one_transaction(self, store: Store, epoch: int) -> None:
        """Thirty callers at once: the first goes alone, whoever came meanwhile joins; all are in the log."""
        commits = [started() for _ in range(30)]
        outcomes = await asyncio.gather(*(append(store, epoch, commit) for commit in commits))
        assert sorted(outcome.position for [outcome] in outcomes if isinstance(outcome, Appended)) == list(range(1, 31))

    async def test_one_callers_poison_spares_those_who_share_its_transaction(self, store: Store, epoch: int) -> None:
        bad = replace(started(), events=(Recorded("t", None),))  # type: ignore[arg-type]
        batches = [[started()], [bad], [started()], [started()]]
        answers = await asyncio.gather(*(append(store, epoch, *batch) for batch in batches), return_exceptions=True)
        assert [isinstance(answer, CommitRefused) for answer in answers] == [False, True, False, False]
        assert await store.head(0) == 3

    async def test_two_processes_write_one_file_at_once(self, store: Store, epoch: int, opening: Opening) -> None:
        other = await opening()
        theirs = await other.register("other", ["all"])

        async def write(s: Store, e: int) -> None:
            for _ in range(30):
                [outcome] = await append(s, e, started())
                assert isinstance(outcome, Appended)

        await asyncio.gather(write(store, epoch), write(other, theirs))
        assert [n.position for n in await store.read(0, after=0, limit=100)] == list(range(1, 61))

    async def test_a_second_opening_in_this_process_keeps_the_log_of_the_first_from_whoever_leaves(
        self, store: Store, epoch: int, opening: Opening, location: tuple[str, Path]
    ) -> None:
        """A process that is the last to close the file empties its write-ahead log and takes it away."""
        await open_a_run(store, epoch)
        await opening()
        path = Path(location[0].removeprefix("sqlite://"))
        leaving = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT count(*) FROM log'); c.close()"
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", leaving, str(path))
        assert await process.wait() == 0
        assert path.with_name(path.name + "-wal").stat().st_size > 0
        await open_a_run(store, epoch)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM log").fetchone() == (2,)

    async def test_a_busy_file_is_unavailable_and_answers_again_when_free(
        self, location: tuple[str, Path], empty: tuple[str, Path]
    ) -> None:
        store = open_store(empty[0], views=empty[1], patience_seconds=1)
        await store.migrate()
        await store.start()
        holder = sqlite3.connect(empty[0].removeprefix("sqlite://"), isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            await store.register("late", ["all"])
        holder.execute("ROLLBACK")
        holder.close()
        assert await store.register("late", ["all"]) == 1
        await store.stop()
