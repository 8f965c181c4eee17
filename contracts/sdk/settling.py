"""How deliveries of one subscription are settled: acknowledgements gather, so that contiguous ones travel as one frame.

Each time acknowledgements travel the broker writes to its disk, which often is the database's too. Whoever dies
meanwhile is given again what its inbox knows already. Used by `contracts.sdk.module` and the engine's intake.
"""

from __future__ import annotations

import asyncio
from typing import Final

from contracts.sdk.transport import Consumer, Delivery

ACK_SECONDS: Final = 0.05
"""So long acknowledgements wait for others to travel with."""
ACKS_AT_ONCE: Final = 100
"""So many wait for no others; fewer where that would be more than half of what the broker hands out at once."""


class Settling:
    """Settles through the consumer that `attach` names; what comes before is kept until then."""

    def __init__(self, prefetch: int) -> None:
        self._consumer: Consumer | None = None
        self._at_once = max(1, min(ACKS_AT_ONCE, prefetch // 2))
        self._done: list[Delivery] = []
        self._refused: list[Delivery] = []
        self._due: asyncio.TimerHandle | None = None

    def attach(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.flush()

    def ack(self, delivery: Delivery) -> None:
        self._done.append(delivery)
        if len(self._done) == self._at_once:
            asyncio.get_running_loop().call_soon(self.flush)
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(ACK_SECONDS, self.flush)

    def reject(self, delivery: Delivery) -> None:
        """To the queue's dead-letter exchange, at once."""
        self._refused.append(delivery)
        self.flush()

    def flush(self) -> None:
        """Settles now what has gathered: call it before the consumer is stopped."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._consumer is None:
            return
        done, self._done = self._done, []
        refused, self._refused = self._refused, []
        if done:
            self._consumer.ack(done)
        for delivery in refused:
            self._consumer.reject(delivery, requeue=False)
