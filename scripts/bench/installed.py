"""What a bench that writes rows itself works on: the store of its settings, made ready as at a first run, and the keys
that seal what it writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from engine.guards.first_run import first_run
from engine.settings import Settings
from engine.store import Store
from engine.store.key_ring import KeyRing
from engine.store.keys import Vault
from scripts.opening import opened_store


@asynccontextmanager
async def installed(settings: Settings) -> AsyncIterator[tuple[Store, Vault]]:
    """The store, migrated and started, and its vault, started."""
    async with opened_store(settings, migrate=True) as store:
        await first_run(settings, store, now=datetime.now(UTC))
        vault = Vault(store, KeyRing.load(settings.key_path))
        await vault.start()
        yield store, vault
