"""The database of a module in a world: it outlives the module's processes, and nothing of it is in the next world."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from scripts.simulation.database import Kept, ModuleDatabase
from scripts.simulation.store import Open

SHELF = "CREATE TABLE IF NOT EXISTS shelf (place text PRIMARY KEY); -- of a shop\n"
FILLED = "CREATE TABLE IF NOT EXISTS visits (place text); INSERT INTO visits VALUES ('door');"


async def opened(kept: Kept, schemas: Sequence[str]) -> ModuleDatabase:
    database = ModuleDatabase(kept, Open())
    await database.open(schemas)
    return database


async def put(database: ModuleDatabase, place: str, *, error: BaseException | None = None) -> None:
    """With `error` it is raised inside of the transaction."""
    async with database.transaction() as tx:
        await tx.run("INSERT INTO shelf VALUES ($1)", place)
        if error is not None:
            raise error


async def test_what_was_committed_outlives_a_process_and_not_the_world() -> None:
    kept = Kept()
    await put(await opened(kept, [SHELF]), "a")
    await put(await opened(kept, [SHELF]), "b")
    assert kept.rows("SELECT place FROM shelf ORDER BY place") == [{"place": "a"}, {"place": "b"}]
    kept.close()
    following = Kept()
    await opened(following, [SHELF])
    assert following.rows("SELECT place FROM shelf") == []
    following.close()


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_a_transaction_that_is_broken_off_did_not_happen(error: type[BaseException]) -> None:
    kept = Kept()
    database = await opened(kept, [SHELF])
    await put(database, "a")
    with pytest.raises(error):
        await put(database, "b", error=error())
    await put(database, "c")
    assert kept.rows("SELECT place FROM shelf ORDER BY place") == [{"place": "a"}, {"place": "c"}]
    kept.close()


async def test_a_schema_that_does_more_than_create_runs_with_each_process() -> None:
    for _ in range(2):
        kept = Kept()
        for process in range(1, 4):
            await opened(kept, [SHELF, FILLED])
            assert kept.rows("SELECT count(*) AS times FROM visits") == [{"times": process}]
        kept.close()


async def test_another_schema_is_made_beside_the_first() -> None:
    kept = Kept()
    await put(await opened(kept, [SHELF]), "a")
    await opened(kept, [SHELF, FILLED])
    assert kept.rows("SELECT place FROM shelf") == [{"place": "a"}]
    assert kept.rows("SELECT place FROM visits") == [{"place": "door"}]
    kept.close()
    following = Kept()
    await opened(following, [SHELF])
    assert following.rows("SELECT name FROM sqlite_master WHERE type = 'table'") == [{"name": "shelf"}]
    following.close()
