"""The commit queue: whatever has gathered while the previous append was under way is the next one. Group commit has no
timer.

It appends until the database has answered and hands every answer back; what an answer means for its run is the
coordinator's to say.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from contracts.problems import Unavailable
from contracts.run_events import RunEvent
from engine.answers import Answer, Done, Refused
from engine.clock import Clock
from engine.counting import Tally
from engine.hot_runs import Hot
from engine.metrics import Metrics
from engine.run.inputs import Input
from engine.run.react import Perform
from engine.run.state import RunState
from engine.store import Appended, Commit, Duplicate, Stale, Store
from engine.store.errors import CommitRefused


@dataclass(slots=True)
class Prepared:
    """A commit in the queue, and what to do when it has been answered."""

    commit: Commit
    hot: Hot | None
    after: RunState | None
    perform: list[Perform]
    answered: list[tuple[Input, Done | None]]
    events: tuple[RunEvent, ...] = ()
    done: Done | None = None


class Committer:
    """`settle` takes the answers one by one, in the order of the queue; `on_batch` hears that a batch has been
    answered.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        *,
        epoch: Callable[[], int],
        batch: int,
        settle: Callable[[Prepared, Answer, Tally], None],
        on_batch: Callable[[], None],
    ) -> None:
        self._store, self._clock, self._metrics = store, clock, metrics
        self._epoch = epoch
        self._batch = batch
        self._settle = settle
        self._on_batch = on_batch
        self._queue: deque[Prepared] = deque()
        self._queued = asyncio.Event()
        self._appending = 0

    @property
    def idle(self) -> bool:
        return not self._queue and not self._appending

    def put(self, prepared: Prepared) -> None:
        self._queue.append(prepared)
        self._queued.set()

    def take_back(self) -> list[Prepared]:
        """Empties the queue of what no append has begun."""
        queued, self._queue = list(self._queue), deque()
        return queued

    async def run(self) -> None:
        """Appends for ever. Several may run at once, each with a batch of its own."""
        while True:
            await self._queued.wait()
            if not self._queue:
                self._queued.clear()
                continue
            batch = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
            self._appending += 1
            try:
                outcomes = await self._append([prepared.commit for prepared in batch])
            finally:
                self._appending -= 1
            tally = Tally()
            for prepared, outcome in zip(batch, outcomes, strict=True):
                self._settle(prepared, outcome, tally)
            tally.flush(self._metrics)
            self._on_batch()

    async def _append(self, commits: list[Commit]) -> list[Answer]:
        """Appends until the database has answered. A repeated call is safe: what had been committed answers for itself
        (`_was_ours`).
        """
        delay, repeated = 0.05, False
        began = time.perf_counter()
        while True:
            try:
                outcomes: list[Answer] = list(
                    await self._store.append(commits, epoch=self._epoch(), now=self._clock.database_now())
                )
            except CommitRefused as poison:
                # The driver has halved the batch until the guilty stood alone; all others are answered.
                outcomes = [
                    answer if answer is not None else Refused(poison.causes[place])
                    for place, answer in enumerate(poison.outcomes)
                ]
            except Unavailable:
                self._metrics.appends.of("unknown").inc()
                repeated = True
                await asyncio.sleep(delay)
                delay = min(2.0, delay * 2)
                continue
            self._metrics.append_duration.observe(time.perf_counter() - began)
            self._metrics.append_batch.observe(len(commits))
            self._metrics.appends.of("ok").inc()
            if not repeated:
                return outcomes
            return [await self._was_ours(commit, outcome) for commit, outcome in zip(commits, outcomes, strict=True)]

    async def _was_ours(self, commit: Commit, outcome: Answer) -> Answer:
        """After a lost answer: a stream that already holds exactly these sealed bodies was written by the first try."""
        if commit.stream is None or not isinstance(outcome, Stale | Duplicate):
            return outcome
        stored = await self._store.load(commit.tenant, commit.stream, after=commit.expected)
        if [one.body for one in stored[: len(commit.events)]] == [one.body for one in commit.events]:
            return Appended(0)
        return outcome
