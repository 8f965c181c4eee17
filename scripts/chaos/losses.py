"""Faults on the wire between one process and one server: what was done and never heard of, what never arrived, what
comes late, and what is refused. The other processes of the site reach their servers straight and go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from scripts.chaos.site import START_SECONDS, Site
from scripts.chaos.wire import Trap, Wire

SPRING_SECONDS: Final = 30.0
"""Orders come several times a second: what a trap waits for passes long before."""

HELD_SECONDS: Final = 3.0
"""Longer than the lease of a process: others have taken its runs over when its bytes arrive."""

REFUSED_SECONDS: Final = 2.0


async def lose_commit(site: Site) -> float:
    """PostgreSQL has committed; who wrote never hears of it."""
    return await _lose(site, site.postgres_wires, "answer")


async def cut_commit(site: Site) -> float:
    """The connection is cut before the write reaches PostgreSQL."""
    return await _lose(site, site.postgres_wires, "request")


async def lose_confirm(site: Site) -> float:
    """The broker has the message; who published it never hears of it."""
    return await _lose(site, _publishing(site), "answer")


async def cut_publish(site: Site) -> float:
    return await _lose(site, _publishing(site), "request")


async def lose_ack(site: Site) -> float:
    """What was dealt with is delivered again."""
    return await _lose(site, _publishing(site), "acknowledgement")


def _publishing(site: Site) -> dict[str, Wire]:
    """The wires of the owning engine and of the module; who only shows publishes nothing."""
    return {name: site.rabbitmq_wires[name] for name in (site.engines[0].name, site.modules[0].name)}


async def _lose(site: Site, wires: dict[str, Wire], what: str) -> float:
    async def lose(wire: Wire) -> None:
        await wire.lose(Trap(what, nth=site.random.randint(1, 6)), within_seconds=SPRING_SECONDS)

    return await _on_one(site, wires, lose)


async def hold_postgres(site: Site) -> float:
    return await _hold(site, site.postgres_wires)


async def hold_rabbitmq(site: Site) -> float:
    return await _hold(site, site.rabbitmq_wires)


async def _hold(site: Site, wires: dict[str, Wire]) -> float:
    async def hold(wire: Wire) -> None:
        """For longer than a lease; then the bytes arrive late, or never."""
        wire.hold()
        await asyncio.sleep(HELD_SECONDS)
        if site.random.random() < 0.5:
            wire.cut()
        wire.go_on()

    return await _on_one(site, wires, hold)


async def refuse_postgres(site: Site) -> float:
    return await _on_one(site, site.postgres_wires, _refuse)


async def refuse_rabbitmq(site: Site) -> float:
    return await _on_one(site, site.rabbitmq_wires, _refuse)


async def _refuse(wire: Wire) -> None:
    wire.refuse()
    await asyncio.sleep(REFUSED_SECONDS)
    await wire.start()


async def _on_one(site: Site, wires: dict[str, Wire], fault: Callable[[Wire], Awaitable[None]]) -> float:
    """The fault on one of the wires, whichever; answers the seconds until the site is ready again."""
    await fault(wires[site.random.choice(sorted(wires))])
    return await site.until_ready(START_SECONDS)
