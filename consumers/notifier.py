"""Delivers notices to outlets: claims what is due, signs it, sends it by the owner's outbound rules and rate, and keeps
what became of it. One in each process with the relay role.

    5 s, 30 s, 2 min, 10 min, 30 min, 1 h, 2 h, 4 h, 8 h, 8 h      pauses between attempts: a day in all

A claim is a lease, so what a dying process had in hand is sent again by another, under the same webhook-id. An answer
2xx is taken for delivered, 410 for gone for good, everything else for a failure; Retry-After is honoured. An outlet
that has taken nothing for a day is disabled. What is put off by the owner's rate is no attempt.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Final

from contracts.calls import MOST_WAIT_SECONDS
from contracts.problems import Problem, Unavailable
from contracts.version import __version__
from engine.actions.retry_after import retry_after
from engine.clock import Clock
from engine.endless import Endless
from engine.guards.egress import Egress, EgressFailed, EgressLimited, EgressRefused, EgressTimeout, Response
from engine.logs import logger
from engine.metrics import Metrics
from engine.outlets import LEASE, Outlets
from engine.store import Outlet, OutletDelivery, OutletRows, OutletState

PAUSES_SECONDS: Final = (5.0, 30.0, 120.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0, 28_800.0)
FAILING: Final = timedelta(seconds=sum(PAUSES_SECONDS))
"""After so long without a success an outlet is disabled: with the last attempt at the first notice that it refused."""
KEPT: Final = timedelta(days=30)
"""How long what became of a delivery is kept."""
AT_ONCE: Final = 50
"""Requests under way in this process, and of one outlet:"""
AT_ONCE_EACH: Final = 5
REQUEST_SECONDS: Final = 15.0
"""Well within the lease: name, turn, request and answer."""
POLL_SECONDS: Final = 1.0
PRUNE_SECONDS: Final = 3_600.0
PRUNED: Final = 10_000
"""So many deliveries are forgotten at once."""

_log = logger("notifier")


class Notifier:
    """`wake` is called when something is due at once."""

    def __init__(self, rows: OutletRows, outlets: Outlets, egress: Egress, clock: Clock, metrics: Metrics) -> None:
        self._rows, self._outlets, self._egress, self._clock, self._metrics = rows, outlets, egress, clock, metrics
        self._wake = asyncio.Event()
        self._work = Endless()
        self._sending: set[asyncio.Task[None]] = set()
        self._busy: Counter[str] = Counter()

    async def start(self) -> None:
        self._work.begin("notifier", self._run())
        self._work.begin("notifier-pruning", self._prune())

    async def stop(self) -> None:
        """What is under way is cut off: its lease ends, and it is sent again."""
        await self._work.end()
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    def wake(self) -> None:
        self._wake.set()

    def failed(self) -> BaseException | None:
        return self._work.failed()

    async def flush(self) -> int:
        """Begins to send what is due; answers how much."""
        room = AT_ONCE - len(self._sending)
        if room <= 0:
            return 0
        now = self._clock.now()
        busy = [place for place, count in self._busy.items() if count >= AT_ONCE_EACH]
        due = await self._rows.claim_deliveries(
            now=now, lease_until=now + LEASE, busy=busy, each=AT_ONCE_EACH, limit=room
        )
        for delivery in due:
            task = asyncio.create_task(self._send(delivery), name="notice")
            self._sending.add(task)
            task.add_done_callback(self._sent)
        return len(due)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            _log.error("notice_not_settled", error=type(task.exception()).__name__)

    async def _send(self, delivery: OutletDelivery) -> None:
        place = f"{delivery.tenant}/{delivery.outlet}"
        self._busy[place] += 1
        try:
            outlet = await self._rows.outlet(delivery.tenant, delivery.outlet)
            if outlet is not None and outlet.enabled:
                await self._deliver(outlet, delivery)
        except Unavailable:
            pass  # the lease ends, and it is sent again
        finally:
            self._busy[place] -= 1
            if not self._busy[place]:
                del self._busy[place]

    async def _deliver(self, outlet: Outlet, delivery: OutletDelivery) -> None:
        try:
            made = await self._outlets.message(outlet, delivery)
        except Unavailable:
            raise
        except Problem as problem:
            made, lost = None, problem.code
        else:
            lost = "erased"
        if made is None:
            await self._settle(delivery, state="failed", error=lost)
            return
        headers, body = made
        wait = None
        response: Response | None = None
        try:
            response = await self._egress.request(
                "POST",
                self._outlets.check(outlet.url),
                headers={**headers, "User-Agent": f"unwind/{__version__}"},
                body=body,
                seconds=REQUEST_SECONDS,
                tenant=outlet.tenant,
            )
        except EgressLimited as limited:
            due = self._clock.now() + timedelta(seconds=limited.seconds)
            await self._rows.settle_delivery(replace(delivery, due_at=due, error=limited.code))
            self._metrics.outlet_deliveries.of("limited").inc()
            return
        except (EgressRefused, EgressTimeout, EgressFailed) as failed:
            error = failed.code
        else:
            if 200 <= response.status < 300:
                await self._settle(delivery, state="delivered", status=response.status)
                await self._rows.note_outlet(outlet.tenant, outlet.name, failed=False, now=self._clock.now())
                return
            error = f"http_{response.status}"
            wait = retry_after(response.status, response.headers, now=self._clock.now())
        await self._failed(outlet, delivery, error, response, wait)

    async def _failed(
        self, outlet: Outlet, delivery: OutletDelivery, error: str, response: Response | None, wait: float | None
    ) -> None:
        now, attempts = self._clock.now(), delivery.attempts + 1
        status = None if response is None else response.status
        since = await self._rows.note_outlet(outlet.tenant, outlet.name, failed=True, now=now) or now
        if status == 410 or attempts > len(PAUSES_SECONDS):
            await self._settle(delivery, state="failed", status=status, error=error)
        else:
            pause = max(PAUSES_SECONDS[attempts - 1], min(wait or 0.0, MOST_WAIT_SECONDS))
            due = now + timedelta(seconds=pause)
            await self._rows.settle_delivery(
                replace(delivery, attempts=attempts, due_at=due, status=status, error=error)
            )
            self._metrics.outlet_deliveries.of("retried").inc()
        _log.info("notice_refused", tenant_id=outlet.tenant, outlet=outlet.name, error=error, attempt=attempts)
        if status == 410:
            await self._outlets.disable(outlet, "gone", since)
        elif now - since >= FAILING:
            await self._outlets.disable(outlet, "failing", since)

    async def _settle(
        self, delivery: OutletDelivery, *, state: OutletState, status: int | None = None, error: str | None = None
    ) -> None:
        now = self._clock.now()
        await self._rows.settle_delivery(
            replace(
                delivery,
                state=state,
                attempts=delivery.attempts + 1,
                due_at=now,
                status=status,
                error=error,
                settled_at=now,
            )
        )
        self._metrics.outlet_deliveries.of(state).inc()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                begun = await self.flush()
            except Unavailable:
                begun = 0
            if not begun:
                try:
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _prune(self) -> None:
        while True:
            try:
                while await self._rows.prune_deliveries(before=self._clock.now() - KEPT, limit=PRUNED) == PRUNED:
                    pass
            except Unavailable:
                pass
            await asyncio.sleep(PRUNE_SECONDS)
