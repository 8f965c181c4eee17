"""Which migrations there are and which are missing: numbered files per driver, known by name and checksum. Pure but
for reading the files; each driver runs what is missing, all in one transaction, under its lock."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.store.errors import SchemaChanged, SchemaNewer, SchemaOlder
from engine.store.statements import Driver

FOLDER = Path(__file__).parent / "sql"


@dataclass(frozen=True, slots=True)
class Migration:
    name: str
    checksum: str
    script: str


def migrations(driver: Driver, folder: Path = FOLDER) -> list[Migration]:
    """Every migration of the driver, in order."""
    found = []
    for file in sorted((folder / driver / "migrations").glob("[0-9]*.sql")):
        script = file.read_text(encoding="utf-8")
        found.append(Migration(file.stem, hashlib.sha256(script.encode()).hexdigest(), script))
    return found


def missing(known: Sequence[Migration], applied: Mapping[str, str]) -> list[Migration]:
    """What is still to be applied. Raises `SchemaNewer` for names this program does not know, `SchemaChanged` for
    another checksum."""
    names = {migration.name for migration in known}
    unknown = sorted(set(applied) - names)
    if unknown:
        raise SchemaNewer(unknown)
    for migration in known:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise SchemaChanged(migration.name)
    return [migration for migration in known if migration.name not in applied]


def check(known: Sequence[Migration], applied: Mapping[str, str]) -> None:
    """Raises unless exactly the known migrations are applied."""
    absent = missing(known, applied)
    if absent:
        raise SchemaOlder([migration.name for migration in absent])
