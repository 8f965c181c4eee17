"""Requests that are no HTTP: the HTTP library answers them itself, before any middleware, in plain text. Here it
answers with a problem document, as every other refusal does. Used by `consumers.web.Server` alone.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from consumers.web.dispatch import problem_response
from contracts.problems import Problem


class RequestMalformed(Problem):
    """The bytes received are no HTTP request."""

    code = "request_malformed"
    title = "The request is not HTTP"
    status = 400


class _Connection(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        answer = super().handle_error(request, status, exc, message)
        if status != RequestMalformed.status:
            return answer
        # What the parser says quotes the request; whoever sent it knows it, and logs need not.
        refusal = problem_response(RequestMalformed("the request line or a header cannot be read; send HTTP/1.1"))
        refusal.force_close()
        return refusal


class _Connections(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """An `AppRunner` whose connections answer malformed requests with a problem document."""

    async def _make_server(self) -> Any:
        server = await super()._make_server()
        server.__class__ = _Connections
        return server
