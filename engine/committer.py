"""The commit queue: whatever has gathered while the previous append was under way is the next one. Group commit has no
timer.

While one batch is with the database the answers to the one before it are handed back, and their runs decide on. Two
things keep both sides busy: the next append is sent before the last one's answers are settled, and a batch leaves half
of the runs behind. It appends until the database has answered; what an answer means for its run is the coordinator's
to say.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from contracts.problems import Unavailable
from contracts.run_events import RunEvent
from engine.answers import Answer, Done, Refused
from engine.clock import Clock
from engine.counting import Tally
from engine.hot_runs import Hot
from engine.metrics import Metrics
from engine.run.inputs import Input
from engine.run.limits import Breach
from engine.run.react import Perform
from engine.run.state import RunState
from engine.store import Appended, Commit, Duplicate, Stale, Store
from engine.store.errors import CommitRefused

ALWAYS_TAKEN: Final = 25
"""So few commits travel at once, however few runs there are."""
SETTLED_PER_TURN: Final = 64
"""After so many answers the loop gets a turn, first of all to send the next append."""
COUNTED_SECONDS: Final = 0.001
"""So long counting waits where there is something to send: by then it is under way."""


@dataclass(slots=True)
class Prepared:
    """A commit in the queue, and what to do when it has been answered."""

    commit: Commit
    hot: Hot | None
    after: RunState | None
    perform: list[Perform]
    answered: list[tuple[Input, Done | None]]
    events: tuple[RunEvent, ...] = ()
    breaches: tuple[Breach, ...] = ()
    done: Done | None = None

    @property
    def workflow(self) -> str:
        """Whose run it is; empty for a commit without one."""
        return self.after.workflow if self.after is not None else ""


class Committer:
    """Appends at most `batch` commits at once, and not more than half of the runs that `active` counts; `settle` takes
    the answers one by one, in the order of the queue; `on_settled` hears that it has had all there were.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        *,
        epoch: Callable[[], int],
        batch: int,
        active: Callable[[], int],
        settle: Callable[[Prepared, Answer, Tally], None],
        on_settled: Callable[[], None],
    ) -> None:
        self._store, self._clock, self._metrics = store, clock, metrics
        self._epoch = epoch
        self._batch = batch
        self._active = active
        self._settle = settle
        self._on_settled = on_settled
        self._queue: deque[Prepared] = deque()
        self._queued = asyncio.Event()
        self._answers: deque[tuple[Prepared, Answer]] = deque()
        self._answered = asyncio.Event()
        self._appending = 0
        self._tally = Tally()
        self._count_due: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        return not self._queue and not self._appending and not self._answers

    def put(self, prepared: Prepared) -> None:
        self._queue.append(prepared)
        self._queued.set()

    def take_back(self) -> list[Prepared]:
        """Empties the queue of what no append has begun."""
        queued, self._queue = list(self._queue), deque()
        return queued

    async def append_forever(self) -> None:
        """Several may run at once, each with a batch of its own."""
        while True:
            await self._queued.wait()
            if not self._queue:
                self._queued.clear()
                continue
            batch = self._take()
            self._appending += 1
            try:
                outcomes = await self._append([prepared.commit for prepared in batch])
                self._answers.extend(zip(batch, outcomes, strict=True))
            finally:
                self._appending -= 1
            if self._queue:
                self._answered.set()
            else:
                self._settle_some()  # there is nothing to send before what follows from these answers

    def _take(self) -> list[Prepared]:
        """All at once would leave nothing to decide during the append, and nothing to append during the deciding."""
        most = min(self._batch, max(ALWAYS_TAKEN, self._active() // 2), len(self._queue))
        return [self._queue.popleft() for _ in range(most)]

    async def settle_forever(self) -> None:
        """One settles for all that append."""
        while True:
            await self._answered.wait()
            if self._answers:
                self._settle_some()
                await asyncio.sleep(0)
            else:
                self._answered.clear()

    def _settle_some(self) -> None:
        """As many answers as one turn of the loop may take; the rest is left to `settle_forever`."""
        for _ in range(min(SETTLED_PER_TURN, len(self._answers))):
            self._settle(*self._answers.popleft(), self._tally)
        if self._answers:
            self._answered.set()
        else:
            self._on_settled()
        if not self._queue:
            self._count()
        elif self._count_due is None:
            self._count_due = asyncio.get_running_loop().call_later(COUNTED_SECONDS, self._count)

    def _count(self) -> None:
        if self._count_due is not None:
            self._count_due.cancel()
            self._count_due = None
        tally, self._tally = self._tally, Tally()
        tally.flush(self._metrics)

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
            self._tally.append(len(commits), time.perf_counter() - began)
            if not repeated:
                return outcomes
            try:
                return [
                    await self._was_ours(commit, outcome) for commit, outcome in zip(commits, outcomes, strict=True)
                ]
            except Unavailable:
                await asyncio.sleep(delay)
                delay = min(2.0, delay * 2)

    async def _was_ours(self, commit: Commit, outcome: Answer) -> Answer:
        """After a lost answer: a stream that already holds exactly these sealed bodies was written by the first try."""
        if commit.stream is None or not isinstance(outcome, Stale | Duplicate):
            return outcome
        stored = await self._store.load(commit.tenant, commit.stream, after=commit.expected)
        if [one.body for one in stored[: len(commit.events)]] == [one.body for one in commit.events]:
            return Appended(0)
        return outcome
