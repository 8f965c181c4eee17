"""Processes that the bench starts: one is asked on its standard input and answers on its output, in one JSON document
each; one that serves is ended.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import orjson

from contracts.problems import Unavailable

ROOT: Final = Path(__file__).resolve().parents[2]
STOP_SECONDS: Final = 30
LOAD_SECONDS: Final = 900


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings of another installation, and with these."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("UNWIND_") and name not in ("DATABASE_URL", "AMQP_URL")
    } | dict(environment)


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ask(module: str, asked: Any, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The report of a module that is run as a process of its own, with these settings."""
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env=clean(environment or {}),
        input=orjson.dumps(asdict(asked)),
        capture_output=True,
        check=False,
        timeout=LOAD_SECONDS,
    )
    return report(done, module)


def report(done: subprocess.CompletedProcess[bytes], who: str) -> dict[str, Any]:
    if done.returncode != 0 or not done.stdout.strip():
        raise Unavailable(f"{who} stopped with {done.returncode}: {tail(done.stderr)}")
    document: dict[str, Any] = orjson.loads(done.stdout.strip().splitlines()[-1])
    return document


def tail(output: bytes) -> str:
    return " / ".join(output.decode("utf-8", "replace").strip().splitlines()[-3:])[-600:] or "it said nothing"
