"""`unwind projections ...` and `unwind rebuild`: the read models, how far they are, and the proof that they are what
the log says. They open the store themselves; the engine may keep running."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scripts.answer import Answer, instant, progress, stacked, table
from scripts.border import verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consumers.rebuild import Rebuild, Rebuilt
    from projections import View

app = typer.Typer(no_args_is_help=True, help="Read models: how far they are, and whether they are what the log says.")

Name = Annotated[str, typer.Argument(help="history, usage, audit, stats or approvals; all: one after the other.")]


def register(root: typer.Typer) -> None:
    verb(root, "rebuild")(rebuild)


async def rebuild(view: Name = "all") -> Answer:
    """Write a read model again from the log, beside the living one, and switch to it.

    Compares both before; exits with 1 when they differ. Everyone goes on reading and writing meanwhile.
    """
    return await _build(view, switch=True)


@verb(app, "verify")
async def verify(view: Name = "all") -> Answer:
    """Compare a read model with one that is built from the log, and change nothing.

    Exits with 1 when they differ.
    """
    return await _build(view, switch=False)


@verb(app, "list")
async def show() -> Answer:
    """Every read model's position, lag, rows, and when it was last compared with the log."""
    from consumers.projector import VIEWS
    from consumers.rebuild import VERIFIED
    from engine.settings import load
    from scripts.opening import opened_store

    document: list[dict[str, Any]] = []
    async with opened_store(load()) as store:
        heads = {lane: await store.head(lane) for lane in await store.lanes()}
        verified: Any = await store.setting("*", VERIFIED)
        for view in VIEWS:
            positions = {lane: await store.checkpoint(view.name, lane) for lane in heads}
            document.append(
                {
                    "view": view.name,
                    "positions": {str(lane): position for lane, position in positions.items()},
                    "lag": sum(max(0, head - positions[lane]) for lane, head in heads.items()),
                    "rows": await store.view_rows(view.name),
                    "verified": verified.get(view.name) if isinstance(verified, dict) else None,
                }
            )
    rows = [
        (
            one["view"],
            sum(one["positions"].values()),
            one["lag"],
            sum(one["rows"].values()),
            instant(one["verified"]["at"]) if one["verified"] else "never",
            ("equal" if one["verified"]["equal"] else "DIFFERENT") if one["verified"] else None,
        )
        for one in document
    ]
    return Answer(document, table(("VIEW", "POSITION", "LAG", "ROWS", "LAST VERIFIED", "THEN"), rows))


async def _build(view: str, *, switch: bool) -> Answer:
    built: list[Rebuilt] = []
    async with builder() as building:
        for one in _chosen(view):
            with progress(one.name) as tell:
                work = building.run if switch else building.verify
                built.append(await work(one, progress=lambda done, total, tell=tell: tell(done)))  # type: ignore[misc]
    document = [
        {
            "view": one.view,
            "events": one.events,
            "before": one.before,
            "after": one.after,
            "equal": one.equal,
            "switched": one.switched,
            "differences": [{"table": each.table, "key": dict(each.key)} for each in one.differences],
        }
        for one in built
    ]
    rows = [(one.view, one.events, "equal" if one.equal else "DIFFERENT", one.after[:16]) for one in built]
    shown = [table(("VIEW", "EVENTS", "CHECKSUM", "SHA-256"), rows)]
    differ = [
        (each.table, ", ".join(f"{name} {value}" for name, value in each.key.items()))
        for one in built
        for each in one.differences
    ]
    if differ:
        shown.append(table(("TABLE", "FIRST KEYS THAT DIFFER"), differ))
    return Answer(document, stacked(*shown), 0 if all(one.equal for one in built) else 1)


def _chosen(view: str) -> Sequence[View]:
    from consumers.projector import VIEWS
    from contracts.problems import NotFound

    chosen = [one for one in VIEWS if view in ("all", one.name)]
    if not chosen:
        raise NotFound(
            f"no read model is called {view!r}; choose one of {', '.join(one.name for one in VIEWS)}", field="VIEW"
        )
    return chosen


@asynccontextmanager
async def builder() -> AsyncIterator[Rebuild]:
    """What rebuilds, on the store of the settings; this process does nothing else meanwhile."""
    from consumers.rebuild import Rebuild
    from engine.clock import SystemClock
    from engine.loop import calm_collector
    from engine.metrics import Metrics
    from engine.settings import load
    from engine.store.key_ring import KeyRing
    from engine.store.keys import Vault
    from engine.store.mapper import Mapper
    from scripts.opening import opened_store

    settings = load()
    async with opened_store(settings) as store:
        vault = Vault(store, KeyRing.load(settings.key_path))
        await vault.start()
        calm_collector()
        yield Rebuild(store, vault, Mapper(), SystemClock(), Metrics())
