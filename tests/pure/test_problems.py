"""Refusals as data: one code each, statuses and exit codes that are known, and a document nobody can twist."""

from __future__ import annotations

import ast
import re
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson
import pytest

from contracts import problems
from contracts.problems import Conflict, EnvelopeInvalid, PayloadInvalid, Problem
from scripts.border import EXIT_CODES

ROOT = Path(__file__).parents[2]
FLOORS = ("contracts", "engine", "projections", "consumers", "scripts")
BRINGS_ITS_OWN = {"Refused", "PayloadOverQuota"}
"""The command line's retelling of what the API refused: its code is the API's. What is too large for a quota has the
code of every quota, and the status of what is too large."""
OWN = [cls for cls in vars(problems).values() if isinstance(cls, type) and issubclass(cls, Problem)]


def declared() -> dict[str, dict[str, Any]]:
    """Every subclass of `Problem` in the floors by name, with the class attributes written in it. Read, not imported:
    what a floor needs to run is not needed to know its refusals."""
    found: dict[str, tuple[set[str], dict[str, Any]]] = {}
    for floor in FLOORS:
        for path in (ROOT / floor).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                    found[node.name] = (bases, dict(_assigned(node)))
    problem_names = {"Problem"}
    while more := {name for name, (bases, _) in found.items() if bases & problem_names} - problem_names:
        problem_names |= more
    return {name: found[name][1] for name in problem_names - {"Problem"} - BRINGS_ITS_OWN}


def _assigned(node: ast.ClassDef) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value is not None:
            pairs.append((item.target.id, item.value))
        elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            pairs.append((item.targets[0].id, item.value))
    return [(name, value.value) for name, value in pairs if isinstance(value, ast.Constant)]


def test_every_refusal_has_a_code_of_its_own() -> None:
    codes = {name: attributes.get("code") for name, attributes in declared().items()}
    assert len(codes) > len(OWN)
    assert [name for name, code in codes.items() if code is None] == []
    assert len(set(codes.values())) == len(codes), sorted(map(str, codes.values()))


def test_statuses_and_exit_codes_are_known_ones() -> None:
    for name, attributes in declared().items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", attributes["code"]), name
        if "status" in attributes:
            assert HTTPStatus(attributes["status"]).value >= 400, name
        if "exit_code" in attributes:
            assert attributes["exit_code"] in EXIT_CODES, name


@pytest.mark.parametrize("cls", OWN)
def test_a_refusal_is_an_rfc_9457_document(cls: type[Problem]) -> None:
    make: Any = cls
    problem = make("id", "is missing") if cls is EnvelopeInvalid else make("no; do that", field="/a", run_id="r1")
    document = problem.to_document()
    assert document["type"] == f"urn:unwind:problem:{cls.code}"
    assert (document["status"], document["title"], document["code"]) == (cls.status, cls.title, cls.code)
    assert document["detail"] == str(problem)
    assert orjson.dumps(document)


def test_context_and_the_field_to_blame_are_told_and_cannot_replace_the_members() -> None:
    document = Conflict("no", status=200, title="fine", code="ok", run_id="r1").to_document()
    assert (document["status"], document["code"], document["run_id"]) == (409, "conflict", "r1")
    assert document["title"] == Conflict.title
    assert "field" not in document
    assert PayloadInvalid("no", field="/email").to_document()["field"] == "/email"


def test_an_envelope_refusal_begins_with_the_field_and_ends_with_the_remedy() -> None:
    problem = EnvelopeInvalid("id", "is missing; send one")
    assert (problem.field, str(problem)) == ("id", "id is missing; send one")
