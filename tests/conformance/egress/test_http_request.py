"""The action http.request: what a step learns from an answer, and from none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from uuid import UUID

import pytest
from aiohttp import web

from contracts.calls import ActionCall, ActionFailed, ActionSpec
from engine.actions.http import http_request
from engine.guards.egress import Egress
from tests.conformance.egress.serving import Serve, echo, opened


def attempt(spec: ActionSpec, **given: object) -> Awaitable[dict[str, object]]:
    call = ActionCall(
        tenant="acme", run_id=UUID(int=1), key="run/step/1", action="http.request", input=given, attempt=2
    )
    assert spec.perform is not None
    return spec.perform(call)


async def test_the_action_sends_the_steps_key_and_answers_what_came_back(serve: Serve) -> None:
    port = await serve(echo)
    spec = http_request(opened(port))
    output = await attempt(
        spec, url=f"http://127.0.0.1:{port}/hook", json={"a": 1}, headers={"idempotency-key": "mine"}
    )
    seen = output["json"]
    assert output["status"] == 200
    assert isinstance(seen, dict)
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/hook", '{"a":1}')
    assert seen["headers"]["Idempotency-Key"] == "run/step/1"
    assert seen["headers"]["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "method", "retryable", "ambiguous"),
    [
        (301, "POST", False, False),
        (400, "POST", False, False),
        (404, "GET", False, False),
        (409, "POST", False, False),
        (408, "POST", True, False),
        (425, "POST", True, False),
        (429, "POST", True, False),
        (503, "POST", True, False),
        (500, "POST", True, True),
        (502, "PUT", True, True),
        (504, "DELETE", True, True),
        (500, "GET", True, False),
    ],
)
async def test_a_status_says_whether_to_try_again_and_whether_it_happened(
    serve: Serve, status: int, method: str, retryable: bool, ambiguous: bool
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text="canary")

    port = await serve(answer)
    with pytest.raises(ActionFailed) as failed:
        await attempt(http_request(opened(port)), url=f"http://127.0.0.1:{port}/s3cret", method=method)
    error = failed.value
    assert (error.code, error.retryable, error.ambiguous) == (f"http_{status}", retryable, ambiguous)
    assert "canary" not in error.message
    assert "s3cret" not in error.message


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"Retry-After": "120"}, 120.0),
        (503, {"Retry-After": " 0 "}, 0.0),
        (503, {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT", "Date": "Sun, 06 Nov 1994 08:48:37 GMT"}, 60.0),
        (503, {"Retry-After": "Sunday, 06-Nov-94 08:49:37 GMT", "Date": "Sun Nov  6 08:49:07 1994"}, 30.0),
        (503, {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0),
        (503, {"Retry-After": "Sun, 06 Nov 99999999999 08:49:37 GMT"}, None),
        (503, {"Retry-After": "-5"}, None),
        (503, {"Retry-After": "soon"}, None),
        (503, {"Retry-After": "1e9"}, None),
        (503, {}, None),
        (408, {"Retry-After": "120"}, None),
        (500, {"Retry-After": "120"}, None),
    ],
)
async def test_a_step_learns_when_it_may_come_again(
    serve: Serve, status: int, headers: dict[str, str], seconds: float | None
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers)

    port = await serve(answer)
    with pytest.raises(ActionFailed) as failed:
        await attempt(http_request(opened(port)), url=f"http://127.0.0.1:{port}/")
    assert failed.value.retry_after_seconds == seconds
    assert failed.value.error.get("retry_after_seconds") == seconds
    assert "put_off_seconds" not in failed.value.error


async def test_an_expected_status_is_a_success(serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=404, text="gone")

    port = await serve(answer)
    output = await attempt(http_request(opened(port)), url=f"http://127.0.0.1:{port}/", expect=[200, 404])
    assert (output["status"], output["text"]) == (404, "gone")


@pytest.mark.parametrize(("method", "ambiguous"), [("POST", True), ("GET", False)])
async def test_a_timeout_is_ambiguous_only_where_something_may_have_changed(
    serve: Serve, method: str, ambiguous: bool
) -> None:
    never = asyncio.Event()

    async def silent(request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    port = await serve(silent)
    with pytest.raises(ActionFailed) as failed:
        await attempt(http_request(opened(port)), url=f"http://127.0.0.1:{port}/", method=method, timeout_seconds=0.2)
    never.set()
    assert (failed.value.code, failed.value.retryable, failed.value.ambiguous) == ("egress_timeout", True, ambiguous)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"url": 5},
        {"url": "http://127.0.0.1/"},
        {"url": "file:///etc/passwd"},
        {"url": "http://93.184.216.34/", "method": "TRACE"},
        {"url": "http://93.184.216.34/", "unknown": 1},
        {"url": "http://93.184.216.34/", "json": {"n": 2**70}},
        {"url": "http://93.184.216.34/", "headers": {"X": "a\r\nb"}},
    ],
)
async def test_a_wrong_input_fails_the_step_for_good(given: dict[str, object]) -> None:
    with pytest.raises(ActionFailed) as failed:
        await attempt(http_request(Egress()), **given)
    assert not failed.value.retryable
    assert not failed.value.ambiguous


async def test_an_answer_too_large_for_the_log_fails_and_is_ambiguous(serve: Serve) -> None:
    async def large(request: web.Request) -> web.Response:
        return web.Response(body=bytes(70_000))

    port = await serve(large)
    with pytest.raises(ActionFailed) as failed:
        await attempt(http_request(opened(port)), url=f"http://127.0.0.1:{port}/")
    assert (failed.value.code, failed.value.retryable, failed.value.ambiguous) == ("response_too_large", False, True)
