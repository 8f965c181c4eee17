"""From a request to a handler and back: who is calling, for which tenant, with what; every refusal as problem+json.

The order is fixed: shape of the request line, identity, tenant, permission, query, body. So nothing of a body is read
for a caller who may not send one, and what belongs to another tenant looks like what is not there.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final
from uuid import UUID

import orjson
import uuid_utils
from aiohttp import web
from pydantic import BaseModel, ValidationError

from consumers.web import spans
from consumers.web.callers import identify
from consumers.web.routes import AS_OF_HEADER, TENANT_HEADER, WAIT_HEADER, Answer, Call, Deps, Empty, Route
from contracts.envelope import load_json
from contracts.problems import NotFound, PayloadInvalid, Problem, TooLarge, Unavailable
from engine.guards.permissions import Principal
from engine.guards.signatures import plainly_encoded
from engine.logs import logger
from engine.metrics import Metrics
from engine.tracing import RunTracing

PROBLEM_TYPE: Final = "application/problem+json"
REQUEST_ID: Final = "X-Request-Id"
VIEW_SECONDS: Final = 5.0
"""How long a reader waits for a read model to reach `wait_for_position`."""

MAX_LINE: Final = 4_000
UNREAD: Final = web.RequestKey("unread", bool)
"""Set for a request whose body could not be read to its end."""

_log = logger("web")


class MethodRefused(Problem):
    code = "method_not_allowed"
    title = "This resource does not know that method"
    status = 405
    exit_code = 2


class RequestInvalid(Problem):
    code = "request_invalid"
    title = "The request cannot be understood"
    status = 400
    exit_code = 2


class ViewBehind(Unavailable):
    code = "view_behind"
    title = "The read model has not seen this position yet"


class UnderMaintenance(Unavailable):
    code = "maintenance"
    title = "The platform is under maintenance"


class Internal(Problem):
    code = "internal"
    title = "The engine made a mistake"


async def answer(route: Route, deps: Deps, request: web.Request) -> web.Response:
    """One call of one route."""
    _check_line(request)
    caller = await identify(route, deps, request)
    principal = caller.principal
    tenant = _tenant(route, request, principal)
    if route.permission is not None:
        principal.require(route.permission)
    resting = deps.pauses is not None and deps.pauses.maintenance is not None
    if resting and route.method != "GET" and not route.always:
        raise UnderMaintenance("nothing is taken now; send it again later, under the same key")
    query = _query(route, request)
    raw = b""
    body: Any = None
    if route.signed and not plainly_encoded(request.headers):
        # Nothing of it will be taken, whatever it is: the handler answers what it answers to every stranger.
        await _pass_over(request, deps.max_body_bytes)
    elif route.body is not None or route.signed:
        raw = await _read(request, deps.max_body_bytes)
        if not route.signed:
            body = _body(route, raw)
    await _wait(route, deps, request, query)
    call = Call(
        deps=deps,
        request=request,
        principal=principal,
        tenant=tenant,
        body=body,
        query=query,
        raw=raw,
        visit=caller.visit,
    )
    return render(route, await route.handler(call))


async def _wait(route: Route, deps: Deps, request: web.Request, query: BaseModel) -> None:
    """Until the read model has seen every position that the caller named. Raises `ViewBehind`."""
    if route.view is None:
        return
    asked = {name: getattr(query, name, None) for name in ("wait_for_position", "as_of")}
    asked[WAIT_HEADER] = request.headers.get(WAIT_HEADER)
    for name, position in asked.items():
        if position is not None and not await deps.reader.reached(
            route.view, position, field=name, timeout_seconds=VIEW_SECONDS
        ):
            raise ViewBehind(
                f"the read model {route.view} is still behind this position; ask again, or leave {name} out", field=name
            )


def render(route: Route, given: Answer) -> web.Response:
    """Only what the route declares leaves the house."""
    content = given.content if isinstance(given.content, BaseModel) else route.answer.model_validate(given.content)
    text = content.model_dump_json(by_alias=True).encode()
    headers = dict(given.headers)
    as_of = getattr(content, "as_of", None)
    if as_of:
        headers[AS_OF_HEADER] = as_of
    response = web.Response(body=text, status=given.status, content_type="application/json", headers=headers)
    for cookie in given.cookies:
        response.set_cookie(
            cookie.name,
            cookie.value,
            max_age=cookie.seconds if cookie.value else 0,
            path="/",
            secure=cookie.secure,
            httponly=True,
            samesite="Lax",
        )
    return response


def problem_response(problem: Problem) -> web.Response:
    """RFC 9457. The document has nothing of the request in it: equal refusals are equal bytes."""
    headers = {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if problem.retryable:
        headers["Retry-After"] = str(problem.context.get("retry_after_seconds", 1))
    document = orjson.dumps(problem.to_document(), default=str)
    return web.Response(body=document, status=problem.status, content_type=PROBLEM_TYPE, headers=headers)


def middleware(metrics: Metrics, tracing: RunTracing | None = None) -> Any:
    """The outermost layer: request id, caching and sniffing headers, one metric, and no error without an answer."""

    @web.middleware
    async def around(request: web.Request, handler: Any) -> web.StreamResponse:
        began = time.perf_counter()
        request_id = _request_id(request)
        if tracing is not None:
            spans.begin(tracing.tracing, request, tracing.now())
        try:
            response: web.StreamResponse = await handler(request)
        except asyncio.CancelledError:
            raise
        except Problem as problem:
            response = problem_response(problem)
            if UNREAD in request or (problem.field == "body" and problem.status in (400, 413)):
                # What is left of the body cannot be told from a next request.
                response.force_close()
        except web.HTTPException as refused:
            response = problem_response(_from_http(refused))
            if isinstance(refused, web.HTTPMethodNotAllowed):
                response.headers["Allow"] = ", ".join(sorted(refused.allowed_methods))
        except Exception as error:
            _log.error(
                "request failed",
                method=request.method,
                route=_route_of(request),
                request_id=request_id,
                exc_info=error,
            )
            response = problem_response(Internal("this was not your mistake; give the request id to the operator"))
        response.headers[REQUEST_ID] = request_id
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Server"] = "unwind"  # the libraries below would tell their versions
        route = _route_of(request)
        if tracing is not None:
            spans.end(tracing.tracing, request, route, response.status, tracing.now())
        metrics.http_requests.of(request.method, route, f"{response.status // 100}xx").inc()
        metrics.http_request_duration.of(route).observe(time.perf_counter() - began)
        return response

    return around


def _check_line(request: web.Request) -> None:
    if len(request.raw_path) > MAX_LINE:
        raise RequestInvalid(f"the address is longer than {MAX_LINE} characters", field="path")
    if "\x00" in request.path or any("\x00" in name + value for name, value in request.query.items()):
        raise RequestInvalid("the address holds a NUL character", field="path")


def _tenant(route: Route, request: web.Request, principal: Principal) -> str | None:
    """The tenant this call is about. A tenant's token cannot name another one, existing or not."""
    if route.permission is None:
        return request.match_info.get("tenant")
    named = request.headers.get(TENANT_HEADER) or request.query.get("tenant")
    if principal.tenant is None:
        return named
    if named is not None:
        principal.require_tenant(named)
    return principal.tenant


