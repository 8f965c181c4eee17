"""The tenants' log for whoever works on the store itself, for a moment as a process of his own: `unwind tokens`,
`unwind users`, `unwind keys`, the first start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from engine.clock import Clock
from engine.store import Store
from engine.store.key_ring import KeyRing
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from engine.tenant_log import TenantLog


@asynccontextmanager
async def brief_log(store: Store, ring: KeyRing, clock: Clock, process: str) -> AsyncIterator[TenantLog]:
    """Registered as `process` while it is open."""
    vault = Vault(store, ring)
    await vault.start()
    epoch = await store.register(process, (process,), now=clock.database_now())
    try:
        yield TenantLog(store, vault, Mapper(), clock, epoch=lambda: epoch)
    finally:
        await store.retire(epoch)
