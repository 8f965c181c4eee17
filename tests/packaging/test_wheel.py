"""The wheel and the sdist as a user meets them: built, installed into an empty environment with pinned requirements,
and run from a folder whose own packages have the same names as our floors."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts.version import __version__

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("contracts", "engine", "projections", "consumers", "scripts")

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(300), pytest.mark.xdist_group("packaging")]


def run(*command: str | Path, cwd: Path, timeout: float = 240, **environment: str) -> str:
    """A command without our own import path and settings in its environment; its output, or a failure with it."""
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "UNWIND_", "PYTEST_", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    said = (done.stdout + done.stderr)[-6000:]
    assert done.returncode == 0, f"{command[0]} exited with {done.returncode}:\n{said}"
    return done.stdout


@dataclass(frozen=True, slots=True)
class Distributions:
    wheel: Path
    sdist: Path


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment with the wheel, and a user's folder that has packages named like ours."""

    home: Path
    user: Path

    @property
    def python(self) -> Path:
        return self.home / "bin" / "python"

    @property
    def unwind(self) -> Path:
        return self.home / "bin" / "unwind"

    def ask(self, program: str, *, cwd: Path | None = None) -> str:
        return run(self.python, "-c", program, cwd=cwd or self.home).strip()


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Built from the committed and uncommitted files that git does not ignore, as a release would be: sdist, then the
    wheel out of the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Distributions(wheel, sdist)


@pytest.fixture(scope="module")
def installed(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The requirements come from this environment's own packages: what is proven here is our wheel, not the network."""
    home = tmp_path_factory.mktemp("empty")
    venv.create(home, with_pip=False, symlinks=True)
    (site,) = home.glob("lib/python*/site-packages")
    ours = Path(pytest.__file__).resolve().parents[1]
    for requirement in (*runtime_packages(ours),):
        target = site / requirement.relative_to(ours)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(requirement)
    run(
        sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--quiet", "--no-index",
        "--no-deps",
        distributions.wheel, cwd=home,
    )  # fmt: skip
    user = tmp_path_factory.mktemp("user")
    for name in FLOORS:
        (user / name).mkdir()
        (user / name / "__init__.py").write_text(f"raise RuntimeError('the {name} package of the user was imported')\n")
    yield Installed(home, user)
    shutil.rmtree(home, ignore_errors=True)


def runtime_packages(site: Path) -> list[Path]:
    """Top-level entries of the pinned runtime packages in a site folder."""
    from importlib.metadata import PackageNotFoundError, distribution

    from scripts.notices import pinned

    entries: set[Path] = set()
    for name in pinned():
        try:
            files = distribution(name).files or ()
        except PackageNotFoundError:
            continue
        entries |= {site / file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}
    return sorted(entry for entry in entries if entry.exists())


def test_the_wheel_adds_one_name_to_the_environment(distributions: Distributions) -> None:
    with zipfile.ZipFile(distributions.wheel) as wheel:
        names = wheel.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"unwind_saga", "unwind_saga.pth", f"unwind_saga-{__version__}.dist-info"}
    floors = {name.split("/")[2] for name in names if name.startswith("unwind_saga/floors/")}
    assert floors == set(FLOORS)


def test_the_wheel_holds_what_the_floors_need_and_no_tests_or_tools_of_a_checkout(distributions: Distributions) -> None:
    with zipfile.ZipFile(distributions.wheel) as wheel:
        names = set(wheel.namelist())
    tracked = run("git", "ls-files", *FLOORS, cwd=ROOT).split() if (ROOT / ".git").exists() else []
    left_out = re.compile(r"^scripts/(start|test|lock|environment\.sh|wheel/.*|mutants/.*|provision/.*)$")
    expected = {f"unwind_saga/floors/{path}" for path in tracked if not left_out.match(path) and (ROOT / path).exists()}
    assert expected - names == set()
    assert [name for name in names if "/tests/" in name or "/provision/" in name or "node_modules" in name] == []
    assert any(name.endswith(".sql") for name in names)


