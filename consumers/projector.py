"""The projector: reads the log in lane order and writes the read models, rows and checkpoint in one transaction.

    read events -> open and redact once -> gather -> changes of every view -> apply (compare-and-set checkpoint)

Each event is opened once for all views. Several processes may run it: a checkpoint that moved under one makes that one
stand by. An event that a view cannot take stops that view, loudly and alone; the others go on. It decides nothing and
holds nothing that the log does not; `consumers.assembly` starts it, `unwind rebuild` calls `consumers.rebuild`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from consumers.following import HOLD, Follower, Stopped
from contracts.problems import Unavailable
from engine.accounts import Accounts
from engine.clock import Clock
from engine.logs import logger
from engine.metrics import Metrics
from engine.store import Store
from engine.store.keys import Vault
from engine.store.mapper import Mapper
from projections import View
from projections.approvals import Approvals
from projections.audit import Audit
from projections.history import History
from projections.stats import Stats
from projections.usage import Usage

VIEWS: Final[tuple[View, ...]] = (History(), Usage(), Audit(), Stats(), Approvals())
"""Every read model, in the order in which they are written."""

BATCH: Final = 8_000
"""More than a busy engine records during a pause. `Store.read` bounds its bytes."""

PACE_SECONDS: Final = 0.06
"""Pause after a batch; the first event after a quiet time is read at once."""

BUSY: Final = 50
BUSY_PACE_SECONDS: Final = 0.25
"""Pause after a batch of so many: a run's rows are written once per batch, so a busy log is read in few large ones."""

IDLE_SECONDS: Final = 1.0
STAND_BY_SECONDS: Final = 2.0


class Projector:
    """Follows every lane until stopped. `ready` once each lane was read to its head."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        mapper: Mapper,
        views: Sequence[View],
        clock: Clock,
        metrics: Metrics,
        *,
        batch: int = BATCH,
        pace_seconds: float = PACE_SECONDS,
        busy_pace_seconds: float = BUSY_PACE_SECONDS,
        accounts: Accounts | None = None,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._vault = vault
        self._mapper = mapper
        self._views = tuple(views)
        self._clock = clock
        self._metrics = metrics
        self._batch = batch
        self._pace_seconds, self._busy_pace_seconds = pace_seconds, busy_pace_seconds
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._followers: dict[int, Follower] = {}
        self._caught_up: set[int] = set()
        self._moved = asyncio.Condition()
        self._log = logger("projector")

    @property
    def ready(self) -> bool:
        return bool(self._followers) and self._caught_up >= set(self._followers)

    @property
    def stopped_views(self) -> Mapping[str, Stopped]:
        """Views that met an event they cannot take, with the event and the reason."""
        return {name: why for follower in self._followers.values() for name, why in follower.stopped.items()}

    async def start(self) -> None:
        if self._task is None:
            self._stopping.clear()
            self._task = asyncio.create_task(self._run(), name="projector")

    async def stop(self) -> None:
        """Finishes the batch in hand. Twice is fine."""
        self._stopping.set()
        task, self._task = self._task, None
        if task is not None:
            await task

    async def reached(self, view: str, lane: int, position: int, *, timeout_seconds: float) -> bool:
        """Waits until this projector has written `view` up to `position`; False at the timeout. What tests wait for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds), self._moved:
                await self._moved.wait_for(lambda: self._position(view, lane) >= position)
                return True
        return False

    def failed(self) -> BaseException | None:
        """The error that ended it, which none should."""
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None

    async def catch_up(self) -> None:
        """Reads every lane to its present head, once, without a task: for tools and tests."""
        for lane in await self._store.lanes():
            follower = self._follower(lane)
            while await follower.step(self._batch):
                pass

    def _position(self, view: str, lane: int) -> int:
        follower = self._followers.get(lane)
        return -1 if follower is None else follower.positions.get(view, -1)

    def _follower(self, lane: int) -> Follower:
        follower = self._followers.get(lane)
        if follower is None:
            follower = Follower(
                self._store, self._vault, self._mapper, self._views, lane, self._metrics, self._accounts
            )
            self._followers[lane] = follower
        return follower

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            followed: set[int] = set()
            tidied = False
            while not self._stopping.is_set():
                with suppress(Unavailable):
                    for lane in await self._store.lanes():
                        if lane not in followed:
                            followed.add(lane)
                            self._follower(lane)
                            tasks.create_task(self._follow(lane), name=f"projector-{lane}")
                    if not tidied:
                        for view in await self._store.drop_shadows():
                            self._log.info("dropped what a dead rebuild left", view=view)
                        tidied = True
                await self._pause(IDLE_SECONDS * 5)

    async def _follow(self, lane: int) -> None:
        follower = self._follower(lane)
        troubled_seconds = 0.1
        while not self._stopping.is_set():
            try:
                follower.held = await self._held()
                await self._drain(lane, follower)
                troubled_seconds = 0.1
            except Unavailable as problem:
                self._log.warning("database does not answer", lane=lane, reason=problem.detail)
                follower.forget()
                await self._pause(troubled_seconds)
                troubled_seconds = min(5.0, troubled_seconds * 2)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # Nothing that a single event did (the follower answers for those): worth one line, not a dead lane.
                self._log.error("reading the log failed", lane=lane, exc_info=error)
                follower.forget()
                await self._pause(5.0)

    async def _drain(self, lane: int, follower: Follower) -> None:
        """Reads until a second has passed since the holds were looked at, or the log is quiet."""
        loop = asyncio.get_running_loop()
        until = loop.time() + IDLE_SECONDS
        while not self._stopping.is_set() and loop.time() < until:
            read = await follower.step(self._batch)
            async with self._moved:
                self._moved.notify_all()
            if follower.overtaken:
                follower.overtaken = False
                await self._pause(STAND_BY_SECONDS)
                return
            if read == 0:
                self._caught_up.add(lane)
                follower.measure(0)
                await self._until_append(lane, follower.lowest())
                return
            if read < self._batch // 2:
                await self._pause(self._pace_seconds if read < BUSY else self._busy_pace_seconds)
        follower.measure(await self._store.head(lane))

    async def _until_append(self, lane: int, after: int) -> None:
        """Until something is appended, a while has passed, or this projector is told to stop."""
        waiting = asyncio.ensure_future(self._store.wait_for_append(lane, after, IDLE_SECONDS))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                waiting.result()
        finally:
            for task in (waiting, stopping):
                task.cancel()
            await asyncio.gather(waiting, stopping, return_exceptions=True)

    async def _held(self) -> frozenset[str]:
        """Views that a rebuild holds at present; a hold that was not renewed has lapsed."""
        holds: Any = await self._store.setting("*", HOLD)
        if not isinstance(holds, dict):
            return frozenset()
        now = self._clock.now()
        return frozenset(name for name, until in holds.items() if until and datetime.fromisoformat(until) > now)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
