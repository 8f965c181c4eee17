"""`unwind audit ...`: the proof that nobody has changed what was recorded. It opens the database itself and needs no
key and no engine, so that it can be asked of a restored copy, by somebody who may see no payload.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.answer import Answer, progress, stacked, table
from scripts.border import verb

if TYPE_CHECKING:
    from projections.verifying import ExportedHead

app = typer.Typer(no_args_is_help=True, help="The audit's chains: where they stand, and whether they hold.")

Tenant = Annotated[
    str | None, typer.Option("--tenant", "-t", help="Only this tenant's chain; platform: the platform's own.")
]


@verb(app, "head")
async def head(
    tenant: Tenant = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the heads to a new file, mode 0600.")] = None,
) -> Answer:
    """Where every chain stands. Keep it where the engine cannot write: it shows later that a tail was cut off."""
    from datetime import UTC, datetime

    import orjson

    from contracts.envelope import format_time
    from contracts.problems import Conflict
    from engine.settings import load
    from engine.store.key_ring import write_private
    from projections.verifying import heads
    from scripts.opening import opened_store

    async with opened_store(load()) as store:
        found = await heads(store, tenant)
    document = {
        "taken_at": format_time(datetime.now(UTC)),
        "heads": [{"tenant": one.tenant, "number": one.number, "hash": one.hash} for one in found],
    }
    if out is None:
        return Answer(document, _shown(found))
    try:
        write_private(out, orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    except FileExistsError:
        raise Conflict(f"{out} exists; name a new file", field="out") from None
    except OSError as error:
        raise Conflict(f"{out} cannot be written: {error.strerror}", field="out") from None
    return Answer(document, f"{len(found)} heads in {out}")


@verb(app, "verify")
async def prove(
    tenant: Tenant = None,
    head: Annotated[
        Path | None,
        typer.Option("--head", help="A file of `unwind audit head --out`: every chain must still reach it."),
    ] = None,
) -> Answer:
    """Walk the chains and compare them with the stored bytes of the log.

    Exits with 1 when one does not hold, and names the first entry or event.
    """
    from engine.settings import load
    from projections.verifying import heads, verify
    from scripts.opening import opened_store

    exported = {} if head is None else _read(head)
    document: list[dict[str, Any]] = []
    async with opened_store(load()) as store:
        known = {one.tenant for one in await heads(store, tenant)}
        asked = {tenant} if tenant is not None else known | exported.keys()
        with progress("chains") as tell:
            for number, name in enumerate(sorted(asked), 1):
                verdict = await verify(store, name, against_log=True, exported=exported.get(name))
                document.append(
                    {
                        "tenant": name,
                        "holds": verdict.broken is None,
                        "entries": verdict.number,
                        "head": verdict.head.hex(),
                        "compared_with_head": name in exported,
                        "unchecked": verdict.unchecked,
                        "broken": verdict.broken,
                    }
                )
                tell(number)
    rows = [
        (one["tenant"], one["entries"], "holds" if one["holds"] else "BROKEN", one["unchecked"], one["broken"])
        for one in document
    ]
    shown: list[Any] = [
        table(("TENANT", "ENTRIES", "CHAIN", "UNCHECKED", "WHAT"), rows, empty="There is no chain yet.")
    ]
    if any(one["unchecked"] for one in document):
        shown.append("UNCHECKED: events whose month of the archive was dropped; the log has nothing to compare with.")
    if head is not None and not exported:
        shown.append(f"{head} names no head.")
    return Answer(document, stacked(*shown), 0 if all(one["holds"] for one in document) else 1)


def _read(file: Path) -> dict[str, ExportedHead]:
    import orjson

    from contracts.problems import NotFound, PayloadInvalid
    from projections.verifying import ExportedHead

    try:
        document = orjson.loads(file.read_bytes())
        found = [ExportedHead(one["tenant"], int(one["number"]), str(one["hash"])) for one in document["heads"]]
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}", field="head") from None
    except (ValueError, TypeError, KeyError):
        raise PayloadInvalid(f"{file} is no file of `unwind audit head --out`", field="head") from None
    return {one.tenant: one for one in found}


def _shown(found: list[ExportedHead]) -> Any:
    rows = [(one.tenant, one.number, one.hash) for one in found]
    return table(("TENANT", "ENTRIES", "HASH"), rows, empty="There is no chain yet.")
