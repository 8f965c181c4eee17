"""An outside service that honours idempotency keys, in this process: it fails, refuses, and hangs on request."""

from __future__ import annotations

from collections import Counter

from aiohttp import web

from tests.stories.outside import OutsideService


class Provider(OutsideService):
    """`/ok` acts; `/busy/N` answers 503 N times per key, then acts; `/refuse` never acts; `/closed` answers
    503 until `release`; `/later/S` answers 429 once per key and asks for S seconds of rest; `/hold` acts and keeps its
    answer back until `release`; `/hold-first` keeps back before it acts."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        """Requests by idempotency key."""
        self.effects: Counter[str] = Counter()
        """What was really done, by key: at most one each."""
        self.traces: list[str | None] = []
        """The `traceparent` of every request."""

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
        if place == "later" and self.calls[key] == 1:
            return web.json_response({"error": "later"}, status=429, headers={"Retry-After": times})
        if place == "hold-first":
            await self._released.wait()
        self.effects[key] = 1
        if place == "hold":
            await self._released.wait()
        return web.json_response({"done": True})
