"""Rebuilding a read model from the log beside the living one, which everyone goes on reading and writing, and proving
that both are the same.

    make a shadow -> read the log into it -> compare both at the same positions -> read on -> switch, in one transaction

A difference is the proof of a bug, or of a projection that was changed since the rows were written. What dies in
between leaves the living view whole; its shadow is dropped by the next rebuild, or by the next projector that starts.
Called by `unwind rebuild` and `unwind projections verify`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import orjson

from consumers.following import HOLD, Follower
from contracts.envelope import format_time
from contracts.problems import Conflict
from engine.clock import Clock
from engine.metrics import Metrics
from engine.store import Comparison, Difference, Shadow, Store
from engine.store.keys import OFFBOARDING, Vault
from engine.store.mapper import Mapper
from projections import View

HOLD_SECONDS: Final = 10
BATCH: Final = 4_000
VERIFIED: Final = "projection.verified"
"""Setting of tenant `*`: view to when, and how, it was last compared with the log."""

FREE_TRIES: Final = 20
TRIES: Final = 200
"""Meetings of the living view and its shadow at one position; after the free ones the living view is asked to wait."""

Progress = Callable[[int, int], None]
"""Told (events read, events in all) after each stretch."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """`before` and `after` are digests of all rows of the living view and of its shadow at the same `positions`;
    `differences` names the first keys in which they differ."""

    view: str
    events: int
    before: str
    after: str
    positions: Mapping[int, int]
    differences: Sequence[Difference]
    switched: bool

    @property
    def equal(self) -> bool:
        return self.before == self.after


class _Aside:
    """The store as a follower sees it that writes a shadow."""

    def __init__(self, store: Store, shadow: Shadow) -> None:
        self._store = store
        self.checkpoint, self.apply, self.fetch = shadow.checkpoint, shadow.apply, shadow.fetch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Rebuild:
    """Builds one view at a time. Its own followers read for it; nothing is shared with a running projector."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        mapper: Mapper,
        clock: Clock,
        metrics: Metrics,
        *,
        pause_seconds: float = 0.1,
        batch: int = BATCH,
    ) -> None:
        self._store = store
        self._vault = vault
        self._mapper = mapper
        self._clock = clock
        self._metrics = metrics
        self._pause_seconds = pause_seconds
        self._batch = batch
        self._events = 0

    async def run(self, view: View, *, progress: Progress | None = None) -> Rebuilt:
        """Writes the view anew and puts it in the living one's place. Raises `Conflict` when another rebuild of it is
        under way, or when it cannot take an event."""
        return await self._build(view, progress, switch=True)

    async def verify(self, view: View, *, progress: Progress | None = None) -> Rebuilt:
        """As `run`, and leaves the living view as it is."""
        return await self._build(view, progress, switch=False)

    async def _build(self, view: View, progress: Progress | None, *, switch: bool) -> Rebuilt:
        self._events = 0
        await self._whole(view)
        async with self._store.shadow(view.name) as shadow:
            followers = {
                lane: Follower(
                    _Aside(self._store, shadow),
                    self._vault,
                    self._mapper,
                    (view,),
                    lane,
                    self._metrics,
                )
                for lane in await self._store.lanes()
            }
            found = await self._meet(view, shadow, followers, progress)
            if switch:
                await self._switch(view, shadow, followers, progress)
        rebuilt = Rebuilt(
            view.name,
            self._events,
            _digest(found.living),
            _digest(found.built),
            found.positions,
            found.differences,
            switch,
        )
        await self._put(
            VERIFIED,
            view.name,
            {
                "at": format_time(self._clock.now()),
                "equal": rebuilt.equal,
                "rebuilt": switch,
                "checksum": rebuilt.after,
                "positions": {str(lane): position for lane, position in found.positions.items()},
            },
        )
        return rebuilt

    async def _whole(self, view: View) -> None:
        """Raises `Conflict` when events that the view needs cannot be read any more."""
        offboarded = await self._store.settings_named(OFFBOARDING) if view.outlives else {}
        if any(setting["gone"] for setting in offboarded.values()):
            raise Conflict(
                f"view {view.name} keeps what offboarded tenants have left in it, and their events cannot be read any "
                f"more; the living one is kept",
                view=view.name,
            )
        dropped = [one.month for one in await self._store.archive_months() if one.dropped] if view.sums else []
        if dropped:
            raise Conflict(
                f"view {view.name} counts runs whose events were dropped from the archive ({', '.join(dropped)}) and "
                f"would lose them; the living one is kept",
                view=view.name,
            )

    async def _meet(
        self, view: View, shadow: Shadow, followers: Mapping[int, Follower], progress: Progress | None
    ) -> Comparison:
        """Both compared at one position. The living view moves on meanwhile; one that is never met is held for a
        moment."""
        held = False
        try:
            for attempt in range(TRIES):
                if attempt >= FREE_TRIES:
                    held = True
                    until = self._clock.now() + timedelta(seconds=HOLD_SECONDS)
                    await self._put(HOLD, view.name, until.isoformat())
                for lane, follower in followers.items():
                    await self._follow(view, follower, await self._store.checkpoint(view.name, lane), progress)
                found = await shadow.compare()
                if found is not None:
                    return found
                if held:
                    await asyncio.sleep(self._pause_seconds)
        finally:
            if held:
                await self._put(HOLD, view.name, None)
        raise Conflict(
            f"view {view.name} never stood still; stop the projectors of older versions and try again", view=view.name
        )

    async def _switch(
        self, view: View, shadow: Shadow, followers: Mapping[int, Follower], progress: Progress | None
    ) -> None:
        """Reads to the log's end, so that the living view can hardly be further, and takes its place."""
        for _ in range(TRIES):
            for lane, follower in followers.items():
                await self._follow(view, follower, await self._store.head(lane), progress)
            if await shadow.switch():
                return
        raise Conflict(f"view {view.name} moves faster than its rebuild; try again when less is going on")

    async def _follow(self, view: View, follower: Follower, target: int, progress: Progress | None) -> None:
        while await follower.step(self._batch, until=target):
            position = follower.positions[view.name]
            if progress is not None:
                progress(position, max(target, position))
        for stopped in follower.stopped.values():
            raise Conflict(
                f"view {view.name} cannot take event {stopped.position} ({stopped.topic}): {stopped.reason}; "
                f"correct the view and rebuild it",
                view=view.name,
                position=stopped.position,
            )
        self._events = max(self._events, follower.positions.get(view.name, 0))

    async def _put(self, setting: str, view: str, value: Any) -> None:
        known: Any = await self._store.setting("*", setting)
        known = dict(known) if isinstance(known, dict) else {}
        known[view] = value
        await self._store.put_setting("*", setting, {name: one for name, one in known.items() if one is not None})


async def digest(store: Store, view: str) -> str:
    """SHA-256 over the checksums of the view's tables, as its `<view>_digest` statement answers them."""
    return _digest(await store.fetch(f"{view}_digest", tenant=None))


def _digest(rows: Sequence[Mapping[str, Any]]) -> str:
    total = hashlib.sha256()
    for row in rows:
        total.update(orjson.dumps(dict(row), default=str))
    return total.hexdigest()
