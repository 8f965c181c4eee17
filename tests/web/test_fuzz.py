"""Requests made from the OpenAPI document itself, right in form, then bent: none is answered with a 5xx."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from aiohttp import ClientTimeout
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from consumers import subjects
from consumers.web import dispatch
from consumers.web.openapi import render
from consumers.web.table import ROUTES
from tests.web.conftest import Site

DOCUMENT = orjson.loads(render(ROUTES))
ASKS_TENANCY = {"show_tenant", "offboard_tenant"}
"""Nobody answers for tenancy here."""
WAIT_FOR_VIEWS = {"erase_subject", "export_subject"}
"""Nobody writes the read models here, and these act on what is in them."""
STOPS_ALL = {"begin_maintenance"}
"""Taken, it refuses everything after it."""
OPERATIONS = sorted(
    (method.upper(), path, operation["operationId"])
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
    if operation["operationId"] not in ASKS_TENANCY | STOPS_ALL
)
REQUESTS = 12 * len(OPERATIONS)

_NASTY = st.sampled_from(
    [
        "", "\x00", "\ud800", "%00", "../..", "' OR 1=1 --", "a" * 700, "\u202e", "\r\nX: y", "{0.__class__}", "${x}",
        "*", "-1", "9" * 400, "1e999", "NaN", "null", "acme", "orders", "2030-01", "2030-01-01T00:00:00Z",
        "0190b2f4-7c1e-7e58-b1b2-3c4d5e6f7a8b", "customer-onboarding", "/a", "/" + "9" * 200, "~2",
    ]
)  # fmt: skip
_NUMBERS = st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0, float("nan"), float("inf")])
_ANY = st.recursive(
    st.none() | st.booleans() | _NUMBERS | st.integers() | _NASTY | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NASTY | st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def _fitting(schema: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Values as the schema has them, now and then bent."""
    if "$ref" in schema:
        return _fitting(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]], depth)
    if "anyOf" in schema or "oneOf" in schema:
        return st.one_of([_fitting(one, depth) for one in schema.get("anyOf") or schema["oneOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) | _NASTY
    if "const" in schema:
        return st.just(schema["const"]) | _NASTY
    match schema.get("type"):
        case "object" if schema.get("properties") and depth < 4:
            required = set(schema.get("required", ()))
            named = {name: _fitting(inner, depth + 1) for name, inner in schema["properties"].items()}
            fixed = st.fixed_dictionaries(
                {name: inner for name, inner in named.items() if name in required},
                optional={name: inner for name, inner in named.items() if name not in required},
            )
            return fixed | st.tuples(fixed, _NASTY, _ANY).map(lambda given: {**given[0], given[1]: given[2]})
        case "array":
            return st.lists(_fitting(schema.get("items", {}), depth + 1), max_size=3)
        case "string":
            return _NASTY | st.text(max_size=12)
        case "integer" | "number":
            return st.integers(schema.get("minimum", 0), schema.get("maximum", 100)) | _NUMBERS
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case _:
            return _ANY


def _texts(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, str, dict[str, str], bytes | None]:
    method, path, name = draw(st.sampled_from(OPERATIONS))
    operation = DOCUMENT["paths"][path][method.lower()]
    asked: list[str] = []
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            filled = quote(draw(_NASTY), safe="", errors="surrogatepass") or "x"
            path = path.replace("{" + parameter["name"] + "}", filled)
        elif parameter["in"] == "query" and draw(st.booleans()):
            value = quote(_texts(draw(_fitting(parameter["schema"]))), safe="", errors="surrogatepass")
            asked.append(f"{parameter['name']}={value}")
    body = None
    if method == "POST":
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        body = draw(
            st.one_of(_fitting(content), _ANY).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40)
        )
    return method, path + ("?" + "&".join(asked) if asked else ""), name, draw(_HEADERS), body


_HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Content-Encoding": st.sampled_from(["gzip", "deflate", "identity", "x"]),
        "Idempotency-Key": st.sampled_from(["k", "k" * 500, "\u00e9", "a b"]),
        "X-Tenant": st.sampled_from(["acme", "globex", "..", "a" * 300, "\u00e9"]),
        "Unwind-Wait-For-Position": st.sampled_from(["0-1", "0-999999999999999999999", "x", "\u00e9"]),
        "webhook-id": st.sampled_from(["m", "m" * 500, "\u00e9"]),
        "webhook-timestamp": st.sampled_from(["1", "9" * 50, "\u0661"]),
        "webhook-signature": st.sampled_from(["v1,AAAA", "v1,\u00e9", "v1," + "A" * 3_000]),
        "Stripe-Signature": st.sampled_from(["t=1,v1=0", "t=" + "9" * 40, "\u00e9"]),
        "X-Hub-Signature-256": st.sampled_from(["sha256=0", "\u00e9"]),
        "traceparent": st.sampled_from(["00-0-0-0", "\u00e9"]),
        "Authorization": st.sampled_from(["", "Bearer", "Bearer unw_x", "Basic \u00e9"]),
    },
)


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "VIEW_SECONDS", 0.01)
    monkeypatch.setattr(dispatch, "VIEW_SECONDS", 0.01)


async def test_no_request_made_from_the_document_is_answered_with_a_5xx(town: Site) -> None:
    loop = asyncio.get_running_loop()
    base = str(town.client.make_url("/")).rstrip("/")
    seen: dict[str, set[int]] = {}

    async def send(method: str, address: str, headers: dict[str, str], body: bytes | None) -> tuple[int, bytes]:
        sent = town.headers() | headers
        url = URL(base + address, encoded=True)
        options: dict[str, Any] = {"headers": sent, "data": body, "timeout": ClientTimeout(total=30)}
        async with town.client.session.request(method, url, **options) as response:
            return response.status, await response.read()

    @settings(
        max_examples=REQUESTS, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(requests())
    def answers(request: tuple[str, str, str, dict[str, str], bytes | None]) -> None:
        method, address, name, headers, body = request
        asked = asyncio.run_coroutine_threadsafe(send(method, address, headers, body), loop)
        status, content = asked.result(40)
        seen.setdefault(name, set()).add(status)
        if status == 503 and (orjson.loads(content)["code"] == "view_behind" or name in WAIT_FOR_VIEWS):
            return
        assert status < 500, content
        if content.startswith(b"{") and status >= 400:  # what is no HTTP is answered by the library, in words
            assert orjson.loads(content)["status"] == status

    await asyncio.to_thread(answers)
    assert len(seen) > 0.9 * len(OPERATIONS)
    assert len({status for statuses in seen.values() for status in statuses}) >= 6
