"""The generated documents are current, whole and valid; the probes say what they must and nothing more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import orjson
from aiohttp.test_utils import TestClient, TestServer

import contracts.schema
from consumers.web.openapi import document, render
from consumers.web.probes import probe_app
from consumers.web.table import ROUTES
from engine.guards.permissions import ALL_PERMISSIONS
from engine.metrics import Metrics
from tests.web.conftest import Site


def _walk(value: Any) -> Any:
    yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _walk(inner)


def test_the_openapi_document_in_the_repository_is_current() -> None:
    kept = Path(contracts.schema.__file__).with_name("openapi.json")
    assert kept.read_bytes() == render(ROUTES), "run python -m consumers.web"


def test_the_openapi_document_has_every_route_and_no_loose_end() -> None:
    found = document(ROUTES)
    operations = [operation for path in found["paths"].values() for operation in path.values()]
    assert len(operations) == len(ROUTES)
    assert len({operation["operationId"] for operation in operations}) == len(ROUTES)
    for value in _walk(found):
        if isinstance(value, dict) and "$ref" in value:
            target: Any = found
            for part in value["$ref"].removeprefix("#/").split("/"):
                target = target[part]
    for schema in found["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for path, methods in found["paths"].items():
        names = set(re.findall(r"{(\w+)}", path))
        for operation in methods.values():
            assert {item["name"] for item in operation["parameters"] if item["in"] == "path"} == names


def test_every_permission_a_route_asks_for_exists() -> None:
    assert {route.permission for route in ROUTES if route.permission} <= ALL_PERMISSIONS


async def test_answers_fit_the_document(town: Site) -> None:
    served = await (await town.client.get("/openapi.json")).json()
    assert served == document(ROUTES)
    run_id = town.runs["acme"][2]
    for address, path in (
        ("/v1/runs", "/v1/runs"),
        (f"/v1/runs/{run_id}", "/v1/runs/{run_id}"),
        (f"/v1/runs/{run_id}/timeline", "/v1/runs/{run_id}/timeline"),
        (f"/v1/runs/{run_id}/steps", "/v1/runs/{run_id}/steps"),
        (f"/v1/runs/{run_id}/explain", "/v1/runs/{run_id}/explain"),
        ("/v1/approvals?state=any", "/v1/approvals"),
        ("/v1/dead-letters", "/v1/dead-letters"),
        ("/v1/usage", "/v1/usage"),
        ("/v1/stats", "/v1/stats"),
        ("/v1/audit", "/v1/audit"),
        ("/v1/workflows", "/v1/workflows"),
        ("/v1/causation/story-1", "/v1/causation/{correlation_id}"),
    ):
        answer = await (await town.client.get(address, headers=town.headers())).json()
        schema = served["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator({**schema, "components": served["components"]}).validate(answer)
    problem = await (await town.client.get("/v1/runs")).json()
    schema = {"$ref": "#/components/schemas/Problem", "components": served["components"]}
    jsonschema.Draft202012Validator(schema).validate(problem)


async def test_the_asyncapi_document_is_served_from_the_same_registry(site: Site) -> None:
    served = await (await site.client.get("/asyncapi.json")).json()
    assert served["asyncapi"] == "3.0.0"
    assert "billing.commands" in served["channels"]


async def test_probes_need_no_token_and_healthz_never_asks_the_database(site: Site) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/version"):
        assert (await site.client.get(path)).status == 200
    await site.store.stop()
    assert (await site.client.get("/healthz")).status == 200
    metrics = await (await site.client.get("/metrics")).text()
    assert 'unwind_http_requests_total{method="GET",route="/healthz",status="2xx"} 2.0' in metrics


async def test_readyz_names_the_check_that_fails_in_any_process() -> None:
    state: dict[str, dict[str, Any]] = {"database": {"ok": True}, "bus": {"ok": False, "detail": "no broker"}}

    async def checks() -> dict[str, dict[str, Any]]:
        return state

    async with TestClient(TestServer(probe_app(Metrics(), checks))) as client:
        failing = await client.get("/readyz")
        assert failing.status == 503
        assert orjson.loads(await failing.read())["checks"]["bus"] == {"ok": False, "detail": "no broker"}
        state["bus"] = {"ok": True}
        assert (await client.get("/readyz")).status == 200
        assert (await client.get("/v1/runs")).status == 404
