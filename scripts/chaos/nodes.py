"""Faults of a RabbitMQ of three nodes: one is killed, or cut off from the two others. Processes that were connected to
it find another one by their wires, as they would behind a balancer.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from contracts.problems import Unavailable
from scripts.chaos.site import SERVER_SECONDS, Site
from scripts.provision.cluster import NODES, RabbitmqCluster

GONE_SECONDS: Final = 5.0
"""Without the node; the site must serve meanwhile."""


async def kill_node(site: Site) -> float:
    """kill -9 of one node; served by the two others, which is what is measured, until it has come back."""
    assert site.cluster is not None
    node = site.random.choice(site.cluster.nodes)
    await asyncio.to_thread(node.kill)
    took = await site.until_ready(SERVER_SECONDS)
    await asyncio.sleep(GONE_SECONDS)
    await asyncio.to_thread(node.start)
    await _until_whole(site.cluster)
    await site.until_ready(SERVER_SECONDS)
    return took


async def partition(site: Site) -> float:
    """One node is cut off and pauses, being the minority; the site goes on with the majority, and that is measured.
    Then the network is whole again.
    """
    assert site.cluster is not None
    node = site.random.choice(site.cluster.nodes)
    await asyncio.to_thread(site.cluster.cut_off, node)
    await _until_paused(node.port)
    took = await site.until_ready(SERVER_SECONDS)
    await asyncio.sleep(GONE_SECONDS)
    await asyncio.to_thread(site.cluster.rejoin, node)
    await _until_whole(site.cluster)
    await site.until_ready(SERVER_SECONDS)
    return took


async def _until_paused(port: int) -> None:
    """Until the node takes no connection: those that it had are lost then."""
    async with asyncio.timeout(SERVER_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.1)


async def _until_whole(cluster: RabbitmqCluster) -> None:
    deadline = time.monotonic() + SERVER_SECONDS
    while len(await asyncio.to_thread(cluster.members)) < NODES:
        if time.monotonic() > deadline:
            raise Unavailable(f"the cluster was not whole again after {SERVER_SECONDS:g} s")
        await asyncio.sleep(0.5)
