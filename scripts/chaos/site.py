"""An installation to break: engine processes of two kinds, two of each, and a module, over servers of its own or
embedded. It starts what was killed, sends orders that are never given up, and watches memory, processor and log.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import aiohttp
import orjson

from contracts.envelope import Envelope
from contracts.manifest import Module
from contracts.problems import Unavailable
from contracts.sdk.transport import EVENTS_EXCHANGE, Message, Published, Transport, open_transport
from engine.settings import load
from scripts.chaos.wire import AmqpTalk, PostgresTalk, Wire
from scripts.provision import Servers
from scripts.provision.cluster import RabbitmqCluster
from scripts.provision.disk import SmallDisk
from scripts.simulation import workload

ROOT: Final = Path(__file__).resolve().parents[2]
START_SECONDS: Final = 60.0
SERVER_SECONDS: Final = 90.0
OWNING: Final = "intake,worker,relay,timer,janitor"
SHOWING: Final = "projector,web"
SENT_AT_ONCE: Final = 500
WIRED: Final = (0, 2)
"""The engines, one of each kind, that reach their servers over wires which can be broken; the others go straight."""


@dataclass(slots=True)
class Child:
    """One process of the site; `said` is the file of its log."""

    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    said: Path
    process: asyncio.subprocess.Process | None = None
    url: str = ""
    started: int = 0

    async def start(self) -> float:
        """Seconds until it served."""
        began = time.monotonic()
        self.started += 1
        with self.said.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *self.arguments, cwd=ROOT, env=self.environment,
                stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self.process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = await self.process.stdout.readline()
        if not line:
            raise Unavailable(f"{self.name} did not start: {self.said.read_text()[-400:]}")
        if line.startswith(b"{"):
            self.url = orjson.loads(line)["url"]
        return time.monotonic() - began

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def kill(self) -> None:
        """kill -9."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def end(self) -> None:
        """SIGTERM, and kill -9 for what does not go."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(30):
                await self.process.wait()
        except TimeoutError:
            await self.kill()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def ready(self) -> bool:
        if not self.url:
            return self.process is not None and self.process.returncode is None
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            patience = aiohttp.ClientTimeout(total=2)
            async with aiohttp.ClientSession(timeout=patience) as session, session.get(self.url + "/readyz") as answer:
                return answer.status == 200
        return False

    def resident_bytes(self) -> int:
        """0 when it is not there."""
        with suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0

    def processor_seconds(self) -> float:
        with suppress(OSError, IndexError):
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0


class Site:
    """`servers` None: the embedded stack, whose engine is one process."""

    def __init__(
        self, folder: Path, servers: Servers | None, random: Random, *, crowd: int, disk: SmallDisk | None = None
    ) -> None:
        self.folder, self.servers, self.random = folder, servers, random
        self.disk = disk
        """What holds PostgreSQL's data, or all of an embedded site, where it can be filled."""
        self.crowd = crowd
        """How many runs a fan-out wakes."""
        self.crowded: list[tuple[datetime, datetime, datetime, datetime]] = []
        """Of each fan-out: since when it was calm, when its visitors began to come, when the gate was opened, and when
        it was over.
        """
        self.bus_url = servers.rabbitmq_url if servers is not None else f"embedded://{folder / 'bus.db'}"
        self.effects = folder / "stock.db"
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("UNWIND_") and name not in ("DATABASE_URL", "AMQP_URL")
        } | {
            "UNWIND_DATA_DIR": str(folder),
            "UNWIND_HTTP__PORT": "0",
            "UNWIND_HTTP__PROBE_PORT": "0",
            "UNWIND_MODULES": "none",
            "UNWIND_LEASE__HEARTBEAT_SECONDS": "0.5",
            "UNWIND_LEASE__DEAD_SECONDS": "2",
        }
        if servers is not None:
            self.environment |= {"UNWIND_DATABASE_URL": servers.postgres_url, "UNWIND_BUS_URL": self.bus_url}
        self.settings = load(
            data_dir=folder,
            database_url=None if servers is None else servers.postgres_url,
            bus_url=None if servers is None else self.bus_url,
            http={"port": 0, "probe_port": 0},
        )
        self.engines: list[Child] = []
        self.modules: list[Child] = []
        self.sent: list[Envelope] = []
        self.taken = 0
        """Messages that the broker has confirmed to the sender of orders."""
        self.poisoned = 0
        self.found: list[str] = []
        """What a fault saw that must not be, while it lasted."""
        self.postgres_wires: dict[str, Wire] = {}
        self.rabbitmq_wires: dict[str, Wire] = {}
        """By the name of the process behind each."""
        self._transport: Transport | None = None
        self._sending: asyncio.Task[None] | None = None

    @property
    def cluster(self) -> RabbitmqCluster | None:
        """RabbitMQ, where it is three nodes."""
        return None if self.servers is None else self.servers.cluster

    @property
    def children(self) -> list[Child]:
        return [*self.engines, *self.modules]

    async def start(self) -> None:
        kinds = [OWNING, OWNING, SHOWING, SHOWING] if self.servers is not None else ["all"]
        for number, roles in enumerate(kinds):
            name = f"engine-{number}"
            given = {} if roles == "all" else {"UNWIND_ROLES": roles}
            if self.servers is not None and number in WIRED:
                given["UNWIND_DATABASE_URL"] = await self._wired(name, self.servers.postgres_url, self.postgres_wires)
            if self._has_wire(number in WIRED):
                given["UNWIND_BUS_URL"] = await self._wired(name, self.bus_url, self.rabbitmq_wires)
            self.engines.append(self._child(name, ("scripts.chaos.engine",), given))
        bus_url = own = self.bus_url
        if self._has_wire(True):
            bus_url = await self._wired("module", bus_url, self.rabbitmq_wires)
        if self._has_wire(False):
            own = await self._wired("chaos", own, self.rabbitmq_wires)
        self.modules.append(self._child("module", ("scripts.chaos.module", bus_url, str(self.effects)), {}))
        await self.modules[0].start()
        await self.engines[0].start()
        await asyncio.gather(*(engine.start() for engine in self.engines[1:]))
        self._transport = open_transport(own, name="chaos")
        await self._transport.start()

    def _has_wire(self, breaks: bool) -> bool:
        """Whether a process reaches RabbitMQ over a wire: one that is to break, or the way to whichever node of a
        cluster is there.
        """
        return self.servers is not None and (breaks or self.cluster is not None)

    async def _wired(self, name: str, url: str, wires: dict[str, Wire]) -> str:
        """The address of a wire to the server at `url`, which begins to take connections."""
        there = urlsplit(url)
        ports = [there.port]
        if wires is self.rabbitmq_wires and self.cluster is not None:
            # Each process has a node of its own that it prefers, as behind a balancer.
            nodes, first = self.cluster.nodes, len(wires) % len(self.cluster.nodes)
            ports = [node.port for node in nodes[first:] + nodes[:first]]
        upstreams = [("127.0.0.1", port) for port in ports if port is not None]
        talk = PostgresTalk if wires is self.postgres_wires else AmqpTalk
        wires[name] = Wire(lambda: upstreams, talk)
        await wires[name].start()
        user, _, _ = there.netloc.rpartition("@")
        return urlunsplit(there._replace(netloc=f"{user}@127.0.0.1:{wires[name].port}"))

    def _child(self, name: str, arguments: tuple[str, ...], given: Mapping[str, str]) -> Child:
        environment = {**self.environment, "UNWIND_PROCESS_NAME": name, **given}
        return Child(name, arguments, environment, self.folder / f"{name}.log")

    async def stop(self) -> None:
        """Ends everything, whatever state it is in."""
        if self._sending is not None:
            self._sending.cancel()
        await asyncio.gather(*(child.end() for child in self.children))
        await asyncio.gather(*(wire.stop() for wire in (*self.postgres_wires.values(), *self.rabbitmq_wires.values())))
        if self._transport is not None:
            await self._transport.stop()

    # ------------------------------------------------------------------------------------------------ orders

    def begin_sending(self, pause_seconds: float) -> None:
        self._sending = asyncio.create_task(self._send_forever(pause_seconds))

    async def end_sending(self) -> None:
        """Sends what was begun to its confirm, and nothing more."""
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        for event in self.sent[-4:]:
            await self._send(event)

    async def _send_forever(self, pause_seconds: float) -> None:
        number = 0
        while True:
            for event in self._story(number):
                self.sent.append(event)
                for _ in range(2 if self.random.random() < 0.3 else 1):
                    await self._send(event)
            number += 1
            await asyncio.sleep(pause_seconds)

    def _story(self, number: int) -> list[Envelope]:
        random, order = self.random, f"o-{number}"
        waits = random.random() < 0.3
        placed = {
            "order_id": order,
            "fates": [random.choice(("ok", "ok", "ok", "1", "refused")) for _ in range(random.randint(1, 3))],
            "waits": waits,
            "naps": random.random() < 0.2,
            "together": random.random() < 0.4,
        }
        tenant = random.choice(workload.TENANTS)
        events = [self.event(workload.MODULE, workload.PLACED, tenant, placed, story=order)]
        if waits:
            events.append(self.event(workload.MODULE, workload.PAID, tenant, {"order_id": order}, story=order))
            if random.random() < 0.3:
                events.reverse()
        return events

    def event(self, module: Module, kind: str, tenant: str, data: dict[str, Any], *, story: str) -> Envelope:
        return Envelope(
            id=str(UUID(int=self.random.getrandbits(128))),
            source=module.source,
            type=kind,
            tenantid=tenant,
            time=datetime.now(UTC),
            data=data,
            correlationid=story,
        )

    async def _send(self, event: Envelope) -> None:
        """Until the broker has it."""
        await self.send_raw([Message(EVENTS_EXCHANGE, event.type, event.to_json(), mandatory=False)])

    async def send_raw(self, messages: Sequence[Message]) -> None:
        """Each until the broker has it, many at once."""
        assert self._transport is not None
        for start in range(0, len(messages), SENT_AT_ONCE):
            left = messages[start : start + SENT_AT_ONCE]
            while True:
                told = await self._transport.publish(left, deadline_seconds=3.0)
                left = [one for one, answer in zip(left, told, strict=True) if answer is not Published.CONFIRMED]
                self.taken += len(told) - len(left)
                if not left:
                    break
                await asyncio.sleep(0.2)

    async def retry(self, run_id: str, token: str) -> None:
        """An operator's word for a parked run; what has gone on meanwhile answers 409."""
        await self._ask(f"/v1/runs/{run_id}/retry", token, {}, (202, 404, 409))

    async def order(self) -> None:
        """Starts the run of an order of one part by the API, past the broker. Its one command will not be refused."""
        token = self.settings.admin_token_path.read_text(encoding="ascii").strip()
        number, tenant = self.random.getrandbits(64), self.random.choice(workload.TENANTS)
        placed = workload.OrderPlacedV1(order_id=f"a-{number:x}", fates=["ok"])
        path = f"/v1/workflows/{workload.order.name}/runs?tenant={tenant}"
        await self._ask(path, token, {"input": placed.model_dump()}, (202,))

    async def _ask(self, path: str, token: str, body: dict[str, Any], answers: Sequence[int]) -> None:
        """Raises `Unavailable` for another answer."""
        headers, url = {"Authorization": f"Bearer {token}"}, self.engines[-1].url + path
        async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=body) as answer:
            if answer.status not in answers:
                raise Unavailable(f"{path} was answered with {answer.status}: {await answer.text()}")

    # ------------------------------------------------------------------------------------------------ watching

    async def until_ready(self, seconds: float) -> float:
        """Seconds until every process serves again. Raises `Unavailable` when one does not."""
        began = time.monotonic()
        while True:
            ready = [await child.ready() for child in self.children]
            if all(ready):
                return time.monotonic() - began
            if time.monotonic() - began > seconds:
                late = [child.name for child, is_ready in zip(self.children, ready, strict=True) if not is_ready]
                raise Unavailable(f"{', '.join(late)} not ready after {seconds:g} s")
            await asyncio.sleep(0.05)

    @property
    def blocked(self) -> bool:
        """Whether the broker has asked the sender of orders to pause."""
        return self._transport is not None and self._transport.blocked

    def effects_done(self) -> int:
        """How many there are in the module's ledger."""
        with closing(sqlite3.connect(f"file:{self.effects}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM effects").fetchone()[0])

    def log_lines(self) -> int:
        return sum(child.said.read_bytes().count(b"\n") for child in self.children if child.said.exists())
