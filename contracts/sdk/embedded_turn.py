"""One turn of the embedded bus: what a batch of requests becomes inside one transaction.

Settlements first, then the rare calls, then the backlog to whoever has room, then new messages, the last straight to a
consumer when nothing older waits. A turn writes to the file at once and to memory only what `Standing` may lose: a
turn that is rolled back is followed by a fresh look at the file. Called by `contracts.sdk.embedded_writer`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from contracts.sdk.embedded_file import BusFile, Ready
from contracts.sdk.transport import Message, Published

log = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
_RENEW_SECONDS = 10.0
_SWEEP_SECONDS = 1.0
_HAND_OVER_LIMIT = 1000


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
class Standing:
    """What lasts from turn to turn."""

    session: int = 0
    subscribers: dict[str, list[Subscriber]] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)
    """Queues in whose rows something ready may wait."""
    alone: bool = True
    """No other process was seen on this file."""
    sweep_at: float = 0.0
    renew_at: float = 0.0

    def mark_dirty(self, file: BusFile) -> None:
        self.dirty.update(file.by_id)

    def free(self) -> dict[Subscriber, int]:
        return {subscriber: subscriber.credit for there in self.subscribers.values() for subscriber in there}


@dataclass(slots=True)
class Turn:
    """What one transaction will have done, told to the callers only once it is committed."""

    file: BusFile
    standing: Standing
    now: float
    free: dict[Subscriber, int]
    """Room for further messages, by consumer."""
    handed: dict[Subscriber, list[Ready]] = field(default_factory=lambda: defaultdict(list))
    answers: list[tuple[Publish, list[Published]]] = field(default_factory=list)
    calls: list[tuple[Call, Any, BaseException | None]] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    length: int = 0
    room: dict[int, int] = field(default_factory=dict)

    def do(self, batch: Sequence[Ask]) -> None:
        state = self.file.refresh(self.standing.session)
        if state.foreign:
            self.standing.mark_dirty(self.file)
        self._keep_session(state.session_lives)
        publishes = [asked for asked in batch if isinstance(asked, Publish)]
        self._settle([asked for asked in batch if isinstance(asked, Settle)])
        for asked in batch:
            if isinstance(asked, Call):
                self._call(asked)
        if self.now >= self.standing.sweep_at:
            self._sweep()
        self._hand_over_backlog()
        if publishes:
            number = self.file.refresh(self.standing.session).last_message if self.file.copied else state.last_message
            for publish in publishes:
                if not publish.abandoned:
                    number = self._publish(publish, number)
            if self.rows:
                self.file.insert(self.rows, b"".join(self.bodies))

    def _keep_session(self, lives: bool) -> None:
        """Renews the lease. A process that stood still past its lease was given up by the others: it begins anew,
        owning nothing."""
        if not lives:
            self.standing.session = self.file.open_session(self.now + LEASE_SECONDS)
            for subscriber in self.free:
                stored = self.file.queues.get(subscriber.queue)
                subscriber.number = self.file.open_consumer(self.standing.session, stored.id) if stored else 0
                self.free[subscriber] = subscriber.prefetch
            self.standing.mark_dirty(self.file)
        elif self.now >= self.standing.renew_at:
            self.file.renew_session(self.standing.session, self.now + LEASE_SECONDS)
            self.standing.renew_at = self.now + _RENEW_SECONDS

    def _settle(self, settles: Sequence[Settle]) -> None:
        done: dict[int, list[int]] = {}
        for settle in settles:
            subscriber = settle.subscriber
            if settle.number != subscriber.number or subscriber.closed:
                continue
            if settle.fate == "done":
                done.setdefault(settle.number, []).extend(settle.ids)
            elif settle.fate == "back":
                self.file.give_back(settle.number, settle.ids)
                self.standing.mark_dirty(self.file)
            else:
                self.file.refuse(settle.number, settle.ids)
                self.standing.mark_dirty(self.file)
            if subscriber in self.free:
                self.free[subscriber] += len(settle.ids)
        for number, ids in done.items():
            self.file.settle(number, ids)

    def _call(self, call: Call) -> None:
        try:
            value = call.work(self.file, self.standing.session)
        except sqlite3.Error:
            raise
        except Exception as error:
            # A refusal (a mismatch) is raised before anything is written, so the rest of the batch may go on.
            self.calls.append((call, None, error))
        else:
            self.calls.append((call, value, None))

    def _sweep(self) -> None:
        dead = self.file.dead_sessions(self.standing.session, self.now)
        for session in dead:
            log.info("session %d of the bus file %s is gone; its messages return", session, self.file.path)
            self.file.end_session(session)
        self.standing.alone = not self.file.others(self.standing.session)
        moved = self.file.expire(self.now)
        if self.file.retry_held() or dead or moved:
            self.standing.mark_dirty(self.file)
        self.standing.sweep_at = self.now + _SWEEP_SECONDS

    def _hand_over_backlog(self) -> None:
        claims: list[tuple[int, int]] = []
        for name, there in self.standing.subscribers.items():
            stored = self.file.queues.get(name)
            if stored is None or stored.id not in self.standing.dirty:
                continue
            wanted = min(sum(self.free[s] for s in there if not s.closed and s.number), _HAND_OVER_LIMIT)
            if wanted == 0:
                continue
            ready = self.file.ready(stored.id, wanted, self.now)
            if len(ready) < wanted:
                self.standing.dirty.discard(stored.id)
            for message in ready:
                subscriber = self._next(name)
                assert subscriber is not None
                self.handed[subscriber].append(message)
                claims.append((message.id, subscriber.number))
        if claims:
            self.file.own(claims)

    def _next(self, queue_name: str) -> Subscriber | None:
        """The next consumer in turn with room for one more; it is taken."""
        there = self.standing.subscribers.get(queue_name)
        if not there:
            return None
        for i, subscriber in enumerate(there):
            if self.free[subscriber] > 0 and subscriber.number and not subscriber.closed:
                self.free[subscriber] -= 1
                if len(there) > 1:
                    there.append(there.pop(i))
                return subscriber
        return None

    def _publish(self, publish: Publish, number: int) -> int:
        fates: list[Published] = []
        rows, bodies = self.rows, self.bodies
        for message, properties in zip(publish.messages, publish.properties, strict=True):
            targets = self.file.routes.targets(message.exchange, message.routing_key)
            if not targets:
                fates.append(Published.UNROUTABLE if message.mandatory else Published.CONFIRMED)
                continue
            if any(self._room(target) <= 0 for target in targets):
                fates.append(Published.REFUSED)
                continue
            fates.append(Published.CONFIRMED)
            body = bytes(message.body)
            expires_at = None if message.expiration_seconds is None else self.now + message.expiration_seconds
            for target in targets:
                number += 1
                # An older message of the queue may be waiting in the file: only a queue known to be empty is bypassed.
                direct = None if target in self.standing.dirty else self._next(self.file.by_id[target].queue.name)
                if direct is None:
                    self.standing.dirty.add(target)
                    self.room[target] -= 1
                else:
                    self.handed[direct].append(
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
                        self.length + 1,
                        len(body),
                    ]
                )
            bodies.append(body)
            self.length += len(body)
        self.answers.append((publish, fates))
        return number

    def _room(self, target: int) -> int:
        room = self.room.get(target)
        if room is None:
            limit = self.file.by_id[target].queue.max_length
            room = 1 << 62 if limit is None else limit - self.file.count_ready(target, limit)
            self.room[target] = room
        return room
