"""A module's database: a transaction is whole or did not happen, and nothing of a handler is left in its session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from contracts.sdk import open_database
from contracts.sdk.database import Database
from contracts.sdk.outbox import Outbox, Outgoing, Stored

NOTES = "CREATE TABLE IF NOT EXISTS notes (note text PRIMARY KEY);"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = open_database(database_url)
    await database.open((NOTES, Outbox(database).sql["schema"]))
    yield database
    await database.close()


async def _notes(database: Database) -> list[str]:
    async with database.transaction() as tx:
        return [row["note"] for row in await tx.rows("SELECT note FROM notes ORDER BY note")]


async def test_a_transaction_is_whole_or_did_not_happen(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.run("INSERT INTO notes VALUES ($1)", "kept")
    with suppress(LookupError):
        async with database.transaction() as tx:
            await tx.run("INSERT INTO notes VALUES ($1)", "dropped")
            raise LookupError
    assert await _notes(database) == ["kept"]


async def test_a_statement_that_failed_leaves_the_connection_in_order(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.run("INSERT INTO notes VALUES ($1)", "kept")
    for _ in range(20):  # more often than there are connections
        with pytest.raises(Exception, match=r"UNIQUE|duplicate key"):
            async with database.transaction() as tx:
                await tx.run("INSERT INTO notes VALUES ($1)", "kept")
    assert await _notes(database) == ["kept"]


@pytest.mark.postgres
@pytest.mark.parametrize("fails", [False, True])
async def test_what_a_handler_sets_for_its_session_ends_with_its_transaction(postgres_url: str, fails: bool) -> None:
    database = open_database(f"{postgres_url}?schema=depot")
    await database.open(())
    try:
        for _ in range(20):  # more often than there are connections
            try:
                async with database.transaction() as tx:
                    left = await tx.row(
                        "SELECT current_setting('app.tenant', true) AS tenant, current_schema() AS schema, (SELECT"
                        " count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks"
                    )
                    assert left is not None
                    assert not left["tenant"]
                    assert (left["schema"], left["locks"]) == ("depot", 0)
                    await tx.rows("SELECT set_config('app.tenant', 'acme', false), pg_advisory_lock(7)")
                    if fails:
                        raise LookupError
            except LookupError:
                assert fails
    finally:
        await database.close()


async def test_what_was_sent_leaves_the_outbox_at_once_and_what_was_not_stays(database: Database) -> None:
    outbox = Outbox(database)
    async with database.transaction() as tx:
        stored: list[Stored] = await outbox.put(
            tx,
            [Outgoing(event_id=f"e-{number}", exchange="x", routing_key="k", body=b"{}") for number in range(100)],
        )
    await outbox.settle(stored[:98], [(stored[98], 0.0)])
    assert await outbox.count() == 2
    assert [found.message.event_id for found in await outbox.claim()] == ["e-98"]
    await outbox.settle([], [])
    assert await outbox.count() == 2
