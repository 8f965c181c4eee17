"""The `http.request` action: one HTTP call to the outside, through the egress guard, with the step's key.

    await run.step("charge", "http.request", method="POST", url="https://api.example.com/charges",
                   auth={"secret": "payments"}, json={"order": order})

The key goes out as `Idempotency-Key`, the same for every attempt, so that a receiver that honours it acts once. The
output is `{status, headers, json | text}`. It opens no connection itself (`engine.guards.egress` does) and retries
nothing itself (the run does), but for an access token that was refused: it only says whether trying again can help and
whether the effect may have happened. Secrets are named in the input and opened here, for this one call.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlencode, urljoin

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from contracts.calls import ActionCall, ActionFailed, ActionSpec, RetryPolicy
from contracts.problems import Problem
from contracts.sdk.tracing import Tracing
from contracts.traceparent import read
from engine.actions.http_auth import SecretNamed, StepSecrets
from engine.actions.oauth2 import AccessTokens
from engine.actions.retry_after import retry_after
from engine.guards.egress import Egress, EgressFailed, EgressLimited, EgressRefused, EgressTimeout, Response, SafeUrl
from engine.guards.secrets import Secrets

NAME: Final = "http.request"
KEY_HEADER: Final = "Idempotency-Key"
MAX_OUTPUT: Final = 65_536
"""Bytes of a response body that a step may keep; the log holds them for as long as the run."""
MAX_REDIRECTS: Final = 5

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NOT_DONE: Final = frozenset({408, 425, 429, 503})
"""The receiver says that it did not act, and that trying again may help."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_KEPT_HEADERS: Final = ("content-type", "location", "etag", "retry-after", "x-request-id")
_BODY_HEADERS: Final = re.compile(r"content-.*", re.IGNORECASE)
_OWN: Final = frozenset({"authorization", "cookie"})
"""Headers of the input that stay with the origin they were meant for."""

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
Scalar = str | int | float | bool


