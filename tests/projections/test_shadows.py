"""A rebuild beside the living view: it stays readable and current, a difference is named by its key, a crash leaves it
whole, and what is switched to is guarded as what was there."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Sequence
from typing import Any

import asyncpg
import pytest

from consumers.projector import VIEWS
from consumers.rebuild import VERIFIED, digest
from contracts.problems import Conflict
from engine.store import Change
from engine.store.sqlite_shadows import SHORTENED
from projections import Batch
from projections.history import History
from projections.usage import Usage
from tests.projections import histories
from tests.projections.conftest import House
from tests.projections.histories import SHAPES, record

GUARDS = """
    SELECT c.relname, c.relkind::text, c.relrowsecurity, c.relforcerowsecurity, c.relowner::regrole::text AS owner,
        c.reloptions, (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(c.relacl) AS a) AS granted,
        (SELECT array_agg((p.polname, p.polcmd, pg_get_expr(p.polqual, p.polrelid),
            (SELECT array_agg(r ORDER BY r) FROM unnest(p.polroles) AS r))::text
            ORDER BY p.polname)
         FROM pg_policy p WHERE p.polrelid = c.oid) AS policies,
        (SELECT array_agg(pg_get_constraintdef(k.oid) ORDER BY pg_get_constraintdef(k.oid))
         FROM pg_constraint k WHERE k.conrelid = c.oid) AS checks,
        (SELECT array_agg(pg_get_triggerdef(g.oid) ORDER BY g.tgname)
         FROM pg_trigger g WHERE g.tgrelid = c.oid) AS triggers,
        (SELECT array_agg((a.attname, a.attstorage)::text ORDER BY a.attnum)
         FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0) AS columns,
        CASE WHEN c.relkind = 'i' THEN pg_get_indexdef(c.oid) END AS index
    FROM pg_class c WHERE c.relnamespace = 'views'::regnamespace AND c.relkind IN ('r', 'i') ORDER BY c.relname
