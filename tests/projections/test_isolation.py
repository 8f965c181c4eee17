"""Row-level security of the read models: the web's role sees the rows of the tenant it stands for, in every table."""

from __future__ import annotations

import asyncpg
import pytest

from tests.projections.conftest import House
from tests.projections.histories import SHAPES, record

ON_POSTGRES = pytest.mark.parametrize(
    "store_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)


@pytest.mark.acceptance("J11")
@ON_POSTGRES
async def test_the_web_sees_in_no_table_a_row_of_another_tenant(house: House, store_url: str) -> None:
    for tenant in ("acme", "globex"):
        for shape in SHAPES:
            await record(house.store, house.vault, tenant, shape(), epoch=house.epoch)
    await house.projector().catch_up()
    connection = await asyncpg.connect(store_url)
    try:
        tables = [
            row["name"]
            for row in await connection.fetch(
                "SELECT c.oid::regclass::text AS name FROM pg_class c WHERE c.relnamespace = 'views'::regnamespace "
                "AND c.relkind = 'r' AND EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid "
                "AND a.attname = 'tenant' AND NOT a.attisdropped)"
            )
        ]
        filled = {
            table for table in tables if await connection.fetchval(f"SELECT count(DISTINCT tenant) FROM {table}") == 2
        }
        assert len(filled) >= 6
        role = await connection.fetchval("SELECT role FROM unwind.roles WHERE name = 'web'")
        await connection.execute(f'SET ROLE "{role}"')
        for seen in ("acme", "globex"):
            await connection.execute("SELECT set_config('app.tenant', $1, false)", seen)
            for table in filled:
                found = await connection.fetch(f"SELECT DISTINCT tenant FROM {table}")
                assert [row["tenant"] for row in found] == [seen], table
        for nobody in ("", "*", "nobody", "acme' OR true --"):
            await connection.execute("SELECT set_config('app.tenant', $1, false)", nobody)
            for table in filled:
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, (nobody, table)
    finally:
        await connection.close()
