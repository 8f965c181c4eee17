"""One migrated PostgreSQL database for a whole test file, emptied before each test: making a database takes a second,
emptying one takes milliseconds."""

from __future__ import annotations

import uuid
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from engine.store import open_store

_WIPE = """
DO $$
DECLARE
    s record;
BEGIN
    EXECUTE (SELECT 'TRUNCATE ' || string_agg(format('%I.%I', schemaname, tablename), ', ') || ' RESTART IDENTITY'
             FROM pg_tables WHERE schemaname IN ('unwind', 'views')
             AND tablename NOT IN ('roles', 'migrations', 'functions'));
    FOR s IN SELECT format('%I.%I', schemaname, sequencename) AS name FROM pg_sequences WHERE schemaname = 'unwind' LOOP
        EXECUTE 'ALTER SEQUENCE ' || s.name || ' RESTART';
    END LOOP;
END $$
"""


class SharedDatabase:
    def __init__(self, server_url: str, views: Path) -> None:
        self.views = views
        self._server_url = server_url
        self._name = f"t_{uuid.uuid4().hex}"
        self.url = urlunsplit(urlsplit(server_url)._replace(path=f"/{self._name}"))

    async def create(self) -> None:
        await _run(self._server_url, f'CREATE DATABASE "{self._name}"')
        store = open_store(self.url, views=self.views)
        await store.migrate()
        await store.stop()

    async def wipe(self) -> None:
        """As the superuser without triggers: to everybody else the log is append-only."""
        await _run(self.url, "SET session_replication_role = replica", _WIPE)

    async def drop(self) -> None:
        """The group roles are the server's, so they go last and by name."""
        await _run(self._server_url, f'DROP DATABASE "{self._name}" WITH (FORCE)')
        await _run(
            self._server_url,
            "DO $$ DECLARE r text; BEGIN "
            f"FOR r IN SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'unwind_{self._name}_') "
            "LOOP EXECUTE format('DROP ROLE %I', r); END LOOP; END $$",
        )


async def _run(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url, timeout=30)
    try:
        for statement in statements:
            await connection.execute(statement, timeout=60)
    finally:
        await connection.close(timeout=10)
