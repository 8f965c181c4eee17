"""Connections to PostgreSQL by role: one kept per lane for appending, small pools for the rest, one that listens. It
decides what is worth trying again and what a lost connection means; it knows no table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import asyncpg

from engine.store.batch import Batch
from engine.store.errors import ContentRefused, TenantRefused, Unavailable
from engine.store.postgres_wire import columns, install, install_arrays
from engine.store.statements import Statement

T = TypeVar("T")
if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:  # the classes take no parameters when they run
    Connection, Pool = asyncpg.Connection, asyncpg.Pool

_CANCELLED = "57014"  # statement_timeout
_PRIVILEGE = "42501"
_RETRYABLE_STATES = frozenset({"57P01", "57P02", "57P03", "40001", "40P01", "55P03"})
_RETRYABLE_CLASSES = frozenset({"08", "53"})
_POISON_CLASSES = frozenset({"22", "23", "54"})

SERVER_SETTINGS = {
    "application_name": "unwind",
    "search_path": "unwind, views",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "30s",
    "tcp_user_timeout": "10s",
    "jit": "off",
}
"""Timeouts live in the server: one in the client leaves the fate of a COMMIT unknown. `tcp_user_timeout` is how long it
tries to send to a machine that has vanished: until it gives up, what that one's transaction has locked stays locked."""
LOOKUP_SETTINGS = SERVER_SETTINGS | {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
}
"""For connections that do the work of engine and projector: their statements look up a few rows by key, however large
the tables are and whatever statistics say of them. The tables of what runs wait for are empty at one time and full at
another: by a plan that was made of statistics taken while they were empty, each row looked up may cost a whole table
(decision 35). Where a statement does read a table whole there is no other way, and it is read."""
APPEND_SETTINGS = LOOKUP_SETTINGS | {
    "plan_cache_mode": "force_generic_plan",
    "enable_indexonlyscan": "off",
    "enable_bitmapscan": "off",
}
"""For connections that append and do nothing else. A bitmap has all that an index says of the dead, which the others
mark on their way."""
OWNER_SETTINGS = SERVER_SETTINGS | {"statement_timeout": "0"}
"""For migrations and for dropping a month of the archive: a new index reads a whole table, a mark is set at every run
of a month. A person waits for it; tried again it would take as long."""
READ_SETTINGS = SERVER_SETTINGS | {"plan_cache_mode": "force_custom_plan"}
"""For connections that answer questions about read models: one statement has all filters of a list, and a plan that
is right for most of them reads a million rows for some."""
_FROZEN_SECONDS = 35
"""Longer than any statement may take: only a server that has stopped answering at all is given up by the client."""


def retryable(error: BaseException) -> bool:
    """Whether the same call may be made again."""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state in _RETRYABLE_STATES or state[:2] in _RETRYABLE_CLASSES
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(
            error, ValueError
        )  # a value that does not fit its column is an InterfaceError and a ValueError
    return isinstance(error, OSError | asyncpg.InternalClientError | TimeoutError)


def poisonous(error: BaseException) -> bool:
    """Whether the content of the call is to blame, and would be every time."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in _POISON_CLASSES
    return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)


async def patiently(attempt: Callable[[], Awaitable[T]], *, seconds: float) -> T:
    """Makes the call, again with growing pauses while the database does not answer; `Unavailable` after so many
    seconds."""
    deadline = time.monotonic() + seconds
    pause = 0.02
    while True:
        try:
            return await attempt()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            if isinstance(error, asyncpg.PostgresError) and error.sqlstate == _PRIVILEGE and "append_for" in str(error):
                raise TenantRefused(str(error)) from error
            if poisonous(error):
                raise ContentRefused(f"{type(error).__name__}: {error}") from error
            timed_out = isinstance(error, asyncpg.PostgresError) and error.sqlstate == _CANCELLED
            if not retryable(error) and not timed_out:
                raise
            if timed_out or time.monotonic() + pause > deadline:
                raise Unavailable(
                    f"PostgreSQL does not answer ({type(error).__name__}: {error}); check the server, then try again"
                ) from error
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.5)


class Held:
    """A lane's connection, and whether it sends a batch in binary form."""

    __slots__ = ("connection", "lock", "taught")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.connection: Connection | None = None
        self.taught = False