"""


async def fill(house: House) -> None:
    for shape in SHAPES:
        await record(house.store, house.vault, "acme", shape(), epoch=house.epoch)


async def tamper(house: House) -> None:
    position = await house.store.checkpoint("usage", 0)
    stray = Change("usage_now_add", [("acme", 1, 1)])
    assert await house.store.apply("usage", 0, expected=position, position=position, changes=[stray])


async def test_a_difference_is_named_by_its_key_and_a_verification_leaves_the_view_as_it_is(house: House) -> None:
    await fill(house)
    await house.projector().catch_up()
    good = await digest(house.store, "usage")
    await tamper(house)
    bad = await digest(house.store, "usage")
    verified = await house.rebuild().verify(Usage())
    assert (verified.before, verified.after, verified.switched) == (bad, good, False)
    assert [(one.table, dict(one.key)) for one in verified.differences] == [("usage_now", {"tenant": "acme"})]
    assert await digest(house.store, "usage") == bad
    kept: Any = await house.store.setting("*", VERIFIED)
    assert (kept["usage"]["equal"], kept["usage"]["rebuilt"]) == (False, False)

    rebuilt = await house.rebuild().run(Usage())
    assert [dict(one.key) for one in rebuilt.differences] == [{"tenant": "acme"}]
    assert await digest(house.store, "usage") == good
    assert (await house.rebuild().verify(Usage())).equal
    assert await house.store.drop_shadows() == []


async def test_a_view_is_rebuilt_again_and_again_while_it_is_read_and_goes_on(house: House) -> None:
    await fill(house)
    projector = house.projector()
    await projector.start()
    first = await house.store.head(0)
    assert await projector.reached("history", 0, first, timeout_seconds=20)
    stop = asyncio.Event()
    seen = [len((await house.reader.runs("acme", limit=200)).items)]

    async def watch() -> None:
        while not stop.is_set():
            seen.append(len((await house.reader.runs("acme", limit=200)).items))

    watcher = asyncio.create_task(watch())
    for _ in range(3):
        run_id = await record(house.store, house.vault, "acme", histories.unwound(), epoch=house.epoch)
        assert (await house.rebuild().run(History())).equal
        head = await house.store.head(0)
        assert await house.reader.reached("history", await house.reader.head(), timeout_seconds=20)
        assert await house.store.checkpoint("history", 0) == head
        assert await house.reader.run("acme", run_id) is not None
    stop.set()
    await watcher
    await projector.stop()
    assert seen[0] == len(SHAPES)
    assert seen == sorted(seen)
    assert projector.stopped_views == {}
    # What a migration would make is all there.
    assert await house.store.migrate() == []
    assert (await house.rebuild().verify(History())).equal


async def test_one_rebuild_of_a_view_at_a_time_and_of_two_views_at_once(house: House) -> None:
    await fill(house)
    await house.projector().catch_up()
    async with house.store.shadow("usage"):
        with pytest.raises(Conflict, match="already"):
            await house.rebuild().verify(Usage())
        assert (await house.rebuild().verify(History())).equal
        # Nobody takes the shadow of a living process away.
        assert await house.store.drop_shadows() == []
    assert (await house.rebuild().verify(Usage())).equal


async def test_a_rebuild_that_dies_leaves_the_view_whole_and_the_next_projector_cleans_up(house: House) -> None:
    await fill(house)
    await house.projector().catch_up()
    before = await digest(house.store, "history")

    async with NoGoodbye(house, "history") as shadow:
        assert await shadow.apply("history", 0, expected=0, position=1, changes=[])
        assert await shadow.checkpoint("history", 0) == 1
    assert await digest(house.store, "history") == before
    projector = house.projector()
    await projector.start()
    assert await projector.reached("history", 0, await house.store.head(0), timeout_seconds=20)
    await projector.stop()
    assert await house.store.drop_shadows() == []
    assert await house.store.checkpoint("shadow/history", 0) == 0
    assert (await house.rebuild().run(History())).equal


class NoGoodbye:
    """A shadow whose holder ends without dropping it."""

    def __init__(self, house: House, view: str) -> None:
        self._held: Any = house.store.shadow(view)

    async def __aenter__(self) -> Any:
        shadow = await self._held.__aenter__()

        async def nothing() -> None:
            """As in a process that is no more."""

        shadow.drop = nothing
        return shadow

    async def __aexit__(self, *error: Sequence[Any]) -> None:
        await self._held.__aexit__(None, None, None)


async def test_what_the_living_view_has_and_its_shadow_has_not_forbids_the_switch(house: House) -> None:
    await fill(house)
    await house.projector().catch_up()
    before = await digest(house.store, "history")
    async with house.store.shadow("history") as shadow:
        assert await shadow.compare() is None
        assert not await shadow.switch()
    assert await digest(house.store, "history") == before


@pytest.mark.postgres
async def test_tables_are_guarded_after_a_switch_as_they_were_before(house: House, store_url: str) -> None:
    if not store_url.startswith("postgres"):
        indexes = "SELECT count(*) AS n FROM sqlite_master WHERE type IN ('index', 'trigger')"
        readers: Any = house.store.readers  # type: ignore[attr-defined]
        before = [dict(row) for row in await readers.fetch(indexes, ())]
        for view in VIEWS:
            await house.rebuild().run(view)
        assert [dict(row) for row in await readers.fetch(indexes, ())] == before
        return
    connection = await asyncpg.connect(store_url)
    try:
        await fill(house)
        await house.projector().catch_up()
        before = [dict(row) for row in await connection.fetch(GUARDS)]
        for view in VIEWS:
            async with house.store.shadow(view.name):
                found = [dict(row) for row in await connection.fetch(GUARDS)]
            of = {row["relname"]: row for row in found}
            made = [name for name in of if name.startswith("shadow_") and of[name]["relkind"] == "r"]
            assert made
            for name in made:
                living = {**of[name.removeprefix("shadow_")], "relname": name, "triggers": None}
                assert {**of[name], "triggers": None} == living
            await house.rebuild().run(view)
        assert [dict(row) for row in await connection.fetch(GUARDS)] == before
    finally:
        await connection.close()


async def test_a_checksum_has_its_parts_in_one_order(house: House) -> None:
    for view in VIEWS:
        parts = [row["part"] for row in await house.store.fetch(f"{view.name}_digest", tenant=None)]
        assert parts == sorted(parts)


async def test_a_large_shadow_is_dropped_whole(house: House) -> None:
    async with house.store.shadow("usage") as shadow:
        rows = [(f"tenant-{n}", 1, 1) for n in range(2 * SHORTENED + 1)]
        assert await shadow.apply("usage", 0, expected=0, position=1, changes=[Change("usage_now_add", rows)])
    assert await house.store.drop_shadows() == []
    assert await house.store.fetch("usage_now", tenant=None) == []
    assert (await house.rebuild().verify(Usage())).equal


async def test_a_rebuild_stops_at_the_event_that_its_view_cannot_take(house: House) -> None:
    await fill(house)
    await house.projector().catch_up()
    guilty = await house.store.head(0) // 2
    with pytest.raises(Conflict, match=f"cannot take event {guilty} "):
        await house.rebuild().run(Choosy(guilty))
    assert (await house.rebuild().verify(History())).equal


class Choosy(History):
    """A history that refuses one event."""

    def __init__(self, guilty: int) -> None:
        self._guilty = guilty

    def changes(self, batch: Batch, seeds: MutableMapping[str, Any]) -> list[Change]:
        if any(event.position == self._guilty for event in batch.events):
            raise ValueError("not this one")
        return super().changes(batch, seeds)
