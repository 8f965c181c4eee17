"""Applies mutants one at a time in a scratch copy of the checkout and runs the test that must fail. Nothing in the
checkout is touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from contracts.problems import Conflict, NotFound

ROOT: Final = Path(__file__).resolve().parents[2]
COPIED: Final = (
    "contracts",
    "engine",
    "projections",
    "consumers",
    "scripts",
    "tests",
    "docs",
    "pyproject.toml",
    "README.md",
)
TEST_SECONDS: Final = 300

Fate = Literal["killed", "survived", "broken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One wrong change: in `path`, the one place that reads `old` reads `new`. `test` (a file, or file::name) must
    then fail. `law` says what it breaks."""

    name: str
    law: str
    path: str
    old: str
    new: str
    test: str
    select: str = ""
    needs: tuple[Literal["postgres", "rabbitmq"], ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant. `broken`: its test does not pass on the untouched code, or could not be run at all."""

    mutant: Mutant
    fate: Fate
    detail: str = ""


def mutated(source: str, mutant: Mutant) -> str:
    """The changed text. Raises `Conflict` unless `old` occurs exactly once: the mutant must be brought up to date."""
    count = source.count(mutant.old)
    if count != 1:
        raise Conflict(
            f"mutant {mutant.name}: its text occurs {count} times in {mutant.path}; bring it up to date", field="old"
        )
    return source.replace(mutant.old, mutant.new)


def hunt(mutants: Sequence[Mutant], tell: Callable[[Verdict], None]) -> list[Verdict]:
    """Runs every mutant; each test is first run once on the untouched copy, since a test that fails anyway kills
    nothing."""
    verdicts: list[Verdict] = []
    with scratch_copy() as copy:
        sound: dict[tuple[str, str], tuple[bool, str]] = {}
        for mutant in mutants:
            named = (mutant.test, mutant.select)
            if named not in sound:
                code, tail = run_test(copy, *named)
                sound[named] = (code == 0, tail)
            passes, tail = sound[named]
            verdict = (
                _judge(copy, mutant)
                if passes
                else Verdict(mutant, "broken", f"the test fails on untouched code: {tail}")
            )
            verdicts.append(verdict)
            tell(verdict)
    return verdicts


def _judge(copy: Path, mutant: Mutant) -> Verdict:
    file = copy / mutant.path
    if not file.is_file():
        raise NotFound(f"mutant {mutant.name}: {mutant.path} does not exist", field="path")
    original = file.read_text(encoding="utf-8")
    file.write_text(mutated(original, mutant), encoding="utf-8")
    try:
        code, tail = run_test(copy, mutant.test, mutant.select)
    finally:
        file.write_text(original, encoding="utf-8")
    if code == 0:
        return Verdict(mutant, "survived", f"{mutant.test} still passes")
    # 1: tests ran and failed. An import error in the mutated module is a failed collection (2): the law was not tested.
    return Verdict(mutant, "killed" if code == 1 else "broken", tail)


@contextmanager
def scratch_copy() -> Iterator[Path]:
    """The checkout's sources in a folder of their own that goes away again."""
    with tempfile.TemporaryDirectory(prefix="unwind-mutants-") as folder:
        copy = Path(folder) / "checkout"
        copy.mkdir()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules", "dist")
                )
            elif source.exists():
                shutil.copy2(source, copy / name)
        yield copy


def run_test(copy: Path, test: str, select: str = "") -> tuple[int, str]:
    """The exit code of pytest in the copy, and the last line it said. A hung test counts as failed: a law that ends
    in a deadlock is broken too."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "UNWIND_ACCEPTANCE_FILE": str(copy.parent / "acceptance.json")}
    # A test that is left out for want of a server would let every mutant survive.
    environment |= {"UNWIND_TEST_REQUIRE_SERVERS": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", test]
    command += ["-k", select] if select else []
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=TEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, f"no end within {TEST_SECONDS} s"
    lines = [
        line for line in done.stdout.strip().splitlines() if line.startswith(("FAILED", "ERROR"))
    ] or done.stdout.strip().splitlines()
    return done.returncode, lines[-1] if lines else done.stderr.strip()[-200:]
