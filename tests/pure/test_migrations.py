"""What the files of a schema may be: numbered migrations are frozen and only add, functions are replaced and never
dropped while an older process may call them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from engine.store.errors import SchemaChanged, SchemaNewer, SchemaOlder
from engine.store.migrate import FOLDER, FORMER, Migration, check, functions, locks, migrations, missing
from engine.store.statements import Driver

FROZEN = Path(__file__).parents[1] / "conformance" / "schemas" / "migrations.sha256"
DRIVERS: tuple[Driver, ...] = ("postgres", "sqlite")
TAKES_AWAY = re.compile(
    r"\bDROP\b|\bRENAME\b|\bSET NOT NULL\b|\bALTER (COLUMN )?\w+ (SET DATA )?TYPE\b|\bALTER TYPE\b|\bDELETE FROM\b",
    re.IGNORECASE,
)
"""What breaks a process of the release before."""
REPLACED = re.compile(r"\bDROP TRIGGER (\w+)( ON \w+)?;(?=.*\bCREATE TRIGGER \1\b)", re.IGNORECASE | re.DOTALL)
"""A guard gives way to another of its name."""


def _code(script: str) -> str:
    return re.sub(r"--[^\n]*", "", script)


class TestNumbered:
    def test_none_is_ever_changed(self) -> None:
        frozen = {line[66:]: line[:64] for line in FROZEN.read_text().splitlines()}
        found = {
            str(file.relative_to(FOLDER)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(FOLDER.glob("*/migrations/*.sql"))
        }
        assert found == frozen, (
            "a numbered migration never changes; a new one is added to the list: "
            f"(cd {FOLDER.name} && sha256sum */migrations/*.sql) > {FROZEN.name}"
        )

    @pytest.mark.parametrize("driver", DRIVERS)
    def test_only_a_contract_migration_takes_anything_away(self, driver: Driver) -> None:
        for migration in migrations(driver):
            if not migration.contracts:
                assert TAKES_AWAY.search(REPLACED.sub("", _code(migration.script))) is None, migration.name

    def test_they_hold_no_functions(self) -> None:
        for migration in migrations("postgres")[1:]:  # the first has the trigger function of the append-only tables
            assert "FUNCTION" not in _code(migration.script).upper().replace("DROP FUNCTION", ""), migration.name


class TestFunctions:
    def test_their_files_only_create_or_replace(self) -> None:
        for each in functions("postgres"):
            outside = re.sub(r"\$\$.*?\$\$", "", _code(each.script), flags=re.DOTALL)
            for statement in filter(None, map(str.strip, outside.split(";"))):
                assert statement.startswith("CREATE OR REPLACE FUNCTION "), f"{each.name}: {statement[:60]}"

    def test_no_function_is_defined_twice(self) -> None:
        names = [
            name
            for each in functions("postgres")
            for name in re.findall(r"^CREATE OR REPLACE FUNCTION (\w+)", each.script, re.MULTILINE)
        ]
        assert len(names) == len(set(names)) > 40, "another signature is another name"

    def test_a_changed_text_is_applied_anew_and_one_that_was_replaced_is_not_put_back(self, tmp_path: Path) -> None:
        folder = tmp_path / "postgres" / "functions"
        folder.mkdir(parents=True)
        (folder / "f.sql").write_text("first")
        [first] = missing("postgres", {}, folder=tmp_path).functions
        had = [(first.name, first.checksum)]
        assert missing("postgres", {}, had, tmp_path).names == []
        (folder / "f.sql").write_text("second")
        [second] = missing("postgres", {}, had, tmp_path).functions
        assert second.name == first.name == "functions/f"
        had.append((second.name, second.checksum))
        (folder / "f.sql").write_text("first")
        assert missing("postgres", {}, had, tmp_path).names == [], "an older program leaves the newer text alone"


class TestWhatADatabaseHas:
    def test_one_that_was_made_before_functions_had_files_lacks_functions_only(self) -> None:
        applied = {"0001_tables": migrations("postgres")[0].checksum} | dict.fromkeys(FORMER["postgres"], "any")
        absent = missing("postgres", applied)
        assert [each.name for each in absent.functions] == [each.name for each in functions("postgres")]
        assert min(each.name for each in absent.migrations) > "0004_settings"

    def test_an_older_program_goes_on_after_an_expanding_migration(self) -> None:
        applied = {m.name: m.checksum for m in migrations("sqlite")}
        check("sqlite", applied | {"9998_more": "x"})

    def test_an_older_program_is_refused_after_a_contract_migration(self) -> None:
        applied = {m.name: m.checksum for m in migrations("sqlite")}
        with pytest.raises(SchemaNewer, match="9999_contract_less"):
            missing("sqlite", applied | {"9998_more": "x", "9999_contract_less": "x"})

    def test_a_changed_migration_is_refused(self) -> None:
        first = migrations("sqlite")[0].name
        with pytest.raises(SchemaChanged, match=first):
            missing("sqlite", {first: "another"})

    def test_what_is_absent_is_named_with_the_remedy(self) -> None:
        applied = {m.name: m.checksum for m in migrations("postgres")}
        with pytest.raises(SchemaOlder, match=r"functions/append.*unwind migrate"):
            check("postgres", applied)


class TestLocks:
    @pytest.mark.parametrize(
        ("statement", "told"),
        [
            ("CREATE INDEX x ON log (tenant)", [("log", "writes", True)]),
            ("ALTER TABLE log ADD COLUMN x text", [("log", "reads and writes", False)]),
            ("ALTER TABLE log ADD COLUMN x text NOT NULL DEFAULT ''", [("log", "reads and writes", False)]),
            ("ALTER TABLE log ALTER COLUMN x SET NOT NULL", [("log", "reads and writes", True)]),
            ("ALTER TABLE log ADD CONSTRAINT c CHECK (x > 0)", [("log", "reads and writes", True)]),
            ("ALTER TABLE log ADD CONSTRAINT c CHECK (x > 0) NOT VALID", [("log", "reads and writes", False)]),
            ("UPDATE log SET x = 1", [("log", "writes", True)]),
            ("CREATE TABLE t (x int); CREATE INDEX i ON t (x)", []),
            ("-- ALTER TABLE log DROP COLUMN x;\nSELECT 1", []),
        ],
    )
    def test_what_others_wait_for_is_told(self, statement: str, told: list[tuple[str, str, bool]]) -> None:
        found = locks([Migration("9999_x", "", f"{statement};")])
        assert [(lock.table, lock.blocks, lock.long) for lock in found] == told
