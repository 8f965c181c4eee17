"""What a module must still send: rows written in the transaction of their cause, sent after it, and deleted when the
bus has confirmed them.

    handler's transaction --put--> unwind_outbox (claimed by this process) --hand over--> Relay --confirmed--> deleted
                                        \\--the process died: the claim runs out--> any process's Relay

An event is sent at least once under one event id; receivers know it again. Called by `contracts.sdk.module`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from contracts.sdk.database import Database, DatabaseUnavailable, Row, Tx
from contracts.sdk.statements import statements
from contracts.sdk.tally import Tally
from contracts.sdk.tracing import Tracing
from contracts.sdk.transport import Message, Published, Transport

log = logging.getLogger("unwind.module")

BATCH = 64
UNROUTED_SECONDS = 5.0
MAX_HANDED_OVER = 1024
"""Rows kept in memory between commit and send; beyond it they wait in the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One message to be written into the outbox. `reply` says that a run waits for it."""

    event_id: str
    exchange: str
    routing_key: str
    body: bytes
    reply: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """An outgoing message and its row."""

    id: int
    message: Outgoing


class Outbox:
    """Writes rows. Each belongs to this process's relay for `lease_seconds`; afterwards to whichever relay comes."""

    def __init__(self, database: Database, *, lease_seconds: float = 10.0) -> None:
        self.database = database
        self.lease = timedelta(seconds=lease_seconds)
        self.sql = statements(f"module.{database.dialect}.sql")

    async def put(self, tx: Tx, messages: Sequence[Outgoing], *, held: bool = True) -> list[Stored]:
        """`held` False: they are the first comer's, because the caller cannot hand them over."""
        until = _now() + self.lease if held else _now()
        stored: list[Stored] = []
        for message in messages:
            row = await tx.row(
                self.sql["put_outbox"],
                message.event_id,
                message.exchange,
                message.routing_key,
                message.body,
                message.reply,
                until,
            )
            assert row is not None
            stored.append(Stored(int(row["id"]), message))
        return stored

    async def remember(self, tx: Tx, outcome: tuple[Any, ...], messages: Sequence[Outgoing]) -> list[Stored]:
        """Writes what an order came to (`remember_outcome`'s values) and the rows of what is sent for it."""
        together = self.sql.get("remember_and_put")
        if together is None:
            await tx.run(self.sql["remember_outcome"], *outcome)
            return await self.put(tx, messages)
        rows = await tx.rows(
            together,
            *outcome,
            [message.event_id for message in messages],
            [message.exchange for message in messages],
            [message.routing_key for message in messages],
            [message.body for message in messages],
            [message.reply for message in messages],
            _now() + self.lease,
        )
        return [Stored(int(row["id"]), message) for row, message in zip(rows, messages, strict=True)]

    async def claim(self) -> list[Stored]:
        """Rows nobody holds: those whose sender died, and those that were put off and are due."""
        now = _now()
        async with self.database.transaction() as tx:
            rows = await tx.rows(self.sql["claim_outbox"], now, now + self.lease, BATCH)
        return sorted((_stored(row) for row in rows), key=lambda stored: stored.id)

    async def settle(self, sent: Sequence[Stored], put_off: Sequence[tuple[Stored, float]]) -> None:
        """Deletes what was sent; puts the others off by so many seconds."""
        async with self.database.transaction() as tx:
            if sent:
                await tx.run(self.sql["delete_outbox"], orjson.dumps([stored.id for stored in sent]).decode())
            for stored, delay_seconds in put_off:
                await tx.run(self.sql["release_outbox"], stored.id, _now() + timedelta(seconds=delay_seconds))

    async def count(self) -> int:
        async with self.database.transaction() as tx:
            row = await tx.row(self.sql["count_outbox"])
        return int(row["rows"]) if row is not None else 0


class Relay:
    """Sends what the outbox holds, in order, until stopped. One per process and module."""

    def __init__(
        self, outbox: Outbox, transport: Transport, tally: Tally, *, name: str, poll_seconds: float = 1.0
    ) -> None:
        self.tracing: Tracing | None = None
        self._tally = tally
        self._outbox = outbox
        self._transport = transport
        self._name = name
        self._poll_seconds = poll_seconds
        self._handed_over: deque[Stored] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failures = 0

    def hand_over(self, stored: Sequence[Stored]) -> None:
        """Call it after the commit that wrote them. What does not fit is found in the table when its claim runs out."""
        room = MAX_HANDED_OVER - len(self._handed_over)
        self._handed_over.extend(stored[:room])
        if stored:
            self._idle.clear()
            self._wake.set()

    async def drained(self, deadline_seconds: float) -> bool:
        """Waits until everything handed over is settled; False when the time ran out (the rows stay in the table)."""
        try:
            async with asyncio.timeout(deadline_seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        while True:
            batch = [self._handed_over.popleft() for _ in range(min(BATCH, len(self._handed_over)))]
            try:
                if not batch:
                    batch = await self._outbox.claim()
                self._failures = 0 if await self._send(batch) else self._failures + 1
            except DatabaseUnavailable as error:
                # Sent but not deleted, or not even claimed: the claims run out and the rows are sent again.
                self._failures += 1
                log.warning("%s: the outbox waits for the database: %s", self._name, error)
            if self._failures:
                await asyncio.sleep(min(5.0, 0.1 * 2.0 ** min(self._failures, 6)))
            elif not batch and not self._handed_over:
                self._idle.set()
                self._wake.clear()
                await self._woken()

    async def _woken(self) -> None:
        try:
            async with asyncio.timeout(self._poll_seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _send(self, batch: Sequence[Stored]) -> bool:
        """False when the bus took not all of what it could have taken: time to slow down."""
        if not batch:
            return True
        messages = [
            Message(stored.message.exchange, stored.message.routing_key, stored.message.body) for stored in batch
        ]
        began = _now()
        fates = await self._transport.publish(messages)
        if self.tracing is not None:
            for message, fate in zip(messages, fates, strict=True):
                self.tracing.published(message, fate, began, _now())
        sent: list[Stored] = []
        again: list[Stored] = []
        unrouted: list[Stored] = []
        for stored, fate in zip(batch, fates, strict=True):
            match fate:
                case Published.CONFIRMED:
                    sent.append(stored)
                    self._tally.add("sent")
                case Published.UNROUTABLE:
                    unrouted.append(stored)
                    self._tally.add("unroutable")
                case Published.REFUSED | Published.UNKNOWN:
                    again.append(stored)
        for stored in unrouted:
            log.error(
                "%s: %s %s (event id %s) reaches no queue; it is kept and tried again. Is the engine's topology "
                "declared, and does somebody listen?",
                self._name,
                "the reply" if stored.message.reply else "the fact",
                stored.message.routing_key,
                stored.message.event_id,
            )
        if again:
            log.warning("%s: the bus did not confirm %d of %d messages", self._name, len(again), len(batch))
        await self._outbox.settle(sent, [(stored, UNROUTED_SECONDS) for stored in unrouted] + [(s, 0.0) for s in again])
        return not again


def _stored(row: Row) -> Stored:
    return Stored(
        int(row["id"]),
        Outgoing(
            event_id=row["event_id"],
            exchange=row["exchange"],
            routing_key=row["routing_key"],
            body=bytes(row["body"]),
            reply=bool(row["reply"]),
        ),
    )


def _now() -> datetime:
    return datetime.now(UTC)
