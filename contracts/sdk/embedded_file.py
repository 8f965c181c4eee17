"""The embedded bus as rows: everything one transaction on its file can do, in plain synchronous steps.

Not a thread and not a client: `contracts.sdk.embedded_writer` owns the one connection and decides when a transaction
begins and ends; nothing here remembers anything that a rollback would have to undo, except caches that `refresh`
checks against the file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from contracts.sdk.embedded_topology import StoredQueue, additions
from contracts.sdk.private_file import private_file
from contracts.sdk.processes import host, process_start
from contracts.sdk.routing import Routes
from contracts.sdk.statements import statements
from contracts.sdk.transport import Binding, Difference, Exchange, Queue, Topology, TopologyMismatch
from contracts.sdk.write_ahead import write_ahead

SCHEMA_VERSION = 1
BUSY_TIMEOUT_SECONDS = 5.0
HELD = 0
"""The owner of a dead letter that no queue takes yet."""

_SQL = statements("embedded.sql")


@dataclass(frozen=True, slots=True)
class Ready:
    """A stored message about to be delivered."""

    id: int
    exchange: str
    routing_key: str
    properties: str | None
    delivery_count: int
    body: bytes


@dataclass(frozen=True, slots=True)
class TurnState:
    foreign: bool
    """Another connection has written since the last turn."""
    session_lives: bool
    last_message: int


class BusFile:
    """One connection to one bus file. Every method but `changed` and `close` belongs between `begin` and `commit` or
    `rollback`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(
            private_file(path),
            timeout=BUSY_TIMEOUT_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        write_ahead(self._db, seconds=BUSY_TIMEOUT_SECONDS)
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA wal_autocheckpoint = 4000")
        self._db.execute("PRAGMA cache_size = -16000")
        self._create()
        self._data_version = -1
        self._topology_version = -1
        self.copied = False
        """Dead letters took ids of their own since the last `refresh`."""
        self.queues: dict[str, StoredQueue] = {}
        self.by_id: dict[int, StoredQueue] = {}
        self.routes = Routes({}, {}, {})

    def _create(self) -> None:
        self.begin()
        try:
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise TopologyMismatch(
                    f"the bus file has layout {version}, this release knows {SCHEMA_VERSION}; start the newer release",
                    field="bus",
                )
            for statement in _SQL["schema"].split(";"):
                if statement.strip():
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self.commit()
        except BaseException:
            self.rollback()
            self._db.close()
            raise

    def _run(self, statement: str, /, **values: Any) -> sqlite3.Cursor:
        return self._db.execute(_SQL[statement], values)

    # -- transactions ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._db.execute("COMMIT")

    def rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def close(self) -> None:
        self._db.close()

    def changed(self) -> bool:
        """Whether another connection has committed since the last `refresh`."""
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        return bool(version != self._data_version)

    def refresh(self, session: int) -> TurnState:
        """Reads the topology again if it moved, and what else a turn has to know before it begins."""
        (data_version,) = self._db.execute("PRAGMA data_version").fetchone()
        foreign = data_version != self._data_version
        self._data_version = data_version
        self.copied = False
        version, lives, last = self._run("turn_state", session=session).fetchone()
        if version != self._topology_version:
            self._read_topology()
            self._topology_version = version
        return TurnState(bool(foreign), bool(lives), int(last))

    def forget(self) -> None:
        """Drops what is remembered, after a rollback."""
        self._data_version = self._topology_version = -1

    def _read_topology(self) -> None:
        exchanges = {
            name: Exchange(name=name, kind=kind, alternate=alternate)
            for name, kind, alternate in self._run("read_exchanges")
        }
        self.queues = {
            name: StoredQueue(
                number,
                Queue(
                    name=name,
                    dead_letter_exchange=exchange,
                    dead_letter_key=key,
                    delivery_limit=limit,
                    transient=session is not None,
                    max_length=max_length,
                ),
                session,
            )
            for number, name, exchange, key, limit, max_length, session in self._run("read_queues")
        }
        self.by_id = {stored.id: stored for stored in self.queues.values()}
        bindings: dict[str, list[tuple[str, int]]] = {}
        for exchange, key, queue in self._run("read_bindings"):
            bindings.setdefault(exchange, []).append((key, queue))
        self.routes = Routes(
            exchanges,
            {name: stored.id for name, stored in self.queues.items()},
            {exchange: tuple(found) for exchange, found in bindings.items()},
        )

    # -- topology ----------------------------------------------------------------------------------------------------

    def declare(self, topology: Topology, session: int) -> None:
        """All of it or none of it: everything is checked before anything is written."""
        exchanges, queues = additions(topology, self.routes.exchanges, self.queues, session)
        self._write_topology(exchanges, queues, topology.bindings, session)

    def compare(self, topology: Topology, session: int) -> Difference:
        """What `declare` would add or refuse. The first refusal is told, as `declare` would tell it."""
        try:
            exchanges, queues = additions(topology, self.routes.exchanges, self.queues, session)
        except TopologyMismatch as problem:
            return Difference(conflicts=(problem.detail,))
        names = {number: name for name, number in self.routes.queues.items()}
        known = {
            (exchange, key, names[queue]) for exchange, pairs in self.routes.bindings.items() for key, queue in pairs
        }
        bindings = sorted({(b.exchange, b.key, b.queue) for b in topology.bindings} - known)
        return Difference(
            adds=(
                *(f"exchange {exchange.name}" for exchange in exchanges),
                *(f"queue {queue.name}" for queue in queues),
                *(f"binding {key} of {exchange} to {queue}" for exchange, key, queue in bindings),
            )
        )

    def _write_topology(
        self, exchanges: Sequence[Exchange], queues: Sequence[Queue], bindings: Sequence[Binding], session: int
    ) -> None:
        for exchange in exchanges:
            self._run("add_exchange", name=exchange.name, kind=exchange.kind, alternate=exchange.alternate)
        numbers = dict(self.routes.queues)
        for queue in queues:
            cursor = self._run(
                "add_queue",
                name=queue.name,
                dead_letter_exchange=queue.dead_letter_exchange,
                dead_letter_key=queue.dead_letter_key,
                delivery_limit=queue.delivery_limit,
                max_length=queue.max_length,
                session=session if queue.transient else None,
            )
            numbers[queue.name] = int(cursor.lastrowid or 0)
        known = {(exchange, key, queue) for exchange, pairs in self.routes.bindings.items() for key, queue in pairs}
        new_bindings = {(b.exchange, b.key, numbers[b.queue]) for b in bindings} - known
        for exchange_name, key, number in sorted(new_bindings):
            self._run("add_binding", exchange=exchange_name, key=key, queue=number)
        if exchanges or queues or new_bindings:
            self._topology_moved()

    def drop_queues(self, queues: Iterable[int]) -> None:
        dropped = False
        for queue in queues:
            for name in ("drop_queue_messages", "drop_queue_bindings", "drop_queue_consumers", "drop_queue"):
                self._run(name, queue=queue)
            dropped = True
        if dropped:
            self._topology_moved()

    def _topology_moved(self) -> None:
        self._run("bump_topology")
        self._topology_version += 1
        self._read_topology()

    # -- sessions and consumers --------------------------------------------------------------------------------------

    def open_session(self, lease_until: float) -> int:
        pid = os.getpid()
        cursor = self._run(
            "add_session", host=host(), pid=pid, started=process_start(pid) or "", lease_until=lease_until
        )
        return int(cursor.lastrowid or 0)

    def renew_session(self, session: int, lease_until: float) -> None:
        self._run("renew_session", session=session, lease_until=lease_until)

    def dead_sessions(self, own: int, now: float) -> list[int]:
        """Sessions whose lease has run out, or whose process is known to be gone."""
        here = host()
        return [
            session
            for session, there, pid, started, lease_until in self._run("read_sessions").fetchall()
            if session != own
            and (lease_until < now or (there == here and started and process_start(pid) not in (started, "")))
        ]

    def others(self, own: int) -> bool:
        return any(row[0] != own for row in self._run("read_sessions").fetchall())

    def end_session(self, session: int) -> None:
        """Returns what its consumers held, as a broker does when a connection ends, and drops its reply queues."""
        for (consumer,) in self._run("session_consumers", session=session).fetchall():
            self.close_consumer(consumer)
        self.drop_queues([number for (number,) in self._run("session_queues", session=session).fetchall()])
        self._run("drop_session", session=session)

    def open_consumer(self, session: int, queue: int) -> int:
        return int(self._run("add_consumer", session=session, queue=queue).lastrowid or 0)

    def close_consumer(self, consumer: int) -> None:
        held = [number for (number,) in self._run("owned_messages", owner=consumer).fetchall()]
        if held:
            self.give_back(consumer, held)
        self._run("drop_consumer", consumer=consumer)

    # -- messages ----------------------------------------------------------------------------------------------------

    def insert(self, rows: Sequence[Sequence[Any]], bodies: bytes) -> None:
        self._run("insert_messages", rows=orjson.dumps(rows).decode(), bodies=bodies)

    def ready(self, queue: int, limit: int, now: float) -> list[Ready]:
        (found,) = self._run("ready_messages", queue=queue, limit=limit, now=now).fetchone()
        rows = sorted(orjson.loads(found), key=lambda row: row[0])
        return [
            Ready(number, exchange, key, properties, count, bytes.fromhex(body))
            for number, exchange, key, properties, count, body in rows
        ]

    def count_ready(self, queue: int, limit: int) -> int:
        return int(self._run("count_ready", queue=queue, limit=limit).fetchone()[0])

    def own(self, claims: Sequence[tuple[int, int]]) -> None:
        self._run("own_messages", ids=orjson.dumps(claims).decode())

    def settle(self, owner: int, ids: Sequence[int]) -> None:
        self._run("settle_messages", owner=owner, ids=orjson.dumps(ids).decode())

    def give_back(self, owner: int, ids: Sequence[int]) -> None:
        """Back to the queue, in the old place and with the delivery counted; over the queue's limit, to its dead
        letters."""
        document = orjson.dumps(ids).decode()
        self._run("return_messages", owner=owner, ids=document)
        for (number,) in self._run("exhausted_messages", ids=document).fetchall():
            self.dead_letter(number, "delivery_limit")

    def refuse(self, owner: int, ids: Sequence[int]) -> None:
        for (number,) in self._run("refused_messages", owner=owner, ids=orjson.dumps(ids).decode()).fetchall():
            self.dead_letter(number, "rejected")

    def expire(self, now: float) -> bool:
        expired = [number for (number,) in self._run("expired_messages", now=now).fetchall()]
        for number in expired:
            self.dead_letter(number, "expired")
        return bool(expired)

    def retry_held(self) -> bool:
        held = [number for (number,) in self._run("held_messages").fetchall()]
        for number in held:
            self.dead_letter(number, None)
        return bool(held)

    def dead_letter(self, number: int, reason: str | None) -> None:
        """Moves one message to wherever its queue's dead-letter exchange leads. Nowhere: it is held, not lost. No
        exchange: it is dropped."""
        row = self._run("read_message", id=number).fetchone()
        if row is None:
            return
        _, queue_id, _, exchange, key, properties = row
        queue = self.by_id[queue_id].queue
        if queue.dead_letter_exchange is not None:
            if reason is not None:
                properties = _with_death(properties, reason, queue.name, exchange, key)
            new_key = queue.dead_letter_key or key
            targets = self.routes.targets(queue.dead_letter_exchange, new_key)
            if not targets:
                self._run("hold_message", id=number, properties=properties)
                return
            for target in targets:
                self._run(
                    "copy_message",
                    id=number,
                    queue=target,
                    exchange=queue.dead_letter_exchange,
                    routing_key=new_key,
                    properties=properties,
                )
                self.copied = True
        self._run("drop_message", id=number)


def _with_death(properties: str | None, reason: str, queue: str, exchange: str, key: str) -> str:
    """Adds the headers RabbitMQ adds: `x-death`, newest first, and `x-first-death-*`."""
    document: dict[str, Any] = {} if properties is None else orjson.loads(properties)
    headers: dict[str, Any] = document.setdefault("headers", {})
    deaths: list[dict[str, Any]] = headers.get("x-death", [])
    same = next((d for d in deaths if d["queue"] == queue and d["reason"] == reason), None)
    if same is None:
        same = {"queue": queue, "reason": reason, "exchange": exchange, "routing-keys": [key], "count": 0}
    same["count"] += 1
    headers["x-death"] = [same, *(d for d in deaths if d is not same)]
    headers.setdefault("x-first-death-reason", reason)
    headers.setdefault("x-first-death-queue", queue)
    headers.setdefault("x-first-death-exchange", exchange)
    return orjson.dumps(document).decode()
