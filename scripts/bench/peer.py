"""The peer of the benchmark: DBOS in an environment of its own inside the cache folder, run as a subprocess against
the same database server. It is installed on first use and never imported by Unwind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import orjson

from contracts.problems import Unavailable
from scripts.provision.places import cache_folder

REQUIREMENTS: Final = ("dbos==3.4.0", "psycopg[binary]==3.3.9")
INSTALL_SECONDS: Final = 600
RUN_SECONDS: Final = 600
CORE: Final = 0


@dataclass(frozen=True, slots=True)
class PeerRun:
    """What the peer reported."""

    steps_per_second: float
    p50_ms: float
    p99_ms: float


def environment() -> Path:
    """The Python of the peer's environment, the same that runs this; makes it when it is not there. Raises
    `Unavailable` when it cannot be installed."""
    # An interpreter may be quicker than another of its version, by how it was built.
    own = hashlib.sha256(f"{sys.base_prefix} {sys.version}".encode()).hexdigest()[:8]
    folder = cache_folder() / f"peer-dbos-3.4.0-{own}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        for command in (
            [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)],
            [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *REQUIREMENTS],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
            if done.returncode != 0:
                raise Unavailable(
                    f"the peer {REQUIREMENTS[0]} cannot be installed: {_last_line(done.stderr)}; give --peer none"
                )
        (folder / "complete").touch()
    return python


def run(database_url: str, mode: Literal["threads", "single"], runs: int) -> PeerRun:
    """One measurement, pinned to one core. `database_url` is a postgresql:// or sqlite:// URL whose database is the
    peer's own."""
    url = database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    script = Path(__file__).with_name("peer_dbos.py")
    command = [
        str(environment()),
        str(script),
        "--database",
        url,
        "--mode",
        mode,
        "--runs",
        str(runs),
        "--core",
        str(CORE),
    ]
    # -I would be right for an interpreter, but the peer reads its home folder; a clean environment is enough.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("UNWIND_", "PYTHON", "DBOS_"))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, env=clean, check=False)
    if done.returncode != 0:
        raise Unavailable(f"the peer stopped with {done.returncode}: {_last_line(done.stderr)}")
    report = orjson.loads(done.stdout.strip().splitlines()[-1])
    return PeerRun(report["steps_per_second"], report["p50_ms"], report["p99_ms"])


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
