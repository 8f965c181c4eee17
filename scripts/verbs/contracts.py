"""`unwind contracts ...`: the generated schemas of every installed module, and what a change of them would break for
those who read old messages."""

from __future__ import annotations

from pathlib import Path

import typer

from scripts.answer import Answer, table
from scripts.border import verb

app = typer.Typer(no_args_is_help=True, help="Contracts of the installed modules.")


@verb(app, "check")
def check(
    old: Path = typer.Argument(help="Folder of schemas, one schema, or asyncapi.json, as published."),
    new: Path = typer.Argument(help="The same, as it would be published next."),
) -> Answer:
    """Name what NEW would break for readers and writers of OLD. Exit code 1 when there is something."""
    from contracts.compatibility import breaking_changes, load

    changes = breaking_changes(load(old), load(new))
    document = [
        {"type": one.type, "pointer": one.pointer, "code": one.code, "why": one.why, "remedy": one.remedy}
        for one in changes
    ]
    rows = [(one.type, one.pointer or "(whole type)", one.why, one.remedy) for one in changes]
    shown = table(("TYPE", "FIELD", "BREAKS", "REMEDY"), rows, empty="Nothing breaks.")
    return Answer({"breaking": document}, shown, 1 if changes else 0)


@verb(app, "schema")
def schema(
    kind: str = typer.Argument("", help="A type such as billing.CreateCustomerV1; none: list all."),
    write: Path | None = typer.Option(None, "--write", help="Write every document into this folder instead."),
) -> Answer:
    """The generated JSON Schema of a type, or of all installed modules with their AsyncAPI document."""
    import orjson

    from contracts.modules import SHIPPED
    from contracts.notices import UNWIND
    from contracts.problems import ContractUnknown
    from contracts.registry import Registry, discover
    from contracts.schema import generate, schemas

    registry = Registry((UNWIND, *SHIPPED, *discover()))
    if write is not None:
        write.mkdir(parents=True, exist_ok=True)
        files = generate(registry)
        for name, content in files.items():
            (write / name).write_bytes(content)
        return Answer({"folder": str(write), "documents": sorted(files)}, f"{len(files)} documents written to {write}")
    known = schemas(registry)
    if not kind:
        rows = [(name, document.get("title") or name.rpartition(".")[2]) for name, document in sorted(known.items())]
        return Answer(sorted(known), table(("TYPE", "MODEL"), rows))
    if kind not in known:
        raise ContractUnknown(
            f"{kind}: no installed module declares this type; see `unwind contracts schema`", field="KIND"
        )
    return Answer(known[kind], orjson.dumps(known[kind], option=orjson.OPT_INDENT_2).decode())