def test_the_version_is_the_one_of_the_source(distributions: Distributions, installed: Installed) -> None:
    assert distributions.wheel.name.startswith(f"unwind_saga-{__version__}-")
    assert distributions.sdist.name == f"unwind_saga-{__version__}.tar.gz"
    assert run(installed.unwind, "--version", cwd=installed.home).strip().endswith(__version__)


def test_the_sdist_carries_the_licence_the_notices_and_the_locks(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "NOTICE", "pyproject.toml", "README.md", "requirements/runtime.txt", "compose.yaml"} <= names
    assert [name for name in names if name.startswith((".venv", ".git/", "dist/"))] == []


def test_the_requirements_of_the_wheel_are_met_by_the_pinned_runtime_packages(installed: Installed) -> None:
    said = run(sys.executable, "-m", "pip", "--python", installed.python, "check", cwd=installed.home)
    assert "No broken requirements" in said


def test_the_command_is_not_shadowed_by_packages_where_it_is_called(installed: Installed) -> None:
    assert run(installed.unwind, "--version", cwd=installed.user).strip().endswith(__version__)
    assert run(installed.unwind, "--help", cwd=installed.user, PYTHONPATH=str(installed.user))


def test_child_processes_of_the_command_find_our_floors_too(installed: Installed) -> None:
    program = (
        "import unwind_saga, subprocess, sys; unwind_saga.use_floors(); "
        "print(subprocess.check_output([sys.executable, '-m', 'scripts', '--version'], text=True))"
    )
    asked = run(installed.python, "-P", "-c", program, cwd=installed.user)
    assert asked.strip().endswith(__version__)


def test_a_process_of_a_module_imports_the_sdk_without_ceremony(installed: Installed) -> None:
    where = installed.ask("import contracts.sdk; print(contracts.sdk.__file__)")
    assert "/unwind_saga/floors/contracts/sdk/" in where


def test_a_process_with_packages_of_the_same_names_asks_for_our_floors(installed: Installed) -> None:
    program = "import unwind_saga; unwind_saga.use_floors(); import contracts.sdk; print(contracts.sdk.__file__)"
    assert "/unwind_saga/floors/contracts/sdk/" in installed.ask(program, cwd=installed.user)


def test_a_package_of_the_same_name_that_is_already_imported_is_named(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts" / "__init__.py").touch()
    program = (
        "import contracts, unwind_saga\n"
        "try:\n    unwind_saga.use_floors()\n"
        "except ImportError as error:\n    print(error)\n"
    )
    said = installed.ask(program, cwd=tmp_path)
    assert "another package named 'contracts'" in said
    assert str(tmp_path) in said


def test_pytest_finds_the_plug_in_and_plays_worlds_of_a_users_saga(installed: Installed, tmp_path: Path) -> None:
    """With our pytest behind the environment's own packages; the wheel does not bring one."""
    for name in ("parcels.py", "test_parcels.py"):
        source = (ROOT / "docs" / "examples" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(source.replace("docs.examples.", ""), encoding="utf-8")
    ours = Path(pytest.__file__).resolve().parents[1]
    program = (
        f"import sys; sys.path.append({str(ours)!r}); import pytest; "
        "sys.exit(pytest.main(['-q', '-s', '--unwind-seeds', '2']))"
    )
    said = run(installed.python, "-c", program, cwd=tmp_path)
    assert "2 worlds, 6 runs" in said


def test_the_engine_starts_shows_its_demo_and_ends(installed: Installed, tmp_path: Path) -> None:
    said = run(
        installed.unwind, "up", "--once", "--demo", "--json", "--port", "0", cwd=installed.user,
        UNWIND_DATA_DIR=str(tmp_path / "data"),
    )  # fmt: skip
    document = json.loads(said[said.index("{") :])
    assert document["demo"], said
