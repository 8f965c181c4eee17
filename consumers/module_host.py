"""Starts the shipped modules from the product's settings: as tasks of this process, or as processes of their own.

It also starts the mail sink when no mail server is configured. Called by `unwind up` and `unwind serve-module NAME`;
`python -m consumers.module_host NAME` is the process that `--modules separate` starts. The modules themselves
(`consumers.modules`) know nothing of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from consumers.modules import NAMES, MailServer, ModuleSettings, make_module
from consumers.modules.mailsink import MailSink
from consumers.watchdog import Watchdog
from contracts.problems import Unavailable
from contracts.sdk import Service, open_transport
from contracts.sdk.pacing import Pace
from contracts.sdk.tracing import Tracing
from contracts.sdk.transport import Transport
from engine.logs import configure, logger
from engine.loop import run
from engine.metrics import Metrics
from engine.settings import Settings, load
from engine.settings import bus_url as configured_bus_url
from engine.tracing import open_tracing

if TYPE_CHECKING:
    from consumers.mailing import MailRules
    from consumers.web import Server

log = logger("modules")

STOP_SECONDS: Final = 5.0
"""How much longer than its drain a process may take to end before it is killed."""

COUNT_SECONDS: Final = 5.0
"""Pause between two counts of the outbox for the metrics."""


class ModuleHost:
    """The shipped modules of one `up`. `start`, then `ready`, then `stop`; stop twice is fine."""

    def __init__(
        self,
        settings: Settings,
        *,
        bus_url: str,
        names: Sequence[str] = NAMES,
        metrics: Metrics | None = None,
    ) -> None:
        self.sink: MailSink | None = None
        """Where mails go when no mail server is configured."""
        self.services: list[Service] = []
        self._settings = settings
        self._metrics = metrics
        self._bus_url = bus_url
        self._names = tuple(names)
        self._transport: Transport | None = None
        self._tracings: list[Tracing] = []
        self._processes: list[_Process] = []
        self._mail_rules: MailRules | None = None

    @property
    def ready(self) -> bool:
        return all(service.ready for service in self.services) and all(process.ready for process in self._processes)

    async def start(self) -> None:
        """Returns when every module takes deliveries."""
        if self._settings.modules == "none":
            return
        mail_port = self._settings.smtp.port
        if mail_port == 0:
            self.sink = MailSink(folder=self._settings.data_dir / "mail")
            mail_port = await self.sink.start()
        if self._settings.modules == "separate":
            environment = _environment(self._settings, self._bus_url, mail_port)
            self._processes = [_Process(name, environment) for name in self._names]
            seconds = self._settings.timeouts.start_seconds
            await asyncio.gather(*(process.start(seconds) for process in self._processes))
            return
        if "notifications" in self._names:
            self._mail_rules = await _start_mail_rules(self._settings)
        self._transport = open_transport(self._bus_url, name="modules")
        await self._start_transport(self._transport)
        settings = module_settings(self._settings, mail_port=mail_port, rules=self._mail_rules)
        self.services = [make_module(name, self._transport, settings) for name in self._names]
        for service in self.services:
            tracing = _trace(service, self._settings)
            if tracing is not None:
                self._tracings.append(tracing)
        if self._metrics is not None:
            for service in self.services:
                _count(service, self._metrics)
        await asyncio.gather(*(service.start() for service in self.services))

    async def _start_transport(self, transport: Transport) -> None:
        pace = Pace()
        async with asyncio.timeout(self._settings.timeouts.start_seconds):
            while True:
                try:
                    return await transport.start()
                except Unavailable as error:
                    log.warning("the modules wait for the bus", detail=error.detail)
                    await pace.pause()

    async def stop(self) -> None:
        await asyncio.gather(*(service.stop() for service in self.services))
        drain = self._settings.timeouts.drain_seconds + STOP_SECONDS
        await asyncio.gather(*(process.stop(drain) for process in self._processes))
        tracings, self._tracings = self._tracings, []
        await asyncio.gather(*(tracing.stop() for tracing in tracings))
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.stop()
        rules, self._mail_rules = self._mail_rules, None
        if rules is not None:
            await rules.stop()
        sink, self.sink = self.sink, None
        if sink is not None:
            await sink.stop()


async def _start_mail_rules(settings: Settings) -> MailRules:
    from consumers.mailing import MailRules  # loads the store, which a process of another module can do without

    rules = MailRules(settings)
    try:
        await rules.start()
    except BaseException:
        await rules.stop()
        raise
    return rules


def module_settings(settings: Settings, *, mail_port: int, rules: MailRules | None = None) -> ModuleSettings:
    """What the modules are told of the product's settings."""
    smtp = settings.smtp
    url = settings.modules_database_url
    return ModuleSettings(
        data_dir=settings.data_dir,
        mail=MailServer(
            host=smtp.host,
            port=mail_port,
            username=smtp.username,
            password=None if smtp.password is None else smtp.password.get_secret_value(),
            tls=smtp.tls,
            sender=smtp.sender,
        ),
        outbound=None if rules is None else rules.outbound,
        database_url=None if url is None else url.get_secret_value(),
        rehearsals=settings.rehearsals,
        link_base=link_base(settings),
        drain_seconds=settings.timeouts.drain_seconds,
    )


