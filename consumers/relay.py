"""From the outbox to the bus: claims messages, sends them in one window of confirms, deletes what the broker has taken.

A message that could not be confirmed stays and goes again, under the same event id: the far side dedups. One that no
queue is bound for is confirmed too: the exchange's alternate takes it to the engine's own queue, where intake buries it
with its reason, to be redriven once its module is there.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from contracts.problems import TenantOffboarded, Unavailable
from contracts.sdk.tracing import Tracing
from contracts.sdk.transport import EVENTS_EXCHANGE, Message, Published, Transport
from engine.clock import Clock
from engine.endless import Endless
from engine.metrics import Metrics
from engine.outlets import NOTICES, Outlets
from engine.store import OutboxRow, Store
from engine.store.keys import Erased, Vault
from engine.store.mapper import open_blob

POLL_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0


class Relay:
    """One per process with the relay role. `wake` is called after commits that wrote to the outbox."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        transport: Transport,
        epoch: int,
        clock: Clock,
        metrics: Metrics,
        *,
        batch: int = 500,
        deadline_seconds: float = 5.0,
        tracing: Tracing | None = None,
        outlets: Outlets | None = None,
    ) -> None:
        """`outlets` take the engine's notices before they are settled here, so that none is lost on the way outside."""
        self._store, self._vault, self._transport, self.epoch = store, vault, transport, epoch
        self._clock, self._metrics, self._batch, self._deadline = clock, metrics, batch, deadline_seconds
        self._tracing, self._outlets = tracing, outlets
        self._wake = asyncio.Event()
        self._work = Endless()

    async def start(self) -> None:
        self._work.begin("relay", self._run())

    async def stop(self) -> None:
        await self._work.end()

    def wake(self) -> None:
        self._wake.set()

    def failed(self) -> BaseException | None:
        return self._work.failed()

    async def flush(self) -> int:
        """Sends one batch; answers how many rows were claimed."""
        rows = await self._store.claim_outbox(self.epoch, limit=self._batch, now=self._clock.database_now())
        if not rows:
            return 0
        messages: list[Message] = []
        kept: list[OutboxRow] = []
        gone: list[int] = []
        for row in rows:
            try:
                keys = await self._vault.ready(row.tenant, [row.body])
            except TenantOffboarded:
                gone.append(row.id)
                continue
            body = open_blob(keys, "outbox", row.message_id, row.body)
            if isinstance(body, Erased):
                gone.append(row.id)
                continue
            kept.append(row)
            messages.append(
                Message(
                    exchange=row.exchange,
                    routing_key=row.routing_key,
                    body=body,
                    # While the alternate exchange is missing, a command comes back and goes again; it never vanishes.
                    mandatory=row.exchange != EVENTS_EXCHANGE,
                )
            )
        began = self._clock.now()
        answers = await self._transport.publish(messages, deadline_seconds=self._deadline)
        if self._tracing is not None:
            for message, answer in zip(messages, answers, strict=True):
                self._tracing.published(message, answer, began, self._clock.now())
        sent, again = list(gone), []
        for row, message, answer in zip(kept, messages, answers, strict=True):
            self._metrics.published.of(row.exchange, answer.value).inc()
            if answer is Published.CONFIRMED:
                if self._outlets is not None and row.routing_key.startswith(NOTICES):
                    await self._outlets.take(row.tenant, row.routing_key, row.message_id, message.body)
                sent.append(row.id)
            else:
                again.append(row.id)
        now = self._clock.now()
        await self._store.settle_outbox(sent, returned=again, retry_at=now + timedelta(seconds=RETRY_SECONDS))
        return len(rows)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                claimed = 0 if self._transport.blocked or not self._transport.ready else await self.flush()
            except Unavailable:
                claimed = 0
            if claimed < self._batch:
                try:
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass
