"""From every earlier form of the schema, with data in it, to today's: the files of each are kept in
`schemas/<form>/<driver>`; each of their migrations was once the last one. What a process of that time called is still
there."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from engine.store import Appended, Commit, Store, open_store
from engine.store.migrate import FOLDER, migrations
from engine.store.sqlite import complete_statements
from engine.store.statements import Driver, load
from tests.conformance.store_making import events, started

FORMS = Path(__file__).parent / "schemas"
RUN = UUID("018f0000-0000-7000-8000-000000000001")
NOW = datetime(2026, 2, 1, tzinfo=UTC)
FIRST_WHOLE = {"postgres": 4, "sqlite": 2}
"""Before this number a form was never used by a process: its roles or its guards were missing."""


def earlier(driver: Driver) -> list[object]:
    forms = {form: sorted((form / driver / "migrations").glob("*.sql")) for form in sorted(FORMS.glob("[0-9]*"))}
    return [
        pytest.param(form / driver, files[:count], id=f"{form.name}-{files[count - 1].stem}")
        for form, files in forms.items()
        for count in range(FIRST_WHOLE[driver], len(files) + 1)
    ]


async def still_works(store: Store) -> None:
    """What the old installation left is read, goes on and is added to."""
    assert [each.topic for each in await store.load("acme", RUN)] == ["a", "b"]
    assert await store.setting("acme", "cap") == 3
    assert [key.key_id for key in await store.keys("acme")] == [1]
    assert [letter.id for letter in await store.dead_letters(tenant="acme", limit=5)] == [RUN]
    epoch = await store.register("new", ["all"])
    assert await store.declare_dead(silent_seconds=60, now=NOW) == [1]
    [run] = await store.claim_runs(epoch, plans=[("w", 1)], limit=5)
    assert run.run_id == RUN
    assert [timer.key for timer in await store.due_timers(epoch, limit=5, now=NOW)] == ["t"]
    assert [message.message_id for message in await store.claim_outbox(epoch, limit=5, now=NOW)] == ["m"]
    fresh = started()
    outcomes = await store.append(
        [Commit(tenant="acme", stream=RUN, expected=2, events=events("c")), fresh], epoch=epoch
    )
    assert all(isinstance(outcome, Appended) for outcome in outcomes)
    assert [each.version for each in await store.load("acme", RUN)] == [1, 2, 3]


@pytest.mark.postgres
@pytest.mark.parametrize(("folder", "files"), earlier("postgres"))
async def test_from_an_earlier_schema_on_postgres(
    postgres_url: str, tmp_path: Path, folder: Path, files: list[Path]
) -> None:
    own = {name: each.steps[0].sql for name, each in load([FOLDER / "postgres"], "postgres").items()}
    connection = await asyncpg.connect(postgres_url)
    async with connection.transaction():
        for name in ("prepare", "become_owner"):
            await connection.execute(own[name])
        await connection.execute(own["make_in"], "unwind")
        repeated = sorted((folder / "functions").glob("*.sql"))
        if repeated:
            await connection.execute(own["prepare_functions"])
        for file in files:
            await connection.execute(file.read_text())
            await connection.execute(own["record_migration"], file.stem, _checksum(file))
        for file in repeated:
            await connection.execute(file.read_text())
            await connection.execute(own["record_functions"], f"functions/{file.stem}", _checksum(file))
        await connection.execute((folder / "data.sql").read_text())
    before = await _signatures(connection)
    assert "append" in {name for name, _, _ in before}

    store = open_store(postgres_url, views=tmp_path)
    assert await store.migrate() != []
    assert await store.migrate() == []
    await store.start()
    await still_works(store)
    await store.stop()

    dropped = {
        name
        for migration in migrations("postgres")
        if migration.contracts
        for name in re.findall(r"DROP FUNCTION (?:IF EXISTS )?(\w+)", migration.script)
    }
    gone = {signature for signature in before - await _signatures(connection) if signature[0] not in dropped}
    assert gone == set(), "an older process still calls them: give what changes another name"
    open_to_all = await connection.fetch(
        "SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'unwind' "
        "AND p.proname <> 'refuse_change' AND (NOT p.prosecdef OR has_function_privilege('public', p.oid, 'EXECUTE'))"
    )
    assert open_to_all == []
    await connection.close()


@pytest.mark.parametrize(("folder", "files"), earlier("sqlite"))
async def test_from_an_earlier_schema_on_sqlite(tmp_path: Path, folder: Path, files: list[Path]) -> None:
    own = {name: each.steps[0].sql for name, each in load([FOLDER / "sqlite"], "sqlite").items()}
    connection = sqlite3.connect(tmp_path / "store.db")
    connection.execute(own["prepare"])
    for file in files:
        for statement in complete_statements(file.read_text()):
            connection.execute(statement)
        connection.execute("INSERT INTO migrations VALUES (?, ?, 0)", (file.stem, _checksum(file)))
    connection.executescript((folder / "data.sql").read_text())
    connection.commit()
    connection.close()

    store = open_store(f"sqlite://{tmp_path / 'store.db'}", views=tmp_path)
    applied = await store.migrate()
    assert {*applied, *(file.stem for file in files)} >= {migration.name for migration in migrations("sqlite")}
    await store.start()
    await still_works(store)
    await store.stop()


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


async def _signatures(connection: asyncpg.Connection) -> set[tuple[str, str, str]]:
    rows = await connection.fetch(
        "SELECT p.proname, pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid) "
        "FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'unwind'"
    )
    return {tuple(row) for row in rows}
