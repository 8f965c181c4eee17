"""Bytes that are no HTTP request get the same kind of refusal as everything else that cannot be served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest

from consumers.web import Server, probe_app
from engine.metrics import Metrics


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async def checks() -> dict[str, dict[str, object]]:
        return {}

    server = Server(probe_app(Metrics(), checks), "127.0.0.1", 0, "UNWIND_HTTP__PROBE_PORT")
    await server.start()
    yield server
    await server.stop()


async def say(server: Server, request: bytes) -> tuple[bytes, bytes]:
    """The head and the body of what is answered; the connection is closed afterwards."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    async with asyncio.timeout(10):
        writer.write(request)
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /healthz HTTP/9.9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nbad header\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=["no request line", "no version", "no header", "TLS"],
)
async def test_what_is_no_http_is_refused_with_a_problem_document(server: Server, request_bytes: bytes) -> None:
    head, body = await say(server, request_bytes)
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"Content-Type: application/problem+json" in head
    document = orjson.loads(body)
    assert (document["status"], document["code"]) == (400, "request_malformed")
    assert b"nonsense" not in body


async def test_what_is_http_is_served_as_ever(server: Server) -> None:
    head, body = await say(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert orjson.loads(body) == {"status": "ok"}
