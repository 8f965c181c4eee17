"""A trace collector for one story: takes OTLP over HTTP in JSON and keeps every span."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web

Context = tuple[str, str]
"""(trace id, span id)."""


@dataclass(frozen=True)
class Span:
    """One span as it came; `service` is the process's."""

    service: str
    name: str
    context: Context
    parent: str | None
    links: tuple[Context, ...]
    attributes: dict[str, Any]
    began: int
    ended: int

    @property
    def trace(self) -> str:
        return self.context[0]


class Collector:
    """`async with Collector() as collector: ...`; `endpoint` is what engines and modules are told."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw = b""
        self.endpoint = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.endpoint = f"http://{host}:{port}/v1/traces"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.raw += body
        self.spans.extend(_read(orjson.loads(body)))
        return web.json_response({})

    def of_run(self, run_id: str) -> list[Span]:
        return [span for span in self.spans if span.attributes.get("unwind.run_id") == run_id]

    def one(self, name: str, **attributes: Any) -> Span:
        """The one span of this name, and with these attributes (`unwind.` left out)."""
        wanted = {f"unwind.{key}": value for key, value in attributes.items()}
        found = [span for span in self.spans if span.name == name and wanted.items() <= span.attributes.items()]
        assert len(found) == 1, (name, attributes, found)
        return found[0]

    def linked(self, trace: str) -> set[str]:
        """Every trace that is reached from this one over links, in either direction."""
        edges = {frozenset((span.trace, link[0])) for span in self.spans for link in span.links}
        reached = {trace}
        while True:
            more = {one for edge in edges if edge & reached for one in edge} - reached
            if not more:
                return reached
            reached |= more


def _read(document: dict[str, Any]) -> Iterator[Span]:
    for resource in document["resourceSpans"]:
        service = _attributes(resource["resource"]["attributes"])["service.name"]
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                yield Span(
                    service,
                    span["name"],
                    (span["traceId"], span["spanId"]),
                    span.get("parentSpanId"),
                    tuple((link["traceId"], link["spanId"]) for link in span["links"]),
                    _attributes(span["attributes"]),
                    int(span["startTimeUnixNano"]),
                    int(span["endTimeUnixNano"]),
                )


def _attributes(listed: list[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for one in listed:
        [(kind, value)] = one["value"].items()
        found[one["key"]] = int(value) if kind == "intValue" else value
    return found
