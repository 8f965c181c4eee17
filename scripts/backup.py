"""`unwind backup` and `unwind restore`: an installation's state in a folder, taken while it runs, and put back
elsewhere. A folder holds `backup.json` (what it is, with a SHA-256 per file) and one file per database. The key file is
never in it.

    embedded      a copy of every SQLite file of the data folder, all as they were at one instant
    PostgreSQL    `pg_dump` of the store without the read models, and of the modules' schemas, under one snapshot;
                  the broker's queues stay in the broker
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from contracts.problems import Conflict, NotFound, Problem
from contracts.version import __version__

if TYPE_CHECKING:
    from engine.settings import Settings
    from engine.store import Store

MANIFEST: Final = "backup.json"
EMBEDDED: Final = "embedded"
POSTGRES: Final = "postgresql"


class BackupUnfit(Problem):
    code = "backup_unfit"
    title = "This backup does not fit"
    status = 409
    exit_code = 8


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder holds. `schema` are the names of the applied migrations, `lanes` those of the log."""

    program: str
    stack: str
    taken_at: str
    schema: list[str]
    lanes: list[int]
    files: dict[str, str]

    def document(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


async def back_up(settings: Settings, folder: Path) -> Manifest:
    """Fills the folder, which must not exist yet or be empty; it appears whole or not at all."""
    from engine.settings import database_url

    making = _begin(folder)
    try:
        async with _schema_of(settings) as store:
            await store.start()
            lanes = await store.lanes()
        taken_at = datetime.now(UTC).isoformat()
        if settings.database_url is None:
            from scripts.backup_files import copy_all

            stack = EMBEDDED
            copy_all(settings.data_dir, making)
        else:
            from scripts.backup_postgres import dump

            stack = POSTGRES
            owner = settings.database_owner_url
            source = owner.get_secret_value() if owner is not None else database_url(settings)
            modules = settings.modules_database_url
            await dump(source, modules.get_secret_value() if modules is not None else None, making)
        files = {str(file.relative_to(making)): _sha256(file) for file in sorted(making.rglob("*")) if file.is_file()}
        manifest = Manifest(__version__, stack, taken_at, _migrations(stack), lanes, files)
        (making / MANIFEST).write_bytes(orjson.dumps(manifest.document(), option=orjson.OPT_INDENT_2))
        making.replace(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return manifest


async def put_back(settings: Settings, folder: Path) -> Manifest:
    """Into an empty data folder or an empty database; then the epochs move on. Raises `BackupUnfit` and `Conflict`."""
    manifest = read_manifest(folder)
    stack = EMBEDDED if settings.database_url is None else POSTGRES
    if manifest.stack != stack:
        raise BackupUnfit(f"this is a backup of the {manifest.stack} stack, the settings name the {stack} one")
    if manifest.schema != _migrations(stack):
        raise BackupUnfit(
            f"the backup was made by version {manifest.program} with another schema; "
            "restore it with that version, then `unwind upgrade`"
        )
    if stack == EMBEDDED:
        from scripts.backup_files import put_all

        put_all(folder, list(manifest.files), settings.data_dir)
    else:
        from scripts.backup_postgres import load

        async with _schema_of(settings) as store:
            await store.migrate()
        owner = settings.database_owner_url or settings.database_url
        assert owner is not None
        modules = settings.modules_database_url
        await load(
            owner.get_secret_value(),
            modules.get_secret_value() if modules is not None else None,
            folder,
            manifest.lanes,
        )
    await move_on(settings)
    return manifest


async def move_on(settings: Settings) -> int:
    """After a database was put back by whatever means: no process that the original knew may write to it, and what
    they held is free. Answers how many open runs there are to go on."""
    async with _schema_of(settings) as store:
        await store.start()
        await store.restored()
        return sum((await store.census()).runs.values())


def read_manifest(folder: Path) -> Manifest:
    """Raises `NotFound` without one, `BackupUnfit` when a file is missing or is not what was written."""
    try:
        document: Mapping[str, Any] = orjson.loads((folder / MANIFEST).read_bytes())
        manifest = Manifest(**document)
    except FileNotFoundError:
        raise NotFound(f"{folder} has no {MANIFEST}; name a folder that `unwind backup` made", field="FOLDER") from None
    except (ValueError, TypeError):
        raise BackupUnfit(f"{folder / MANIFEST} is damaged; take another backup", field="FOLDER") from None
    for name, checksum in manifest.files.items():
        file = folder / name
        if not file.is_file() or _sha256(file) != checksum:
            raise BackupUnfit(f"{file} is missing or is not what was written; take another backup", field="FOLDER")
    return manifest


@asynccontextmanager
async def _schema_of(settings: Settings) -> AsyncIterator[Store]:
    """The store as the schema's owner sees it, not started."""
    from engine.settings import database_url
    from engine.store import open_store

    owner = settings.database_owner_url
    store = open_store(owner.get_secret_value() if owner is not None else database_url(settings))
    try:
        yield store
    finally:
        await store.stop()


def _migrations(stack: str) -> list[str]:
    from engine.store.migrate import migrations

    return [each.name for each in migrations("sqlite" if stack == EMBEDDED else "postgres")]


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _begin(folder: Path) -> Path:
    """The folder beside it that becomes it at the end."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is not empty; name a folder that does not exist yet", field="FOLDER")
    making = folder.absolute().with_name(f".{folder.name}.partial")
    making.mkdir(parents=True, mode=0o700)
    return making
