"""What the egress tests call: an echo, and a client that is allowed to reach it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from engine.guards.egress import Egress

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[int]]


async def echo(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "method": request.method,
            "path": request.raw_path,
            "headers": dict(request.headers),
            "body": (await request.read()).decode(),
        }
    )


def opened(port: int, **more: object) -> Egress:
    return Egress(sandbox=[f"127.0.0.1:{port}"], **more)  # type: ignore[arg-type]
