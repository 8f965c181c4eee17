"""The acceptance table and the plug-in that fills it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.acceptance import Result, merge, read_results, read_rows, state_of, states, summary, write_results

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]


def result(test: str, outcome: str, *rows: str, stacks: tuple[str, ...] = ("embedded", "production")) -> Result:
    return Result(test, rows, stacks, outcome, "2030-01-01T00:00:00+00:00")  # type: ignore[arg-type]


def test_every_row_has_an_id_two_sentences_and_a_stack() -> None:
    rows = read_rows()
    assert len(rows) == 56
    assert len({row.id for row in rows}) == len(rows)
    assert all(row.capability and row.proof and row.stacks for row in rows)


STORY = "tests/stories/test_it.py::test_story"


def test_one_failure_spoils_a_row_and_only_on_its_stack() -> None:
    results = [result(STORY, "passed", "H1"), result("b", "failed", "H1", stacks=("embedded",))]
    assert state_of("H1", "embedded", results) == "fail"
    assert state_of("H1", "production", results) == "pass"


def test_a_row_of_which_a_test_was_left_out_is_not_proven() -> None:
    left_out = result(f"{STORY}[production]", "skipped", "H1", stacks=("production",))
    results = [result(STORY, "passed", "H1"), left_out]
    assert state_of("H1", "production", results) == "skipped"
    assert state_of("H1", "embedded", results) == "pass"
    assert state_of("H2", "production", []) == "no test"


def test_a_row_that_no_story_shows_is_not_proven() -> None:
    within = result("tests/web/test_api.py::test_within", "passed", "H1")
    assert state_of("H1", "embedded", [within]) == "no story"
    assert state_of("H1", "embedded", [within, result(STORY, "passed", "H1", stacks=("embedded",))]) == "pass"


def test_the_summary_says_what_the_last_run_left_out() -> None:
    results = [
        result(f"{STORY}[embedded]", "passed", "H1", stacks=("embedded",)),
        result(f"{STORY}[production]", "skipped", "H1", stacks=("production",)),
    ]
    rows = [row for row in read_rows() if row.id == "H1"]
    told = summary(states(rows, results), results)
    assert told.startswith("0 of 1 rows pass on their stacks: embedded 1 of 1, production 0 of 1.\n")
    assert "want of a PostgreSQL or RabbitMQ" in told
    assert "no story" not in told
    passed = [result(STORY, "passed", "H1")]
    assert summary(states(rows, passed), passed).splitlines() == [
        "1 of 1 rows pass on their stacks: embedded 1 of 1, production 1 of 1.",
        "Tested from 2030-01-01T00:00:00+00:00 to 2030-01-01T00:00:00+00:00.",
    ]


def test_a_partial_run_keeps_what_others_showed_and_forgets_tests_that_are_gone() -> None:
    before = [
        result("x.py::one", "passed", "H1"),
        result("x.py::gone", "failed", "H1"),
        result("y.py::two", "passed", "H2"),
    ]
    after = merge(before, [result("x.py::one", "failed", "H1")], ["x.py::one", "x.py::unmarked"])
    assert [(item.test, item.outcome) for item in after] == [("x.py::one", "failed"), ("y.py::two", "passed")]


def test_results_survive_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "acceptance.json"
    write_results([result("a", "passed", "H1", "H2", stacks=("embedded",))], path)
    assert read_results(path) == (result("a", "passed", "H1", "H2", stacks=("embedded",)),)


def test_the_plug_in_records_rows_stacks_and_outcomes(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "acceptance.json"
    monkeypatch.setenv("UNWIND_ACCEPTANCE_FILE", str(path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\nmarkers =\n    acceptance\n    postgres\n")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.acceptance("H1", "H2")
        @pytest.mark.parametrize("stack", ["embedded", "production"])
        def test_both(stack): assert stack == "embedded"

        @pytest.mark.postgres
        @pytest.mark.acceptance("G1")
        def test_server(): pytest.skip("no server")

        def test_unmarked(): pass
        """
    )
    pytester.runpytest_subprocess("-p", "tests.acceptance_plugin", "-p", "no:cacheprovider")
    found = {(item.rows, item.stacks): item.outcome for item in read_results(path)}
    assert found == {
        (("H1", "H2"), ("embedded",)): "passed",
        (("H1", "H2"), ("production",)): "failed",
        (("G1",), ("production",)): "skipped",
    }


def test_a_mark_that_names_no_row_stops_the_session(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNWIND_ACCEPTANCE_FILE", str(tmp_path / "acceptance.json"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\nmarkers =\n    acceptance\n")
    pytester.makepyfile("import pytest\n\n@pytest.mark.acceptance('Z99')\ndef test_wrong(): pass\n")
    outcome = pytester.runpytest_subprocess("-p", "tests.acceptance_plugin", "-p", "no:cacheprovider")
    assert outcome.ret == pytest.ExitCode.USAGE_ERROR
    outcome.stderr.fnmatch_lines(["*no acceptance row Z99*"])
