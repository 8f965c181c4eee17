"""A store driver seen as one of the `eventsourcing` library's recorders, so that the test cases in its wheel run
against the real append, in strict mode. The store lives on a loop in a thread of its own; each call waits for its
answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    IntegrityError,
    ListenNotifySubscription,
    Notification,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    Tracking,
)

from engine.store import Appended, Commit, Outcome, Recorded, Store
from engine.store import Notification as Told
from engine.store.errors import ContentRefused

T = TypeVar("T")
_PATIENCE_SECONDS = 60


class StrictStore(Store, Protocol):
    async def append_strictly(
        self, commits: Sequence[Commit], *, epoch: int, view: tuple[str, int] | None = None, lane: int = 0
    ) -> list[Outcome]: ...


class LoopThread:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="store-adapter", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_PATIENCE_SECONDS)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_PATIENCE_SECONDS)
        self.loop.close()


class StoreRecorder(ProcessRecorder):
    """Their verbs on our store: consecutive events of one stream are one commit; what the append refuses is their
    `IntegrityError`."""

    def __init__(self, thread: LoopThread, store: StrictStore, epoch: int) -> None:
        self._thread = thread
        self._store = store
        self._epoch = epoch

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        tracking: Tracking | None = kwargs.get("tracking")
        commits = _commits(stored_events)
        if not commits and tracking is None:
            return None
        view = (tracking.application_name, tracking.notification_id) if tracking is not None else None
        outcomes = self._strictly(self._store.append_strictly(commits, epoch=self._epoch, view=view))
        ids: list[int] = []
        for commit, outcome in zip(commits, outcomes, strict=True):
            assert isinstance(outcome, Appended)
            ids.extend(range(outcome.position - len(commit.events) + 1, outcome.position + 1))
        return ids

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        assert isinstance(originator_id, UUID)
        after = gt if gt is not None else -1
        found = self._thread.call(self._store.load("library", originator_id, after=after))
        events = [
            StoredEvent(originator_id, event.version, event.topic, event.body)
            for event in found
            if lte is None or event.version <= lte
        ]
        if desc:
            events.reverse()
        return events[:limit]

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        after = 0 if start is None else start - inclusive_of_start
        found: list[Notification] = []
        while len(found) < limit:
            page = self._thread.call(self._store.read(0, after=after, limit=limit))
            found.extend(_notification(told) for told in page if _wanted(told, stop, topics))
            if len(page) < limit:
                break
            after = page[-1].position
        return found[:limit]

    def max_notification_id(self) -> int | None:
        return self._thread.call(self._store.head(0)) or None

    def insert_tracking(self, tracking: Tracking) -> None:
        self.insert_events([], tracking=tracking)

    def max_tracking_id(self, application_name: str) -> int | None:
        return self._thread.call(self._store.checkpoint(application_name, 0)) or None

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[StoreRecorder]:
        return StoreSubscription(self, gt, topics)

    def follow(self, moved: Callable[[], None], stopped: threading.Event) -> None:
        """Calls `moved` whenever the lane's head has moved, until stopped; in the store's loop."""

        async def loop() -> None:
            seen = await self._store.head(0)
            moved()
            while not stopped.is_set():
                if await self._store.wait_for_append(0, seen, 0.2):
                    seen = await self._store.head(0)
                    moved()

        asyncio.run_coroutine_threadsafe(loop(), self._thread.loop)

    def _strictly(self, work: Awaitable[list[Outcome]]) -> list[Outcome]:
        async def run() -> list[Outcome]:
            return await work

        try:
            return self._thread.call(run())
        except ContentRefused as refused:
            raise IntegrityError(str(refused)) from refused


class StoreSnapshots(AggregateRecorder):
    """The same for snapshots: their recorders answer no ids."""

    def __init__(self, recorder: StoreRecorder) -> None:
        self._recorder = recorder

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        self._recorder.insert_events(stored_events, **kwargs)
        return None

    def select_events(self, *args: Any, **kwargs: Any) -> Sequence[StoredEvent]:
        return self._recorder.select_events(*args, **kwargs)


class StoreSubscription(ListenNotifySubscription[StoreRecorder]):
    """Their subscription, woken by our notifications."""

    def __init__(self, recorder: StoreRecorder, gt: int | None, topics: Sequence[str]) -> None:
        self._following = threading.Event()
        super().__init__(recorder, gt, topics)
        recorder.follow(self._has_been_notified.set, self._following)

    def stop(self) -> None:
        self._following.set()
        super().stop()


def _commits(stored_events: Sequence[StoredEvent]) -> list[Commit]:
    runs: list[list[StoredEvent]] = []
    for event in stored_events:
        last = runs[-1][-1] if runs else None
        follows = last is not None and last.originator_id == event.originator_id
        if follows and last is not None and last.originator_version + 1 == event.originator_version:
            runs[-1].append(event)
        else:
            runs.append([event])
    return [_commit(run) for run in runs]


def _commit(run: Sequence[StoredEvent]) -> Commit:
    stream = run[0].originator_id
    assert isinstance(stream, UUID)
    events = tuple(Recorded(event.topic, event.state) for event in run)
    return Commit(tenant="library", stream=stream, expected=run[0].originator_version - 1, events=events)


def _wanted(told: Told, stop: int | None, topics: Sequence[str]) -> bool:
    return (stop is None or told.position <= stop) and (not topics or told.topic in topics)


def _notification(told: Told) -> Notification:
    return Notification(
        id=told.position,
        originator_id=told.stream,
        originator_version=told.version,
        topic=told.topic,
        state=told.body,
    )
