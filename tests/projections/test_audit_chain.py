"""The audit chain: it verifies, and every kind of tampering shows, in the entries and in the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from contracts import run_events as ev
from projections.audit import Verifier
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


async def test_entries_are_refused_any_change_by_the_database(house: House) -> None:
    from engine.store.statements import parse

    await _fill(house)
    driver = "sqlite" if "sqlite" in type(house.store).__module__ else "postgres"
    views = getattr(house.store, "view_statements", None) or house.store.statements  # type: ignore[attr-defined]
    for statement in ("UPDATE audit_entries SET actor = 'x'", "DELETE FROM audit_entries"):
        views["audit_tamper"] = parse(f"-- name: audit_tamper\n{statement}", driver)["audit_tamper"]  # type: ignore[arg-type]
        position = await house.store.checkpoint("audit", 0)
        from engine.store import Change

        with pytest.raises(Exception, match="never"):
            await house.store.apply(
                "audit", 0, expected=position, position=position, changes=[Change("audit_tamper", [()])]
            )
    assert (await house.reader.verify_audit("acme")).broken is None


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
