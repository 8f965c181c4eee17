"""One installation of the product for one story: an engine, the shipped modules, an API client, and an ear on the bus.

A story drives it by bus, HTTP, CLI and SDK alone. Engine roles run in this process, or as processes of their own that
can be killed; time can be moved forward when the house is given a `MovableClock`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import orjson

from consumers.assembly import Assembly
from consumers.module_host import ModuleHost
from consumers.modules import NAMES
from contracts.manifest import AnswerModel, Module, QueryModel
from contracts.run_events import TERMINAL
from contracts.sdk import Asker, open_transport
from engine.clock import Clock, SystemClock
from engine.guards.first_run import first_run
from engine.guards.token_changes import TokenChanges
from engine.plan.code import Saga
from engine.settings import ROLES, Settings, bus_url, load
from scripts.opening import opened_store
from scripts.reach import Api, Refused, segment
from tests.stories.ear import Ear

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 30.0
POLL_SECONDS = 0.03
SIGNUP_SECRET = "a secret that only the signup form knows"

Record = dict[str, Any]
Found = TypeVar("Found")
AnswerT = TypeVar("AnswerT", bound=AnswerModel)


class MovableClock:
    """The machine's time, moved forward by hand: timers of a week are due at once, all else goes its usual way."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def database_now(self) -> datetime | None:
        return self.now()

    def forward(self, **delta: float) -> None:
        self._ahead += timedelta(**delta)


@dataclass(frozen=True, slots=True)
class Stack:
    """Where an installation keeps its state."""

    name: str
    folder: Path
    database_url: str | None = None
    bus_url: str | None = None

    def settings(self, **overrides: Any) -> Settings:
        given: dict[str, Any] = {
            "data_dir": self.folder,
            "database_url": self.database_url,
            "modules_database_url": self.database_url,
            "bus_url": self.bus_url,
            "rehearsals": True,
            "signup_secret": SIGNUP_SECRET,
            "http": {"port": 0, "probe_port": 0},
        }
        return load(**given | overrides)