def link_base(settings: Settings) -> str:
    """What the links in mails begin with. An address that only listens is none that anybody can follow."""
    http = settings.http
    host = "127.0.0.1" if http.host in ("0.0.0.0", "::") else http.host
    return http.public_url or f"http://{f'[{host}]' if ':' in host else host}:{http.port}"


async def run_module(name: str, settings: Settings, *, bus_url: str | None = None) -> None:
    """One module as this process, until SIGTERM. Notifications needs a mail server, and the engine's database."""
    if bus_url is None:
        bus_url = configured_bus_url(settings)
    rules = await _start_mail_rules(settings) if name == "notifications" else None
    if name == "notifications" and settings.smtp.port == 0:
        sink = MailSink(folder=settings.data_dir / "mail")
        mail_port = await sink.start()
    else:
        sink, mail_port = None, settings.smtp.port
    transport = open_transport(bus_url, name=f"module-{name}")
    service = make_module(name, transport, module_settings(settings, mail_port=mail_port, rules=rules))
    metrics = Metrics()
    _count(service, metrics)
    tracing = _trace(service, settings)
    probes = await _serve_probes(service, metrics, settings) if settings.http.probe_port else None
    lag = Watchdog(None, metrics)
    await lag.start()
    announcing = asyncio.create_task(_announce(service), name="announce")
    counting = asyncio.create_task(_count_outbox(service, metrics), name="census")
    try:
        await service.run()
    finally:
        announcing.cancel()
        counting.cancel()
        await lag.stop()
        if tracing is not None:
            await tracing.stop()
        if probes is not None:
            await probes.stop()
        if rules is not None:
            await rules.stop()
        if sink is not None:
            await sink.stop()


def _trace(service: Service, settings: Settings) -> Tracing | None:
    tracing = open_tracing(settings, f"module-{service.module.name}")
    if tracing is not None:
        service.trace(tracing)
    return tracing


def _count(service: Service, metrics: Metrics) -> None:
    name = service.module.name
    service.tally.heard_by = lambda result: metrics.module_messages.of(name, result).inc()


async def _count_outbox(service: Service, metrics: Metrics) -> None:
    """What this module has still to send; off the page while its database does not answer."""
    await service.until_ready()
    while True:
        try:
            metrics.outbox_rows.set(await service.outbox.count())
        except Unavailable:
            metrics.outbox_rows.forget()
        await asyncio.sleep(COUNT_SECONDS)


async def _serve_probes(service: Service, metrics: Metrics, settings: Settings) -> Server:
    from consumers.web import Server  # loads the whole API, which a process without probes can do without
    from consumers.web.probes import probe_app

    async def checks() -> dict[str, dict[str, Any]]:
        rows = await service.outbox.count() if service.ready else 0
        return {
            "bus": {"ok": service.transport.ready},
            "module": {"ok": service.ready},
            "outbox": {"ok": True, "rows": rows},
        }

    http = settings.http
    server = Server(probe_app(metrics, checks), http.host, http.probe_port, "UNWIND_HTTP__PROBE_PORT")
    await server.start()
    return server


