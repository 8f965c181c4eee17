"""Reads the named statements of an SQL file that ships beside the SDK. It runs nothing; the embedded bus asks it once
for each file it opens."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from types import MappingProxyType

_MARK = "-- name:"


@cache
def statements(file_name: str, package: str = "contracts.sdk") -> MappingProxyType[str, str]:
    """Statement text by name: each begins with a line `-- name: <name>` and runs to the next such line."""
    found: dict[str, str] = {}
    name = ""
    lines: list[str] = []
    for line in files(package).joinpath("sql", file_name).read_text(encoding="utf-8").splitlines():
        if line.startswith(_MARK):
            if name:
                found[name] = "\n".join(lines).strip()
            name, lines = line.removeprefix(_MARK).strip(), []
            if name in found:
                raise ValueError(f"{file_name} names the statement {name} twice; rename one")
        elif name and not line.lstrip().startswith("--"):
            lines.append(line)
    if name:
        found[name] = "\n".join(lines).strip()
    return MappingProxyType(found)