class House:
    """`async with House(stack): ...` starts everything and stops everything, whatever the story left behind."""

    def __init__(
        self,
        stack: Stack,
        *,
        clock: Clock | None = None,
        roles: Sequence[str] = ROLES,
        sagas: Sequence[Saga] | None = None,
        modules: Sequence[str] | None = None,
        separate_modules: bool = False,
        contracts: Sequence[Module] = (),
        hears: Sequence[str] = ("events", "commands"),
        dead_seconds: float = 60.0,
        loads: Sequence[str] = (),
        local_actions: Sequence[Any] = (),
        **overrides: Any,
    ) -> None:
        """`sagas` are for this process; `loads` names modules of sagas, which processes of their own load too."""
        if loads:
            overrides["sagas"] = tuple(loads)
        overrides["lease"] = {"heartbeat_seconds": 0.3, "dead_seconds": dead_seconds}
        if separate_modules:
            overrides["modules"] = "separate"
        settings = stack.settings(**overrides)
        if isinstance(clock, MovableClock):
            # Whoever moves time by weeks must not declare the living dead.
            settings = settings.model_copy(update={"lease": settings.lease.model_copy(update={"dead_seconds": 3.2e8})})
        self.stack, self.settings = stack, settings
        self.clock = clock
        self.roles = tuple(roles)
        self.sagas = sagas
        self.contracts = tuple(contracts)
        self.local_actions = tuple(local_actions)
        self.bus_url = bus_url(settings)
        self.ear = Ear(open_transport(self.bus_url, name="ear"), hears=hears)
        self.asker = Asker(self.ear.transport, name="stories")
        self.host = ModuleHost(settings, bus_url=self.bus_url, names=NAMES if modules is None else modules)
        self.assembly: Assembly | None = None
        self.processes: list[EngineProcess] = []
        self.token = ""
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        try:
            async with opened_store(self.settings, migrate=True) as store:
                changes = TokenChanges(store, self.settings.key_path, SystemClock(), by="the house")
                await first_run(self.settings, changes, now=datetime.now(UTC))
            self.token = self.settings.admin_token_path.read_text().strip()
            await self.ear.start()
            await self.host.start()
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
            if self.roles:
                self.assembly = await self.new_assembly(self.roles)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stops everything; what does not stop in time fails the story instead of holding it for ever."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._close()

    async def _close(self) -> None:
        for process in self.processes:
            await process.kill()
        if self.assembly is not None:
            await self.assembly.stop()
        await self.host.stop()
        await self.asker.stop()
        await self.ear.stop()
        if self._session is not None:
            await self._session.close()

    async def new_assembly(self, roles: Sequence[str]) -> Assembly:
        assembly = Assembly(
            self.settings,
            roles,
            clock=self.clock,
            sagas=self.sagas,
            modules=self.contracts,
            local_actions=self.local_actions,
        )
        await assembly.start()
        await assembly.ready()
        return assembly

    async def restart(self, *, sagas: Sequence[Saga] | None = None) -> None:
        """Stops the engine in this process as SIGTERM would, and starts it again, with other sagas if given."""
        assert self.assembly is not None
        await self.assembly.stop()
        self.sagas = sagas or self.sagas
        self.assembly = await self.new_assembly(self.roles)

    async def process(self, *roles: str, release: Path = ROOT, **environment: str) -> EngineProcess:
        """An engine process of these roles, ready; of another release when its folder is given."""
        process = EngineProcess(self.settings, roles, environment, release)
        self.processes.append(process)
        await process.start()
        return process

    # ------------------------------------------------------------------------------------------------ HTTP and CLI

    @property
    def url(self) -> str:
        assert self.assembly is not None
        assert self.assembly.url is not None
        return self.assembly.url

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None
        return self._session

    @property
    def api(self) -> Api:
        return Api(self.session, self.url, self.token)

    async def cli(self, *words: str, typed: str | None = None) -> Any:
        """What `unwind <words> --json` answers; raises when it does not end with exit code 0."""
        code, said, complaint = await self.cli_raw(*words, typed=typed)
        assert code == 0, complaint
        return orjson.loads(said)

    @asynccontextmanager
    async def command(
        self, *words: str, stopped_by: int = signal.SIGTERM, ends: int = 0, **environment: str
    ) -> AsyncIterator[None]:
        """`unwind <words>` as a process that goes on until the block ends; told to end then, it must end with that exit
        code.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "scripts", *words, cwd=ROOT, env={**_environment(self.settings), **environment}
        )
        try:
            yield
        finally:
            process.send_signal(stopped_by)
            assert await process.wait() == ends

    async def page(self, url: str) -> bytes:
        """What the address answers; nothing while nobody listens there."""
        try:
            async with self.session.get(url) as answer:
                return await answer.read()
        except aiohttp.ClientConnectionError:
            return b""

    async def cli_raw(
        self, *words: str, release: Path = ROOT, typed: str | None = None, **changed: str
    ) -> tuple[int, str, str]:
        """`typed` is what its standard input holds."""
        reached = {"UNWIND_API_URL": self.url, "UNWIND_TOKEN": self.token}
        environment = {**_environment(self.settings), **reached, **changed}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "scripts",
            *words,
            "--json",
            cwd=release,
            env=environment,
            stdin=None if typed is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complaint = await process.communicate(None if typed is None else typed.encode())
        assert process.returncode is not None
        return process.returncode, said.decode(), complaint.decode()

    async def make_token(self, role: str, tenant: str) -> str:
        """A token of this tenant with this role, made as an operator makes one."""
        made = await self.cli("tokens", "create", f"{role} of {tenant}", "--role", role, "--tenant", tenant)
        return str(made["token"])

    async def refused(self, path: str, body: Record, *, token: str | None = None, **query: Any) -> Record:
        """The problem with which a POST is refused."""
        try:
            answer = await Api(self.session, self.url, token or self.token).post(path, body, **query)
        except Refused as refused:
            return refused.document
        raise AssertionError(f"{path} was not refused: {answer}")

    # ------------------------------------------------------------------------------------------------ runs

    async def register(self, tenant: str, **more: Any) -> str:
        """POST /v1/tenants; answers the run that provisions it."""
        owner = {"owner_email": f"owner@{tenant}.example", "owner_name": "Ann Owner"}
        begun = await self.api.post("/v1/tenants", {"tenant": tenant, "name": tenant.capitalize(), **owner, **more})
        return str(begun["run_id"])

    async def sign_up(self, tenant: str, who: str = "bob", **more: Any) -> str:
        """POST /signup; answers the run that onboards the customer."""
        form = {"signup_id": f"{who}-1", "email": f"{who}@customer.example", "name": who.capitalize(), **more}
        begun = await self.api.post("/signup", form, key=f"{tenant}-{who}", act_for=tenant)
        return str(begun["run_id"])

    async def start(self, workflow: str, tenant: str, data: Record | None = None, **more: Any) -> str:
        begun = await self.api.post(f"/v1/workflows/{workflow}/runs", {"input": data or {}}, tenant=tenant, **more)
        return str(begun["run_id"])

    async def run(self, run_id: str) -> Record | None:
        try:
            found: Record = await self.api.get(f"/v1/runs/{segment(run_id)}")
        except Refused as refused:
            if refused.document["status"] == 404:
                return None  # the read model has not seen it yet
            raise
        return found

    async def until_run(self, run_id: str, holds: Callable[[Record], bool]) -> Record:
        """The run as soon as it is so, and everything heard that led to it."""
        found = await until(lambda: self.run(run_id), lambda run: run is not None and holds(run))
        assert found is not None
        await self.ear.catch_up()
        return found

    async def until_attempt(self, run_id: str, step: str, number: int) -> Record:
        """The step as soon as this attempt of it has begun."""
        return await self.until_step(run_id, step, lambda found: len(found["attempts"]) >= number)

    async def until_status(self, run_id: str, *statuses: str) -> Record:
        run = await self.until_run(run_id, lambda run: run["status"] in (*statuses, *TERMINAL))
        assert run["status"] in statuses, run
        return run

    async def until_state(self, run_id: str, state: str) -> Record:
        return await self.until_run(run_id, lambda run: run["business_state"] == state)

    async def steps(self, run_id: str) -> dict[str, Record]:
        """The steps of a run by name."""
        found = await self.api.get(f"/v1/runs/{segment(run_id)}/steps")
        return {step["step"]: step for step in found["items"]}

    async def until_step(self, run_id: str, step: str, holds: Callable[[Record], bool]) -> Record:
        await self.until_run(run_id, lambda run: run["steps"] > 0)
        found = await until(lambda: self.steps(run_id), lambda steps: step in steps and holds(steps[step]))
        await self.ear.catch_up()
        return found[step]

    async def timeline(self, run_id: str) -> list[Record]:
        found = await self.api.get(f"/v1/runs/{segment(run_id)}/timeline", limit=1000)
        return list(found["items"])

    async def order(self, tenant: str, kind: str, /, **data: Any) -> Record:
        """A direct command, to its end; it must succeed."""
        begun = await self.api.post("/v1/commands", {"type": kind, "data": data}, tenant=tenant)
        return await self.until_status(begun["run_id"], "succeeded")

    async def script(self, tenant: str, command: str, mode: str, *, times: int = 1, **more: Any) -> None:
        """Lets a module fail its next commands as scripted: `identity.InviteUserV1`, `irrecoverable`."""
        module, _, name = command.partition(".")
        await self.order(tenant, f"{module}.ScriptFaultV1", command=name, mode=mode, times=times, **more)

    # ------------------------------------------------------------------------------------------------ modules and bus

    async def ask(self, module: Module, query: QueryModel, answer: type[AnswerT], tenant: str) -> AnswerT:
        return await self.asker.ask(module, query, answer, tenant=tenant, deadline_seconds=10)

    async def until_heard(self, kind: str, *, tenant: str | None = None, count: int = 1) -> list[Any]:
        await until_now(lambda: self.ear.events(kind, tenant=tenant), lambda heard: len(heard) >= count)
        await self.ear.catch_up()
        return self.ear.events(kind, tenant=tenant)

    async def letters(self, **query: Any) -> list[Record]:
        found = await self.api.get("/v1/dead-letters", limit=200, **query)
        return list(found["items"])

    async def until_letter(self, **fields: Any) -> Record:
        """The dead letter with these fields."""

        def fitting(letters: list[Record]) -> list[Record]:
            return [one for one in letters if all(one[name] == value for name, value in fields.items())]

        found = fitting(await until(lambda: self.letters(), lambda letters: bool(fitting(letters))))[0]
        await self.ear.catch_up()
        return found


class EngineProcess:
    """`unwind serve --roles ...` in a process of its own."""

    def __init__(self, settings: Settings, roles: Sequence[str], environment: dict[str, str], release: Path) -> None:
        self._release = release
        self._port = _free_port()
        self._roles = ",".join(roles)
        name = "UNWIND_HTTP__PORT" if "web" in roles else "UNWIND_HTTP__PROBE_PORT"
        self._environment = {**_environment(settings), name: str(self._port), **environment}
        self.url = f"http://127.0.0.1:{self._port}"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "scripts", "serve", "--roles", self._roles, cwd=self._release, env=self._environment
        )
        await until(self._ready, bool)

    async def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, f"the engine process ended with {self.process.returncode}"
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False

    async def kill(self) -> None:
        """As the operating system would: no drain, no goodbye."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()

    async def ended(self) -> int:
        """Waits until it has ended by itself; answers its return code."""
        assert self.process is not None
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.process.wait()


