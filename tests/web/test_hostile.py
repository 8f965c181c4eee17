"""Hostile input gets a 4xx with a problem document, never a 5xx and never a stack."""

from __future__ import annotations

import gzip
import re
from typing import Any

import orjson

from consumers.web.table import ROUTES
from tests.web.conftest import Site

NASTY = [
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"{",
    b"\xff\xfe\x00",
    b'{"a": NaN}',
    b'{"a": 1e999}',
    b'{"a": ' + b"9" * 5_000 + b"}",
    b'{"a": "\\ud800"}',
    b'{"a": "\\u0000"}',
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b"[" * 100_000,
    orjson.dumps(
        {"input": {"x": "\x00"}, "reason": "\x00", "step": "\x00", "comment": "\x00", "type": "\x00", "tenant": "\x00"}
    ),
    orjson.dumps({"input": [], "data": [], "approved": "yes", "step": 1, "type": 1, "tenant": 1}),
    orjson.dumps({str(n): n for n in range(20_000)}),
]
WORDS = ["%27;%20DROP%20TABLE%20log;%20--", "%00", "..%2f..%2fetc", "%F0%9F%92%A9", "%C0%AF", "a" * 3_000, "-1", "*"]


def _fill(path: str, word: str) -> str:
    return re.sub(r"{(\w+)(:[^}]*)?}", lambda _: word, path)


async def _ask(site: Site, method: str, address: str, **options: Any) -> tuple[int, bytes, str]:
    from yarl import URL

    url = URL(str(site.client.make_url("/")).rstrip("/") + address, encoded=True)
    async with site.client.session.request(method, url, **options) as response:
        return response.status, await response.read(), response.content_type


def _refused(answer: tuple[int, bytes, str], what: Any) -> None:
    status, content, kind = answer
    assert 400 <= status < 500, (what, status, content[:300])
    assert kind == "application/problem+json", what
    document = orjson.loads(content)
    assert document["status"] == status
    assert "Traceback" not in content.decode()


async def test_no_body_makes_a_route_fail(town: Site) -> None:
    run, letter = str(town.runs["acme"][0]), str(town.letters["acme"])
    values = {"run_id": run, "letter_id": letter, "workflow": "customer-onboarding", "name": "review", "tenant": "acme"}
    values |= {
        "bulk_id": run,
        "hook": "orders",
        "secret": "provider",
        "user_id": str(town.users["acme"]),
        "outlet": "ops",
    }
    for route in (route for route in ROUTES if route.body is not None):
        tenant = None if route.name in ("register_tenant", "put_quotas") else "acme"
        address = re.sub(r"{(\w+)}", lambda found: values[found.group(1)], route.path)
        headers = town.headers(tenant) | {"Content-Type": "application/json"}
        for body in NASTY:
            status, content, _ = await _ask(town, route.method, address, headers=headers, data=body)
            assert status < 500, (route.name, body[:60], content[:300])


async def test_no_address_makes_a_route_fail(town: Site) -> None:
    for route in ROUTES:
        if not route.parameters:
            continue
        for word in WORDS:
            body = b"{}" if route.body is not None else None
            answer = await _ask(town, route.method, _fill(route.path, word), headers=town.headers(), data=body)
            assert answer[0] < 500, (route.path, word, answer)
            if route.name not in ("start_by_hook", "get_story"):
                _refused(answer, (route.path, word))


QUERIES = [
    "limit=0", "limit=-1", "limit=1e9", "limit=9999999999999999999999", "cursor=%00", "cursor=x", "status=nothing",
    "attribute=x", "attribute=%00:x", "as_of=%F0%9F%92%A9", "as_of=0-99999999999999999999", "surprise=1",
    "limit=1&limit=2", "workflow=%00", "state=%00", "run_id=x", "from_day=yesterday", "from_day=99999-01-01",
    "topic=%00", "tenant=..", "tenant=%00", "cursor=%5B1%2C2%2C3%5D", "cursor=%7B%7D",
    "cursor=999999999999999999999",
]  # fmt: skip


async def test_no_query_makes_a_route_fail(town: Site) -> None:
    for query in QUERIES:
        for route in ROUTES:
            if route.method == "GET" and not route.parameters:
                answer = await _ask(town, "GET", f"{route.path}?{query}", headers=town.headers())
                assert answer[0] < 500, (route.path, query, answer)


async def test_sizes_are_bounded_before_anything_is_read(town: Site) -> None:
    headers = town.headers() | {"Content-Type": "application/json"}
    large = await _ask(town, "POST", "/v1/events", headers=headers, data=b"x" * 300_000)
    assert large[0] == 413
    _refused(large, "large")
    bomb = gzip.compress(b'{"type":"' + b"a" * 50_000_000 + b'"}')
    unpacked = await _ask(town, "POST", "/v1/events", headers=headers | {"Content-Encoding": "gzip"}, data=bomb)
    assert unpacked[0] == 413
    lying = await _ask(town, "POST", "/v1/events", headers=headers | {"Content-Encoding": "gzip"}, data=b"not gzip")
    _refused(lying, "not gzip")
    stranger = await _ask(town, "POST", "/v1/events", headers={}, data=b"x" * 300_000)
    assert stranger[0] == 401
    _refused(await _ask(town, "GET", "/v1/runs?workflow=" + "a" * 5_000, headers=headers), "long line")


async def test_what_is_not_there_and_what_is_not_allowed_are_problems_too(town: Site) -> None:
    _refused(await _ask(town, "GET", "/nothing/here"), "unknown")
    status, content, kind = await _ask(town, "DELETE", "/v1/runs", headers=town.headers())
    assert (status, kind, orjson.loads(content)["code"]) == (405, "application/problem+json", "method_not_allowed")


async def test_answers_carry_the_request_id_and_are_not_stored_or_sniffed(town: Site) -> None:
    async with town.client.get("/v1/runs", headers=town.headers() | {"X-Request-Id": "r-1"}) as response:
        assert response.headers["X-Request-Id"] == "r-1"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Server"] == "unwind"
    async with town.client.get("/v1/runs", headers={"X-Request-Id": "x" * 200}) as response:
        assert response.status == 401
        assert len(response.headers["X-Request-Id"]) == 36
