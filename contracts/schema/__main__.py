"""`python -m contracts.schema`: writes the generated documents of the shipped modules beside this file and removes
those of types that are gone.
"""

from __future__ import annotations

from pathlib import Path

from contracts.modules import SHIPPED
from contracts.notices import UNWIND
from contracts.registry import Registry
from contracts.schema import generate

FOLDER = Path(__file__).parent
OTHERS = {"openapi.json"}


def main() -> None:
    files = generate(Registry([UNWIND, *SHIPPED]))
    for path in FOLDER.glob("*.json"):
        if path.name not in files and path.name not in OTHERS:
            path.unlink()
    for name, content in files.items():
        path = FOLDER / name
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
    print(f"{len(files)} documents are current in {FOLDER.name}/")


if __name__ == "__main__":
    main()
