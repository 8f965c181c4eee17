"""Rebuilding a read model from the log while the engine runs, and proving that it came out the same.

    hold the view -> digest -> reset -> read the log to where the view was -> digest again -> let go

Live projectors leave a held view alone; a rebuild that dies stops renewing its hold, and they go on from where it came
to. `as_of` on every answer tells readers how far the view is meanwhile. Called by `unwind rebuild`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import orjson

from consumers.following import HOLD, Follower
from contracts.problems import Conflict
from engine.clock import Clock
from engine.metrics import Metrics
from engine.store import Store
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from projections import View

HOLD_SECONDS: Final = 30
BATCH: Final = 2_000
TRIES: Final = 10

Progress = Callable[[int, int], None]
"""Told (events read, events in all) after each stretch."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """`before` and `after` are digests of all rows of the view at the same positions."""

    view: str
    events: int
    before: str
    after: str

    @property
    def equal(self) -> bool:
        return self.before == self.after


class Rebuild:
    """Rebuilds one view at a time. Its own follower reads for it; nothing is shared with a running projector."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        mapper: Mapper,
        clock: Clock,
        metrics: Metrics,
        *,
        quiet_seconds: float = 2.5,
    ) -> None:
        self._store = store
        self._vault = vault
        self._mapper = mapper
        self._clock = clock
        self._metrics = metrics
        self._quiet_seconds = quiet_seconds

    async def run(self, view: View, *, progress: Progress | None = None) -> Rebuilt:
        """Empties the view and fills it again up to where it was. Raises `Conflict` when it does not stand still."""
        await self._hold(view.name)
        try:
            before, targets = await self._settled(view.name)
            await self._store.reset(view.name)
            events = 0
            for lane, target in targets.items():
                events += await self._refill(view, lane, target, events, sum(targets.values()), progress)
            return Rebuilt(view.name, events, before, await digest(self._store, view.name))
        finally:
            await self._let_go(view.name)

    async def _refill(
        self, view: View, lane: int, target: int, done: int, total: int, progress: Progress | None
    ) -> int:
        follower = Follower(self._store, self._vault, self._mapper, (view,), lane, self._metrics)
        events = 0
        while (read := await follower.step(BATCH, until=target)) > 0:
            events += read
            await self._hold(view.name)
            if progress is not None:
                progress(done + events, max(total, done + events))
        for stopped in follower.stopped.values():
            raise Conflict(
                f"view {view.name} cannot take event {stopped.position} ({stopped.topic}): {stopped.reason}; "
                f"correct the view and rebuild it",
                view=view.name,
                position=stopped.position,
            )
        return events

    async def _settled(self, view: str) -> tuple[str, dict[int, int]]:
        """The digest and the positions it belongs to, once no live projector moves the view any more."""
        for _ in range(TRIES):
            lanes = await self._store.lanes()
            positions = {lane: await self._store.checkpoint(view, lane) for lane in lanes}
            before = await digest(self._store, view)
            await asyncio.sleep(self._quiet_seconds)
            if positions == {lane: await self._store.checkpoint(view, lane) for lane in lanes}:
                return before, positions
        raise Conflict(f"view {view} is still being written by another process; stop its projector and rebuild again")

    async def _hold(self, view: str) -> None:
        until = self._clock.now() + timedelta(seconds=HOLD_SECONDS)
        await self._put(view, until.isoformat())

    async def _let_go(self, view: str) -> None:
        await self._put(view, None)

    async def _put(self, view: str, until: str | None) -> None:
        holds: Any = await self._store.setting("*", HOLD)
        holds = dict(holds) if isinstance(holds, dict) else {}
        if until is None:
            holds.pop(view, None)
        else:
            holds[view] = until
        await self._store.put_setting("*", HOLD, holds)


async def digest(store: Store, view: str) -> str:
    """SHA-256 over every row of the view, as its `<view>_digest` statement lists them."""
    total = hashlib.sha256()
    for row in await store.fetch(f"{view}_digest", tenant=None):
        total.update(orjson.dumps(row, default=str))
    return total.hexdigest()
