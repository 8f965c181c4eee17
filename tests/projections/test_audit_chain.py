"""The audit chain: it verifies, and every kind of tampering shows, in the entries and in the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from contracts import run_events as ev
from projections.audit import Audit, Verifier
from projections.verifying import heads, verify
from tests.projections import histories
from tests.projections.conftest import House
from tests.projections.histories import SHAPES, record

Rows = list[dict[str, Any]]


async def _entries(house: House, tenant: str = "acme") -> Rows:
    return [dict(row) for row in await house.store.fetch("audit_chain", tenant=tenant, after=0, limit=10_000)]


def _verdict(rows: Rows) -> str | None:
    verifier = Verifier("acme")
    for row in rows:
        verifier.take(row)
    return verifier.verdict.broken


async def _fill(house: House) -> None:
    for shape in SHAPES:
        await record(house.store, house.vault, "acme", shape(), epoch=house.epoch)
        await record(house.store, house.vault, "globex", shape(), epoch=house.epoch)
    await house.projector(batch=17).catch_up()


async def test_the_chain_of_each_tenant_holds_and_covers_the_log(house: House) -> None:
    await _fill(house)
    for tenant in ("acme", "globex"):
        verdict = await house.reader.verify_audit(tenant, against_log=True)
        assert (verdict.broken, verdict.number > 0) == (None, True)
        head = await house.reader.audit_head(tenant)
        assert (head["number"], head["hash"]) == (verdict.number, verdict.head.hex())


async def test_the_log_is_read_once_however_many_entries_it_is_compared_with(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _fill(house)
    read, seen = house.store.read, [0]

    async def counted(*lane: Any, **which: Any) -> Any:
        found = await read(*lane, **which)
        seen[0] += len(found)
        return found

    monkeypatch.setattr(house.store, "read", counted)
    verdict = await house.reader.verify_audit("acme", against_log=True)
    assert (verdict.broken, verdict.number > 10) == (None, True)
    in_log = len(await read(await house.store.lane_of("acme"), after=0, limit=10_000))
    assert 0 < seen[0] <= in_log


def _change(name: str, value: Any) -> Callable[[Rows], object]:
    return lambda rows: rows[4].update({name: value})


@pytest.mark.parametrize(
    "tamper",
    [
        _change("actor", "somebody else"),
        _change("details", "{}"),
        _change("topic", "run.ended"),
        _change("recorded_at", "2031-01-01T00:00:00.000000Z"),
        _change("hash", b"\x00" * 32),
        _change("leaves", b"short"),
        lambda rows: rows.pop(4),
        lambda rows: rows.insert(4, rows[5]),
        lambda rows: rows.__setitem__(slice(4, 6), [rows[5], rows[4]]),
    ],
    ids=["actor", "details", "topic", "time", "hash", "leaves", "removed", "inserted", "swapped"],
)
async def test_a_changed_entry_breaks_the_chain(house: House, tamper: Callable[[Rows], object]) -> None:
    await _fill(house)
    rows = await _entries(house)
    assert _verdict(rows) is None
    tamper(rows)
    assert _verdict(rows) is not None


async def test_a_changed_event_of_the_log_is_found(house: House) -> None:
    await _fill(house)
    real = house.store.read

    async def tampered(lane: int, *, after: int, limit: int) -> Any:
        from dataclasses import replace

        return [
            replace(one, body=one.body[:-1] + bytes([one.body[-1] ^ 1])) if one.position == 9 else one
            for one in await real(lane, after=after, limit=limit)
        ]

    reader = house.reader
    reader._store = _Tampered(house.store, tampered)
    broken = [(await reader.verify_audit(tenant, against_log=True)).broken for tenant in ("acme", "globex")]
    assert [why for why in broken if why] == ["event 9 was changed after it was recorded"]


class _Tampered:
    """The store with a log that somebody changed underneath it."""

    def __init__(self, store: Any, read: Any) -> None:
        self._store = store
        self.read = read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


ON_POSTGRES = pytest.mark.parametrize(
    "store_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
CHANGES = ("UPDATE audit_entries SET actor = 'x'", "DELETE FROM audit_entries", "TRUNCATE audit_entries")


@pytest.mark.acceptance("J9")
@ON_POSTGRES
@pytest.mark.parametrize("role", ["engine", "projector", "web", "operator", "owner"])
async def test_the_database_refuses_every_role_to_change_an_entry(house: House, store_url: str, role: str) -> None:
    """The projector's role writes the read models, the owner's migrates; a rebuild is open to the projector alone."""
    await _fill(house)
    connection = await asyncpg.connect(store_url, server_settings={"search_path": "views, unwind"})
    try:
        named = await connection.fetchval("SELECT role FROM unwind.roles WHERE name = $1", role)
        await connection.execute(f'SET ROLE "{named}"')
        for statement in CHANGES:
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"never changed|permission denied"):
                await connection.execute(statement)
        loosened = "ALTER TABLE audit_entries DISABLE TRIGGER USER"
        # Whoever migrates makes and drops tables: that no process runs as the owner is what holds him.
        for statement in (*(() if role == "owner" else (loosened,)), "SET session_replication_role = replica"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        for function in ("shadow_make", "shadow_switch", "shadow_drop"):
            call = f"SELECT has_function_privilege($1, 'unwind.{function}(text, text[])', 'EXECUTE')"
            assert await connection.fetchval(call, named) == (role in ("projector", "owner"))
    finally:
        await connection.close()
    for tenant in ("acme", "globex"):
        assert (await house.reader.verify_audit(tenant, against_log=True)).broken is None


@pytest.mark.acceptance("J9")
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_a_file_of_entries_is_not_changed(house: House, store_url: str) -> None:
    await _fill(house)
    with closing(sqlite3.connect(store_url.removeprefix("sqlite://"))) as connection:
        for statement in CHANGES[:2]:
            with pytest.raises(sqlite3.IntegrityError, match="never"):
                connection.execute(statement)
    assert (await house.reader.verify_audit("acme", against_log=True)).broken is None


async def test_a_rebuilt_audit_is_refused_changes_as_before(house: House, store_url: str) -> None:
    await _fill(house)
    before = await house.reader.audit_head("acme")
    assert (await house.rebuild().run(Audit())).equal
    assert await house.reader.audit_head("acme") | {"as_of": ""} == before | {"as_of": ""}
    if store_url.startswith("sqlite"):
        await test_a_file_of_entries_is_not_changed(house, store_url)
    else:
        await test_the_database_refuses_every_role_to_change_an_entry(house, store_url, "projector")


# Whoever owns the database's server can change anything; the chain must then show it.
AS_SUPERUSER = "SET session_replication_role = replica"


async def _tamper(store_url: str, *statements: str) -> None:
    if store_url.startswith("sqlite"):
        with closing(sqlite3.connect(store_url.removeprefix("sqlite://"))) as connection:
            for name in ("audit_entries_stay", "audit_entries_remain"):
                connection.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        return
    own = await asyncpg.connect(store_url, server_settings={"search_path": "views, unwind"})
    try:
        for statement in (AS_SUPERUSER, *statements):
            await own.execute(statement)
    finally:
        await own.close()


LAST = "(SELECT max(number) FROM audit_entries WHERE tenant = 'acme')"
NONE = "substr(hash, 1, 0)"
BEFORE = "(SELECT hash FROM audit_entries WHERE tenant = 'acme' AND number = 5)"


@pytest.mark.acceptance("J9")
@pytest.mark.parametrize(
    ("statements", "found"),
    [
        (["UPDATE audit_entries SET actor = 'x' WHERE tenant = 'acme' AND number = 3"], "entry 3 was changed"),
        (["DELETE FROM audit_entries WHERE tenant = 'acme' AND number = 3"], "entry 3 is missing"),
        (
            [
                "UPDATE audit_entries SET number = -3 WHERE tenant = 'acme' AND number = 3",
                "UPDATE audit_entries SET number = 3 WHERE tenant = 'acme' AND number = 4",
                "UPDATE audit_entries SET number = 4 WHERE tenant = 'acme' AND number = -3",
            ],
            "entry 3 was changed",
        ),
        ([f"DELETE FROM audit_entries WHERE tenant = 'acme' AND number = {LAST}"], "its own head names"),
        (
            [
                "DELETE FROM audit_entries WHERE tenant = 'acme' AND number > 5",
                f"UPDATE audit_heads SET number = 5, hash = {BEFORE}, leaves = {NONE} WHERE tenant = 'acme'",
            ],
            "the exported head names",
        ),
        (
            [
                "DELETE FROM audit_entries WHERE tenant = 'acme'",
                "DELETE FROM audit_heads WHERE tenant = 'acme'",
            ],
            "the exported head names",
        ),
    ],
    ids=["changed", "deleted", "swapped", "last", "tail", "all"],
)
async def test_what_the_database_was_made_to_forget_is_found(
    house: House, store_url: str, statements: list[str], found: str
) -> None:
    await _fill(house)
    [exported] = await heads(house.store, "acme")
    assert (await verify(house.store, "acme", against_log=True, exported=exported)).broken is None
    await _tamper(store_url, *statements)
    said = (await verify(house.store, "acme", against_log=False, exported=exported)).broken
    assert said is not None
    assert found in said
    # Without the head that was kept elsewhere, a tail that was cut off cleanly still leaves the log behind.
    assert (await verify(house.store, "acme", against_log=True)).broken is not None
    assert (await verify(house.store, "globex", against_log=True)).broken is None


@pytest.mark.acceptance("J9")
async def test_a_head_of_another_chain_is_not_taken_for_this_one(house: House) -> None:
    await _fill(house)
    [head] = await heads(house.store, "acme")
    forged = replace(head, number=3)
    said = (await verify(house.store, "acme", exported=forged)).broken
    assert said == "entry 3 is not the one that the exported head names"


@pytest.mark.acceptance("H11")
async def test_business_states_are_rebuilt_from_the_audit_alone(house: House) -> None:
    tell = histories.Teller().started()
    previous: str | None = None
    for name in ("Provisioning", "ProvisioningFailed", "Provisioning", "Active"):
        tell(ev.StateEntered, name=name, visit=1, previous=previous)
        previous = name
    run_id = await record(house.store, house.vault, "acme", tell.ended().events, epoch=house.epoch)
    await house.projector().catch_up()
    page = await house.reader.audit("acme", stream=run_id, topic="state.entered", limit=50)
    states = [entry["details"]["name"] for entry in reversed(page.items)]
    assert states == ["Provisioning", "ProvisioningFailed", "Provisioning", "Active"]
    run = await house.reader.run("acme", run_id)
    assert run is not None
    assert run["business_state"] == states[-1]


@pytest.mark.acceptance("D3")
async def test_a_command_leaves_the_same_audit_entry_from_any_workflow(house: House) -> None:
    def order(workflow: str) -> list[ev.RunEvent]:
        tell = histories.Teller().started(workflow, initiator="ops")
        return tell.step("charge", kind="command").done("charge").ended().events

    entries = []
    for workflow in ("direct-command", "renewal"):
        run_id = await record(house.store, house.vault, "acme", order(workflow), epoch=house.epoch)
        await house.projector().catch_up()
        [entry] = (await house.reader.audit("acme", stream=run_id, topic="step.scheduled")).items
        entries.append((entry["actor"], {k: v for k, v in entry["details"].items() if k != "workflow"}))
    assert entries[0] == entries[1]
    assert entries[0][1]["action"] == "billing.charge"
