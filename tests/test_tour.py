"""The tour that the README takes: every command of its section "Follow one event" is run against an engine on a fresh
folder, and must print what the README shows. Run this file as a script to print the section anew."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEADLINE_SECONDS = 30.0
READY = re.compile(r"^Unwind is ready at (http://\S+)")
# What differs from run to run, replaced by something of the same length so that columns stay where they are.
VOLATILE = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), lambda found: "i" * len(found[0])),
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?"), lambda found: "t" * 19),
)


def steps(page: str) -> list[tuple[str, str]]:
    """The commands of the section, each with the output that is shown under it."""
    section = page.split("## Follow one event", 1)[1].split("\n## ", 1)[0]
    found: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def comparable(output: str) -> str:
    for pattern, stand_in in VOLATILE:
        output = pattern.sub(stand_in, output)
    return "\n".join(line.rstrip() for line in output.strip().splitlines())


@contextmanager
def engine(folder: Path) -> Iterator[dict[str, str]]:
    """`unwind up` on this folder; answers the environment in which the other commands find it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UNWIND_")}
    environment |= {"UNWIND_DATA_DIR": str(folder), "COLUMNS": "130", "UNWIND_LOG__LEVEL": "warning"}
    command = [sys.executable, "-m", "scripts", "up", "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert READY.match(line), f"the first line was {line!r}"
        yield environment
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0


def run(command: str, environment: dict[str, str], run_id: str | None) -> str:
    line = command.removeprefix("unwind ").replace("RUN", run_id or "")
    shell = f"exec {sys.executable} -m scripts {line}"
    done = subprocess.run(
        ["sh", "-c", shell],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def play(command: str, shown: str, environment: dict[str, str], run_id: str | None) -> str:
    """What the command prints, asked again until it is what is shown or time is up: the engine works while the reader
    reads."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    asking = not any(word in command for word in (" publish ", " cancel "))
    while True:
        output = run(command, environment, run_id)
        if not asking or comparable(output) == comparable(shown) or time.monotonic() > deadline:
            return output


def first_run_in(output: str) -> str | None:
    found = re.search(VOLATILE[0][0], output)
    return found[0] if found else None


@pytest.mark.embedded
def test_the_tour_prints_what_the_readme_shows(tmp_path: Path) -> None:
    taken = steps((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(taken) >= 5
    run_id = None
    with engine(tmp_path / "home") as environment:
        for command, shown in taken:
            output = play(command, shown, environment, run_id)
            assert comparable(output) == comparable(shown), f"$ {command}"
            run_id = run_id or first_run_in(output)
    assert run_id is not None


def main() -> None:
    """Prints the section's commands with their present output, for the README."""
    run_id = None
    with tempfile.TemporaryDirectory() as folder, engine(Path(folder) / "home") as environment:
        for command, _ in steps((ROOT / "README.md").read_text(encoding="utf-8")):
            time.sleep(2)  # a reader's pause; the test waits for the right output instead
            output = run(command, environment, run_id)
            run_id = run_id or first_run_in(output)
            print(f"$ {command}\n{output}")


if __name__ == "__main__":
    main()
