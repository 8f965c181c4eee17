"""An outside service that honours idempotency keys, in this process: it fails, refuses, and hangs on request."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import TracebackType
from typing import Self

from aiohttp import web
from aiohttp.test_utils import TestServer


class Provider:
    """`/ok` acts; `/busy/N` answers 503 N times per key, then acts; `/refuse` never acts; `/closed` answers
    503 until `release`; `/hold` acts and keeps its
    answer back until `release`; `/hold-first` keeps back before it acts."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        """Requests by idempotency key."""
        self.effects: Counter[str] = Counter()
        """What was really done, by key: at most one each."""
        self.traces: list[str | None] = []
        """The `traceparent` of every request."""
        self._released = asyncio.Event()
        self._server: TestServer | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._answer)
        self._server = TestServer(app)
        await self._server.start_server()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        if self._server is not None:
            await self._server.close()

    @property
    def address(self) -> str:
        """As the operator's exception to the egress rules names it."""
        assert self._server is not None
        return f"127.0.0.1:{self._server.port}"

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"

    def release(self) -> None:
        self._released.set()

    async def _answer(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        self.calls[key] += 1
        self.traces.append(request.headers.get("traceparent"))
        place, _, times = request.path.strip("/").partition("/")
        if place == "refuse":
            return web.json_response({"error": "never"}, status=400)
        if place == "closed" and not self._released.is_set():
            return web.json_response({"error": "later"}, status=503)
        if place == "busy" and self.calls[key] <= int(times):
            return web.json_response({"error": "later"}, status=503)
        if place == "hold-first":
            await self._released.wait()
        self.effects[key] = 1
        if place == "hold":
            await self._released.wait()
        return web.json_response({"done": True})
