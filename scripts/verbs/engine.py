"""Verbs that run the engine: `up` for everything in one process, `serve` for chosen roles, `serve-module` for one
shipped module, `migrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scripts.answer import Answer, stacked, table
from scripts.border import verb

if TYPE_CHECKING:
    from engine.settings import Settings


def register(app: typer.Typer) -> None:
    verb(app, "up")(up)
    verb(app, "serve")(serve)
    verb(app, "serve-module")(serve_module)
    verb(app, "migrate")(migrate)
    verb(app, "upgrade")(upgrade)


async def up(
    demo: bool = typer.Option(False, "--demo", help="Run the demonstration against the API once the engine is ready."),
    once: bool = typer.Option(False, "--once", help="Stop once ready, or once the demo has ended, with exit code 0."),
    modules: str = typer.Option(
        "", "--modules", help="Shipped modules: together (tasks), separate (processes) or none."
    ),
    port: int = typer.Option(-1, "--port", help="Port of the API; 0 takes a free one. Default: UNWIND_HTTP__PORT."),
) -> Answer:
    """Run everything in one process.

    All roles and the shipped modules, over one folder; makes the key file and a first admin token when they are
    missing.
    """
    from scripts.up import run

    return await run(demo=demo, once=once, modules=modules, port=port)


async def serve(
    roles: str = typer.Option("", "--roles", help="Comma-separated roles; default: UNWIND_ROLES, else all."),
) -> None:
    """Run one process of the engine until SIGTERM."""
    from consumers.assembly import Assembly

    settings = _settings(**({"roles": roles} if roles else {}))
    _log(settings)
    await Assembly(settings).run_until_signal()


async def serve_module(
    name: str = typer.Argument(help="Name of a shipped module, such as billing."),
) -> None:
    """Run one shipped module until SIGTERM."""
    from consumers.module_host import run_module

    settings = _settings()
    _log(settings)
    await run_module(name, settings)


async def upgrade(
    check: bool = typer.Option(False, "--check", help="Only say what would be done; exit code 1 when it is not safe."),
    contracts: Path | None = typer.Option(
        None, "--contracts", help="Folder of schemas as the release before published them, to be compared."
    ),
    accept_locks: bool = typer.Option(False, "--accept-locks", help="Let long locks on big tables pass."),
) -> Answer:
    """Look at schema, running processes, open runs, bus and contracts, then migrate the schema.

    What is not safe is refused, and nothing is changed.
    """
    from scripts.upgrade import apply, examine

    outlook = await examine(contracts=contracts, accept_locks=accept_locks)
    applied = await apply() if outlook.safe and not check else []
    rows = [(one.state, one.check, one.detail) for one in outlook.findings]
    parts: list[Any] = [table(("STATE", "CHECK", "FOUND"), rows)]
    if outlook.migrations:
        kinds = [(one["name"], one["kind"]) for one in outlook.migrations]
        parts.append(table(("MIGRATION", "KIND"), kinds))
    if outlook.locks:
        held = [(one["table"], one["blocks"], "all rows" if one["long"] else "a moment") for one in outlook.locks]
        parts.append(table(("TABLE", "HOLDS UP", "FOR"), held))
    if outlook.topology["adds"]:
        parts.append("to declare: " + ", ".join(outlook.topology["adds"]))
    parts.append(
        "not safe: nothing was changed"
        if not outlook.safe
        else "safe"
        if check
        else f"applied {len(applied)}; replace the processes one after the other"
    )
    document = outlook.document() | {"applied": applied}
    return Answer(document, stacked(*parts), 0 if outlook.safe else 1)


async def migrate() -> Answer:
    """Apply missing migrations to the database."""
    from engine.settings import database_url, load
    from engine.store import open_store

    settings = load()
    owner = settings.database_owner_url
    if settings.database_url is None:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = open_store(owner.get_secret_value() if owner is not None else database_url(settings))
    try:
        applied = await store.migrate()
    finally:
        await store.stop()
    return Answer({"applied": applied}, "\n".join(f"applied {name}" for name in applied) or "Nothing to apply.")


def _settings(**overrides: object) -> Settings:
    from engine.settings import load

    return load(**overrides)


def _log(settings: Settings) -> None:
    from engine.logs import configure

    configure(format=settings.log.format, level=settings.log.level)
