"""Keys, seals, erasure and tokens over the real stores: the same rules on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from contracts.problems import TenantOffboarded, Unauthenticated
from contracts.run_events import StepSucceeded
from engine.clock import SystemClock
from engine.guards.first_run import first_run
from engine.guards.permissions import ALL_PERMISSIONS, verify_token
from engine.metrics import Metrics
from engine.pauses import Brakes, Pauses
from engine.settings import Settings
from engine.store import Store, Stored
from engine.store.key_ring import KeyRing, KeyRingMismatch, KeyRingMissing, create_key_ring
from engine.store.keys import OFFBOARDING, Vault
from engine.store.mapper import Mapper
from engine.tenant_log import TenantLog
from tests.conformance.store_making import running

NOW = datetime(2030, 1, 1, tzinfo=UTC)
RUN = UUID(int=7)


class KeysInStore:
    """The cases; a subclass names the store by its fixture."""

    async def test_two_processes_use_the_same_keys_and_each_sees_what_the_other_made(
        self, store: Store, tmp_path: Path
    ) -> None:
        ring = create_key_ring(tmp_path / "keys.json")
        one, two = Vault(store, ring), Vault(store, ring)
        mine, theirs = await one.keys_for("acme"), await two.keys_for("acme")
        assert theirs.open(b"p", mine.seal(b"p", b"hello")) == b"hello"
        assert theirs.index_hash("order", "7") == mine.index_hash("order", "7")
        await two.rotate_tenant_key("acme")
        newer = (await two.keys_for("acme")).seal(b"p", b"newer")
        assert (await one.ready("acme", [newer])).open(b"p", newer) == b"newer"

    async def test_an_erased_subject_is_erased_for_every_process_and_others_are_not(
        self, store: Store, tmp_path: Path
    ) -> None:
        ring, mapper = create_key_ring(tmp_path / "keys.json"), Mapper()
        vault = Vault(store, ring)
        keys = await vault.keys_for("acme")
        bodies = {}
        for name in ("ada", "bob"):
            done = StepSucceeded(
                at=NOW, step="s", visit=1, attempt=1, output={"mail": f"{name}@example.org"}, marks=("/output/mail",)
            )
            recorded = mapper.encode(keys, RUN, 1, done, await vault.subject_keys("acme", name))
            bodies[name] = Stored(1, recorded.topic, recorded.body, NOW)
        assert await vault.erase("acme", "ada") == 1
        assert await vault.erase("acme", "ada") == 0
        reader = Vault(store, ring)
        ready = await reader.ready("acme", [body.body for body in bodies.values()])
        opened = {}
        for name, body in bodies.items():
            event = mapper.decode(ready, RUN, body)
            assert isinstance(event, StepSucceeded)
            opened[name] = event.output
        assert opened == {"ada": {"mail": {"$erased": True}}, "bob": {"mail": "bob@example.org"}}

    async def test_keys_that_are_being_read_when_their_tenant_is_barred_are_not_kept(
        self, store: Store, tmp_path: Path
    ) -> None:
        ring = create_key_ring(tmp_path / "keys.json")
        await Vault(store, ring).keys_for("acme")
        vault = Vault(store, ring)
        reading = asyncio.ensure_future(vault.keys_for("acme"))
        await asyncio.sleep(0)
        vault.bar("acme")
        with pytest.raises(TenantOffboarded):
            await reading
        assert vault.cached("acme") is None

    async def test_of_a_tenant_that_is_gone_is_heard_once(self, store: Store, tmp_path: Path) -> None:
        vault, clock = Vault(store, create_key_ring(tmp_path / "keys.json")), SystemClock()
        log = TenantLog(store, vault, Mapper(), clock, epoch=lambda: 0)
        pauses = Pauses(Brakes(store, log, clock), Metrics())
        heard: list[str] = []
        pauses.on_gone = heard.append
        for tenant, gone in (("acme", False), ("globex", True), ("acme", True)):
            await store.put_setting(tenant, OFFBOARDING, {"by": "ann", "since": "", "reason": "", "gone": gone})
            await pauses.refresh()
            await pauses.refresh()
        assert heard == ["globex", "acme"]
        assert pauses.leaving == {"acme": True, "globex": True}

    async def test_a_root_rotation_leaves_every_body_readable_and_the_old_root_unused(
        self, store: Store, tmp_path: Path
    ) -> None:
        ring = create_key_ring(tmp_path / "keys.json")
        vault = Vault(store, ring)
        frames = {}
        for tenant in ("acme", "other", "third"):
            frames[tenant] = (await vault.keys_for(tenant)).seal(b"p", tenant.encode())
        personal = (await vault.subject_keys("acme", "ada")).seal(b"p", b"ada's")
        grown = ring.with_new_root()
        assert await Vault(store, grown).rewrap(batch=2) == 7
        assert await store.root_ids() == {grown.current: 7}
        with pytest.raises(KeyRingMismatch):
            await Vault(store, ring).start()
        alone = Vault(store, grown.without(ring.current))
        await alone.start()
        for tenant, frame in frames.items():
            assert (await alone.ready(tenant, [frame])).open(b"p", frame) == tenant.encode()
        assert (await alone.ready("acme", [personal])).open_subject(b"p", personal) == b"ada's"

    async def test_a_first_run_makes_its_files_once_and_a_lost_key_file_stops_it(
        self, store: Store, tmp_path: Path
    ) -> None:
        settings = Settings(data_dir=tmp_path / "data")
        made = await first_run(settings, store, now=NOW)
        assert (made.key_file, made.admin_token_file) == (settings.key_path, settings.admin_token_path)
        text = settings.admin_token_path.read_text().strip()
        assert (await verify_token(store, text, now=NOW)).permissions == ALL_PERMISSIONS
        again = await first_run(settings, store, now=NOW)
        assert (again.key_file, again.admin_token_file) == (None, None)
        await store.revoke_token(text[4:12], now=NOW)
        with pytest.raises(Unauthenticated):
            await verify_token(store, text, now=NOW)
        await Vault(store, KeyRing.load(settings.key_path)).keys_for("acme")
        settings.key_path.unlink()
        with pytest.raises(KeyRingMissing):
            await first_run(settings, store, now=NOW)


class TestSqlite(KeysInStore):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async for store in running(f"sqlite://{tmp_path}/unwind.db"):
            yield store


class TestPostgres(KeysInStore):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[Store]:
        async for store in running(postgres_url):
            yield store
