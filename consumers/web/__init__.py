"""The HTTP face: the API with the web role, the probes alone without it. `serve` is all that the assembly calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from aiohttp import web

from consumers.process import Process
from consumers.web.app import create_app
from consumers.web.malformed import Runner
from consumers.web.probes import probe_app
from consumers.web.routes import Checks, Deps
from contracts.problems import Problem
from contracts.sdk.queries import Asker
from engine.guards.oidc import Provider
from engine.guards.sessions import Terms
from projections.reader import Reader

SHUTDOWN_SECONDS: Final = 5.0


class AddressTaken(Problem):
    code = "address_taken"
    title = "The address cannot be listened on"
    exit_code = 2


class Server:
    """A listening application. `url` is where it answers, also when the port was chosen by the system."""

    def __init__(self, app: web.Application, host: str, port: int, setting: str) -> None:
        self._runner = Runner(app, access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS)
        self._host = host
        self._port = port
        self._setting = setting
        self.url = ""

    async def start(self) -> None:
        """Raises `AddressTaken`."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise AddressTaken(
                f"{self._host}:{self._port} cannot be listened on ({error.strerror}); give {self._setting} a free port",
                field=self._setting,
            ) from None
        host, port = self._runner.addresses[0][:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{port}"

    async def stop(self) -> None:
        """Lets requests in hand finish. Twice is fine."""
        await self._runner.cleanup()


def deps_of(process: Process, checks: Callable[[], Awaitable[Checks]]) -> Deps:
    """What the handlers use, taken from the process."""
    secret = process.settings.signup_secret
    return Deps(
        store=process.store,
        vault=process.vault,
        door=process.door,
        reader=Reader(process.store, process.vault),
        registry=process.registry,
        plans=process.plans,
        clock=process.clock,
        metrics=process.metrics,
        checks=checks,
        asker=Asker(process.transport, name="web"),
        signup_secrets=() if secret is None else (secret.get_secret_value(),),
        max_body_bytes=process.settings.http.max_body_bytes,
        run_days=process.settings.retention.run_days,
        pauses=process.pauses,
        quotas=process.quotas,
        tracing=process.run_tracing,
        public_url=process.settings.http.public_url,
        oidc=Provider.from_settings(process.settings.oidc, process.settings.egress, process.clock, process.metrics),
        terms=Terms(
            timedelta(seconds=process.settings.session.idle_seconds),
            timedelta(seconds=process.settings.session.longest_seconds),
        ),
    )


async def serve(process: Process, checks: Callable[[], Awaitable[Checks]]) -> Server:
    """A started server for this process: the API with the role `web`, else the probes on their own port. `checks`
    answers what /readyz says."""
    http = process.settings.http
    if "web" in process.roles:
        server = Server(create_app(deps_of(process, checks)), http.host, http.port, "UNWIND_HTTP__PORT")
    else:
        app = probe_app(process.metrics, checks)
        server = Server(app, http.host, http.probe_port, "UNWIND_HTTP__PROBE_PORT")
    await server.start()
    return server


__all__ = ["AddressTaken", "Deps", "Server", "create_app", "deps_of", "probe_app", "serve"]
