"""A real store on each driver, with keys: what the projections' tests stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from consumers.projector import VIEWS, Projector
from consumers.rebuild import Rebuild
from engine.clock import SystemClock
from engine.metrics import Metrics
from engine.store import Store, open_store
from engine.store.key_ring import create_key_ring
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from projections import View
from projections.reader import Reader


@dataclass
class House:
    store: Store
    vault: Vault
    epoch: int

    def projector(self, views: tuple[View, ...] = VIEWS, *, batch: int = 2_000) -> Projector:
        return Projector(
            self.store,
            self.vault,
            Mapper(),
            views,
            SystemClock(),
            Metrics(),
            batch=batch,
            pace_seconds=0.001,
            busy_pace_seconds=0.001,
        )

    def rebuild(self) -> Rebuild:
        return Rebuild(self.store, self.vault, Mapper(), SystemClock(), Metrics(), pause_seconds=0.01, batch=25)

    @property
    def reader(self) -> Reader:
        return Reader(self.store, self.vault)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of each driver."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path / 'store.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def house(store_url: str, tmp_path: Path) -> AsyncIterator[House]:
    store = open_store(store_url)
    await store.migrate()
    await store.start()
    vault = Vault(store, create_key_ring(tmp_path / "keys.json"))
    await vault.start()
    epoch = await store.register("test", ("worker",))
    yield House(store, vault, epoch)
    await store.stop()