async def _announce(service: Service) -> None:
    await service.until_ready()
    print(READY, flush=True)


READY: Final = "module ready"


class _Process:
    """One module in a process of its own, started again at a growing pace when it ends by itself."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self._name = name
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._supervising: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._spawning = asyncio.Lock()

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    async def start(self, seconds: float) -> None:
        """Returns when it is ready. Raises `Unavailable` when it is not in time; it is tried on until `stop`."""
        self._supervising = asyncio.create_task(self._supervise(), name=f"module-{self._name}")
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            raise Unavailable(
                f"the process of module {self._name} is not ready after {seconds:g} s; its log says why"
            ) from None

    async def _supervise(self) -> None:
        pace = Pace(first_seconds=0.5, ceiling_seconds=30.0)
        while True:
            async with self._spawning:
                self._process = process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "consumers.module_host",
                    self._name,
                    env=self._environment,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
            assert process.stdout is not None
            async for line in process.stdout:
                if line.strip() == READY.encode():
                    self._ready.set()
                    pace = Pace(first_seconds=0.5, ceiling_seconds=30.0)
            code = await process.wait()
            self._ready.clear()
            log.error("module process ended", module=self._name, exit_code=code)
            await pace.pause()

    async def stop(self, seconds: float) -> None:
        supervising, self._supervising = self._supervising, None
        if supervising is None:
            return
        async with self._spawning:  # a process that is just being made must be known before it can be ended
            supervising.cancel()
        await asyncio.gather(supervising, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            log.error("module process did not drain in time and is killed", module=self._name)
            process.kill()
            await process.wait()


def _environment(settings: Settings, bus_url: str, mail_port: int) -> dict[str, str]:
    """The parent's environment with what its command line changed, and with the floors importable."""
    root = str(Path(__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    url, engine_url = settings.modules_database_url, settings.database_url
    return {
        **os.environ,
        "PYTHONPATH": root if not inherited else f"{root}{os.pathsep}{inherited}",
        "UNWIND_BUS_URL": bus_url,
        "UNWIND_DATA_DIR": str(settings.data_dir.absolute()),
        "UNWIND_REHEARSALS": "1" if settings.rehearsals else "0",
        "UNWIND_SMTP__PORT": str(mail_port),
        "UNWIND_EGRESS__REQUESTS_PER_MINUTE": str(settings.egress.requests_per_minute),
        "UNWIND_LOG__FORMAT": settings.log.format,
        "UNWIND_LOG__LEVEL": settings.log.level,
        "UNWIND_HTTP__PORT": str(settings.http.port),
        **_environment_of_tracing(settings),
        **({} if settings.http.public_url is None else {"UNWIND_HTTP__PUBLIC_URL": settings.http.public_url}),
        "UNWIND_HTTP__PROBE_PORT": "0",
        **({} if url is None else {"UNWIND_MODULES_DATABASE_URL": url.get_secret_value()}),
        **({} if engine_url is None else {"UNWIND_DATABASE_URL": engine_url.get_secret_value()}),
    }


def _environment_of_tracing(settings: Settings) -> dict[str, str]:
    given = settings.tracing
    if given.endpoint is None:
        return {}
    headers = {} if given.headers is None else {"UNWIND_TRACING__HEADERS": given.headers.get_secret_value()}
    return {"UNWIND_TRACING__ENDPOINT": given.endpoint, "UNWIND_TRACING__SAMPLE": str(given.sample), **headers}


def _end_with_parent() -> None:
    """Standard input is the parent's; it closes when the parent is gone, however it went."""
    # Not through sys.stdin: its buffer's lock, held by a daemon thread, would break the interpreter's shutdown.
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main(name: str) -> None:
    # The bus may be the parent's embedded file, which is no valid UNWIND_BUS_URL.
    bus_url = os.environ.pop("UNWIND_BUS_URL")
    settings = load()
    configure(format=settings.log.format, level=settings.log.level)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run(run_module(name, settings, bus_url=bus_url))


if __name__ == "__main__":
    main(sys.argv[1])
