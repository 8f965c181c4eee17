"""`unwind backup` and `unwind restore`: the state of an installation, taken while it runs and put back elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from scripts.answer import Answer
from scripts.border import verb

NEXT: Final = (
    "give it the key file of the original",
    "erase again what was erased since: `unwind subjects apply FILE`",
    "start the processes; runs go on, timers that are due fire, read models are written again from the log",
)


def register(app: typer.Typer) -> None:
    verb(app, "backup")(backup)
    verb(app, "restore")(restore)


async def backup(
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet.", metavar="FOLDER")],
) -> Answer:
    """Copy the state of this installation into a folder, while it runs.

    The key file is not in it: keep that apart. On PostgreSQL it takes pg_dump; the broker's queues are not copied.
    """
    from engine.settings import load
    from scripts.backup import back_up

    manifest = await back_up(load(), folder)
    return Answer(
        manifest.document() | {"folder": str(folder)},
        f"{len(manifest.files)} files in {folder}, as of {manifest.taken_at}; the key file is kept apart from it",
    )


async def restore(
    folder: Annotated[
        Path | None,
        typer.Argument(help="What `unwind backup` made; none: a database put back by other means.", metavar="FOLDER"),
    ] = None,
) -> Answer:
    """Put a backup into an empty data folder or database, and make it ready to go on.

    Processes of the original can write nothing to it afterwards. Start no process before this has ended.
    """
    from engine.settings import load
    from scripts.backup import move_on, put_back
    from scripts.opening import must_be_alone

    settings = load()
    must_be_alone(settings, "a restore")
    if folder is None:
        open_runs = await move_on(settings)
        return Answer({"open_runs": open_runs, "next": list(NEXT)}, "\n".join([f"{open_runs} open runs", *NEXT]))
    manifest = await put_back(settings, folder)
    told = [f"restored as of {manifest.taken_at}, by version {manifest.program}", *NEXT]
    return Answer(manifest.document() | {"next": list(NEXT)}, "\n".join(told))
