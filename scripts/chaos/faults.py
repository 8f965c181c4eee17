"""What may happen to a site, by name: a fault breaks something and mends it again, and answers how long the site took
to serve again once it was mended.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

from contracts.sdk.transport import EVENTS_EXCHANGE, Message
from scripts.chaos import alarms, clocks, losses, nodes
from scripts.chaos.crowd import fan_out
from scripts.chaos.site import SERVER_SECONDS, START_SECONDS, Child, Site
from scripts.provision import disk

FULL_SECONDS: Final = 3.0
Place = Literal["process", "server", "wire", "input"]


@dataclass(frozen=True, slots=True)
class Fault:
    """`kills` counts it among the kills; `servers`: only where there are servers to break. `bound_seconds` is what the
    recovery is held against.
    """

    name: str
    says: str
    place: Place
    cause: Callable[[Site], Awaitable[float]]
    bound_seconds: float
    kills: bool = False
    servers: bool = False
    clustered: bool = False
    """Only where RabbitMQ is three nodes."""
    missing: Callable[[], str] = lambda: ""
    """Why it cannot be done on this machine; it is then left out, and named."""
    prepare: Callable[[], None] = lambda: None
    """What this process must do first to be able to, before it has threads."""


async def kill_engine(site: Site) -> float:
    return await _kill(site, site.random.choice(site.engines))


async def kill_module(site: Site) -> float:
    return await _kill(site, site.modules[0])


async def _kill(site: Site, child: Child) -> float:
    """kill -9, and at once another in its place: until it serves, less what any process takes to start."""
    await child.kill()
    began = time.monotonic()
    took = await child.start()
    await site.until_ready(START_SECONDS)
    return time.monotonic() - began - took


async def freeze_engine(site: Site) -> float:
    """SIGSTOP for longer than its lease: others take its runs over, then it wakes up among them."""
    child = site.random.choice(site.engines)
    child.signal(signal.SIGSTOP)
    await asyncio.sleep(3.0)
    child.signal(signal.SIGCONT)
    return await site.until_ready(START_SECONDS)


async def kill_postgres(site: Site) -> float:
    """kill -9 of the server and everything below it."""
    assert site.servers is not None
    server = site.servers.postgres
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(1.0)
    await asyncio.to_thread(server.start)
    return await site.until_ready(SERVER_SECONDS)


async def restart_postgres(site: Site) -> float:
    assert site.servers is not None
    server = site.servers.postgres
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    return await site.until_ready(SERVER_SECONDS)


async def kill_rabbitmq(site: Site) -> float:
    assert site.servers is not None
    server = site.servers.rabbitmq
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(1.0)
    await asyncio.to_thread(server.start)
    return await site.until_ready(SERVER_SECONDS)


async def full_disk(site: Site) -> float:
    """Nothing can be written to the disk of the database; PostgreSQL may end for want of it, and is started once there
    is room again, as a service manager would.
    """
    assert site.disk is not None
    await asyncio.to_thread(site.disk.fill)
    await asyncio.sleep(FULL_SECONDS)
    await asyncio.to_thread(site.disk.free)
    began = time.monotonic()
    if site.servers is not None and not site.servers.postgres.running:
        await asyncio.to_thread(site.servers.postgres.kill)
        await asyncio.to_thread(site.servers.postgres.start)
    await site.until_ready(SERVER_SECONDS)
    return time.monotonic() - began


async def poison(site: Site) -> float:
    """A message that nobody can read, one that is too large, one too deep, and one of a type that nobody declares."""
    deep = b'{"a":' * 5_000 + b"1" + b"}" * 5_000
    bodies = (b"\x00not json", b'{"x":"' + b"y" * 400_000 + b'"}', deep, b'{"specversion":"1.0"}')
    await site.send_raw([Message(EVENTS_EXCHANGE, "stock.OrderPlacedV1", body, mandatory=False) for body in bodies])
    site.poisoned += len(bodies)
    return await site.until_ready(START_SECONDS)


FAULTS: Final = (
    Fault("kill-engine", "kill -9 of an engine process", "process", kill_engine, 5.0, kills=True),
    Fault("kill-module", "kill -9 of a module's process", "process", kill_module, 5.0, kills=True),
    Fault("freeze-engine", "SIGSTOP for longer than a lease, then SIGCONT", "process", freeze_engine, 5.0),
    Fault("kill-postgres", "kill -9 of PostgreSQL", "server", kill_postgres, 15.0, kills=True, servers=True),
    Fault("restart-postgres", "PostgreSQL stopped and started", "server", restart_postgres, 15.0, servers=True),
    Fault("kill-rabbitmq", "kill -9 of RabbitMQ", "server", kill_rabbitmq, 15.0, kills=True, servers=True),
    Fault("alarm-memory", "a memory alarm of RabbitMQ", "server", alarms.alarm_memory, 15.0, servers=True),
    Fault("alarm-disk", "a disk alarm of RabbitMQ", "server", alarms.alarm_disk, 15.0, servers=True),
    Fault(
        "full-disk",
        "a full disk below the database",
        "server",
        full_disk,
        15.0,
        missing=disk.missing,
        prepare=disk.prepare,
    ),
    Fault(
        "skew-clock",
        "an engine whose clock is five minutes wrong",
        "process",
        clocks.skew_clock,
        5.0,
        servers=True,
        missing=clocks.missing,
    ),
    Fault("lose-commit", "a commit whose answer never comes", "wire", losses.lose_commit, 5.0, servers=True),
    Fault("cut-commit", "cut before a write reaches PostgreSQL", "wire", losses.cut_commit, 5.0, servers=True),
    Fault("lose-confirm", "a message whose confirm never comes", "wire", losses.lose_confirm, 5.0, servers=True),
    Fault("cut-publish", "cut before a message reaches RabbitMQ", "wire", losses.cut_publish, 5.0, servers=True),
    Fault("lose-ack", "an acknowledgement that never reaches RabbitMQ", "wire", losses.lose_ack, 5.0, servers=True),
    Fault(
        "hold-postgres", "a wire to PostgreSQL that holds all bytes", "wire", losses.hold_postgres, 5.0, servers=True
    ),
    Fault("hold-rabbitmq", "a wire to RabbitMQ that holds all bytes", "wire", losses.hold_rabbitmq, 15.0, servers=True),
    Fault("refuse-postgres", "connections to PostgreSQL refused", "wire", losses.refuse_postgres, 5.0, servers=True),
    Fault("refuse-rabbitmq", "connections to RabbitMQ refused", "wire", losses.refuse_rabbitmq, 5.0, servers=True),
    Fault(
        "kill-node",
        "kill -9 of one of three RabbitMQ nodes; the others serve",
        "server",
        nodes.kill_node,
        15.0,
        kills=True,
        clustered=True,
    ),
    Fault(
        "partition",
        "one of three RabbitMQ nodes cut off; the others serve",
        "server",
        nodes.partition,
        15.0,
        clustered=True,
    ),
    Fault("fan-out", "one event that wakes very many runs, to the end of the last", "input", fan_out, 60.0),
    Fault("poison", "messages that nobody can read or take", "input", poison, 5.0),
)

NOT_HERE: Final = ("a power cut, or a disk that lies about what it has written",)
"""What this command does not do, in words; it is said with every report."""