async def until(
    look: Callable[[], Awaitable[Found]], holds: Callable[[Found], Any], *, seconds: float = DEADLINE_SECONDS
) -> Found:
    """Looks again and again until it holds; raises `AssertionError` with what was seen last. A look that takes long,
    at thousands of runs, is taken less often: it takes the engine's time.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        found = await look()
        if holds(found):
            return found
        looked = time.monotonic()
        assert looked < deadline, f"still not so after {seconds:g} s: {found!r}"[:4000]
        await asyncio.sleep(max(POLL_SECONDS, 3 * (looked - began)))


async def until_now(
    look: Callable[[], Found], holds: Callable[[Found], Any], *, seconds: float = DEADLINE_SECONDS
) -> Found:
    """`until`, for what can be seen without waiting."""

    async def seen() -> Found:
        return look()

    return await until(seen, holds, seconds=seconds)


def _environment(settings: Settings) -> dict[str, str]:
    """The settings as the environment of another process."""
    urls = {
        "UNWIND_DATABASE_URL": settings.database_url,
        "UNWIND_MODULES_DATABASE_URL": settings.modules_database_url,
        "UNWIND_BUS_URL": settings.bus_url,
        "UNWIND_SIGNUP_SECRET": settings.signup_secret,
    }
    return {
        **os.environ,
        **{name: value.get_secret_value() for name, value in urls.items() if value is not None},
        "UNWIND_DATA_DIR": str(settings.data_dir),
        "UNWIND_REHEARSALS": "1",
        "UNWIND_SAGAS": ",".join(settings.sagas),
        "UNWIND_BLUEPRINTS": ",".join(str(path) for path in settings.blueprints),
        "UNWIND_EGRESS__SANDBOX": ",".join(settings.egress.sandbox),
        "UNWIND_LEASE__HEARTBEAT_SECONDS": str(settings.lease.heartbeat_seconds),
        "UNWIND_LEASE__DEAD_SECONDS": str(settings.lease.dead_seconds),
        "UNWIND_LOG__LEVEL": "warning",
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
