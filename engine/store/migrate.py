"""What a database is to have and what it lacks. Two kinds of files per driver:

- `migrations/NNNN_name.sql`, tables and types: run once, in order, and frozen; `NNNN_contract_name.sql` takes away what
  an older program still uses, every other one only adds;
- `functions/*.sql`, on PostgreSQL: run anew whenever their text changes, after the migrations. A function's arguments
  and result never change, since the processes of the release before still call it: a changed one has a new name, and a
  contract migration drops the old one a release later.

Pure but for reading the files; each driver runs what is missing, all in one transaction, under its lock."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.store.errors import SchemaChanged, SchemaNewer, SchemaOlder
from engine.store.statements import Driver

FOLDER = Path(__file__).parent / "sql"

FORMER: Final[Mapping[Driver, Mapping[str, str | None]]] = {
    "postgres": {
        "0002_append": "0002_types",
        "0003_functions": "0002_types",
        "0004_roles": "0003_roles",
        "0005_snapshots": None,
        "0006_census": None,
        "0007_settings": "0004_settings",
        "0008_subjects": None,
    },
    "sqlite": {},
}
"""Migrations that a database may have recorded from before functions had files of their own, and what they stand for
today; None: functions only."""


@dataclass(frozen=True, slots=True)
class Migration:
    name: str
    checksum: str
    script: str

    @property
    def contracts(self) -> bool:
        """Whether it takes away what an older program uses."""
        return is_contract(self.name)


@dataclass(frozen=True, slots=True)
class Missing:
    """In the order in which they are to be run."""

    migrations: Sequence[Migration]
    functions: Sequence[Migration]

    @property
    def names(self) -> list[str]:
        return [each.name for each in (*self.migrations, *self.functions)]


def is_contract(name: str) -> bool:
    return re.match(r"\d+_contract_", name) is not None


def migrations(driver: Driver, folder: Path = FOLDER) -> list[Migration]:
    """Every numbered migration of the driver, in order."""
    return [_read(file, file.stem) for file in sorted((folder / driver / "migrations").glob("[0-9]*.sql"))]


def functions(driver: Driver, folder: Path = FOLDER) -> list[Migration]:
    """Every file of functions, named `functions/<file>`."""
    return [_read(file, f"functions/{file.stem}") for file in sorted((folder / driver / "functions").glob("*.sql"))]


def _read(file: Path, name: str) -> Migration:
    script = file.read_text(encoding="utf-8")
    return Migration(name, hashlib.sha256(script.encode()).hexdigest(), script)


def missing(
    driver: Driver, applied: Mapping[str, str], had: Collection[tuple[str, str]] = (), folder: Path = FOLDER
) -> Missing:
    """What is still to be applied. `applied` are the recorded migrations by name, `had` is the name and checksum of
    every text that a functions file ever had in this database: a text that was replaced by a newer program's is not
    put back.

    Raises `SchemaNewer` for a contract migration this program does not know, `SchemaChanged` for another checksum.
    """
    known = migrations(driver, folder)
    former = FORMER[driver]
    names = {migration.name for migration in known}
    unknown = sorted(name for name in set(applied) - names - set(former) if is_contract(name))
    if unknown:
        raise SchemaNewer(unknown)
    for migration in known:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise SchemaChanged(migration.name)
    done = set(applied) | {former[name] for name in applied if name in former}
    return Missing(
        [migration for migration in known if migration.name not in done],
        [each for each in functions(driver, folder) if (each.name, each.checksum) not in had],
    )


@dataclass(frozen=True, slots=True)
class Lock:
    """A statement of a migration that others wait for."""

    migration: str
    table: str
    statement: str
    blocks: str
    """`writes`, or `reads and writes`."""
    long: bool
    """As long as all rows are looked at, not for a moment only."""


_STATEMENTS: Final = (
    (
        re.compile(r"CREATE (?:UNIQUE )?INDEX (?:IF NOT EXISTS )?\w+ ON (\w+)", re.IGNORECASE),
        "writes",
        True,
    ),
    (re.compile(r"CREATE (?:OR REPLACE )?TRIGGER \w+ [\w ]+? ON (\w+)", re.IGNORECASE), "writes", False),
    (re.compile(r"(?:UPDATE|DELETE FROM) (\w+)", re.IGNORECASE), "writes", True),
    (re.compile(r"ALTER TABLE (?:IF EXISTS |ONLY )*(\w+)", re.IGNORECASE), "reads and writes", False),
    (re.compile(r"(?:DROP TABLE|TRUNCATE)(?: IF EXISTS)? (\w+)", re.IGNORECASE), "reads and writes", False),
)
_LOOKS_AT_ALL: Final = re.compile(
    r"\bSET NOT NULL\b|\bTYPE\b|\bADD (CONSTRAINT|CHECK|PRIMARY|UNIQUE|FOREIGN)\b(?!.*NOT VALID)",
    re.IGNORECASE | re.DOTALL,
)


def locks(wanted: Sequence[Migration]) -> list[Lock]:
    """What these migrations do to tables that are there before them, in their order."""
    code = {each.name: re.sub(r"--[^\n]*", "", each.script) for each in wanted}
    made = {name for script in code.values() for name in re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", script)}
    found = []
    for name, script in code.items():
        for statement in map(str.strip, script.split(";")):
            for pattern, blocks, long in _STATEMENTS:
                match = pattern.match(statement)
                if match is not None and match.group(1) not in made:
                    whole = long or _LOOKS_AT_ALL.search(statement) is not None
                    found.append(Lock(name, match.group(1), " ".join(statement.split())[:120], blocks, whole))
    return found


def check(driver: Driver, applied: Mapping[str, str], had: Collection[tuple[str, str]] = ()) -> None:
    """Raises `SchemaOlder` unless everything is applied."""
    absent = missing(driver, applied, had).names
    if absent:
        raise SchemaOlder(absent)
