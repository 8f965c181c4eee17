"""What every store driver must do when its process is killed in mid-batch, and when several processes migrate or open
the same database."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from engine.store import Appended, Duplicate, Store, open_store
from engine.store.errors import SchemaOlder, Unavailable
from tests.conformance.store_making import NOW, Opening
from tests.conformance.store_victim import COMMITS, batch

ROOT = Path(__file__).parents[2]


class KillConformance:
    @pytest.mark.parametrize("acknowledged", [1, 4])
    async def test_a_killed_writer_leaves_whole_batches_and_all_it_acknowledged(
        self, store: Store, epoch: int, location: tuple[str, Path], acknowledged: int
    ) -> None:
        url, views = location
        victim = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.conformance.store_victim", url, str(views)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        assert victim.stdout is not None
        sent, appended = -1, 0
        async with asyncio.timeout(60):
            while appended < acknowledged or sent < appended:
                word, number = (await victim.stdout.readline()).split()
                if word == b"sending":
                    sent = int(number)
                else:
                    appended = int(number) + 1
        victim.kill()
        rest = (await victim.communicate())[0].decode()
        said = [line.split() for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        sent = max([sent, *(int(number) for word, number in said if word == "sending")])
        done = max([appended - 1, *(int(number) for word, number in said if word == "appended")])
        for known in range(done + 1):
            for commit in batch(known):
                assert commit.stream is not None
                assert len(await store.load("acme", commit.stream)) == 2
        assert len(await store.declare_dead(silent_seconds=60, now=NOW)) == 1
        again = await store.append(batch(sent), epoch=epoch)
        fates = {type(outcome) for outcome in again}
        assert fates in ({Duplicate}, {Appended}), "a batch is in the log whole or not at all"
        total = (sent + 1) * COMMITS
        assert len(await store.open_runs(limit=total + 1)) == total
        assert await store.head(0) == 2 * total or fates == {Appended}
        assert [n.position for n in await store.read(0, after=0, limit=5)] == [1, 2, 3, 4, 5]
        claimed = await store.claim_outbox(epoch, limit=total + 1, now=NOW)
        assert len(claimed) == total


class MigrationConformance:
    async def test_processes_that_migrate_at_once_apply_each_migration_once(self, empty: tuple[str, Path]) -> None:
        url, views = empty
        stores = [open_store(url, views=views) for _ in range(3)]
        applied = await asyncio.gather(*(store.migrate() for store in stores))
        assert sorted(map(len, applied))[:2] == [0, 0]
        names = next(names for names in applied if names)
        assert names == sorted(names)
        assert names[0] == "0001_tables"
        for store in stores:
            await store.start()
            assert await store.migrate() == []
            await store.stop()

    async def test_a_database_without_migrations_is_refused_with_the_remedy(self, empty: tuple[str, Path]) -> None:
        url, views = empty
        store = open_store(url, views=views)
        with pytest.raises(SchemaOlder, match="unwind migrate"):
            await store.start()
        await store.stop()

    async def test_a_stopped_store_answers_no_call(self, store: Store) -> None:
        await store.stop()
        with pytest.raises(Unavailable):
            await store.register("late", ["all"])

    async def test_a_second_process_sees_what_the_first_has_written(
        self, store: Store, epoch: int, opening: Opening
    ) -> None:
        other = await opening()
        await store.put_setting("acme", "cap", 3)
        assert await other.setting("acme", "cap") == 3
        assert [process.epoch for process in await other.processes()] == [epoch]
