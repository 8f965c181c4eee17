"""The one importable name of this distribution: it finds the floors (contracts, engine, projections, consumers,
scripts), puts their folder first on the import path and hands over to the CLI. It is not the engine and holds no
logic of its own. Called by the `unwind` command and by `python -m unwind_saga`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

FLOORS = ("contracts", "engine", "projections", "consumers", "scripts")


def floors() -> Path:
    """The folder that holds the five packages: inside the wheel, or the checkout of an editable install."""
    here = Path(__file__).resolve().parent
    for folder in (here / "floors", *here.parents):
        if all((folder / name / "__init__.py").is_file() for name in FLOORS):
            return folder
    raise ImportError(f"unwind_saga: no folder with {', '.join(FLOORS)} near {here}; install unwind-saga again")


def use_floors() -> Path:
    """Put the floors first on the import path of this process and of every Python process it starts."""
    folder = floors()
    for name in FLOORS:
        loaded = sys.modules.get(name)
        origin = getattr(loaded, "__file__", None)
        if loaded is not None and (origin is None or folder not in Path(origin).resolve().parents):
            raise ImportError(
                f"unwind_saga: another package named {name!r} is already imported from {origin}; "
                "import unwind_saga and call use_floors() first, or run in a process of its own"
            )
    entry = str(folder)
    if entry in sys.path:
        sys.path.remove(entry)
    sys.path.insert(0, entry)
    # Children are started as `python -m scripts ...`; without these two, -m would look into their working folder first.
    os.environ["PYTHONSAFEPATH"] = "1"
    inherited = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != entry]
    os.environ["PYTHONPATH"] = os.pathsep.join([entry, *inherited])
    return folder


def main() -> None:
    """Run the CLI."""
    use_floors()
    from scripts.__main__ import main as cli

    cli()
