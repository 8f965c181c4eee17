"""What quotas count beside the rows is counted again: a wrong count is repaired and told, a right one is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from consumers.recounting import Recounting
from contracts.problems import Unavailable
from contracts.tenant_events import QuotaRecounted, tenant_stream
from engine.store import StartsCounted, StartsRead, Store
from engine.tenant_log import TenantLog
from tests.conformance.coordinating import House, Node, World


def recounting(node: Node, store: Store | None = None, **at_once: int) -> Recounting:
    """Over the node's store, or another that stands before it."""
    log = TenantLog(node.store, node.vault, node.mapper, node.clock, epoch=lambda: node.epoch)
    return Recounting(store or node.store, node.vault, node.mapper, log, node.clock, **at_once)


class Portions:
    """A node's store of which the answers to a recount are counted; the one of a given number is lost, and `between`
    happens after each that is not the last."""

    def __init__(self, node: Node) -> None:
        self._store = node.store
        self.counted = self.read = 0
        self.lost = 0
        self.between: Callable[[], Awaitable[Any]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def _after(self, found: StartsCounted | StartsRead) -> None:
        if self.counted + self.read == self.lost:
            raise Unavailable("the answer got lost")
        if self.between is not None and found.counted is None:
            await self.between()

    async def starts_counted(self, *args: Any, **kwargs: Any) -> StartsCounted:
        found: StartsCounted = await self._store.starts_counted(*args, **kwargs)
        self.counted += 1
        await self._after(found)
        return found

    async def starts_of(self, *args: Any, **kwargs: Any) -> StartsRead:
        found: StartsRead = await self._store.starts_of(*args, **kwargs)
        self.read += 1
        await self._after(found)
        return found


def in_portions(node: Node, events: int) -> tuple[Portions, Recounting]:
    store: Any = Portions(node)
    return store, recounting(node, store, counted_at_once=events, opened_at_once=events)


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


async def test_a_day_is_counted_in_portions(node: Node) -> None:
    await node.run("quick")
    node.clock.forward(days=1)
    day = f"{node.clock.now():%Y-%m-%d}"
    for saga in ("quick", "waiting", "quick"):
        await node.run(saga)
    await node.run("quick", tenant="globex")
    await node.settled()
    store, again = in_portions(node, 4)
    await again.recount()
    assert store.counted > 3
    assert (await told(node), store.read) == ([], 0)

    # A difference is found at the head, and read of the whole day, for both tenants at once.
    await node.store.correct_counts("acme", day=day, started={"quick": 3})
    await node.store.correct_counts("globex", day=day, started={"quick": -1})
    await again.recount()
    assert store.read > 3
    assert (await started(node), await started(node, "globex")) == ({"quick": 2, "waiting": 1}, {"quick": 1})
    assert await told(node) == [("daily_runs", "quick", 5, 2)]
    assert await told(node, "globex") == [("daily_runs", "quick", 0, 1)]
    read = store.read
    await again.recount()
    assert store.read == read, "what was corrected differs no more"


async def test_a_portion_that_is_lost_is_counted_again_and_no_other(node: Node) -> None:
    for _ in range(3):
        await node.run("quick")
    await node.settled()
    day = f"{node.clock.now():%Y-%m-%d}"
    whole, again = in_portions(node, 5)
    await again.recount()
    assert whole.counted > 2
    for number in range(1, whole.counted + 1):
        store, again = in_portions(node, 5)
        store.lost = number
        with pytest.raises(Unavailable):
            await again.recount()
        await again.recount()
        assert (store.counted, store.read) == (whole.counted + 1, 0), f"portion {number} was lost"
    assert await told(node) == []

    # And of those that are read for a difference: nothing is corrected before all are read, and then once.
    await node.store.correct_counts("acme", day=day, started={"quick": 2})
    store, again = in_portions(node, 5)
    store.lost = whole.counted + 2
    with pytest.raises(Unavailable):
        await again.recount()
    assert await started(node) == {"quick": 5}
    await again.recount()
    assert (await started(node), await told(node)) == ({"quick": 3}, [("daily_runs", "quick", 5, 3)])


async def test_what_begins_between_two_portions_is_counted_on_both_sides(node: Node) -> None:
    for _ in range(3):
        await node.run("quick")
    await node.settled()
    store, again = in_portions(node, 5)

    async def begin() -> None:
        if store.counted + store.read <= 3:
            await node.run("quick")
            await node.settled()

    store.between = begin
    await again.recount()
    assert store.counted > 3
    assert (await told(node), store.read) == ([], 0)

    await node.store.correct_counts("acme", day=f"{node.clock.now():%Y-%m-%d}", started={"quick": 1})
    store, again = in_portions(node, 5)
    store.between = begin
    await again.recount()
    assert await told(node) == [("daily_runs", "quick", 10, 9)]
    assert await started(node) == {"quick": 9}


async def test_counting_ends_with_its_day(node: Node) -> None:
    for _ in range(3):
        await node.run("quick")
    await node.settled()
    yesterday = f"{node.clock.now():%Y-%m-%d}"
    await node.store.correct_counts("acme", day=yesterday, started={"quick": 1})
    store, again = in_portions(node, 5)

    async def midnight() -> None:
        node.clock.forward(days=1)
        await node.run("quick")
        await node.settled()

    store.between = midnight
    await again.recount()
    assert (store.counted, store.read) == (1, 0)
    # Of a day that is over nothing is corrected, so that what counts of this one stays.
    await node.store.correct_counts("acme", day=yesterday, started={"quick": -1})
    assert await started(node) == {"quick": 1}
    store.between = None
    await again.recount()
    assert (await told(node), store.read, await started(node)) == ([], 0, {"quick": 1})
