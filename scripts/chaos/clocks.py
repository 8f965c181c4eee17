"""An engine on a machine whose clock is wrong: a process of the site runs for a while with libfaketime preloaded. What
it waits by, the monotonic clock, is left alone, as it is on a machine whose wall clock was set wrongly.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from scripts.chaos.site import START_SECONDS, Site
from scripts.provision import NoServers
from scripts.provision.sources import faketime

WRONG_SECONDS: Final = 300
SERVING_SECONDS: Final = 4.0
"""Longer than the sleeps and waits of its runs."""


def missing() -> str:
    try:
        faketime()
    except NoServers as why:
        return str(why)
    return ""


async def skew_clock(site: Site) -> float:
    """One of the engines that own runs serves with a clock five minutes ahead or behind, then with its own again."""
    child, sign = site.random.choice(site.engines[:2]), site.random.choice("+-")
    own = child.environment
    wrong = {
        "LD_PRELOAD": str(faketime()),
        "FAKETIME": f"{sign}{WRONG_SECONDS}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    try:
        await child.end()
        child.environment = own | wrong
        await child.start()
        await asyncio.sleep(SERVING_SECONDS)
    finally:
        child.environment = own
    await child.end()
    began = time.monotonic()
    took = await child.start()
    await site.until_ready(START_SECONDS)
    return time.monotonic() - began - took
