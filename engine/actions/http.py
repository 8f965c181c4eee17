"""The `http.request` action: one HTTP call to the outside, through the egress guard, with the step's key.

    await run.step("notify", "http.request", method="POST", url="https://example.com/hook", json={"id": order})

The key goes out as `Idempotency-Key`, the same for every attempt, so that a receiver that honours it acts once. The
output is `{status, headers, json | text}`. It opens no connection itself (`engine.guards.egress` does) and retries
nothing itself (the run does): it only says whether trying again can help and whether the effect may have happened.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from contracts.calls import ActionCall, ActionFailed, ActionSpec, RetryPolicy
from contracts.sdk.tracing import Tracing
from contracts.traceparent import read
from engine.guards.egress import Egress, EgressFailed, EgressRefused, EgressTimeout, Response, SafeUrl

NAME: Final = "http.request"
KEY_HEADER: Final = "Idempotency-Key"
MAX_OUTPUT: Final = 65_536
"""Bytes of a response body that a step may keep; the log holds them for as long as the run."""

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NOT_DONE: Final = frozenset({408, 425, 429, 503})
"""The receiver says that it did not act, and that trying again may help."""
_KEPT_HEADERS: Final = ("content-type", "location", "etag", "retry-after", "x-request-id")


class HttpInput(BaseModel):
    """Input of `http.request`. `expect` are the statuses that mean success; any 2xx when it is empty."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(max_length=2_048)
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "POST"
    headers: dict[str, str] = Field(default_factory=dict, max_length=50)
    json_body: JsonValue = Field(default=None, alias="json")
    text: str | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] | None = None
    expect: tuple[Annotated[int, Field(ge=100, le=599)], ...] = ()


class HttpRequest:
    """Performs `http.request` over one egress client."""

    def __init__(self, egress: Egress, tracing: Tracing | None = None) -> None:
        self._egress = egress
        self._tracing = tracing

    async def __call__(self, call: ActionCall) -> dict[str, Any]:
        given = _parse(call)
        headers = {name: value for name, value in given.headers.items() if name.lower() != KEY_HEADER.lower()}
        headers[KEY_HEADER] = call.key
        parent = read(call.traceparent)
        span = None if self._tracing is None else self._tracing.fresh(parent)
        traceparent = call.traceparent if span is None else span.traceparent
        if traceparent:
            headers.setdefault("traceparent", traceparent)
        body = b""
        if given.text is not None:
            body = given.text.encode()
            _default(headers, "Content-Type", "text/plain; charset=utf-8")
        elif given.json_body is not None:
            try:
                body = orjson.dumps(given.json_body)
            except orjson.JSONEncodeError as error:
                raise ActionFailed("input_invalid", f"json: {error}", retryable=False) from None
            _default(headers, "Content-Type", "application/json")
        changes = given.method not in _SAFE
        began, status = datetime.now(UTC), 0
        try:
            url = SafeUrl.parse(given.url)
            response = await self._egress.request(
                given.method, url, headers=headers, body=body, seconds=given.timeout_seconds
            )
            status = response.status
        except EgressRefused as refused:
            raise ActionFailed(refused.code, refused.detail, retryable=False) from None
        except (EgressTimeout, EgressFailed) as failed:
            raise ActionFailed(failed.code, failed.detail, ambiguous=failed.sent and changes) from None
        finally:
            if self._tracing is not None and span is not None:
                # Not where it went: hosts and paths are the tenant's words.
                self._tracing.record(
                    given.method,
                    span,
                    began=began,
                    ended=datetime.now(UTC),
                    parent=parent,
                    kind="client",
                    failed=not 0 < status < 400,
                    tenant=call.tenant,
                    run_id=str(call.run_id),
                    method=given.method,
                    status=status,
                )
        return _judge(given, url, response, changes)


def http_request(egress: Egress, tracing: Tracing | None = None) -> ActionSpec:
    """The action for the registry. An attempt of unknown fate parks: only the other side knows what became of it."""
    return ActionSpec(
        name=NAME,
        kind="local",
        perform=HttpRequest(egress, tracing),
        timeout_seconds=30.0,
        retry=RetryPolicy(attempts=5),
        ambiguous="park",
        coverage="retriable",
        permission="action.http",
    )


def _parse(call: ActionCall) -> HttpInput:
    try:
        return HttpInput.model_validate(dict(call.input))
    except ValidationError as invalid:
        first = invalid.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ActionFailed("input_invalid", f"{place}: {first['msg']}", retryable=False) from None


def _default(headers: dict[str, str], name: str, value: str) -> None:
    if all(known.lower() != name.lower() for known in headers):
        headers[name] = value


def _judge(given: HttpInput, url: SafeUrl, response: Response, changes: bool) -> dict[str, Any]:
    status = response.status
    if status in given.expect or (not given.expect and 200 <= status < 300):
        if len(response.body) > MAX_OUTPUT:
            raise ActionFailed(
                "response_too_large",
                f"{url.shown} answered {status} with {len(response.body)} bytes; a step keeps at most {MAX_OUTPUT}",
                retryable=False,
                ambiguous=changes,
            )
        return _output(response)
    said = f"{url.shown} answered {status}"
    if status in _NOT_DONE:
        raise ActionFailed(f"http_{status}", said)
    if status >= 500:
        raise ActionFailed(f"http_{status}", said, ambiguous=changes)
    if 300 <= status < 400:
        raise ActionFailed(f"http_{status}", f"{said}; redirects are not followed, use the final URL", retryable=False)
    raise ActionFailed(f"http_{status}", said, retryable=False)


def _output(response: Response) -> dict[str, Any]:
    kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    output: dict[str, Any] = {"status": response.status, "headers": kept}
    if "json" in kept.get("content-type", ""):
        try:
            output["json"] = orjson.loads(response.body)
            return output
        except orjson.JSONDecodeError:
            pass
    output["text"] = response.body.decode("utf-8", "replace").replace("\x00", "\ufffd")
    return output