def _query(route: Route, request: web.Request) -> BaseModel:
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given:
            raise RequestInvalid(f"query parameter {name} is given twice", field=name)
        given[name] = value
    if "tenant" not in route.query.model_fields:
        given.pop("tenant", None)
    if route.permission is None and route.query is Empty:
        return route.query()
    try:
        return route.query.model_validate({name: value for name, value in given.items() if value != ""})
    except ValidationError as invalid:
        raise _from_validation(invalid, RequestInvalid) from None


async def _read(request: web.Request, limit: int) -> bytes:
    if request.content_length is not None and request.content_length > limit:
        raise TooLarge(f"the body is {request.content_length} bytes; send at most {limit}", field="body")
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(f"send at most {limit} bytes", field="body") from None
    except (ValueError, web.RequestPayloadError, web.HTTPBadRequest):
        # Else the HTTP library reads on after the answer, and logs the same as a failure of its own.
        request.content.feed_eof()
        raise RequestInvalid("the body does not arrive as its headers say", field="body") from None


async def _pass_over(request: web.Request, limit: int) -> None:
    """Reads the body for nothing, and marks the request when it cannot be read."""
    try:
        await _read(request, limit)
    except (TooLarge, RequestInvalid):
        request[UNREAD] = True


def parse_json(raw: bytes) -> Any:
    """What a message of the bus may be, too; its size is bounded where it is read. Raises `EnvelopeInvalid`."""
    return load_json(raw, max_bytes=len(raw))


def _body(route: Route, raw: bytes) -> BaseModel:
    assert route.body is not None
    document = parse_json(raw) if raw.strip() else {}
    if not isinstance(document, dict):
        raise PayloadInvalid("the body must be a JSON object", field="body")
    try:
        return route.body.model_validate(document)
    except ValidationError as invalid:
        raise _from_validation(invalid, PayloadInvalid) from None


def _from_validation(invalid: ValidationError, kind: type[Problem]) -> Problem:
    errors = [
        {"field": ".".join(str(part) for part in error["loc"]) or "body", "message": _plain(error["msg"])}
        for error in invalid.errors(include_url=False, include_input=False, include_context=False)[:20]
    ]
    first = errors[0]
    return kind(f"{first['field']}: {first['message']}", field=first["field"], errors=errors)


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")


def _from_http(refused: web.HTTPException) -> Problem:
    match refused.status:
        case 404:
            return NotFound("there is no such address; /openapi.json lists them")
        case 405:
            return MethodRefused("use one of the methods in Allow")
        case 413:
            return TooLarge("the body is too large", field="body")
        case status if 400 <= status < 500:
            return RequestInvalid(f"the request was refused: {refused.reason}")
        case _:
            return Internal("the request could not be answered")


def _request_id(request: web.Request) -> str:
    given = request.headers.get(REQUEST_ID, "")
    if 0 < len(given) <= 100 and given.isascii() and given.isprintable():
        return given
    return str(uuid_utils.uuid7())


def _route_of(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


def uuid_text(text: str | None, field: str) -> UUID | None:
    """An id from a query parameter. Raises `RequestInvalid`."""
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError:
        raise RequestInvalid(f"{field} must be a run id as this API gives it", field=field) from None


__all__ = [
    "Internal",
    "RequestInvalid",
    "ViewBehind",
    "answer",
    "middleware",
    "parse_json",
    "problem_response",
    "render",
    "uuid_text",
]
