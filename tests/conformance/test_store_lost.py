"""PostgreSQL goes away at the worst moments: between COMMIT and its answer, in mid-statement, for good. What was
appended is appended once, what was not can be appended again, and a caller is told when nobody answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from engine.store import Appended, Commit, Duplicate, NewInput, Stale, Store, open_store
from engine.store.errors import CommitRefused, Unavailable
from engine.store.postgres_sessions import poisonous, retryable
from tests.conformance.store_making import NOW, append, arrived, events, open_a_run, started
from tests.conformance.store_postgres_database import SharedDatabase

pytestmark = pytest.mark.postgres

_CHUNK = 1 << 16


class Proxy:
    """Between the store and its server. `lose_next_answer` lets one request through and cuts the line before its
    answer; `vanish_after` reads the first piece of a large one and no more, and leaves the line as it is."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._marker: bytes | None = None
        self._vanishes = False
        self.lost = asyncio.Event()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Nobody answers at this address any more, and every open line is cut."""
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def lose_next_answer(self, marker: bytes) -> None:
        """To the first request that holds these bytes."""
        self._marker = marker

    def vanish_after(self, marker: bytes) -> None:
        """The first request that holds these bytes: as a machine that was unplugged."""
        self._marker, self._vanishes = marker, True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        deaf = asyncio.Event()

        async def requests() -> None:
            while data := await reader.read(_CHUNK):
                if self._marker is not None and self._marker in data:
                    self._marker = None
                    deaf.set()
                back.write(data)
                await back.drain()
            back.close()

        async def answers() -> None:
            while data := await there.read(_CHUNK):
                if deaf.is_set() and self._vanishes and len(data) == _CHUNK:
                    self.lost.set()
                    await asyncio.Event().wait()
                if deaf.is_set() and not self._vanishes:
                    if not data.endswith(
                        b"Z\x00\x00\x00\x05I"
                    ):  # ready for the next query, in no transaction: committed
                        continue
                    self.lost.set()
                    break
                writer.write(data)
                await writer.drain()
            writer.transport.abort()

        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(_quietly(requests()), _quietly(answers()))


async def _quietly(work: object) -> None:
    with suppress(OSError):
        await work  # type: ignore[misc]


@pytest.fixture
async def proxy(shared: SharedDatabase) -> AsyncIterator[Proxy]:
    await shared.wipe()
    parts = urlsplit(shared.url)
    made = Proxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def store(shared: SharedDatabase, proxy: Proxy) -> AsyncIterator[Store]:
    parts = urlsplit(shared.url)
    user = parts.netloc.rpartition("@")[0]
    url = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{proxy.port}"))
    store = open_store(url, views=shared.views, patience_seconds=3)
    await store.start()
    yield store
    await store.stop()


@pytest.fixture
async def epoch(store: Store) -> int:
    epoch = await store.register("test", ["all"], now=NOW)
    await open_a_run(store, epoch)
    return epoch


async def test_a_lost_answer_to_a_commit_settles_itself(store: Store, epoch: int, proxy: Proxy) -> None:
    """Sent again, each commit is known by its keys or version, and as our own by its bodies; what is another's stays
    refused.
    """
    run = await open_a_run(store, epoch)
    marked = started(events=events("unmistakable-topic"))
    step = Commit(tenant="acme", stream=run, expected=1, events=events("x"), input_keys=("reply/1",))
    keyless = Commit(tenant="acme", stream=await open_a_run(store, epoch), expected=1, events=events("y"))
    stale = Commit(tenant="acme", stream=await open_a_run(store, epoch), expected=0, events=events("z"))
    again = started(key=f"event/w/{run}")
    proxy.lose_next_answer(b"unmistakable-topic")
    outcomes = await append(store, epoch, marked, step, keyless, stale, again, arrived("e1"))
    assert proxy.lost.is_set()
    assert outcomes[:3] == [Appended(7)] * 3
    assert outcomes[3:] == [Stale(1), Duplicate(run), Duplicate()]
    assert [len(await store.load("acme", c.stream)) for c in (marked, step, keyless) if c.stream] == [1, 2, 2]


async def test_an_append_cut_off_while_it_waits_is_appended_once(
    store: Store, epoch: int, shared: SharedDatabase
) -> None:
    blocker = await asyncpg.connect(shared.url)
    await blocker.execute("SELECT pg_advisory_lock(1970169719, 0)")
    commit = started()
    waiting = asyncio.create_task(append(store, epoch, commit))
    find = (
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    async with asyncio.timeout(30):
        while (pid := await blocker.fetchval(find)) is None:
            assert not waiting.done()
        await blocker.execute("SELECT pg_terminate_backend($1)", pid)
        while await blocker.fetchval(find) in (None, pid):
            assert not waiting.done()
    await blocker.execute("SELECT pg_advisory_unlock(1970169719, 0)")
    assert [type(outcome) for outcome in await waiting] == [Appended]
    assert commit.stream is not None
    assert len(await store.load("acme", commit.stream)) == 1
    await blocker.close()


async def test_a_cancelled_caller_leaves_the_append_whole(store: Store, epoch: int, shared: SharedDatabase) -> None:
    blocker = await asyncpg.connect(shared.url)
    await blocker.execute("SELECT pg_advisory_lock(1970169719, 0)")
    commit = started()
    waiting = asyncio.create_task(append(store, epoch, commit))
    async with asyncio.timeout(30):
        while not await blocker.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
            assert not waiting.done()
    waiting.cancel()
    await blocker.execute("SELECT pg_advisory_unlock(1970169719, 0)")
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await append(store, epoch, commit) == [Duplicate(commit.stream)]
    await blocker.close()


async def test_when_nobody_answers_the_caller_is_told_and_may_call_again(
    store: Store, epoch: int, proxy: Proxy
) -> None:
    await proxy.stop()
    commit = started()
    with pytest.raises(Unavailable, match="does not answer"):
        await append(store, epoch, commit)
    with pytest.raises(Unavailable):
        await store.ping()
    await proxy.start()
    await store.ping()
    assert await append(store, epoch, commit) == [Appended(2)]


async def test_who_vanishes_while_he_is_answered_can_be_declared_dead(
    store: Store, epoch: int, proxy: Proxy, shared: SharedDatabase
) -> None:
    """A server that cannot send keeps the rows of its transaction locked, that of the process among them."""
    waiting = tuple(NewInput(kind="start", workflow="order", body=bytes(60_000)) for _ in range(500))
    await append(store, epoch, Commit(tenant="acme", stream=None, inputs=waiting))
    proxy.vanish_after(b"claim_inputs_but")
    asking = asyncio.create_task(store.claim_inputs(epoch, limit=1_000, now=NOW))
    await proxy.lost.wait()
    other = open_store(shared.url, views=shared.views, patience_seconds=25)
    await other.start()
    try:
        assert await other.declare_dead(silent_seconds=4, now=NOW + timedelta(seconds=10)) == [epoch]
    finally:
        asking.cancel()
        await other.stop()


async def test_who_waits_for_appends_is_woken_after_the_line_was_cut(
    store: Store, epoch: int, proxy: Proxy, shared: SharedDatabase
) -> None:
    head = await store.head(0)
    waiting = asyncio.create_task(store.wait_for_append(0, head, 30))
    proxy.cut()
    other = open_store(shared.url, views=shared.views)
    await other.start()
    await open_a_run(other, await other.register("other", ["all"]))
    assert await waiting
    await other.stop()


async def test_text_the_database_cannot_hold_is_refused_and_not_tried_again(store: Store, epoch: int) -> None:
    with pytest.raises(CommitRefused, match="commit 1 of 3"):
        await append(store, epoch, started(), started(key="a\x00b"), started(key="\ud800"))
    with pytest.raises(CommitRefused):
        await append(store, epoch, replace(started(), expected=2**40, start=None, open_run=None))


AGAIN = (
    asyncpg.ConnectionFailureError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.TooManyConnectionsError,
    asyncpg.DiskFullError,
    asyncpg.InterfaceError,
    asyncpg.ConnectionDoesNotExistError,
    ConnectionRefusedError,
)
NEVER = (
    asyncpg.PostgresSyntaxError,
    asyncpg.UniqueViolationError,
    asyncpg.StringDataRightTruncationError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.QueryCanceledError,
    asyncpg.InternalServerError,
    asyncpg.RaiseError,
    asyncpg.ReadOnlySQLTransactionError,
    ValueError,
)
POISON = (asyncpg.UntranslatableCharacterError, asyncpg.NotNullViolationError, asyncpg.ProgramLimitExceededError)


@pytest.mark.parametrize("kind", AGAIN)
def test_what_passes_by_itself_is_tried_again(kind: type[Exception]) -> None:
    assert retryable(kind("x"))
    assert not poisonous(kind("x"))


@pytest.mark.parametrize("kind", NEVER + POISON)
def test_nothing_else_is_tried_again(kind: type[Exception]) -> None:
    assert not retryable(kind("x"))


@pytest.mark.parametrize("kind", POISON)
def test_content_the_database_rejects_is_poison(kind: type[Exception]) -> None:
    assert poisonous(kind("x"))
