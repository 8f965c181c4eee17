"""Every mutant still fits the code it changes, so that none rots unseen."""

from __future__ import annotations

import pytest

from contracts.problems import Conflict
from scripts.mutants.__main__ import main
from scripts.mutants.catalog import MUTANTS
from scripts.mutants.run import ROOT, Mutant, mutated


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place_and_names_a_test_that_exists(mutant: Mutant) -> None:
    source = (ROOT / mutant.path).read_text(encoding="utf-8")
    changed = mutated(source, mutant)
    assert changed != source
    if mutant.path.endswith(".py"):
        compile(changed, mutant.path, "exec")
    file, _, name = mutant.test.partition("::")
    assert not name or name.rpartition("::")[2] in (ROOT / file).read_text(encoding="utf-8")
    suites = "".join(path.read_text(encoding="utf-8") for path in (ROOT / file).parent.glob("*.py"))
    assert mutant.select.partition(" ")[0] in suites


def test_mutants_have_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_a_mutant_that_fits_no_place_is_refused() -> None:
    mutant = Mutant(name="lost", law="none", path="x.py", old="absent", new="", test="y.py")
    with pytest.raises(Conflict, match="occurs 0 times"):
        mutated("present", mutant)


def test_help_runs_nothing_and_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "--list" in capsys.readouterr().out
    assert main(["--lst"]) == 2
    assert "--lst" in capsys.readouterr().err
    assert main(["--list", "no-lane-lock"]) == 0
    assert capsys.readouterr().out.startswith("no-lane-lock ")
