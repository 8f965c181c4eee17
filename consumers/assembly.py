"""One process, read top to bottom: what it starts, in which order it lets go, when it is ready, and what ends it. It
decides nothing.

Every process has the store, the key ring and the bus (`consumers.process`); roles say what else it does
(`consumers.roles`): `intake` and `worker` own runs (with `timer` and `janitor` duties for them), `relay` sends,
`projector` writes the read models, `web` answers HTTP; any process answers /healthz, /readyz and /metrics.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from consumers.accounting import Accounting
from consumers.census import Census
from consumers.janitor import OWNING
from consumers.parts import Parts
from consumers.process import Process
from consumers.projector import Projector
from consumers.roles.owning import Owning
from consumers.roles.sending import start_sending
from consumers.roles.showing import start_showing
from consumers.watchdog import WATCHDOG_SECONDS, Watchdog
from contracts.manifest import Module
from contracts.problems import Unavailable
from engine.clock import Clock
from engine.loop import calm_collector
from engine.plan.code import Saga
from engine.settings import Settings

PING_SECONDS: Final = 1.0
"""Shorter than the store's own patience: a probe wants to know now."""


class Assembly:
    """One process. `start`, then `ready`, then `stop`; or `run_until_signal` for all three."""

    def __init__(
        self,
        settings: Settings,
        roles: Sequence[str] | None = None,
        *,
        clock: Clock | None = None,
        sagas: Sequence[Saga] | None = None,
        local_actions: Sequence[Any] = (),
        modules: Sequence[Module] = (),
        appends_at_once: int = 1,
    ) -> None:
        """`modules` are contracts beside the shipped and the installed ones. `appends_at_once` above 1 gives up group
        commit's order of one append after the other; it exists to be measured against."""
        self.process = Process(
            settings,
            roles,
            clock=clock,
            sagas=sagas,
            local_actions=local_actions,
            modules=modules,
            appends_at_once=appends_at_once,
        )
        self.url: str | None = None
        self._parts = Parts()
        self._owning: Owning | None = None
        self._projector: Projector | None = None
        self._draining = False
        self._watchdog: Watchdog | None = None
        self._owns_process = False

    # ---------------------------------------------------------------------------------------------------------- start

    async def start(self) -> None:
        """Opens the store, the key ring and the bus, then the roles. Raises what a person must mend: settings, key
        file, schema, an unreachable server."""
        # Heavy: loaded by the process that starts, not by who imports the wiring; and before it has an epoch, since it
        # does nothing else meanwhile, and who is not heard of is declared dead.
        from consumers.web import serve

        process, parts = self.process, self._parts
        await process.start(parts)
        if OWNING & set(process.roles):
            self._owning = Owning(process)
            await self._owning.start(parts)
        if "relay" in process.roles:
            await start_sending(process, parts)
        if "projector" in process.roles:
            self._projector = await start_showing(process, parts)
        # Stopped after all that it counts.
        await parts.begin(
            Accounting(process.store, process.accounts, process.clock, process.metrics), stopped_last=True
        )
        work, incidents = bool(OWNING & set(process.roles)), "web" in process.roles
        await parts.begin(
            Census(process.store, process.vault, process.clock, process.metrics, work=work, incidents=incidents)
        )
        # The API with the web role; the probes alone without it.
        server = await serve(process, self.checks)
        self.url = server.url
        parts.keep(server)
        if self._owns_process:
            calm_collector()
        self._watchdog = Watchdog(WATCHDOG_SECONDS if self._owns_process else None, process.metrics)
        await self._watchdog.start()

    # -------------------------------------------------------------------------------------------------- while it runs

    async def ready(self) -> None:
        """Waits until everything that was asked for answers."""
        deadline = time.monotonic() + self.process.settings.timeouts.start_seconds
        while not all(check["ok"] for check in (await self.checks()).values()):
            if time.monotonic() > deadline:
                raise Unavailable(f"not ready in time: {await self.checks()}")
            await asyncio.sleep(0.02)

    async def checks(self) -> dict[str, dict[str, Any]]:
        """What /readyz says, part by part."""
        process = self.process
        try:
            async with asyncio.timeout(PING_SECONDS):
                await process.store.ping()
            database: dict[str, Any] = {"ok": True}
        except Unavailable as problem:
            database = {"ok": False, "detail": problem.detail}
        except TimeoutError:
            database = {"ok": False, "detail": f"the database did not answer within {PING_SECONDS:g} s"}
        found = {"database": database, "bus": {"ok": process.transport.ready}, "accepting": {"ok": not self._draining}}
        resting = process.pauses.maintenance is not None
        if resting:
            found["maintenance"] = {"ok": True, "detail": "nothing is taken; `unwind maintenance end` ends it"}
        if self._owning is not None and "intake" in process.roles:
            found["intake"] = {"ok": resting or self._owning.taking}
        if self._projector is not None:
            found["projector"] = {"ok": not self._projector.stopped_views}
        return found

    def failure(self) -> BaseException | None:
        """The error that ended a part which should run for ever, if one has."""
        return self._parts.failure()

    async def run_until_signal(self, *, started: Callable[[Assembly], Awaitable[None]] | None = None) -> None:
        """Starts, serves until SIGTERM or SIGINT, drains. A second signal exits at once. Raises the error that ended
        a part."""
        self._owns_process = True
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def asked() -> None:
            if stop.is_set():
                os._exit(130)
            stop.set()

        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, asked)
        # A task, so that a signal and a part that dies are heard while the start waits or `started` works.
        opening = asyncio.create_task(self._open(started), name="opening")
        stopping = asyncio.create_task(stop.wait(), name="stopping")
        try:
            while not stopping.done():
                waiting = {stopping} if opening.done() else {opening, stopping}
                await asyncio.wait(waiting, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
                if opening.done():
                    opening.result()
                error = self.failure()
                if error is not None:
                    raise error
        finally:
            for task in (opening, stopping):
                task.cancel()
            await asyncio.gather(opening, stopping, return_exceptions=True)
            await self.stop()

    async def _open(self, started: Callable[[Assembly], Awaitable[None]] | None) -> None:
        await self.start()
        if started is not None:
            await started(self)

    # ---------------------------------------------------------------------------------------------------------- stop

    async def stop(self) -> None:
        """Takes nothing new, lets what is in hand reach the log, hands its runs back. Twice is fine."""
        if self._draining:
            return
        self._draining = True
        if self._owning is not None:
            await self._owning.rest()
        await self._parts.stop()
        if self._owning is not None:
            await self._owning.close()
        await self.process.close()
        if self._watchdog is not None:
            await self._watchdog.stop()
