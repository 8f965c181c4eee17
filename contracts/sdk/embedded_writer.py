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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contracts.problems import Unavailable
from contracts.sdk.embedded_file import BusFile
from contracts.sdk.embedded_turn import LEASE_SECONDS, Ask, Call, Publish, Settle, Standing, Subscriber, Turn
from contracts.sdk.transport import Published

log = logging.getLogger(__name__)

_POLL_ALONE_SECONDS = 0.05
_POLL_BUSY_SECONDS = 0.002
_FAILURE_PAUSE_SECONDS = (0.05, 1.0)


class Writer:
    """Owns the connection and the thread. `healthy` is false from a failed commit to the next good one; `full` while
    the disk takes no more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.healthy = True
        self.full = False
        self._file = BusFile(path)
        self._asked: queue.SimpleQueue[Ask | None] = queue.SimpleQueue()
        self._standing = Standing()
        self._retry: list[Ask] = []
        self._poll_seconds = _POLL_ALONE_SECONDS
        self._failure_pause = _FAILURE_PAUSE_SECONDS[0]
        try:
            self._file.begin()
            self._standing.session = self._file.open_session(time.time() + LEASE_SECONDS)
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
        self._standing.subscribers.setdefault(subscriber.queue, []).append(subscriber)
        self._standing.mark_dirty(self._file)
        self._asked.put(Call(lambda file, session: None))  # a turn of its own, which hands over the backlog

    def _unsubscribe(self, subscriber: Subscriber) -> None:
        there = self._standing.subscribers.get(subscriber.queue, [])
        if subscriber in there:
            there.remove(subscriber)
        self._standing.mark_dirty(self._file)

    def stop(self) -> None:
        """Returns what is unsettled, ends the session, closes the file. Waits for the thread."""
        self._asked.put(None)
        self._thread.join()

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        stopping = False
        while not stopping:
            batch, self._retry = self._retry, []
            for asked in self._take(self._poll_seconds):
                if asked is None:
                    stopping = True
                else:
                    batch.append(asked)
            if batch or self._moved() or time.time() >= self._standing.sweep_at:
                self._attempt(batch)
            else:
                self._poll_seconds = min(self._poll_seconds * 1.5, _POLL_ALONE_SECONDS)
        self._end()

    def _take(self, wait_seconds: float = 0.0) -> list[Ask | None]:
        """Everything that was asked meanwhile; waits for the first. None asks to stop."""
        taken: list[Ask | None] = []
        try:
            taken.append(self._asked.get(timeout=wait_seconds) if wait_seconds else self._asked.get_nowait())
            while True:
                taken.append(self._asked.get_nowait())
        except queue.Empty:
            return taken

    def _moved(self) -> bool:
        try:
            return bool(self._standing.subscribers) and self._file.changed()
        except sqlite3.Error:
            return True  # the turn will meet the same error and deal with it

    def _attempt(self, batch: list[Ask]) -> None:
        turn = Turn(self._file, self._standing, time.time(), self._standing.free())
        try:
            self._file.begin()
            turn.do(batch)
            self._file.commit()
        except Exception as error:
            self._failed(batch, error)
            return
        self.healthy, self.full = True, False
        self._failure_pause = _FAILURE_PAUSE_SECONDS[0]
        self._apply(turn)
        if not self._standing.alone and (batch or turn.handed):
            self._poll_seconds = _POLL_BUSY_SECONDS

    def _failed(self, batch: Sequence[Ask], error: Exception) -> None:
        """Nothing of the batch is stored: publishes become unknown, calls fail, settlements are kept and tried
        again."""
        try:
            self._file.rollback()
        except sqlite3.Error:
            log.debug("rollback of %s failed as well", self.path, exc_info=True)
        self._file.forget()
        # Told of once, and not with every try while the disk stays full.
        log.log(
            logging.WARNING if self.healthy else logging.DEBUG,
            "the bus file %s took no transaction: %s",
            self.path,
            error,
            exc_info=not isinstance(error, sqlite3.Error),
        )
        self.healthy = False
        self.full = "full" in str(error)
        answers = _Answers()
        for asked in batch:
            if isinstance(asked, Settle) or (isinstance(asked, Call) and asked.keep):
                self._retry.append(asked)
            elif isinstance(asked, Publish):
                answers.add(asked.loop, _answer, asked.future, [Published.UNKNOWN] * len(asked.messages))
            else:
                _refuse(asked, f"the bus file {self.path} took no transaction ({error}); try again")
        answers.send()
        self._poll_seconds = self._failure_pause
        self._failure_pause = min(self._failure_pause * 2, _FAILURE_PAUSE_SECONDS[1])

    def _apply(self, turn: Turn) -> None:
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

    def _end(self) -> None:
        try:
            self._file.begin()
            self._file.refresh(self._standing.session)
            self._file.end_session(self._standing.session)
            self._file.commit()
        except Exception as error:
            log.warning("the session of the bus file %s did not end cleanly (%s); its lease will", self.path, error)
        finally:
            self._file.close()
        for asked in (*self._retry, *self._take()):
            if isinstance(asked, Call):
                _refuse(asked, "the bus was stopped; start it again")


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


def _refuse(call: Call, why: str) -> None:
    if call.future.set_running_or_notify_cancel():
        call.future.set_exception(Unavailable(why))


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
