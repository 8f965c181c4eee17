"""The one writer thread of a bus file in this process: it turns whatever was asked meanwhile into one transaction,
again and again.

    transports ──ask──▶ queue ──▶ turn: settle, publish, hand over, COMMIT ──▶ answers and deliveries, back on each
    caller's event loop

There is no timer in the group commit: the next batch is what arrived while the last one was being written. Nothing is
answered or delivered before its commit. All transports of a process on the same file share one writer, so they wake
each other at once; other processes are noticed by looking at the file's change counter. Called by
`contracts.sdk.embedded` only.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.problems import Unavailable
from contracts.sdk.embedded_file import BusFile, Ready
from contracts.sdk.transport import Message, Published

log = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
_RENEW_SECONDS = 10.0
_SWEEP_SECONDS = 1.0
_POLL_ALONE_SECONDS = 0.05
_POLL_BUSY_SECONDS = 0.002
_HAND_OVER_LIMIT = 1000
_FAILURE_PAUSE_SECONDS = (0.05, 1.0)


@dataclass(slots=True, eq=False)
class Subscriber:
    """A consumer as the writer knows it. `number` is its row in the file and changes when the file forgot this
    process."""

    loop: asyncio.AbstractEventLoop
    queue: str
    prefetch: int
    deliver: Callable[[int, Sequence[Ready]], None]
    """Called on `loop` with the number that owns these messages."""
    number: int = 0
    credit: int = 0
    closed: bool = False


@dataclass(slots=True, eq=False)
class Publish:
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Published]]
    messages: Sequence[Message]
    properties: Sequence[str | None]
    abandoned: bool = False


@dataclass(slots=True, eq=False)
class Settle:
    subscriber: Subscriber
    number: int
    ids: Sequence[int]
    fate: str
    """`done`, `back` to the queue, or `refused` to its dead letters."""


@dataclass(slots=True, eq=False)
class Call:
    """A rare step with an answer: declaring, opening, closing. `work` runs inside the transaction, `after` once it is
    committed."""

    work: Callable[[BusFile, int], Any]
    after: Callable[[Any], None] | None = None
    keep: bool = False
    """Tried again until a transaction takes it, like a settlement."""
    future: Future[Any] = field(default_factory=Future)


Ask = Publish | Settle | Call


@dataclass(slots=True)
class _Turn:
    """What one transaction will have done, applied to memory only once it is committed."""

    now: float
    free: dict[Subscriber, int]
    handed: dict[Subscriber, list[Ready]] = field(default_factory=lambda: defaultdict(list))
    answers: list[tuple[Publish, list[Published]]] = field(default_factory=list)
    calls: list[tuple[Call, Any, BaseException | None]] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    length: int = 0
    room: dict[int, int] = field(default_factory=dict)


class Writer:
    """Owns the connection and the thread. `healthy` is false from a failed commit to the next good one; `full` while
    the disk takes no more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.healthy = True
        self.full = False
        self._file = BusFile(path)
        self._asked: queue.SimpleQueue[Ask | None] = queue.SimpleQueue()
        self._subscribers: dict[str, list[Subscriber]] = {}
        self._dirty: set[int] = set()
        self._retry: list[Ask] = []
        self._session = 0
        self._alone = True
        self._poll_seconds = _POLL_ALONE_SECONDS
        self._sweep_at = self._renew_at = 0.0
        self._failure_pause = _FAILURE_PAUSE_SECONDS[0]
        try:
            self._file.begin()
            self._session = self._file.open_session(time.time() + LEASE_SECONDS)
            self._file.commit()
        except BaseException:
            self._file.close()
            raise
        self._thread = threading.Thread(target=self._work, name=f"bus {path.name}", daemon=True)
        self._thread.start()

    def ask(self, what: Ask) -> None:
        self._asked.put(what)

    async def call(self, work: Callable[[BusFile, int], Any], after: Callable[[Any], None] | None = None) -> Any:
        call = Call(work, after)
        self._asked.put(call)
        return await asyncio.wrap_future(call.future)

    async def close(self, subscriber: Subscriber) -> None:
        """Returns what the subscriber holds and hands it nothing more."""

        def work(file: BusFile, session: int) -> None:
            subscriber.closed = True  # already now: the same turn must not hand it what it has just returned
            file.close_consumer(subscriber.number)

        call = Call(work, lambda _: self._unsubscribe(subscriber), keep=True)
        self._asked.put(call)
        await asyncio.wrap_future(call.future)

    def subscribe(self, subscriber: Subscriber, number: int) -> None:
        """Runs on the writer thread, after the consumer's row is committed."""
        subscriber.number, subscriber.credit = number, subscriber.prefetch
        self._subscribers.setdefault(subscriber.queue, []).append(subscriber)
        self._mark_all_dirty()
        self._asked.put(Call(lambda file, session: None))  # a turn of its own, which hands over the backlog

    def _unsubscribe(self, subscriber: Subscriber) -> None:
        there = self._subscribers.get(subscriber.queue, [])
        if subscriber in there:
            there.remove(subscriber)
        self._mark_all_dirty()

    def stop(self) -> None:
        """Returns what is unsettled, ends the session, closes the file. Waits for the thread."""
        self._asked.put(None)
        self._thread.join()

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        stopping = False
        while not stopping:
            batch: list[Ask] = self._retry
            self._retry = []
            try:
                first = self._asked.get(timeout=self._poll_seconds)
                while True:
                    if first is None:
                        stopping = True
                    else:
                        batch.append(first)
                    first = self._asked.get_nowait()
            except queue.Empty:
                pass
            if batch or self._moved() or time.time() >= self._sweep_at:
                self._attempt(batch)
            else:
                self._poll_seconds = min(self._poll_seconds * 1.5, _POLL_ALONE_SECONDS)
        self._end()

    def _moved(self) -> bool:
        try:
            return bool(self._subscribers) and self._file.changed()
        except sqlite3.Error:
            return True  # the turn will meet the same error and deal with it

    def _attempt(self, batch: list[Ask]) -> None:
        turn = _Turn(time.time(), {s: s.credit for there in self._subscribers.values() for s in there})
        try:
            self._file.begin()
            self._do(turn, batch)
            self._file.commit()
        except Exception as error:
            self._failed(batch, error)
            return
        self.healthy, self.full = True, False
        self._failure_pause = _FAILURE_PAUSE_SECONDS[0]
        self._apply(turn)
        if not self._alone and (batch or turn.handed):
            self._poll_seconds = _POLL_BUSY_SECONDS

    def _failed(self, batch: Sequence[Ask], error: Exception) -> None:
        """Nothing of the batch is stored: publishes become unknown, calls fail, settlements are kept and tried
        again."""
        try:
            self._file.rollback()
        except sqlite3.Error:
            log.debug("rollback of %s failed as well", self.path, exc_info=True)
        self._file.forget()
        self.healthy = False
        self.full = "full" in str(error)
        log.warning(
            "the bus file %s took no transaction: %s", self.path, error, exc_info=not isinstance(error, sqlite3.Error)
        )
        answers = _Answers()
        for asked in batch:
            if isinstance(asked, Settle) or (isinstance(asked, Call) and asked.keep):
                self._retry.append(asked)
            elif isinstance(asked, Publish):
                answers.add(asked.loop, _answer, asked.future, [Published.UNKNOWN] * len(asked.messages))
            else:
                asked.future.set_exception(
                    Unavailable(f"the bus file {self.path} took no transaction ({error}); try again")
                )
        answers.send()
        self._poll_seconds = self._failure_pause
        self._failure_pause = min(self._failure_pause * 2, _FAILURE_PAUSE_SECONDS[1])

    def _do(self, turn: _Turn, batch: Sequence[Ask]) -> None:
        state = self._file.refresh(self._session)
        if state.foreign:
            self._mark_all_dirty()
        self._keep_session(turn, state.session_lives)
        publishes = [asked for asked in batch if isinstance(asked, Publish)]
        self._settle(turn, [asked for asked in batch if isinstance(asked, Settle)])
        for asked in batch:
            if isinstance(asked, Call):
                self._call(turn, asked)
        if turn.now >= self._sweep_at:
            self._sweep(turn)
        self._hand_over_backlog(turn)
        if publishes:
            number = self._file.refresh(self._session).last_message if self._file.copied else state.last_message
            for publish in publishes:
                if not publish.abandoned:
                    number = self._publish(turn, publish, number)
            if turn.rows:
                self._file.insert(turn.rows, b"".join(turn.bodies))

    def _apply(self, turn: _Turn) -> None:
        answers = _Answers()
        for subscriber, free in turn.free.items():
            subscriber.credit = free
        for publish, fates in turn.answers:
            answers.add(publish.loop, _answer, publish.future, fates)
        for subscriber, messages in turn.handed.items():
            answers.add(subscriber.loop, subscriber.deliver, subscriber.number, messages)
        for call, value, error in turn.calls:
            if error is None and call.after is not None:
                call.after(value)
            if call.future.set_running_or_notify_cancel():
                if error is None:
                    call.future.set_result(value)
                else:
                    call.future.set_exception(error)
        answers.send()

    # -- the steps of a turn -------------------------------------------------------------------------------------------

    def _keep_session(self, turn: _Turn, lives: bool) -> None:
        """Renews the lease. A process that stood still past its lease was given up by the others: it begins anew,
        owning nothing."""
        if not lives:
            self._session = self._file.open_session(turn.now + LEASE_SECONDS)
            for subscriber in turn.free:
                stored = self._file.queues.get(subscriber.queue)
                subscriber.number = self._file.open_consumer(self._session, stored.id) if stored else 0
                turn.free[subscriber] = subscriber.prefetch
            self._mark_all_dirty()
        elif turn.now >= self._renew_at:
            self._file.renew_session(self._session, turn.now + LEASE_SECONDS)
            self._renew_at = turn.now + _RENEW_SECONDS

    def _settle(self, turn: _Turn, settles: Sequence[Settle]) -> None:
        done: dict[int, list[int]] = {}
        for settle in settles:
            subscriber = settle.subscriber
            if settle.number != subscriber.number or subscriber.closed:
                continue
            if settle.fate == "done":
                done.setdefault(settle.number, []).extend(settle.ids)
            elif settle.fate == "back":
                self._file.give_back(settle.number, settle.ids)
                self._mark_all_dirty()
            else:
                self._file.refuse(settle.number, settle.ids)
                self._mark_all_dirty()
            if subscriber in turn.free:
                turn.free[subscriber] += len(settle.ids)
        for number, ids in done.items():
            self._file.settle(number, ids)

    def _call(self, turn: _Turn, call: Call) -> None:
        try:
            value = call.work(self._file, self._session)
        except sqlite3.Error:
            raise
        except Exception as error:
            # A refusal (a mismatch) is raised before anything is written, so the rest of the batch may go on.
            turn.calls.append((call, None, error))
        else:
            turn.calls.append((call, value, None))

    def _sweep(self, turn: _Turn) -> None:
        dead = self._file.dead_sessions(self._session, turn.now)
        for session in dead:
            log.info("session %d of the bus file %s is gone; its messages return", session, self.path)
            self._file.end_session(session)
        self._alone = not self._file.others(self._session)
        moved = self._file.expire(turn.now)
        if self._file.retry_held() or dead or moved:
            self._mark_all_dirty()
        self._sweep_at = turn.now + _SWEEP_SECONDS

    def _hand_over_backlog(self, turn: _Turn) -> None:
        claims: list[tuple[int, int]] = []
        for name, there in self._subscribers.items():
            stored = self._file.queues.get(name)
            if stored is None or stored.id not in self._dirty:
                continue
            wanted = min(sum(turn.free[s] for s in there if not s.closed and s.number), _HAND_OVER_LIMIT)
            if wanted == 0:
                continue
            ready = self._file.ready(stored.id, wanted, turn.now)
            if len(ready) < wanted:
                self._dirty.discard(stored.id)
            for message in ready:
                subscriber = self._next(turn, name)
                assert subscriber is not None
                turn.handed[subscriber].append(message)
                claims.append((message.id, subscriber.number))
        if claims:
            self._file.own(claims)

    def _next(self, turn: _Turn, queue_name: str) -> Subscriber | None:
        """The next consumer in turn with room for one more; it is taken."""
        there = self._subscribers.get(queue_name)
        if not there:
            return None
        for i, subscriber in enumerate(there):
            if turn.free[subscriber] > 0 and subscriber.number and not subscriber.closed:
                turn.free[subscriber] -= 1
                if len(there) > 1:
                    there.append(there.pop(i))
                return subscriber
        return None

    def _publish(self, turn: _Turn, publish: Publish, number: int) -> int:
        fates: list[Published] = []
        rows, bodies = turn.rows, turn.bodies
        for message, properties in zip(publish.messages, publish.properties, strict=True):
            targets = self._file.routes.targets(message.exchange, message.routing_key)
            if not targets:
                fates.append(Published.UNROUTABLE if message.mandatory else Published.CONFIRMED)
                continue
            if any(self._room(turn, target) <= 0 for target in targets):
                fates.append(Published.REFUSED)
                continue
            fates.append(Published.CONFIRMED)
            body = bytes(message.body)
            expires_at = None if message.expiration_seconds is None else turn.now + message.expiration_seconds
            for target in targets:
                number += 1
                # An older message of the queue may be waiting in the file: only a queue known to be empty is bypassed.
                direct = None if target in self._dirty else self._next(turn, self._file.by_id[target].queue.name)
                if direct is None:
                    self._dirty.add(target)
                    turn.room[target] -= 1
                else:
                    turn.handed[direct].append(
                        Ready(number, message.exchange, message.routing_key, properties, 0, body)
                    )
                rows.append(
                    [
                        number,
                        target,
                        None if direct is None else direct.number,
                        expires_at,
                        message.exchange,
                        message.routing_key,
                        properties,
                        turn.length + 1,
                        len(body),
                    ]
                )
            bodies.append(body)
            turn.length += len(body)
        turn.answers.append((publish, fates))
        return number

    def _room(self, turn: _Turn, target: int) -> int:
        room = turn.room.get(target)
        if room is None:
            limit = self._file.by_id[target].queue.max_length
            room = 1 << 62 if limit is None else limit - self._file.count_ready(target, limit)
            turn.room[target] = room
        return room

    def _mark_all_dirty(self) -> None:
        self._dirty.update(self._file.by_id)

    def _end(self) -> None:
        try:
            self._file.begin()
            self._file.refresh(self._session)
            self._file.end_session(self._session)
            self._file.commit()
        except Exception as error:
            log.warning("the session of the bus file %s did not end cleanly (%s); its lease will", self.path, error)
        finally:
            self._file.close()
        for asked in self._retry:
            if isinstance(asked, Call):
                asked.future.set_exception(Unavailable("the bus was stopped"))


