"""Secrets over the real stores: what is kept of them, what opens and what does not, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts.problems import Conflict, NotFound, PayloadInvalid, TenantOffboarded
from engine.clock import SystemClock
from engine.guards.secrets import ApiKey, Secrets, open_secret
from engine.store import SealedSecret, Store
from engine.store.key_ring import KeyRingMismatch, SealBroken, create_key_ring
from engine.store.keys import OFFBOARDING, Vault
from engine.store.mapper import Mapper
from engine.tenant_log import TenantLog
from tests.conformance.store_making import running

HOSTS = ("api.example.org",)
KEY = {"key": "a key of acme"}


def box_over(store: Store, vault: Vault, epoch: int) -> Secrets:
    clock = SystemClock()
    return Secrets(store, vault, TenantLog(store, vault, Mapper(), clock, epoch=lambda: epoch), clock)


class SecretsInStore:
    """The cases; a subclass names the store by its fixture."""

    @pytest.fixture
    async def vault(self, store: Store, tmp_path: Path) -> Vault:
        return Vault(store, create_key_ring(tmp_path / "keys.json"))

    @pytest.fixture
    async def box(self, store: Store, vault: Vault) -> Secrets:
        return box_over(store, vault, await store.register("test", ("web",)))

    async def test_a_secret_is_set_replaced_rotated_and_removed(self, store: Store, box: Secrets) -> None:
        made = await box.put("acme", "payments", "api_key", ["API.example.org"], KEY, by="ann")
        assert (made.kind, made.version, made.hosts, made.changed_by) == ("api_key", 1, HOSTS, "ann")
        rotated = await box.rotate("acme", "payments", {"key": "another"}, by="bob")
        assert (rotated.version, rotated.created_at) == (2, made.created_at)
        assert rotated.changed_at > made.changed_at
        basic = {"username": "shop", "password": "word"}
        replaced = await box.put("acme", "payments", "basic", ["[2001:db8::1]:8443"], basic, by="ann")
        assert (replaced.kind, replaced.version, replaced.hosts) == ("basic", 3, ("[2001:db8::1]:8443",))
        assert await box.notes("acme") == [replaced]
        assert await box.notes("globex") == []
        await box.remove("acme", "payments", by="ann")
        for ask in (box.note("acme", "payments"), box.open("acme", "payments"), box.remove("acme", "payments", by="a")):
            with pytest.raises(NotFound):
                await ask

    async def test_of_each_secret_one_data_key_is_kept_and_it_goes_with_it(self, store: Store, box: Secrets) -> None:
        await box.put("acme", "payments", "api_key", HOSTS, KEY, by="ann")
        await box.put("acme", "payments-eu", "api_key", HOSTS, KEY, by="ann")
        first = await store.keys("acme", scopes=["secret/payments"])
        await box.rotate("acme", "payments", KEY, by="ann")
        [second] = await store.keys("acme", scopes=["secret/payments"])
        assert second not in first
        assert (len(first), second.key_id) == (1, 2)
        await box.remove("acme", "payments", by="ann")
        assert await store.keys("acme", scopes=["secret/payments"]) == []
        assert (await box.open("acme", "payments-eu")).version == 1

    async def test_only_the_next_version_is_kept(self, store: Store, box: Secrets) -> None:
        await box.put("acme", "payments", "api_key", HOSTS, KEY, by="ann")
        first = await store.secret("acme", "payments")
        assert first is not None
        assert not await store.put_secret(replace(first, kind="basic"), by="late")
        assert not await store.put_secret(_numbered(first, 3), by="early")
        assert not await store.put_secret(replace(_numbered(first, 2), name="other"), by="nobody")
        assert await store.secret("acme", "payments") == first
        assert await store.put_secret(_numbered(first, 2), by="next")

    async def test_of_two_that_change_a_secret_at_once_one_is_told_so(self, box: Secrets) -> None:
        await box.put("acme", "payments", "api_key", HOSTS, KEY, by="ann")
        told = await asyncio.gather(
            *(box.rotate("acme", "payments", {"key": f"key {n}"}, by=f"{n}") for n in range(4)), return_exceptions=True
        )
        assert {type(answer) for answer in told if isinstance(answer, Exception)} <= {Conflict}
        kept = [answer for answer in told if not isinstance(answer, BaseException)]
        note, opened = await box.note("acme", "payments"), await box.open("acme", "payments")
        assert note.version == opened.version == 1 + len(kept)
        assert isinstance(opened.value, ApiKey)
        assert opened.value.key.get_secret_value() == f"key {note.changed_by}"

    async def test_what_is_opened_shows_its_value_to_nobody_who_does_not_ask(self, store: Store, box: Secrets) -> None:
        await box.put("acme", "payments", "api_key", HOSTS, KEY, by="ann")
        opened, stored = await box.open("acme", "payments"), await store.secret("acme", "payments")
        assert isinstance(opened.value, ApiKey)
        assert opened.value.key.get_secret_value() == KEY["key"]
        for shown in (repr(opened), str(opened.value), f"{opened.value.key}", repr(stored)):
            assert KEY["key"] not in shown
        assert stored is not None
        assert KEY["key"].encode() not in stored.sealed + stored.key.wrapped

    @pytest.mark.parametrize(
        "moved",
        [
            {"tenant": "globex"},
            {"name": "payments-eu"},
            {"version": 2},
            {"hosts": ("evil.example.org",)},
            {"kind": "basic"},
        ],
        ids=str,
    )
    async def test_a_row_opens_in_its_own_place_only(
        self, store: Store, vault: Vault, box: Secrets, moved: dict[str, Any]
    ) -> None:
        await box.put("acme", "payments", "api_key", HOSTS, KEY, by="ann")
        row = await store.secret("acme", "payments")
        assert row is not None
        copied = replace(row, **moved)
        if {"tenant", "name", "version"} & moved.keys():
            with pytest.raises(SealBroken):
                open_secret(vault, replace(copied, key=_named(row, copied)))
        # Even when its data key was wrapped for that place.
        wrapped = vault.ring.wrap(copied.tenant, f"secret/{copied.name}", copied.version, vault.ring.unwrap(row.key))
        with pytest.raises(SealBroken):
            open_secret(vault, replace(copied, key=wrapped))

    async def test_a_changed_row_does_not_open(self, store: Store, vault: Vault, box: Secrets) -> None:
        await box.put("acme", "payments", "api_key", HOSTS, KEY, by="ann")
        row = await store.secret("acme", "payments")
        assert row is not None
        for at in (0, 5, len(row.sealed) - 1):
            changed = bytearray(row.sealed)
            changed[at] ^= 1
            with pytest.raises(SealBroken):
                open_secret(vault, replace(row, sealed=bytes(changed)))
        with pytest.raises(SealBroken):
            open_secret(vault, replace(row, sealed=row.sealed[:9]))

    async def test_a_root_rotation_takes_secrets_along(self, store: Store, vault: Vault, box: Secrets) -> None:
        await box.put("acme", "payments", "api_key", HOSTS, KEY, by="ann")
        grown = Vault(store, vault.ring.with_new_root())
        await grown.rewrap()
        assert set(await store.root_ids()) == {grown.ring.current}
        [row] = [await store.secret("acme", "payments")]
        assert row is not None
        alone = Vault(store, grown.ring.without(vault.ring.current))
        opened = open_secret(alone, row)
        assert isinstance(opened.value, ApiKey)
        assert opened.value.key.get_secret_value() == KEY["key"]
        with pytest.raises(KeyRingMismatch):
            open_secret(vault, row)

    async def test_an_offboarded_tenant_has_no_secrets_and_gets_none(
        self, store: Store, vault: Vault, box: Secrets
    ) -> None:
        await box.put("acme", "payments", "api_key", HOSTS, KEY, by="ann")
        await store.put_setting("acme", OFFBOARDING, {"by": "ann", "since": "", "reason": "", "gone": True})
        await store.forget_tenant("acme")
        assert await store.secrets("acme") == []
        vault.bar("acme")
        with pytest.raises(TenantOffboarded):
            await box.put("acme", "payments", "api_key", HOSTS, KEY, by="ann")

    @pytest.mark.parametrize(
        ("name", "kind", "hosts", "value", "field"),
        [
            ("Payments", "api_key", HOSTS, KEY, "name"),
            ("a/b", "api_key", HOSTS, KEY, "name"),
            ("payments", "cookie", HOSTS, KEY, "kind"),
            ("payments", "api_key", (), KEY, "hosts"),
            ("payments", "api_key", ("*.example.org",), KEY, "hosts"),
            ("payments", "api_key", ("https://example.org",), KEY, "hosts"),
            ("payments", "api_key", ("example.org:0",), KEY, "hosts"),
            ("payments", "api_key", ("2130706433",), KEY, "hosts"),
            ("payments", "api_key", HOSTS, {}, "value.key"),
            ("payments", "api_key", HOSTS, {"key": "abc"}, "value.key"),
            ("payments", "api_key", HOSTS, {"key": "canary\r\nX: y"}, "value.key"),
            ("payments", "api_key", HOSTS, {"key": "canary", "header": "a b"}, "value.header"),
            ("payments", "api_key", HOSTS, {"key": "canary", "more": 1}, "value.more"),
            ("payments", "basic", HOSTS, {"username": "a:b", "password": "canary"}, "value.username"),
            ("payments", "oauth2", HOSTS, {"client_id": "c", "client_secret": "canary"}, "value.token_url"),
            (
                "payments",
                "oauth2",
                HOSTS,
                {"client_id": "c", "client_secret": "canary", "token_url": "file:///canary"},
                "value.token_url",
            ),
        ],
    )
    async def test_a_wrong_secret_is_refused_by_its_field_and_nothing_of_it_is_said(
        self, box: Secrets, name: str, kind: Any, hosts: tuple[str, ...], value: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(PayloadInvalid) as refused:
            await box.put("acme", name, kind, hosts, value, by="ann")
        assert refused.value.field == field
        assert "canary" not in str(refused.value)
        assert await box.notes("acme") == []


def _numbered(secret: SealedSecret, version: int) -> SealedSecret:
    return replace(secret, version=version, key=replace(secret.key, key_id=version))


def _named(row: SealedSecret, copied: SealedSecret) -> Any:
    """The wrapped key as it is, under the names of the copy."""
    return replace(row.key, tenant=copied.tenant, scope=f"secret/{copied.name}", key_id=copied.version)


class TestSqlite(SecretsInStore):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async for store in running(f"sqlite://{tmp_path}/unwind.db"):
            yield store


class TestPostgres(SecretsInStore):
    @pytest.fixture
    async def store(self, postgres_url: str) -> AsyncIterator[Store]:
        async for store in running(postgres_url):
            yield store
