"""Root keys, data keys, and what dropping or rotating one does."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from engine.store.key_ring import (
    KeyRing,
    KeyRingInvalid,
    KeyRingMismatch,
    KeyRingMissing,
    KeyRingUnsafe,
    create_key_ring,
)
from engine.store.keys import Erased, KeysNotLoaded, SealBroken, Vault
from tests.pure.kept_in_memory import MemoryCatalog


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return create_key_ring(tmp_path / "keys.json")


def test_a_new_key_ring_is_readable_by_its_owner_only_and_loads_again(tmp_path: Path) -> None:
    path = tmp_path / "made" / "keys.json"
    made = create_key_ring(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert KeyRing.load(path).ids == made.ids == {made.current}
    assert len(made.ids) == 1


def test_a_key_ring_never_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text("mine")
    with pytest.raises(KeyRingInvalid, match="never overwritten"):
        create_key_ring(path)
    assert path.read_text() == "mine"


def test_a_missing_key_file_is_refused_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(KeyRingMissing, match="restore it from its backup"):
        KeyRing.load(tmp_path / "keys.json")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o644])
def test_a_key_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.json"
    create_key_ring(path)
    path.chmod(mode)
    with pytest.raises(KeyRingUnsafe, match=f"{mode:04o}.*chmod 600"):
        KeyRing.load(path)


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[]", "null", '{"current": "x", "keys": {}}', '{"current": "x", "keys": {"x": "AAAA"}}', "\x00\xff"],
)
def test_a_damaged_key_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(KeyRingInvalid):
        KeyRing.load(path)


def test_a_key_under_an_id_that_is_not_its_own_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "keys.json", tmp_path / "other.json"
    create_key_ring(path)
    create_key_ring(other)
    document, stranger = json.loads(path.read_text()), json.loads(other.read_text())
    document["keys"][document["current"]] = next(iter(stranger["keys"].values()))
    path.write_text(json.dumps(document))
    with pytest.raises(KeyRingInvalid, match="does not match its id"):
        KeyRing.load(path)


def test_saving_a_ring_replaces_the_file_whole_and_keeps_its_mode(tmp_path: Path, ring: KeyRing) -> None:
    path = tmp_path / "keys.json"
    grown = ring.with_new_root()
    grown.save(path)
    assert KeyRing.load(path).ids == grown.ids
    assert KeyRing.load(path).current == grown.current != ring.current
    assert os.listdir(tmp_path) == ["keys.json"]


def test_no_key_shows_in_a_repr(ring: KeyRing) -> None:
    secret = next(iter(ring._roots.values()))
    assert secret.hex() not in repr(ring)
    assert repr(secret) not in repr(ring)


def test_a_wrapped_key_opens_only_where_it_was_made(ring: KeyRing) -> None:
    wrapped = ring.wrap("acme", "tenant", 1, b"k" * 32)
    assert ring.unwrap(wrapped) == b"k" * 32
    for moved in (
        replace(wrapped, tenant="other"),
        replace(wrapped, scope="index"),
        replace(wrapped, key_id=2),
        replace(wrapped, wrapped=wrapped.wrapped[:-1] + bytes([wrapped.wrapped[-1] ^ 1])),
        replace(wrapped, wrapped=wrapped.wrapped[:-1]),
        replace(wrapped, wrapped=b""),
    ):
        with pytest.raises(SealBroken):
            ring.unwrap(moved)


async def test_a_ring_that_does_not_belong_to_the_database_is_refused_at_start(tmp_path: Path, ring: KeyRing) -> None:
    catalog = MemoryCatalog()
    await Vault(catalog, ring).keys_for("acme")
    await Vault(catalog, ring).start()
    stranger = create_key_ring(tmp_path / "other.json")
    with pytest.raises(KeyRingMismatch, match="restore the key file that belongs to this database"):
        await Vault(catalog, stranger).start()


async def test_a_tenants_keys_are_made_on_first_sight_and_read_once(ring: KeyRing) -> None:
    catalog = MemoryCatalog()
    vault = Vault(catalog, ring)
    first = await vault.keys_for("acme")
    assert await vault.keys_for("acme") is first is vault.cached("acme")
    assert catalog.reads == 1
    assert sorted(scope for _, scope, _ in catalog.wrapped) == ["index", "tenant"]
    assert catalog.tenants == ["acme"]


async def test_processes_that_race_for_a_tenants_keys_end_with_the_same(ring: KeyRing) -> None:
    class Racing(MemoryCatalog):
        async def keys(self, tenant: str, *, scopes: object = None) -> list:  # type: ignore[type-arg]
            return []

    racing = Racing()
    one, two = await Vault(racing, ring).keys_for("acme"), await Vault(racing, ring).keys_for("acme")
    assert two.open(b"place", one.seal(b"place", b"hello")) == b"hello"
    assert one.index_hash("order", "7") == two.index_hash("order", "7")


async def test_a_frame_opens_only_with_its_aad_and_its_tenant(ring: KeyRing) -> None:
    vault = Vault(MemoryCatalog(), ring)
    acme, other = await vault.keys_for("acme"), await vault.keys_for("other")
    frame = acme.seal(b"place", b"hello")
    assert b"hello" not in frame
    assert acme.open(b"place", frame) == b"hello"
    for keys, aad, body in (
        (acme, b"elsewhere", frame),
        (other, b"place", frame),
        (acme, b"place", frame[:-1]),
        (acme, b"place", frame[:-1] + bytes([frame[-1] ^ 1])),
        (acme, b"place", b""),
        (acme, b"place", b"\x09" + frame[1:]),
        (acme, b"place", frame[:20]),
    ):
        with pytest.raises(SealBroken):
            keys.open(aad, body)


async def test_the_same_plain_text_never_seals_to_the_same_bytes(ring: KeyRing) -> None:
    keys = await Vault(MemoryCatalog(), ring).keys_for("acme")
    frames = [keys.seal(b"place", b"hello") for _ in range(2_000)]
    assert len({frame[5:17] for frame in frames}) == 2_000


def test_a_forked_child_never_uses_its_parents_nonces(ring: KeyRing) -> None:
    from engine.store import data_keys

    data_keys._fresh_nonces()
    stock = set(data_keys._nonces)
    assert stock
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"empty" if not data_keys._nonces else b"shared")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        assert answer.read() == b"empty"


async def test_index_hashes_are_hmac_sha256_and_differ_by_tenant_name_and_value(ring: KeyRing) -> None:
    import hmac

    catalog = MemoryCatalog()
    vault = Vault(catalog, ring)
    acme, other = await vault.keys_for("acme"), await vault.keys_for("other")
    index = ring.unwrap(catalog.wrapped["acme", "index", 1])
    assert acme.index_hash("order", "7") == hmac.digest(index, b"order\x007", "sha256")
    assert acme.index_hashes("order", "7") == (acme.index_hash("order", "7"),)
    assert (
        len(
            {
                acme.index_hash("order", "7"),
                acme.index_hash("order", "8"),
                acme.index_hash("orde", "r7"),
                other.index_hash("order", "7"),
            }
        )
        == 4
    )


async def test_a_tenant_gets_a_new_key_long_before_nonces_could_repeat(
    ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.store.keys.SEALS_PER_KEY", 3)
    catalog = MemoryCatalog()
    vault = Vault(catalog, ring)
    keys = await vault.keys_for("acme")
    frames = [keys.seal(b"p", b"%d" % n) for n in range(3)]
    renewed = await vault.keys_for("acme")
    frames.append(renewed.seal(b"p", b"3"))
    assert [frame[4] for frame in frames] == [1, 1, 1, 2]
    assert [renewed.open(b"p", frame) for frame in frames] == [b"0", b"1", b"2", b"3"]
    assert renewed.seals == 1


async def test_many_who_need_a_tenants_keys_at_once_ask_and_renew_once(
    ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.store.keys.SEALS_PER_KEY", 1)
    vault = Vault(MemoryCatalog(), ring)
    first, *others = await asyncio.gather(*(vault.keys_for("acme") for _ in range(5)))
    assert all(keys is first for keys in others)
    assert first.seal(b"p", b"0")[4] == 1
    renewed, *others = await asyncio.gather(*(vault.keys_for("acme") for _ in range(5)))
    assert all(keys is renewed for keys in others)
    assert renewed.seal(b"p", b"1")[4] == 2


async def test_a_key_made_by_another_process_is_read_when_a_body_names_it(ring: KeyRing) -> None:
    catalog = MemoryCatalog()
    mine, theirs = Vault(catalog, ring), Vault(catalog, ring)
    keys = await mine.keys_for("acme")
    await theirs.rotate_tenant_key("acme")
    frame = (await theirs.keys_for("acme")).seal(b"p", b"hello")
    with pytest.raises(KeysNotLoaded):
        keys.open(b"p", frame)
    assert (await mine.ready("acme", [frame])).open(b"p", frame) == b"hello"


async def test_dropping_a_subjects_key_erases_everywhere(ring: KeyRing) -> None:
    catalog = MemoryCatalog()
    now = [0.0]
    mine = Vault(catalog, ring, monotonic=lambda: now[0])
    theirs = Vault(catalog, ring, subject_seconds=60, monotonic=lambda: now[0])
    ada, bob = await mine.subject_keys("acme", "ada"), await mine.subject_keys("acme", "bob")
    of_ada, of_bob = ada.seal(b"p", b"ada's"), bob.seal(b"p", b"bob's")
    assert (await theirs.ready("acme", [of_ada])).open_subject(b"p", of_ada) == b"ada's"

    assert await mine.erase("acme", "ada") == 1

    assert (await mine.ready("acme", [of_ada])).open_subject(b"p", of_ada) == Erased("acme", ada.scope)
    now[0] = 61.0
    seen = await theirs.ready("acme", [of_ada, of_bob])
    assert seen.open_subject(b"p", of_ada) == Erased("acme", ada.scope)
    assert seen.open_subject(b"p", of_bob) == b"bob's"


async def test_an_erased_subject_who_returns_gets_a_new_key_and_the_old_stays_erased(ring: KeyRing) -> None:
    catalog = MemoryCatalog()
    vault = Vault(catalog, ring)
    before = (await vault.subject_keys("acme", "ada")).seal(b"p", b"old")
    await vault.erase("acme", "ada")
    after = (await vault.subject_keys("acme", "ada")).seal(b"p", b"new")
    keys = await Vault(catalog, ring).ready("acme", [before, after])
    assert isinstance(keys.open_subject(b"p", before), Erased)
    assert keys.open_subject(b"p", after) == b"new"


async def test_the_table_of_keys_names_no_subject(ring: KeyRing) -> None:
    catalog = MemoryCatalog()
    vault = Vault(catalog, ring)
    await vault.subject_keys("acme", "ada@example.org")
    await vault.subject_keys("other", "ada@example.org")
    scopes = [scope for _, scope, _ in catalog.wrapped if scope.startswith("subject/")]
    assert len(set(scopes)) == 2
    assert not any("@" in scope or "example" in scope for scope in scopes)


async def test_a_subjects_frame_that_was_moved_or_changed_is_broken_not_erased(ring: KeyRing) -> None:
    vault = Vault(MemoryCatalog(), ring)
    frame = (await vault.subject_keys("acme", "ada")).seal(b"p", b"x")
    keys = await vault.ready("acme", [frame])
    for aad, body in ((b"q", frame), (b"p", frame[:-1] + bytes([frame[-1] ^ 1])), (b"p", frame[:30])):
        with pytest.raises(SealBroken):
            keys.open_subject(aad, body)


async def test_rotating_the_root_key_rewraps_keys_and_touches_no_body(ring: KeyRing) -> None:
    catalog = MemoryCatalog()
    old = Vault(catalog, ring)
    frame = (await old.keys_for("acme")).seal(b"p", b"hello")
    personal = (await old.subject_keys("acme", "ada")).seal(b"p", b"ada's")
    grown = ring.with_new_root()
    assert await Vault(catalog, grown).rewrap(batch=2) == 3
    assert await Vault(catalog, grown).rewrap() == 0
    alone = grown.without(ring.current)
    assert await catalog.root_ids() == {alone.current: 3}
    after = Vault(catalog, alone)
    await after.start()
    keys = await after.ready("acme", [frame, personal])
    assert (keys.open(b"p", frame), keys.open_subject(b"p", personal)) == (b"hello", b"ada's")


async def test_memory_for_tenants_and_subjects_is_bounded(ring: KeyRing) -> None:
    catalog = MemoryCatalog()
    vault = Vault(catalog, ring, tenants_in_memory=2, subjects_in_memory=2)
    for name in ("a", "b", "c"):
        await vault.keys_for(name)
        await vault.subject_keys("c", name)
    assert vault.cached("a") is None
    keys = await vault.keys_for("c")
    assert (keys.subject("a"), keys.subject("c") is not None) == (None, True)


async def test_a_key_that_another_process_made_meanwhile_is_found_and_nothing_counts_as_erased(ring: KeyRing) -> None:
    catalog = MemoryCatalog()
    mine, theirs = Vault(catalog, ring), Vault(catalog, ring)
    scope = (await mine.keys_for("acme")).subject_scope("ada")
    await mine.subject_keys("acme", "ada")
    await catalog.add_key(ring.wrap("acme", scope, 0x7FFFFFFF, b"k" * 32))  # both had found none
    frame = (await theirs.subject_keys("acme", "ada")).seal(b"p", b"x")
    assert (await mine.ready("acme", [frame])).open_subject(b"p", frame) == b"x"