class _Answers:
    """Everything a turn has to say, one wake-up per event loop."""

    def __init__(self) -> None:
        self._by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Callable[..., None], tuple[Any, ...]]]] = {}

    def add(self, loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
        self._by_loop.setdefault(loop, []).append((function, arguments))

    def send(self) -> None:
        for loop, answers in self._by_loop.items():
            try:
                loop.call_soon_threadsafe(_say, answers)
            except RuntimeError:
                log.debug("an event loop ended before its answers came")


def _say(answers: Sequence[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
    for function, arguments in answers:
        function(*arguments)


def _answer(future: asyncio.Future[list[Published]], fates: list[Published]) -> None:
    if not future.done():
        future.set_result(fates)


_writers: dict[Path, tuple[Writer, int]] = {}
_writers_lock = threading.Lock()


def acquire(path: Path) -> Writer:
    """The writer of this file in this process, opened when it is the first to ask. May wait for the file; call it off
    the event loop."""
    path = path.resolve()
    with _writers_lock:
        writer, users = _writers.get(path, (None, 0))
        if writer is None:
            writer = Writer(path)
        _writers[path] = (writer, users + 1)
        return writer


def release(writer: Writer) -> None:
    """Ends the writer when its last user leaves. Waits for it; call it off the event loop."""
    with _writers_lock:
        present, users = _writers[writer.path]
        if users > 1:
            _writers[writer.path] = (present, users - 1)
            return
        del _writers[writer.path]
        writer.stop()
