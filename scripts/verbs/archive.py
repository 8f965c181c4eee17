"""`unwind archive ...`: ended runs that have left the log, by the month they ended in."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from contracts.problems import Conflict, PayloadInvalid
from scripts.answer import Answer, progress, table
from scripts.border import verb
from scripts.verbs.runs import Reason, Tenant

app = typer.Typer(no_args_is_help=True, help="Ended runs that have left the log and the lists.")

Month = Annotated[str, typer.Argument(help="Such as 2030-01, in UTC.", metavar="MONTH")]
PAGE: Final = 1_000


@verb(app, "list")
async def show() -> Answer:
    """The months of the archive."""
    from scripts.reach import reach

    async with reach() as api:
        found = await api.get("/v1/archive")
    rows = [
        (one["month"], one["runs"], one["events"], "dropped" if one["dropped"] else "kept") for one in found["items"]
    ]
    return Answer(found["items"], table(("MONTH", "RUNS", "EVENTS", "STATE"), rows, empty="Nothing is archived."))


@verb(app, "run")
async def run(
    before: Annotated[
        str | None,
        typer.Option(help="Runs that ended earlier, RFC 3339; UNWIND_RETENTION__RUN_DAYS ago unless given."),
    ] = None,
    tenant: Tenant = None,
    most: Annotated[int | None, typer.Option(min=1, help="Stop after so many runs.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them, and archive nothing.")] = False,
) -> Answer:
    """Archive ended runs now, rather than when their retention is over.

    Stopped half way, it goes on when asked again.
    """
    from scripts.reach import reach

    runs = events = 0
    async with reach() as api:
        counted = await api.post("/v1/archive", {"before": before, "dry_run": True}, act_for=tenant)
        if dry_run:
            return Answer(counted, f"{counted['runs']} runs ended before {counted['before']}")
        wanted = counted["runs"] if most is None else min(most, counted["runs"])
        with progress("archived", wanted) as step:
            while runs < wanted:
                page = {"before": counted["before"], "most": min(PAGE, wanted - runs)}
                done = await api.post("/v1/archive", page, act_for=tenant)
                if not done["runs"]:
                    break
                runs, events = runs + done["runs"], events + done["events"]
                step(runs)
    done = {"before": counted["before"], "runs": runs, "events": events}
    return Answer(done, f"{runs} runs archived, {events} events")


@verb(app, "export")
async def export(month: Month, file: Annotated[Path, typer.Argument(help="A new file.", metavar="FILE")]) -> Answer:
    """Write a month's events as lines of JSON, masked as histories show them, in the order of the log."""
    import orjson

    from scripts.reach import reach, segment

    written, cursor = 0, None
    async with reach() as api:
        page: dict[str, Any] = await api.get(f"/v1/archive/{segment(month)}/events", limit=PAGE)
        try:
            descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            raise Conflict(f"{file} exists; name a new file", field="file") from None
        with os.fdopen(descriptor, "wb") as lines, progress(f"events of {month}") as step:
            while True:
                lines.writelines(orjson.dumps(one) + b"\n" for one in page["items"])
                written += len(page["items"])
                step(written)
                cursor = page["next"]
                if cursor is None:
                    break
                page = await api.get(f"/v1/archive/{segment(month)}/events", limit=PAGE, cursor=cursor)
    return Answer({"month": month, "events": written, "file": str(file)}, f"{written} events of {month} in {file}")


@verb(app, "drop")
async def drop(
    month: Month,
    reason: Reason = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> Answer:
    """Delete a month of the archive for good.

    Export it first. Statistics, usage and audit keep what they counted, and can then not be rebuilt from the log.
    """
    from scripts.reach import reach, segment

    if not yes:
        if not sys.stdin.isatty():
            raise PayloadInvalid("dropping a month cannot be taken back; say --yes", field="yes")
        typer.confirm(f"Delete the runs of {month} for good?", abort=True, err=True)
    async with reach() as api:
        done = await api.delete(f"/v1/archive/{segment(month)}", reason=reason)
    return Answer(done, f"{month} dropped: {done['runs']} runs, {done['events']} events")
