"""The projector's life: it follows, it waits, it stands by, and one event it cannot take stops one view only."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any
from uuid import UUID

from engine.metrics import Metrics
from engine.store import Change, Commit, Recorded, Store
from engine.store.mapper import Mapper
from projections import Batch
from projections.history import History
from projections.usage import Usage
from tests.projections import histories
from tests.projections.conftest import House
from tests.projections.histories import record


class Picky(Usage):
    """Usage under another name, that cannot take the end of a run that was unwound."""

    name = "stats"

    def changes(self, batch: Batch, seeds: MutableMapping[str, Any]) -> list[Change]:
        if any(event.event["status"] == "compensated" for event in batch.of("run.ended")):
            raise ValueError("no unwound runs here")
        return []


async def test_it_follows_the_log_and_says_when_a_view_has_seen_a_position(house: House) -> None:
    projector = house.projector()
    await projector.start()
    run_id = await record(house.store, house.vault, "acme", histories.straight(), epoch=house.epoch)
    head = await house.store.head(0)
    assert await projector.reached("history", 0, head, timeout_seconds=10)
    assert await house.reader.run("acme", run_id) is not None
    async with asyncio.timeout(10):
        while not projector.ready:  # it has yet to see that there is nothing more
            assert not await projector.reached("history", 0, head + 1, timeout_seconds=0.05)
    assert not await projector.reached("history", 0, head + 1, timeout_seconds=0.05)
    await projector.stop()
    await projector.stop()


async def test_an_event_a_view_cannot_take_stops_that_view_alone_and_at_that_event(house: House) -> None:
    await record(house.store, house.vault, "acme", histories.straight(), epoch=house.epoch)
    await record(house.store, house.vault, "acme", histories.unwound(), epoch=house.epoch)
    await record(house.store, house.vault, "acme", histories.straight(), epoch=house.epoch)
    projector = house.projector((History(), Picky()))
    await projector.catch_up()
    stopped = projector.stopped_views["stats"]
    assert (stopped.topic, "no unwound runs here" in stopped.reason) == ("run.ended", True)
    assert await house.store.checkpoint("stats", 0) == stopped.position - 1
    assert await house.store.checkpoint("history", 0) == await house.store.head(0)
    assert "history" not in projector.stopped_views


async def test_a_body_that_does_not_open_stops_before_it_and_counts_an_incident(house: House) -> None:
    await record(house.store, house.vault, "acme", histories.straight(), epoch=house.epoch)
    broken = Commit(tenant="acme", stream=UUID(int=7), events=(Recorded("run.started", b"\x01 not sealed by anyone"),))
    await house.store.append([broken], epoch=house.epoch)
    metrics = Metrics()
    projector = house.projector()
    projector._metrics = metrics
    await projector.catch_up()
    assert set(projector.stopped_views) == {"history", "usage", "audit", "stats", "approvals"}
    assert await house.store.checkpoint("history", 0) == await house.store.head(0) - 1
    assert b'unwind_incidents_total{reason="view_stopped"} 5.0' in metrics.render()[0]


async def test_a_held_view_is_left_alone_and_goes_on_when_the_hold_is_gone(house: House) -> None:
    await record(house.store, house.vault, "acme", histories.straight(), epoch=house.epoch)
    projector = house.projector()
    follower = projector._follower(0)
    follower.held = frozenset({"audit"})
    await projector.catch_up()
    assert await house.store.checkpoint("audit", 0) == 0
    follower.held = frozenset()
    await projector.catch_up()
    assert await house.store.checkpoint("audit", 0) == await house.store.head(0)


async def test_two_projectors_write_every_row_once(house: House) -> None:
    one, other = house.projector(batch=5), house.projector(batch=3)
    await one.start()
    await other.start()
    for _ in range(5):
        await record(house.store, house.vault, "acme", histories.unwound(), epoch=house.epoch)
    head = await house.store.head(0)
    assert await one.reached("usage", 0, head, timeout_seconds=20) or await other.reached(
        "usage", 0, head, timeout_seconds=1
    )
    await one.stop()
    await other.stop()
    usage = next(iter(await house.store.fetch("usage_now", tenant="acme")))
    assert (usage["total_runs"], usage["open_runs"]) == (5, 0)


async def test_an_event_that_cannot_be_folded_stops_every_view_at_it(house: House) -> None:
    await record(house.store, house.vault, "acme", histories.straight(), epoch=house.epoch)
    keys = await house.vault.keys_for("acme")
    stream = UUID(int=9)
    stray = Mapper().encode(keys, stream, 1, histories.straight()[-1])
    await house.store.append([Commit(tenant="acme", stream=stream, events=(stray,))], epoch=house.epoch)
    await record(house.store, house.vault, "acme", histories.straight(), epoch=house.epoch)
    projector = house.projector()
    await projector.catch_up()
    assert set(projector.stopped_views) == {"history", "usage", "audit", "stats", "approvals"}
    assert {stopped.stream for stopped in projector.stopped_views.values()} == {stream}


class Quiet:
    """A store in which nothing is ever appended again; `waited` is set while somebody waits for it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.waited = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def wait_for_append(self, lane: int, after: int, timeout_seconds: float) -> bool:
        self.waited.set()
        await asyncio.Event().wait()
        return False


async def test_it_stops_at_once_while_it_waits_for_the_next_event(house: House) -> None:
    await record(house.store, house.vault, "acme", histories.straight(), epoch=house.epoch)
    projector = house.projector()
    quiet: Any = Quiet(house.store)
    projector._store = quiet
    await projector.start()
    async with asyncio.timeout(10):
        await quiet.waited.wait()
        await projector.stop()
    assert projector.failed() is None
