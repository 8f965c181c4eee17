"""Alarms of RabbitMQ: short of memory or of disk it takes no message until there is room again. Nothing new comes in
meanwhile, so every process must come to rest, and none may fill its log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Literal

from contracts.problems import Unavailable
from scripts.chaos.site import SERVER_SECONDS, Site
from scripts.provision.rabbitmq import alarms

Resource = Literal["memory", "disk"]

ASKING: Final[dict[Resource, str]] = {
    "memory": "vm_memory_monitor:get_memory_limit().",
    "disk": "rabbit_disk_monitor:get_disk_free_limit().",
}
SETTING: Final[dict[Resource, tuple[str, ...]]] = {
    "memory": ("set_vm_memory_high_watermark", "absolute"),
    "disk": ("set_disk_free_limit",),
}
BEYOND: Final[dict[Resource, str]] = {"memory": "1MB", "disk": "1000000GB"}
"""Limits that no broker keeps."""

SEEN_SECONDS: Final = 15.0
"""The broker looks at its disk every ten seconds at the latest."""

ORDERED: Final = 20
"""Orders by the API: their commands must wait for the end of the alarm."""

WATCHED_SECONDS: Final = 3.0
BUSY_SHARE: Final = 0.1
"""Of a core, by one process. At rest it needs a few hundredths; several that spin on a busy machine get little more."""

REST_SECONDS: Final = 30.0
"""What was in hand when the alarm began is done long before."""

LINES_PER_SECOND: Final = 10.0
"""In the logs of all processes together."""


async def alarm_memory(site: Site) -> float:
    return await _alarm(site, "memory")


async def alarm_disk(site: Site) -> float:
    return await _alarm(site, "disk")


async def _alarm(site: Site, resource: Resource) -> float:
    """Seconds from the end of the alarm until every process serves, the commands that waited for it have reached the
    module, and an order has been taken.
    """
    assert site.servers is not None
    tool, url = site.servers.rabbitmqctl, site.servers.rabbitmq.management_url
    former = (await asyncio.to_thread(tool, "eval", ASKING[resource])).strip()
    try:
        await asyncio.to_thread(tool, *SETTING[resource], BEYOND[resource])
        await _until(lambda: resource in alarms(url), f"RabbitMQ raised no {resource} alarm")
        await _until(lambda: site.blocked, "RabbitMQ held up no publisher")
        taken = site.taken
        await _come_to_rest(site, resource)
        done = site.effects_done()
        for _ in range(ORDERED):
            await site.order()
        await _come_to_rest(site, resource)
        passed = {"messages were taken": site.taken - taken, "commands came through": site.effects_done() - done}
        site.found += [f"alarm: {count} {what} under a {resource} alarm" for what, count in passed.items() if count]
    finally:
        clearing = asyncio.create_task(asyncio.to_thread(tool, *SETTING[resource], former))
        try:
            await _until(lambda: not alarms(url), f"the {resource} alarm did not end")
            taken, began = site.taken, time.monotonic()
        finally:
            await clearing
    await site.until_ready(SERVER_SECONDS)
    await _until(lambda: site.effects_done() >= done + ORDERED, "the commands did not reach the module after the alarm")
    await _until(lambda: site.taken > taken, "no order was taken after the alarm")
    return time.monotonic() - began


async def _come_to_rest(site: Site, resource: Resource) -> None:
    """Until no process is busy and no command reaches the module. Notes what goes on all the same, and a flooded
    log.
    """
    began, lines = time.monotonic(), site.log_lines()
    while True:
        used = {child.name: child.processor_seconds() for child in site.children}
        done, since = site.effects_done(), time.monotonic()
        await asyncio.sleep(WATCHED_SECONDS)
        now = time.monotonic()
        shares = {child.name: (child.processor_seconds() - used[child.name]) / (now - since) for child in site.children}
        restless = [f"{name} used {share:.0%} of a core" for name, share in shares.items() if share > BUSY_SHARE]
        if (more := site.effects_done() - done) > 0:
            restless.append(f"{more} commands reached the module")
        if not restless or now - began > REST_SECONDS:
            break
    site.found += [f"rest: {what} under a {resource} alarm" for what in restless]
    if (said := site.log_lines() - lines) > LINES_PER_SECOND * (now - began):
        site.found.append(f"log: {said} lines in {now - began:.0f} s under a {resource} alarm")


async def _until(holds: Callable[[], bool], complaint: str) -> None:
    """Asks again and again, in a thread since it may ask a server. Raises `Unavailable` with the complaint."""
    deadline = time.monotonic() + SEEN_SECONDS
    while not await asyncio.to_thread(holds):
        if time.monotonic() > deadline:
            raise Unavailable(f"{complaint} within {SEEN_SECONDS:g} s")
        await asyncio.sleep(0.05)