class Sessions:
    """Connections that have taken a role on. Pools open their connections when first needed."""

    def __init__(
        self, url: str, statements: Mapping[str, Statement], *, patience_seconds: float, pool_size: int
    ) -> None:
        self._url = url
        self._statements = statements
        self._patience = patience_seconds
        self._pool_size = pool_size
        self._pools: dict[str, Pool] = {}
        self._lanes: dict[tuple[str, int], Held] = {}
        self._opening = asyncio.Lock()
        self._closed = False
        self.roles: dict[str, str] = {}
        """Role by purpose (engine, projector, web, operator); empty when one database user does all."""

    async def connect(self, role: str | None = None, *, settings: Mapping[str, str] = SERVER_SETTINGS) -> Connection:
        """A connection of the caller's own. With `OWNER_SETTINGS` a statement may take as long as it needs."""
        self._check_open()
        frozen = None if settings is OWNER_SETTINGS else _FROZEN_SECONDS
        connection = await asyncpg.connect(self._url, server_settings=dict(settings), timeout=5, command_timeout=frozen)
        if role is not None:
            await self.take_role(connection, role)
        return connection

    async def take_role(self, connection: Any, role: str, *, here: bool = False) -> None:
        """For the session, or `here` for the transaction. Where no roles were made the session sees all tenants."""
        if self.roles:
            await connection.execute(self._sql("take_role"), self.roles[role], here)
        else:
            await self.see_tenant(connection, "*", here=here)

    async def see_tenant(self, connection: Any, tenant: str, *, here: bool) -> None:
        """What row-level security lets through."""
        await connection.execute(self._sql("see_tenant"), tenant, here)

    def _sql(self, statement: str) -> str:
        return self._statements[statement].steps[0].sql

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is stopped; open it again")

    async def pool(self, role: str) -> Pool:
        self._check_open()
        pool = self._pools.get(role)
        if pool is None:
            async with self._opening:
                pool = self._pools.get(role)
                if pool is None:

                    async def take_role(connection: Any) -> None:
                        await self.take_role(connection, role)
                        if role == "projector":
                            # Rows and checkpoint are lost together, if at all, and follow from the log again: nobody
                            # need wait for the disk.
                            await connection.execute("SET synchronous_commit = off")
                            install_arrays(connection)

                    async def keep(connection: Any) -> None:
                        """No reset between uses: nothing here outlives its transaction."""

                    pool = await asyncpg.create_pool(
                        self._url,
                        min_size=0,
                        max_size=self._pool_size,
                        init=take_role,
                        reset=keep,
                        server_settings=READ_SETTINGS if role == "web" else LOOKUP_SETTINGS,
                        timeout=5,
                        command_timeout=_FROZEN_SECONDS,
                        max_inactive_connection_lifetime=300,
                    )
                    self._pools[role] = pool
        return pool

    async def fetch(self, role: str, sql: str, values: Sequence[Any]) -> list[Mapping[str, Any]]:
        async def attempt() -> list[Mapping[str, Any]]:
            return cast(list[Mapping[str, Any]], await (await self.pool(role)).fetch(sql, *values))

        return await patiently(attempt, seconds=self._patience)

    async def within(self, role: str, work: Callable[[Connection], Awaitable[T]], *, readonly: bool = False) -> T:
        """Runs `work` in one transaction, all of it again when the connection is lost."""

        async def attempt() -> T:
            async with (await self.pool(role)).acquire() as connection, connection.transaction(readonly=readonly):
                return await work(cast("Connection", connection))

        return await patiently(attempt, seconds=self._patience)

    async def on_lane(
        self, role: str, lane: int, sql: str, values: Sequence[Any], batch: Batch
    ) -> tuple[Mapping[str, Any], bool]:
        """One statement on the lane's own connection, one at a time; the batch is its last argument. Also answers
        whether an earlier try of this call may have been committed without our hearing of it. It is not cancelled
        half-way, since a COMMIT under way cannot be called back.
        """
        held = self._lanes.get((role, lane))
        if held is None:
            held = self._lanes[role, lane] = Held()
        lost = False

        async def attempt() -> Mapping[str, Any]:
            nonlocal lost
            if held.connection is None or held.connection.is_closed():
                held.connection = await self.connect(role, settings=APPEND_SETTINGS)
                held.taught = await install(held.connection, self._sql("batch_types"))
            connection = held.connection
            value = batch if held.taught else columns(batch)
            try:
                row = await connection.fetchrow(sql, *values, value)
            except BaseException as error:
                if not isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError) or connection.is_closed():
                    lost = True
                    held.connection = None
                    connection.terminate()
                raise
            return cast(Mapping[str, Any], row)

        async with held.lock:
            task = asyncio.ensure_future(patiently(attempt, seconds=self._patience))
            try:
                return await asyncio.shield(task), lost
            except asyncio.CancelledError:
                await asyncio.wait({task})
                raise

    async def close(self) -> None:
        """Closes everything; what does not answer within two seconds is cut off."""
        self._closed = True
        pools, self._pools = list(self._pools.values()), {}
        kept, self._lanes = [held.connection for held in self._lanes.values() if held.connection is not None], {}
        for pool in pools:
            try:
                async with asyncio.timeout(2):
                    await pool.close()
            except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                pool.terminate()
        for connection in kept:
            connection.terminate()
