"""Says again and again where the audit's chains stand, in the log lines: whoever keeps those elsewhere can show later
that a tail was cut off, which a chain alone cannot. Runs where the read models are written.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from contracts.problems import Unavailable
from engine.endless import Endless
from engine.logs import logger
from engine.store import Store
from projections.verifying import heads


class Heads:
    """One per process that projects. A chain that has not moved is not named again."""

    def __init__(self, store: Store, *, seconds: float) -> None:
        self._store, self._seconds = store, seconds
        self._told: dict[str, int] = {}
        self._lines = logger("audit")
        self._work = Endless()

    async def start(self) -> None:
        self._work.begin("audit-heads", self._run())

    async def stop(self) -> None:
        await self._work.end()

    def failed(self) -> BaseException | None:
        return self._work.failed()

    async def tell(self) -> None:
        """One line, `audit_head`, per tenant whose chain has moved since the last."""
        for head in await heads(self._store):
            if self._told.get(head.tenant) != head.number:
                self._told[head.tenant] = head.number
                self._lines.info("audit_head", tenant_id=head.tenant, number=head.number, hash=head.hash)

    async def _run(self) -> None:
        while True:
            with suppress(Unavailable):
                await self.tell()
            await asyncio.sleep(self._seconds)
