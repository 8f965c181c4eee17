"""The hash-pinned requirements belong to pyproject.toml, tell no address, and NOTICE belongs to them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.notices import notice

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FILES = {"runtime": ("fast", "tracing"), "develop": ("fast", "tracing", "test", "dev"), "bench": ("fast", "bench")}
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^\s;]+)(?: ; [^\\]+)? \\$")


def text_of(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    matches = [PIN.match(line) for line in text_of(name).splitlines()]
    return {canonicalize_name(match[1]): match[2] for match in matches if match}


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_of_the_project_is_pinned_within_its_bounds(name: str) -> None:
    wanted = list(PROJECT["dependencies"])
    for extra in FILES[name]:
        wanted += PROJECT["optional-dependencies"][extra]
    found = pins(name)
    for line in wanted:
        requirement = Requirement(line)
        pinned = found.get(canonicalize_name(requirement.name))
        assert pinned, f"{requirement.name} is not in requirements/{name}.txt; run scripts/lock"
        assert requirement.specifier.contains(pinned), f"{line}, but {pinned} is pinned; run scripts/lock"


@pytest.mark.parametrize("name", FILES)
def test_every_line_is_a_pin_or_its_hash(name: str) -> None:
    hashed: dict[str, int] = {}
    current = ""
    for line in text_of(name).splitlines():
        match = PIN.match(line)
        if match:
            current = match[1]
            hashed[current] = 0
            continue
        assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
        hashed[current] += 1
    assert hashed
    assert [package for package, hashes in hashed.items() if hashes == 0] == []


@pytest.mark.parametrize("name", ["runtime", "bench"])
def test_the_files_agree_on_the_versions_they_share(name: str) -> None:
    develop = pins("develop")
    differing = {package for package, version in pins(name).items() if develop.get(package, version) != version}
    assert differing == set()


def test_develop_holds_all_of_runtime() -> None:
    assert pins("runtime").keys() - pins("develop").keys() == set()


def test_every_requirement_of_the_project_has_a_lower_bound() -> None:
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    unbound = [line for line in lines if not any(part.operator == ">=" for part in Requirement(line).specifier)]
    assert unbound == []


def test_the_notices_are_current() -> None:
    assert (ROOT / "NOTICE").read_text(encoding="utf-8") == notice(), "run `python -m scripts.notices`"
