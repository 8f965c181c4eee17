"""The aiohttp application of the web role: the route table, the probes and the two generated documents, behind one
middleware. It holds no state of its own but the counts of refused webhooks and sign-ins.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from consumers.web.dispatch import answer, middleware
from consumers.web.hooks import REFUSALS, Refusals
from consumers.web.minutely import EveryMinute
from consumers.web.openapi import render
from consumers.web.probes import add_probes
from consumers.web.routes import Deps, Route
from consumers.web.sign_in import SIGN_IN_REFUSALS, SignInRefusals
from consumers.web.table import ALIASES, ROUTES
from contracts.schema import asyncapi
from contracts.schema import render as render_document


def create_app(deps: Deps) -> web.Application:
    """The API. Started and stopped by whoever serves it (`consumers.web.serve`, or a test client)."""
    app = web.Application(middlewares=[middleware(deps.metrics, deps.tracing)], client_max_size=deps.max_body_bytes)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _handler(route, deps))
        for alias, path in ALIASES.items():
            if path == route.path:
                app.router.add_route(route.method, alias, _handler(route, deps))
    add_probes(app, deps.metrics, deps.checks)
    app.router.add_get("/openapi.json", _document(render(ROUTES)))
    app.router.add_get("/asyncapi.json", _document(render_document(asyncapi(deps.registry))))
    app[REFUSALS], app[SIGN_IN_REFUSALS] = Refusals(deps), SignInRefusals(deps)
    app.cleanup_ctx.append(_counting)
    app.on_cleanup.append(_no_more_work(deps))
    return app


def _handler(route: Route, deps: Deps) -> Any:
    async def handle(request: web.Request) -> web.Response:
        return await answer(route, deps, request)

    return handle


def _document(content: bytes) -> Any:
    async def show(request: web.Request) -> web.Response:
        return web.Response(body=content, content_type="application/json", headers={"Cache-Control": "no-cache"})

    return show


def _no_more_work(deps: Deps) -> Callable[[web.Application], Awaitable[None]]:
    async def stop(app: web.Application) -> None:
        deps.door.people.passwords.stop()
        await deps.asker.stop()

    return stop


async def _counting(app: web.Application) -> AsyncIterator[None]:
    counts: tuple[EveryMinute, ...] = (app[REFUSALS], app[SIGN_IN_REFUSALS])
    for each in counts:
        await each.start()
    yield
    for each in counts:
        await each.stop()
