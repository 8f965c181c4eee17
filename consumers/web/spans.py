"""The span of a request, for whoever answers it: what begins with the request goes on from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from aiohttp import web

from contracts.sdk.tracing import Tracing
from contracts.traceparent import SpanContext, read

PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked every few seconds by machines; their spans would only hide the others."""


@dataclass(slots=True)
class RequestSpan:
    """One request under way. `links` are the traces that it brought about beside its own."""

    context: SpanContext
    parent: SpanContext | None
    began: datetime
    links: list[SpanContext] = field(default_factory=list)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

SPAN: Final = web.RequestKey("span", RequestSpan)


def begin(tracing: Tracing, request: web.Request, now: datetime) -> None:
    parent = read(request.headers.get("traceparent"))
    request[SPAN] = RequestSpan(tracing.fresh(parent), parent, now)


def end(tracing: Tracing, request: web.Request, route: str, status: int, now: datetime) -> None:
    """Records it under its route: an address may hold anything."""
    if route in PROBES:
        return
    span = request[SPAN]
    method = request.method if request.method in _METHODS else "_OTHER"
    tracing.record(
        f"{method} {route}",
        span.context,
        began=span.began,
        ended=now,
        parent=span.parent,
        kind="server",
        links=span.links,
        failed=status >= 500,
        method=method,
        route=route,
        status=status,
    )
