"""What machines ask of every process: is it alive, is it ready, how is it doing, which version is it. No token.

`/healthz` says that the event loop turns and never touches the database: a database that is down must not get healthy
processes restarted. `/readyz` names each check.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from consumers.web.dispatch import middleware
from contracts.version import __version__
from engine.metrics import Metrics

CHECK_SECONDS: Final = 3.0

Checks = Callable[[], Awaitable[Mapping[str, Mapping[str, Any]]]]


def probe_app(metrics: Metrics, checks: Checks) -> web.Application:
    """The application of processes without the web role."""
    app = web.Application(middlewares=[middleware(metrics)], client_max_size=1_024)
    add_probes(app, metrics, checks)
    return app


def add_probes(app: web.Application, metrics: Metrics, checks: Checks) -> None:
    async def healthz(request: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def readyz(request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                found = dict(await checks())
        except TimeoutError:
            found = {"checks": {"ok": False, "detail": f"no answer within {CHECK_SECONDS:g} s"}}
        ready = all(check.get("ok") for check in found.values())
        return _json({"status": "ready" if ready else "not ready", "checks": found}, 200 if ready else 503)

    async def metrics_page(request: web.Request) -> web.Response:
        body, content_type = metrics.render()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def version(request: web.Request) -> web.Response:
        return _json({"name": "unwind", "version": __version__})

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics_page)
    app.router.add_get("/version", version)


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document, default=str), status=status, content_type="application/json")
