"""Node programs of the tests: the programs themselves, and a folder's locked packages, installed once per lock file."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path


def tool(name: str) -> str:
    """Node or npm from the PATH, else that of the test extra's wheel."""
    return shutil.which(name) or str(Path(sys.executable).with_name(name))


def install(here: Path, folder: Path) -> None:
    """`npm ci` of `here` into `folder`, whole or not at all, whoever else is at it. Raises `CalledProcessError`."""
    if (folder / "node_modules").exists():
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix="installing-") as beside:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(here / name, beside)
        subprocess.run(
            [tool("npm"), "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=beside,
            env={**os.environ, "npm_config_cache": f"{beside}/npm-cache", "npm_config_update_notifier": "false"},
            check=True,
            timeout=100,
            stderr=subprocess.PIPE,
            text=True,
        )
        with suppress(OSError):  # another process was faster
            (Path(beside) / "node_modules").rename(folder / "node_modules")


def folder_name(here: Path) -> str:
    """Of the cache: another lock file is another folder."""
    return f"{here.name}-{hashlib.sha256((here / 'package-lock.json').read_bytes()).hexdigest()[:16]}"
