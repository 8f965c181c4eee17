"""Very many runs that wait for one fact: a tenant of its own sends visitors to a gate, each a run that waits, and opens
it. Meanwhile the other tenants' orders go on, and what they wait is measured.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, Final

from contracts.manifest import Event, EventModel, Module
from contracts.problems import Unavailable
from contracts.sdk.transport import EVENTS_EXCHANGE, Message
from engine.plan.code import Run, saga
from scripts.chaos.site import Site
from scripts.opening import opened_store
from scripts.simulation.workload import jot


class VisitorCameV1(EventModel):
    gate: str


class GateOpenedV1(EventModel):
    gate: str


_KEYS: Final = {"gate": "/gate"}
CROWD: Final = Module(
    name="crowd",
    version="1.0.0",
    events=(Event(VisitorCameV1, keys=_KEYS), Event(GateOpenedV1, keys=_KEYS)),
)
CAME: Final = "crowd.VisitorCameV1"
OPENED: Final = "crowd.GateOpenedV1"
TENANT: Final = "initech"
CALM_SECONDS: Final = 2.0
WAIT_SECONDS: Final = 300.0


@saga("visitor", version=1, on=CAME)
async def visitor(run: Run, came: Any) -> Any:
    await run.wait_for("opened", OPENED, key=("gate", came["gate"]))
    return await run.step("enter", jot, undo=None)


async def fan_out(site: Site) -> float:
    """`site.crowd` runs wait for one event. Seconds from that event to the end of the last of them."""
    gate = f"gate-{len(site.crowded)}"
    calm = datetime.now(UTC)
    await asyncio.sleep(CALM_SECONDS)
    began = datetime.now(UTC)
    visitors = [site.event(CROWD, CAME, TENANT, {"gate": gate}, story=gate) for _ in range(site.crowd)]
    site.sent += visitors
    await site.send_raw([Message(EVENTS_EXCHANGE, CAME, one.to_json(), mandatory=False) for one in visitors])
    async with opened_store(site.settings) as store:
        deadline = time.monotonic() + WAIT_SECONDS
        while (await store.census()).runs.get("waiting", 0) < site.crowd:
            if time.monotonic() > deadline:
                raise Unavailable(f"not all of {site.crowd} visitors wait after {WAIT_SECONDS:g} s")
            await asyncio.sleep(0.2)
        opened = site.event(CROWD, OPENED, TENANT, {"gate": gate}, story=gate)
        site.sent.append(opened)
        await site.send_raw([Message(EVENTS_EXCHANGE, OPENED, opened.to_json(), mandatory=False)])
        at = time.monotonic()
        while await store.open_runs(tenant=TENANT, limit=1):
            if time.monotonic() > at + WAIT_SECONDS:
                break  # what is left is judged with everything else
            await asyncio.sleep(0.1)
        took = time.monotonic() - at
    site.crowded.append((calm, began, opened.time, datetime.now(UTC)))
    return took
