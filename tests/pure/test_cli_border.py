"""The border of the command line: exit codes, one-line problems, JSON everywhere, quick help."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from contracts.problems import Problem
from scripts.answer import Answer, table
from scripts.border import EXIT_CODES, perform
from scripts.cli import app, main

ROOT = Path(__file__).resolve().parents[2]


def commands(group: typer.core.TyperGroup, path: str = "") -> Iterator[tuple[str, typer.core.TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, f"{path}{name} ")
        else:
            assert isinstance(command, typer.core.TyperCommand)
            yield path + name, command


def all_commands() -> dict[str, typer.core.TyperCommand]:
    root = get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    return dict(commands(root))


def all_problems(kind: type[Problem] = Problem) -> Iterator[type[Problem]]:
    yield kind
    for child in kind.__subclasses__():
        yield from all_problems(child)


@pytest.mark.parametrize("name", sorted(all_commands()))
def test_every_verb_takes_json_and_says_what_it_does(name: str) -> None:
    command = all_commands()[name]
    assert "--json" in [option for parameter in command.params for option in parameter.opts]
    assert command.help


def test_every_problem_ends_with_a_documented_exit_code() -> None:
    assert {problem.exit_code for problem in all_problems()} <= set(EXIT_CODES)


def test_a_problem_is_one_line_that_names_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    class Missing(Problem):
        code = "missing_for_test"
        exit_code = 3

    def verb() -> Answer:
        raise Missing("run 17 does not exist;\nlist runs with `unwind runs list`", field="run")

    assert perform(verb, as_json=False) == 3
    assert (
        capsys.readouterr().err
        == "unwind: missing_for_test: run 17 does not exist; list runs with `unwind runs list`\n"
    )
    assert perform(verb, as_json=True) == 3
    document = json.loads(capsys.readouterr().err)
    assert (document["code"], document["field"]) == ("missing_for_test", "run")


def test_a_fault_of_our_own_is_exit_code_1_and_names_how_to_see_more(capsys: pytest.CaptureFixture[str]) -> None:
    def verb() -> Answer:
        raise RuntimeError("broken")

    assert perform(verb, as_json=False) == 1
    assert capsys.readouterr().err == "unwind: internal: RuntimeError: broken; set UNWIND_DEBUG=1 to see where\n"


def test_an_answer_is_a_table_or_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer([{"a": 1}], table(("A", "B"), [("x", None)]))
    assert perform(lambda: answer, as_json=False) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["A", "B"], ["x", "-"]]
    assert perform(lambda: answer, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == [{"a": 1}]


def test_a_wrong_option_is_one_line_and_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["acceptance", "--nope"]) == 2
    assert capsys.readouterr().err == "unwind: bad_input: No such option: --nope (see `unwind acceptance --help`)\n"
    assert main(["acceptance", "--nope", "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["code"] == "bad_input"


def test_help_costs_little_more_than_loading_the_library_it_is_made_with() -> None:
    # A ratio of CPU times within one run, the least of three: a busy or slow machine stretches both alike. The first
    # call of a fresh checkout compiles every module, which is paid once and not meant here.
    help_of = [sys.executable, "-m", "scripts", "--help"]
    _cpu_seconds(help_of)
    library = min(_cpu_seconds([sys.executable, "-c", "import typer, rich.console"]) for _ in range(3))
    assert min(_cpu_seconds(help_of) for _ in range(3)) < 3 * library


def _cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def test_no_color_means_no_escape_codes() -> None:
    environment = {**os.environ, "NO_COLOR": "1", "FORCE_COLOR": ""}
    done = subprocess.run(
        [sys.executable, "-m", "scripts", "config", "show"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "UNWIND_DATA_DIR" in done.stdout
    assert "\x1b" not in done.stdout
