"""An installation that processes may die in: engines as processes over one store and one bus, the outside world where
their effects leave traces, and the module that sends parcels. Used by the fault tests alone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from contracts.envelope import Envelope
from contracts.sdk import Call, Service, Tx, open_database, open_transport
from contracts.sdk.transport import EVENTS_EXCHANGE, Message, Published
from tests.faults.orders import PARCELS, ParcelRecalledV1, ParcelSentV1, RecallParcelV1, SendParcelV1, note
from tests.stories.house import until

PROGRAM = Path(__file__).with_name("engine_process.py")
TENANT = "acme"
PATIENCE_SECONDS = 45.0
PARTS = ["part-1/1", "part-2/1", "part-3/1"]

Record = dict[str, Any]


@dataclass(slots=True)
class Engine:
    """One engine process."""

    process: asyncio.subprocess.Process
    said: Path
    """The file that holds its standard error."""
    url: str = ""

    async def until_ready(self) -> None:
        """Returns when it serves, or when it has died before."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            line = await self.process.stdout.readline()
        if line:
            self.url = orjson.loads(line)["url"]

    async def ended(self) -> int:
        """Its return code, as soon as it has ended by itself."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.process.wait()

    async def lives_on(self, seconds: float) -> None:
        """Watches it for so long; it must not end."""
        ending = asyncio.ensure_future(self.process.wait())
        done, _ = await asyncio.wait([ending], timeout=seconds)
        ending.cancel()
        assert not done, self.said.read_text()[-4000:]

    async def died(self) -> None:
        """Waits for its own SIGKILL."""
        assert await self.ended() == -signal.SIGKILL, self.said.read_text()[-4000:]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def freeze(self) -> None:
        """SIGSTOP; returns when it stands still."""
        self.send(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    async def stop(self) -> None:
        """SIGTERM, to the end of its drain."""
        self.send(signal.SIGTERM)
        assert await self.ended() == 0, self.said.read_text()[-4000:]

    async def until_said(self, word: str) -> None:
        async def heard() -> str:
            return self.said.read_text()

        await until(heard, lambda text: word in text, seconds=PATIENCE_SECONDS)

    async def until_check(self, name: str, ok: bool) -> None:
        """Waits until /readyz says so about one of its checks."""

        async def look() -> Any:
            async with aiohttp.ClientSession() as session, session.get(self.url + "/readyz") as answer:
                return (await answer.json())["checks"].get(name, {}).get("ok")

        await until(look, lambda found: found is ok, seconds=PATIENCE_SECONDS)


@dataclass(slots=True)
class Effect:
    """Part 2 of a held order, being made."""

    pid: int
    key: str
    writer: asyncio.StreamWriter

    def answer(self) -> None:
        """Lets it be made."""
        self.writer.write(b"made\n")


@dataclass
class Site:
    """One installation; `engine` starts a process over it. The newest one is asked for what is shown."""

    folder: Path
    environment: dict[str, str]
    bus_url: str
    engines: list[Engine] = field(default_factory=list)
    front: Engine | None = None
    _answers: bool = False
    _asking: asyncio.Queue[Effect] = field(default_factory=asyncio.Queue)

    @classmethod
    @asynccontextmanager
    async def over(cls, folder: Path, servers: dict[str, str]) -> AsyncIterator[Site]:
        """An installation in this folder and over these servers, without an engine yet; whatever engines the test
        leaves behind are killed."""
        environment = {
            "UNWIND_DATA_DIR": str(folder),
            "UNWIND_HTTP__PORT": "0",
            "UNWIND_LEASE__HEARTBEAT_SECONDS": "0.3",
            "UNWIND_LEASE__DEAD_SECONDS": "1.0",
        }
        bus_url = servers.get("UNWIND_BUS_URL", f"embedded://{folder / 'bus.db'}")
        site = cls(folder, environment | servers, bus_url)
        outside = await asyncio.start_server(site._hear, "127.0.0.1", 0)
        site.environment["FAULTS_OUTSIDE"] = str(outside.sockets[0].getsockname()[1])
        try:
            yield site
        finally:
            for engine in site.engines:
                if engine.process.returncode is None:
                    engine.process.kill()
                await engine.process.wait()
            outside.close()

    # ------------------------------------------------------------------------------------------------ engines

    async def engine(self, place: str = "", **environment: str) -> Engine:
        """A process that serves, and dies at `place` if one is named."""
        engine = await self.launch(place, **environment)
        await engine.until_ready()
        self.front = engine
        return engine

    async def launch(self, place: str = "", **environment: str) -> Engine:
        """A process, not waited for."""
        said = self.folder / f"engine-{len(self.engines)}.log"
        with said.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(PROGRAM),
                *([place] if place else []),
                env=os.environ | self.environment | environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self.engines.append(Engine(process, said))
        return self.engines[-1]

    def engine_of(self, effect: Effect) -> Engine:
        """The process that makes it."""
        return next(engine for engine in self.engines if engine.process.pid == effect.pid)

    def freeze(self, engine: Engine) -> None:
        """Freezes it, but not in the middle of a write to the embedded bus: nobody else could publish then."""
        engine.freeze()
        while self._bus_is_being_written():
            engine.send(signal.SIGCONT)
            engine.freeze()

    def _bus_is_being_written(self) -> bool:
        if not self.bus_url.startswith("embedded://"):
            return False
        with closing(sqlite3.connect(self.bus_url.removeprefix("embedded://"), timeout=0, isolation_level=None)) as bus:
            try:
                bus.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
        return False

    # ------------------------------------------------------------------------------------------------ orders and runs

    async def place(self, *identities: str, times: int = 1, **order: Any) -> None:
        """Publishes orders, each of them `times` times as the same fact."""
        transport = open_transport(self.bus_url, name="faults")
        await transport.start()
        try:
            for identity in identities:
                envelope = Envelope(
                    id=identity,
                    source="/modules/faults",
                    type="faults.OrderPlacedV1",
                    tenantid=TENANT,
                    time=datetime.now(UTC),
                    data={"order_id": identity, **order},
                )
                message = Message(EVENTS_EXCHANGE, envelope.type, envelope.to_json())
                assert await transport.publish([message] * times) == [Published.CONFIRMED] * times
        finally:
            await transport.stop()

    async def runs(self) -> list[Record]:
        return list((await self._get("/v1/runs?limit=200"))["items"])

    async def run(self, run: Record) -> Record:
        """The whole of one run in a list."""
        return await self._get(f"/v1/runs/{run['run_id']}")

    async def timeline(self, run: Record) -> list[str]:
        """The topics of what happened in a run, in order."""
        return [entry["topic"] for entry in (await self._get(f"/v1/runs/{run['run_id']}/timeline?limit=1000"))["items"]]

    async def steps(self, run: Record) -> list[Record]:
        return list((await self._get(f"/v1/runs/{run['run_id']}/steps"))["items"])

    async def until_runs(self, holds: Callable[[list[Record]], bool]) -> list[Record]:
        return await until(self.runs, holds, seconds=PATIENCE_SECONDS)

    async def until_timeline(self, run: Record, holds: Callable[[list[str]], bool]) -> list[str]:
        return await until(lambda: self.timeline(run), holds, seconds=PATIENCE_SECONDS)

    async def until_ended(self, count: int = 1) -> list[Record]:
        """The runs, once `count` of them have ended and are shown."""

        def holds(runs: list[Record]) -> bool:
            return sum(run["ended_at"] is not None for run in runs) >= count

        try:
            return await until(self.runs, holds, seconds=PATIENCE_SECONDS)
        except AssertionError:
            raise AssertionError(self.told()) from None

    def told(self) -> str:
        """What every engine wrote to its log, and what reached the outside world."""
        logs = [f"--- {engine.said.name}\n{engine.said.read_text()[-3000:]}" for engine in self.engines]
        return "\n".join([*logs, "--- ledger", *self.ledger()])

    async def _get(self, path: str) -> Record:
        assert self.front is not None
        token = (self.folder / "admin.token").read_text().strip()
        headers = {"authorization": f"Bearer {token}", "x-tenant": TENANT}
        async with aiohttp.ClientSession(headers=headers) as session, session.get(self.front.url + path) as answer:
            assert answer.status == 200, await answer.text()
            return dict(orjson.loads(await answer.read()))

    # ------------------------------------------------------------------------------------------------ the world outside

    async def effect(self) -> Effect:
        """The next held effect that an engine begins."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._asking.get()

    def answer_at_once(self) -> None:
        """From now on no effect is held."""
        self._answers = True

    def ledger(self) -> list[str]:
        """What happened in the outside world, in order."""
        with suppress(FileNotFoundError):
            return (self.folder / "ledger").read_text().splitlines()
        return []

    def keys(self, verb: str) -> Counter[str]:
        """How often each idempotency key, without its run, was seen by effects (`do`), undos or the module
        (`parcel`)."""
        return Counter(line.split()[1].split("/", 1)[1] for line in self.ledger() if line.split()[0] == verb)

    def repeated(self) -> list[str]:
        """The lines of the ledger that stand there more than once: effects made again."""
        return sorted(line for line, count in Counter(self.ledger()).items() if count > 1)

    @asynccontextmanager
    async def parcels(self) -> AsyncIterator[Service]:
        """The module that obeys `parcels.SendParcelV1`, at work."""
        service = Service(
            PARCELS,
            transport=open_transport(self.bus_url, name="parcels"),
            database=open_database(f"sqlite:///{self.folder / 'parcels.db'}"),
        )

        @service.handles(SendParcelV1)
        async def send(command: SendParcelV1, call: Call, tx: Tx) -> ParcelSentV1:
            note(f"parcel {call.key}", self.folder)
            return ParcelSentV1(parcel_id=command.order_id)

        @service.handles(RecallParcelV1)
        async def recall(command: RecallParcelV1, call: Call, tx: Tx) -> ParcelRecalledV1:
            note(f"recall {call.key}", self.folder)
            return ParcelRecalledV1(parcel_id=command.input.order_id)

        await service.start()
        try:
            yield service
        finally:
            await service.stop()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = orjson.loads(await reader.readline())
        effect = Effect(asked["pid"], asked["key"], writer)
        if self._answers:
            effect.answer()
        else:
            await self._asking.put(effect)


async def until_now(look: Callable[[], Any], holds: Callable[[Any], Any]) -> Any:
    """`until`, with these tests' patience, for what can be seen without waiting."""

    async def seen() -> Any:
        return look()

    return await until(seen, holds, seconds=PATIENCE_SECONDS)
