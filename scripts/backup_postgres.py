"""The store and the modules' schemas through `pg_dump` and `pg_restore`. Of the store only rows travel: the target is
migrated first, so that roles and rights carry the name of the database that they are in. Read models and their
checkpoints stay behind; the projector writes them again from the log."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from contracts.problems import Conflict, NotFound, Problem

STORE: Final = "unwind.dump"
MODULES: Final = "modules.dump"
NOT_COPIED: Final = ("roles", "migrations", "functions", "checkpoints")
_MODULE_SCHEMAS: Final = r"SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'module\_%'"


class ToolFailed(Problem):
    code = "tool_failed"
    title = "PostgreSQL's own tool failed"
    status = 500
    exit_code = 7


async def dump(source: str, modules: str | None, folder: Path) -> None:
    """Rows of the store, and the modules' schemas whole; both as of one snapshot where they share a database."""
    connection = await asyncpg.connect(source)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
            left_out = [f"--exclude-table=unwind.{table}" for table in NOT_COPIED]
            await _run(
                source,
                *("pg_dump", "--format=custom", "--data-only", f"--snapshot={snapshot}", "--schema=unwind", *left_out),
                f"--file={folder / STORE}",
            )
            together = modules is None or _database(modules) == _database(source)
            if together and await connection.fetchval(_MODULE_SCHEMAS):
                await _dump_modules(source, folder, f"--snapshot={snapshot}")
    finally:
        await connection.close()
    if not together and modules is not None:
        apart = await asyncpg.connect(modules)
        try:
            found = await apart.fetchval(_MODULE_SCHEMAS)
        finally:
            await apart.close()
        if found:
            await _dump_modules(modules, folder)


async def _dump_modules(source: str, folder: Path, *options: str) -> None:
    await _run(
        source,
        *("pg_dump", "--format=custom", "--schema=module_*", "--no-owner", "--no-privileges", *options),
        f"--file={folder / MODULES}",
    )


async def load(target: str, modules: str | None, folder: Path, lanes: Sequence[int]) -> None:
    """Into a migrated, empty store. Raises `Conflict` when it is not empty."""
    connection = await asyncpg.connect(target)
    try:
        owner = await connection.fetchval("SELECT role FROM unwind.roles WHERE name = 'owner'")
        if owner is not None:
            await connection.execute("SELECT set_config('role', $1, false)", owner)
        if await connection.fetchval("SELECT EXISTS (SELECT 1 FROM unwind.processes)"):
            raise Conflict(
                f"the database {_database(target)[2]} has been used already; restore into an empty one",
                field="database_url",
            )
        for lane in lanes:
            await connection.execute("SELECT unwind.open_lane($1)", lane)
    finally:
        await connection.close()
    as_owner = [f"--role={owner}"] if owner is not None else []
    whole = ("--exit-on-error", "--single-transaction")
    await _run(target, "pg_restore", "--data-only", *whole, *as_owner, folder / STORE)
    if (folder / MODULES).exists():
        await _run(modules or target, "pg_restore", "--no-owner", "--no-privileges", *whole, folder / MODULES)


async def _run(url: str, tool: str, *arguments: str | Path) -> None:
    """One tool on one database; the password travels in the environment, never on the command line."""
    path = shutil.which(tool)
    if path is None:
        raise NotFound(f"{tool} is not on the PATH; install PostgreSQL's client programs of the server's version")
    host, port, database = _database(url)
    parts = urlsplit(url)
    given = {
        "PGHOST": host,
        "PGPORT": str(port),
        "PGDATABASE": database,
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGSSLMODE": parse_qs(parts.query).get("sslmode", [""])[0],
    }
    # pg_restore writes to standard output unless it is told a database.
    into = [f"--dbname={database}"] if tool == "pg_restore" else []
    process = await asyncio.create_subprocess_exec(
        path,
        *into,
        *map(str, arguments),
        env={**os.environ, **{name: value for name, value in given.items() if value}},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await process.communicate()
    if process.returncode != 0:
        raise ToolFailed(f"{tool} ended with {process.returncode}: {complaint.decode(errors='replace').strip()[-500:]}")


def _database(url: str) -> tuple[str, int, str]:
    parts = urlsplit(url)
    return parts.hostname or "localhost", parts.port or 5432, unquote(parts.path.lstrip("/"))
