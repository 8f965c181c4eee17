"""Retention: ended runs leave the lists with the log, once, whatever dies in between; what can be built again equals
what lives, and what cannot is not lost."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from consumers.archiving import Archiver
from contracts.problems import Conflict
from contracts.tenant_events import tenant_stream
from engine.clock import SystemClock
from engine.store.mapper import Mapper
from engine.tenant_log import TenantLog
from projections.approvals import Approvals
from projections.history import History
from projections.stats import Stats
from tests.projections import histories
from tests.projections.conftest import House
from tests.projections.histories import record

CLOCK = SystemClock()


def archiver(house: House) -> Archiver:
    log = TenantLog(house.store, house.vault, Mapper(), CLOCK, epoch=lambda: house.epoch)
    return Archiver(house.store, log, CLOCK)


async def listed(house: House, tenant: str = "acme") -> set[UUID]:
    await house.projector().catch_up()
    return {UUID(run["run_id"]) for run in (await house.reader.runs(tenant, limit=200)).items}


async def a_few(house: House) -> tuple[list[UUID], list[UUID]]:
    """Ended runs, some with decided approvals, and open ones."""
    ended = [
        await record(house.store, house.vault, "acme", shape(), epoch=house.epoch)
        for shape in (histories.straight, histories.unwound, histories.approved)
    ]
    is_open = [
        await record(house.store, house.vault, "acme", shape()[:-1], epoch=house.epoch)
        for shape in (histories.straight, histories.waiting)
    ]
    return ended, is_open


async def test_ended_runs_leave_the_lists_and_views_are_built_again_alike(house: House) -> None:
    ended, is_open = await a_few(house)
    before = CLOCK.now() + timedelta(days=40_000)
    assert await listed(house) >= {*ended, *is_open}
    assert await archiver(house).count(before) == len(ended)
    done = await archiver(house).archive(before, by="retention")
    assert done.runs == len(ended)
    assert await listed(house) & {*ended, *is_open} == set(is_open)
    for view in (History(), Approvals(), Stats()):
        assert (await house.rebuild().verify(view)).equal
    verdict = await house.reader.verify_audit("acme", against_log=True)
    assert (verdict.broken, verdict.number > 0) == (None, True)
    assert (await archiver(house).archive(before, by="retention")).runs == 0


async def test_one_tenants_runs_and_no_more_than_asked(house: House) -> None:
    ended, _ = await a_few(house)
    other = await record(house.store, house.vault, "other", histories.straight(), epoch=house.epoch)
    await house.projector().catch_up()
    before = CLOCK.now() + timedelta(days=40_000)
    assert await archiver(house).count(before, tenant="other") == 1
    assert (await archiver(house).archive(before, by="ann", tenant="acme", most=1)).runs == 1
    assert len(await listed(house) & set(ended)) == len(ended) - 1
    assert await listed(house, "other") == {other}
    assert (await archiver(house).archive(CLOCK.now() - timedelta(days=40_000), by="ann")).runs == 0


async def test_a_pass_that_died_after_moving_is_recorded_by_the_next(house: House) -> None:
    ended, _ = await a_few(house)
    await house.projector().catch_up()
    await house.store.archive_runs("acme", ended, month="2030-01")
    assert await listed(house) >= set(ended)
    assert (await archiver(house).archive(CLOCK.now() + timedelta(days=40_000), by="retention")).runs == len(ended)
    assert await listed(house) & set(ended) == set()
    assert len(await house.store.load("acme", tenant_stream("acme"))) == 1


async def test_after_a_month_was_dropped_sums_are_kept_and_not_built_again(house: House) -> None:
    ended, _ = await a_few(house)
    await house.projector().catch_up()
    await archiver(house).archive(CLOCK.now() + timedelta(days=40_000), by="retention")
    [month] = [one.month for one in await house.store.archive_months()]
    assert (await archiver(house).drop(month, by="ann", reason="over")).runs == len(ended)
    await house.projector().catch_up()
    assert (await house.rebuild().verify(History())).equal
    with pytest.raises(Conflict, match=month):
        await house.rebuild().run(Stats())
    verdict = await house.reader.verify_audit("acme", against_log=True)
    assert verdict.broken is None
    [entry] = (await house.reader.audit("platform", topic="archive.dropped")).items
    assert (entry["actor"], entry["details"]["month"], entry["details"]["runs"]) == ("ann", month, len(ended))
