"""Opens the store itself, for the few verbs that must work where no engine runs and no API could be asked: migrations,
keys, the first token, the doctor; and what those need to know of the installation."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from scripts.residence import resident

if TYPE_CHECKING:
    from contracts.registry import Registry
    from engine.settings import Settings
    from engine.store import Store
    from engine.triggers import Plans


@asynccontextmanager
async def opened_store(settings: Settings, *, migrate: bool = False, wait_seconds: float = 0.0) -> AsyncIterator[Store]:
    """The store of these settings, started; with `migrate`, its missing migrations are applied first. A database that
    is still starting is waited for.
    """
    from consumers.patience import patiently
    from engine.settings import database_url
    from engine.store import open_store

    if settings.database_url is None:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = open_store(database_url(settings))

    async def open_it() -> None:
        if migrate:
            await store.migrate()
        await store.start()

    try:
        await patiently(open_it, wait_seconds)
        yield store
    finally:
        await store.stop()


def local_user() -> str:
    """Who sits at this machine, as the audit names whoever works on the store itself: `cli:<user>`."""
    import getpass

    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):
        return f"cli:{os.getuid()}"


def must_be_alone(settings: Settings, what: str) -> None:
    """Raises `Conflict` while an `up` lives in the data folder: it keeps in memory what `what` changes."""
    from contracts.problems import Conflict

    holder = resident(settings.data_dir)
    if holder is not None:
        raise Conflict(f"{what} needs the engine to stand still; stop process {holder.pid} first", field="data_dir")


def installed_plans(settings: Settings, registry: Registry | None = None) -> Plans:
    """Every workflow version that a process of these settings can run. Raises what is wrong with its sagas."""
    from contracts.modules import SHIPPED
    from contracts.notices import UNWIND
    from contracts.registry import Registry, discover
    from engine.actions.registry import ActionRegistry
    from engine.blueprints import with_blueprints
    from engine.sagas import load_sagas
    from engine.triggers import Plans

    registry = registry or Registry((*SHIPPED, UNWIND, *discover()))
    actions = ActionRegistry.assemble(registry, settings)
    return Plans(with_blueprints(load_sagas(settings.sagas), settings.blueprints, registry, actions), actions)
