"""What quotas count beside the rows is counted again: a wrong count is repaired and told, a right one is left alone."""

from __future__ import annotations

import asyncio

import pytest

from consumers.recounting import Recounting
from contracts.tenant_events import QuotaRecounted, tenant_stream
from engine.tenant_log import TenantLog
from tests.conformance.coordinating import House, Node, World


def recounting(node: Node) -> Recounting:
    log = TenantLog(node.store, node.vault, node.mapper, node.clock, epoch=lambda: node.epoch)
    return Recounting(node.store, node.vault, node.mapper, log, node.clock)


async def told(node: Node, tenant: str = "acme") -> list[tuple[str, str | None, int, int]]:
    found = await node.log(tenant_stream(tenant), tenant)
    return [(one.cap, one.workflow, one.before, one.after) for one in found if isinstance(one, QuotaRecounted)]


async def started(node: Node, tenant: str = "acme") -> dict[str, int]:
    used = await node.store.quota_use(tenant, day=f"{node.clock.now():%Y-%m-%d}")
    return {one.workflow: one.started for one in used if one.started}


async def test_a_wrong_count_of_the_days_runs_is_repaired_and_told(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    await node.run("quick")
    node.clock.forward(days=1)
    day = f"{node.clock.now():%Y-%m-%d}"
    for saga in ("quick", "quick", "waiting"):
        await node.run(saga)
    await node.run("quick", tenant="globex")
    await node.settled()
    again = recounting(node)
    await again.recount()
    assert (await told(node), await started(node)) == ([], {"quick": 2, "waiting": 1})

    await node.store.correct_counts("acme", day=day, started={"quick": 5, "waiting": -1, "ghost": 2})
    await again.recount()
    assert await started(node) == {"quick": 2, "waiting": 1}
    assert await told(node) == [
        ("daily_runs", "ghost", 2, 0),
        ("daily_runs", "quick", 7, 2),
        ("daily_runs", "waiting", 0, 1),
    ]
    assert "".join(capsys.readouterr()).count("quota_recounted") == 3
    # Another process counts from the day's beginning, and finds the same.
    await recounting(node).recount()
    assert len(await told(node)) == 3
    assert await told(node, "globex") == []


async def test_a_count_of_open_runs_that_would_let_pass_too_many_is_repaired(node: Node) -> None:
    for _ in range(3):
        await node.run("waiting")
    day = f"{node.clock.now():%Y-%m-%d}"
    await node.store.correct_counts("acme", day=day, started={"": 0}, opened=-1)
    await recounting(node).recount()
    assert await told(node) == [("open_runs", None, 2, 3)]
    # More is counted as open than is once a run has ended: that is as it should be.
    await node.later(days=1)
    await recounting(node).recount()
    assert len(await told(node)) == 1


async def test_counting_again_does_not_meddle_with_what_begins_meanwhile(house: House, world: World) -> None:
    node = await house.node()
    again = recounting(node)
    await node.run("quick")
    day = f"{node.clock.now():%Y-%m-%d}"
    await node.store.correct_counts("acme", day=day, started={"quick": 1})

    async def begin() -> None:
        for _ in range(20):
            await node.run("quick")

    await asyncio.gather(begin(), again.recount(), again.recount())
    await node.settled()
    await again.recount()
    assert await started(node) == {"quick": 21}
    assert await told(node)
