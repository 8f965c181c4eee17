"""`python -m scripts.notices` writes NOTICE: the licence of every package that a running Unwind stands on, read from
the installed metadata, so that it is never kept by hand. Nothing of them is shipped inside our wheel; the container
image carries them. A test keeps the file current."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = """Unwind
Copyright the Unwind authors

Licensed under the Apache License, Version 2.0; see LICENSE.

Unwind runs on the following packages, each under its own licence, whose text is part of its distribution.
This file is written by `python -m scripts.notices`.
"""


def pinned() -> dict[str, str]:
    """Names and versions of the runtime requirements, in their order."""
    text = (ROOT / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ \\;]+)", text, re.MULTILINE))


def licence(package: Distribution) -> str:
    """The SPDX expression where the package gives one, else its classifiers, else the first line of its licence
    field."""
    about = package.metadata
    if "License-Expression" in about:
        return about["License-Expression"]
    listed = [line.split(" :: ")[-1] for line in about.get_all("Classifier") or () if line.startswith("License :: ")]
    named = [line for line in listed if line != "OSI Approved"]
    if named:
        return ", ".join(named)
    lines = about["License"].strip().splitlines() if "License" in about else []
    return lines[0] if lines else "see its distribution"


def rows() -> list[tuple[str, str, str]]:
    """Name, version and licence of what is installed; packages for other systems are left out."""
    found = []
    for name, version in pinned().items():
        try:
            found.append((name, version, licence(distribution(name))))
        except PackageNotFoundError:
            continue
    return found


def notice() -> str:
    """The whole file."""
    table = [("package", "version", "licence"), *rows()]
    widths = [max(len(row[column]) for row in table) for column in (0, 1)]
    lines = [f"{name:<{widths[0]}}  {version:<{widths[1]}}  {terms}" for name, version, terms in table]
    return "\n".join([HEAD, *lines]) + "\n"


if __name__ == "__main__":
    (ROOT / "NOTICE").write_text(notice(), encoding="utf-8")
