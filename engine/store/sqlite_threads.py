"""The threads of the embedded store: one that writes, joining whatever waits into one transaction and one sync to
disk, and a few that read through read-only connections. Callers are coroutines; they get a result or the error of
their own job."""

from __future__ import annotations

import asyncio
import hashlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from engine.store.errors import ContentRefused, Unavailable
from engine.store.es import LogRecorder, PersistenceError

T = TypeVar("T")
_READERS = 2
_JOINED_AT_MOST = 64


class Job:
    """One caller's piece of work and its fate."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Callable[[sqlite3.Cursor], Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """The one thread that writes. A job that fails is rolled back alone; a group whose COMMIT fails, fails whole."""

    def __init__(self, recorder: LogRecorder) -> None:
        self._recorder = recorder
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Cursor], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(Job(work, future))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})  # what is being committed cannot be called back
            raise

    async def stop(self) -> None:
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            first = self._jobs.get()
            group: list[Job] = []
            while True:
                if first is None:
                    stopping = True
                    break
                group.append(first)
                if len(group) == _JOINED_AT_MOST:
                    break
                try:
                    first = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if group:
                self._perform(group)
                with suppress(RuntimeError):  # the loop has gone, and with it whoever waited
                    self._loop.call_soon_threadsafe(_deliver, group)

    def _perform(self, group: list[Job]) -> None:
        try:
            with self._recorder.writing() as cursor:
                for job in group:
                    cursor.execute("SAVEPOINT job")
                    try:
                        job.result = job.work(cursor)
                    except Exception as error:
                        job.error = translated(error)
                        cursor.execute("ROLLBACK TO job")
                    cursor.execute("RELEASE job")
        except Exception as error:
            for job in group:
                job.error = job.error or translated(error)


def _deliver(group: Sequence[Job]) -> None:
    for job in group:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)


class Readers:
    """A few threads with read-only connections of their own; every call sees what was committed before it began."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._pool = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")

    async def fetch(self, sql: str, values: Sequence[Any]) -> list[Mapping[str, Any]]:
        def work() -> list[Mapping[str, Any]]:
            try:
                return cast(list[Mapping[str, Any]], self._connection().execute(sql, values).fetchall())
            except sqlite3.Error as error:
                raise translated(error) from error

        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def at_one_moment(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """Several questions of one snapshot."""

        def work() -> T:
            try:
                connection = self._connection()
                connection.execute("BEGIN")
                try:
                    return look(connection)
                finally:
                    connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise translated(error) from error

        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                f"file:{self._path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False, timeout=5
            )
            connection.row_factory = sqlite3.Row
            connection.create_aggregate("row_sum", 1, RowSum)  # type: ignore[arg-type]
            self._local.connection = connection
            self._connections.append(connection)
        return connection

    async def stop(self) -> None:
        await asyncio.to_thread(self._pool.shutdown)
        while self._connections:
            self._connections.pop().close()


class RowSum:
    """SQL's `row_sum(text)`: a checksum over rows in any order, a row at a time, so that no table is held in memory."""

    def __init__(self) -> None:
        self._sum = 0

    def step(self, line: str) -> None:
        self._sum += int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest(), "big")

    def finalize(self) -> str:
        return str(self._sum)


def translated(error: BaseException) -> BaseException:
    """The store's error for one of sqlite3's or the library's: busy and broken files are `Unavailable`, bad content is
    poison."""
    if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.InterfaceError | OverflowError):
        return ContentRefused(f"{type(error).__name__}: {error}")
    if isinstance(error, sqlite3.ProgrammingError) and "bind" in str(error):
        return ContentRefused(f"{type(error).__name__}: {error}")
    if isinstance(error, sqlite3.OperationalError | sqlite3.DatabaseError | PersistenceError):
        return Unavailable(f"SQLite cannot go on ({error}); free the file or the disk, then try again")
    return error
