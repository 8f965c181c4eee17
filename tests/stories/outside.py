"""An outside service in this process, on a port of its own; what it answers is its kind's."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from aiohttp import web
from aiohttp.test_utils import TestServer


class OutsideService(ABC):
    """`_answer` takes every request that `_route` gives to nobody else. What waits for `_released` ends at the end."""

    def __init__(self) -> None:
        self._released = asyncio.Event()
        self._server: TestServer | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        self._route(app)
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

    def _route(self, app: web.Application) -> None:  # noqa: B027 (most have none)
        """Routes beside `_answer`."""

    @abstractmethod
    async def _answer(self, request: web.Request) -> web.StreamResponse: ...