class HttpInput(BaseModel):
    """Input of `http.request`. `expect` are the statuses that mean success; any 2xx when it is empty. `auth`, and a
    header, may name a secret of the run's tenant. At most one of `json`, `form` and `text` is the body.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(max_length=2_048)
    method: Method = "POST"
    query: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict, max_length=100)
    headers: dict[str, str | SecretNamed] = Field(default_factory=dict, max_length=50)
    auth: SecretNamed | None = None
    json_body: JsonValue = Field(default=None, alias="json")
    form: dict[str, Scalar | list[Scalar]] | None = Field(None, max_length=500)
    text: str | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] | None = None
    follow_redirects: bool = False
    expect: tuple[Annotated[int, Field(ge=100, le=599)], ...] = ()

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if sum(body is not None for body in (self.json_body, self.form, self.text)) > 1:
            raise ValueError("give one of json, form and text")
        return self


class HttpRequest:
    """Performs `http.request` over one egress client. `secrets` is asked when a step names one."""

    def __init__(
        self,
        egress: Egress,
        tracing: Tracing | None = None,
        secrets: Callable[[], Secrets] | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._egress = egress
        self._tracing = tracing
        self._secrets = secrets
        self._tokens = AccessTokens(egress, monotonic=monotonic)

    async def __call__(self, call: ActionCall) -> dict[str, Any]:
        given = _parse(call)
        secrets = await StepSecrets.open(call.tenant, given.auth, given.headers, self._secrets, self._tokens)
        try:
            output = await self._perform(call, given, secrets)
        except ActionFailed as failed:
            failed.message = secrets.mask.text(failed.message)
            failed.args = (failed.message,)
            raise
        except Problem as problem:
            raise ActionFailed(problem.code, problem.detail, retryable=problem.retryable) from None
        masked: dict[str, Any] = secrets.mask.document(output)
        return masked

    async def _perform(self, call: ActionCall, given: HttpInput, secrets: StepSecrets) -> dict[str, Any]:
        headers = {name: value for name, value in given.headers.items() if isinstance(value, str)}
        headers = {name: value for name, value in headers.items() if name.lower() != KEY_HEADER.lower()}
        headers[KEY_HEADER] = call.key
        body = _body(given, headers)
        attempt = _Attempt(given.method, _url(given), headers, body, changes=given.method not in _SAFE)
        origin, at_home = attempt.url.origin, True
        deadline = None if given.timeout_seconds is None else time.monotonic() + given.timeout_seconds
        for hop in range(MAX_REDIRECTS + 1):
            response = await self._send(call, attempt, secrets if at_home else None, deadline)
            if not given.follow_redirects or response.status not in _REDIRECTS or "location" not in response.headers:
                return _judge(given, attempt, response)
            if hop == MAX_REDIRECTS:
                break
            attempt = _next(attempt, response)
            if at_home and attempt.url.origin != origin:
                # For good: whoever sends it back may not choose what it is proven for.
                at_home = False
                attempt.headers = {name: value for name, value in attempt.headers.items() if name.lower() not in _OWN}
        raise ActionFailed(
            "too_many_redirects",
            f"{attempt.url.shown} redirects more than {MAX_REDIRECTS} times",
            retryable=False,
            ambiguous=attempt.acted,
        )

    async def _send(
        self, call: ActionCall, attempt: _Attempt, secrets: StepSecrets | None, deadline: float | None
    ) -> Response:
        """One hop; a second time with another access token when the first was refused."""
        proof = {} if secrets is None else await secrets.headers(attempt.url, self._egress)
        response = await self._exchange(call, attempt, proof, deadline)
        if response.status == 401 and secrets is not None and await secrets.renew():
            response = await self._exchange(call, attempt, await secrets.headers(attempt.url, self._egress), deadline)
        return response

    async def _exchange(
        self, call: ActionCall, attempt: _Attempt, proof: dict[str, str], deadline: float | None
    ) -> Response:
        parent = read(call.traceparent)
        span = None if self._tracing is None else self._tracing.fresh(parent)
        traceparent = call.traceparent if span is None else span.traceparent
        proven = {name.lower() for name in proof}
        headers = {name: value for name, value in attempt.headers.items() if name.lower() not in proven} | proof
        if traceparent:
            headers.setdefault("traceparent", traceparent)
        seconds = None if deadline is None else max(0.001, deadline - time.monotonic())
        began, status = datetime.now(UTC), 0
        try:
            response = await self._egress.request(
                attempt.method, attempt.url, headers=headers, body=attempt.body, seconds=seconds, tenant=call.tenant
            )
            status = response.status
        except EgressRefused as refused:
            raise ActionFailed(refused.code, refused.detail, retryable=False, ambiguous=attempt.acted) from None
        except EgressLimited as limited:
            put_off = None if attempt.acted else limited.seconds
            raise ActionFailed(limited.code, limited.detail, ambiguous=attempt.acted, put_off_seconds=put_off) from None
        except (EgressTimeout, EgressFailed) as failed:
            ambiguous = attempt.acted or (failed.sent and attempt.changes)
            raise ActionFailed(failed.code, failed.detail, ambiguous=ambiguous) from None
        finally:
            if self._tracing is not None and span is not None:
                # Not where it went: hosts and paths are the tenant's words.
                self._tracing.record(
                    attempt.method,
                    span,
                    began=began,
                    ended=datetime.now(UTC),
                    parent=parent,
                    kind="client",
                    failed=not 0 < status < 400,
                    tenant=call.tenant,
                    run_id=str(call.run_id),
                    method=attempt.method,
                    status=status,
                )
        return response


class _Attempt:
    """What the next hop sends. `changes`: it may change something there; `acted`: a hop before may have done so."""

    __slots__ = ("acted", "body", "changes", "headers", "method", "url")

    def __init__(
        self, method: str, url: SafeUrl, headers: dict[str, str], body: bytes, *, changes: bool, acted: bool = False
    ) -> None:
        self.method, self.url, self.headers, self.body = method, url, headers, body
        self.changes, self.acted = changes, acted


def http_request(
    egress: Egress,
    tracing: Tracing | None = None,
    secrets: Callable[[], Secrets] | None = None,
    *,
    monotonic: Callable[[], float] = time.monotonic,
) -> ActionSpec:
    """The action for the registry. An attempt of unknown fate parks: only the other side knows what became of it."""
    return ActionSpec(
        name=NAME,
        kind="local",
        perform=HttpRequest(egress, tracing, secrets, monotonic=monotonic),
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


def _url(given: HttpInput) -> SafeUrl:
    address, hash_, fragment = given.url.partition("#")
    if given.query:
        address += ("&" if "?" in address else "?") + urlencode(_flat(given.query), doseq=True)
    try:
        return SafeUrl.parse(address + hash_ + fragment)
    except EgressRefused as refused:
        raise ActionFailed(refused.code, refused.detail, retryable=False) from None


def _flat(given: dict[str, Scalar | list[Scalar]]) -> dict[str, str | list[str]]:
    return {
        name: [_scalar(item) for item in value] if isinstance(value, list) else _scalar(value)
        for name, value in given.items()
    }


def _scalar(value: Scalar) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _body(given: HttpInput, headers: dict[str, str]) -> bytes:
    if given.text is not None:
        _default(headers, "Content-Type", "text/plain; charset=utf-8")
        return given.text.encode()
    if given.form is not None:
        _default(headers, "Content-Type", "application/x-www-form-urlencoded")
        return urlencode(_flat(given.form), doseq=True).encode()
    if given.json_body is not None:
        try:
            body = orjson.dumps(given.json_body)
        except orjson.JSONEncodeError as error:
            raise ActionFailed("input_invalid", f"json: {error}", retryable=False) from None
        _default(headers, "Content-Type", "application/json")
        return body
    return b""


def _default(headers: dict[str, str], name: str, value: str) -> None:
    if all(known.lower() != name.lower() for known in headers):
        headers[name] = value


def _next(attempt: _Attempt, response: Response) -> _Attempt:
    """Where an answer sends on to, by RFC 9110, section 15.4: 303 is read with GET, and so are 301 and 302 after POST;
    307 and 308 are the same request again.
    """
    status, method, body, headers = response.status, attempt.method, attempt.body, dict(attempt.headers)
    acted = attempt.acted or (attempt.changes and status in (301, 302, 303))
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, body = "GET", b""
        headers = {name: value for name, value in headers.items() if not _BODY_HEADERS.fullmatch(name)}
    try:
        url = SafeUrl.parse(urljoin(str(attempt.url), response.headers["location"]))
    except (EgressRefused, ValueError) as refused:
        detail = refused.detail if isinstance(refused, EgressRefused) else "the address cannot be read"
        raise ActionFailed(
            "egress_refused", f"{attempt.url.shown} redirects: {detail}", retryable=False, ambiguous=acted
        ) from None
    return _Attempt(method, url, headers, body, changes=method not in _SAFE, acted=acted)


def _judge(given: HttpInput, attempt: _Attempt, response: Response) -> dict[str, Any]:
    status, changes = response.status, attempt.changes or attempt.acted
    if status in given.expect or (not given.expect and 200 <= status < 300):
        if len(response.body) > MAX_OUTPUT:
            raise ActionFailed(
                "response_too_large",
                f"{attempt.url.shown} answered {status} with {len(response.body)} bytes; a step keeps at most "
                f"{MAX_OUTPUT}",
                retryable=False,
                ambiguous=changes,
            )
        return _output(response)
    said = f"{attempt.url.shown} answered {status}"
    if status in _NOT_DONE:
        wait = retry_after(status, response.headers, now=datetime.now(UTC))
        raise ActionFailed(f"http_{status}", said, ambiguous=attempt.acted, retry_after_seconds=wait)
    if status >= 500:
        raise ActionFailed(f"http_{status}", said, ambiguous=changes)
    if 300 <= status < 400:
        raise ActionFailed(
            f"http_{status}",
            f"{said}; redirects are not followed, use the final URL or follow_redirects",
            retryable=False,
            ambiguous=attempt.acted,
        )
    raise ActionFailed(f"http_{status}", said, retryable=False, ambiguous=attempt.acted)


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
