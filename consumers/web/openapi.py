"""The OpenAPI 3.1 document of the API, written from the route table and the pydantic models. Deterministic;
`contracts/schema/openapi.json` is its copy in the repository, kept current by a test. Regenerate with
`python -m consumers.web`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import orjson
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from consumers.web import told
from consumers.web.routes import AS_OF_HEADER, TENANT_HEADER, WAIT_HEADER, Route
from contracts.version import __version__

REF: Final = "#/components/schemas/{model}"
PROBLEMS: Final = {
    400: "The request cannot be understood",
    401: "No valid token, session or signature",
    403: "The permission is missing, or the request of a session is not to be believed",
    404: "There is no such thing, or it is another tenant's",
    409: "The present state does not allow it",
    413: "The body is too large",
    422: "A field does not fit",
    503: "A part the engine depends on does not answer, or the read model is still behind the position that was waited "
    "for; try again after Retry-After",
}

Document = dict[str, Any]


def document(routes: Sequence[Route]) -> Document:
    """The whole description."""
    schemas = _schemas(routes)
    paths: Document = {}
    for route in routes:
        path = re.sub(r"{(\w+):[^}]*}", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Unwind",
            "version": __version__,
            "description": "Durable sagas over a message bus: publish events, start and read runs, repair what is "
            "parked. Refusals are RFC 9457 problems. Everything shown is redacted.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in sorted(schemas.items()) if not name.startswith("query ")},
            "responses": {str(status): _problem(text) for status, text in PROBLEMS.items()},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "An API token, `unw_...`"},
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "__Host-unwind",
                    "description": "A session of POST /v1/session; `unwind` over http. Everything but GET and HEAD "
                    "needs the header X-CSRF-Token, and Origin or Sec-Fetch-Site",
                },
                "signature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Hub-Signature-256",
                    "description": "`sha256=<hex>`, HMAC-SHA256 over the body; Standard Webhooks headers do as well",
                },
            },
        },
        "security": [{"token": []}, {"session": []}],
    }


def render(routes: Sequence[Route]) -> bytes:
    """The one spelling of the document."""
    return orjson.dumps(document(routes), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def _schemas(routes: Sequence[Route]) -> Document:
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(told.Problem, "serialization"): None}
    for route in routes:
        wanted[route.answer, "serialization"] = None
        if route.body is not None:
            wanted[route.body, "validation"] = None
    _, definitions = models_json_schema(list(wanted), ref_template=REF)
    schemas: Document = dict(definitions.get("$defs", {}))
    for route in routes:
        schemas["query " + route.query.__name__] = route.query.model_json_schema(ref_template=REF)
    return schemas


def _operation(route: Route, schemas: Document) -> Document:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.parameters
    ]
    query = schemas["query " + route.query.__name__]
    for name, schema in query.get("properties", {}).items():
        described = {key: value for key, value in schema.items() if key not in ("title", "description")}
        parameter = {"name": name, "in": "query", "required": False, "schema": described}
        if "description" in schema:
            parameter["description"] = schema["description"]
        parameters.append(parameter)
    if route.permission is not None:
        parameters.append(
            {
                "name": TENANT_HEADER,
                "in": "header",
                "required": False,
                "description": "The tenant that a platform token acts for",
                "schema": {"type": "string"},
            }
        )
    if route.view is not None:
        parameters.append(
            {
                "name": WAIT_HEADER,
                "in": "header",
                "required": False,
                "description": "The same as the query parameter wait_for_position",
                "schema": {"type": "string", "maxLength": 200},
            }
        )
    if route.key:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "The same key again does nothing again, and answers with the original",
                "schema": {"type": "string", "maxLength": 180},
            }
        )
        parameters.append(
            {
                "name": "traceparent",
                "in": "header",
                "required": False,
                "description": "The trace (W3C) that whatever follows belongs to",
                "schema": {"type": "string"},
            }
        )
    found: Document = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": parameters,
        "responses": _responses(route),
    }
    if route.handler.__doc__:
        found["description"] = " ".join(route.handler.__doc__.split())
    if route.session:
        found["security"] = [{"session": []}]
    elif route.permission is None:
        found["security"] = [{"token": []}, {"signature": []}] if route.signed else []
    else:
        found["x-unwind-permission"] = route.permission
    if route.body is not None or route.signed:
        schema = {"$ref": REF.format(model=route.body.__name__)} if route.body is not None else {"type": "object"}
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return found


def _responses(route: Route) -> Document:
    good: Document = {
        "description": "Recorded" if route.status == 202 else "As asked",
        "content": {"application/json": {"schema": {"$ref": REF.format(model=route.answer.__name__)}}},
    }
    if "as_of" in route.answer.model_fields:
        good["headers"] = {
            AS_OF_HEADER: {
                "description": "How far the answer has seen the log: wait_for_position of a later read",
                "schema": {"type": "string"},
            }
        }
    if route.status == 302:
        good["description"] = "Onward"
        good["headers"] = {"Location": {"description": "Where to go on to", "schema": {"type": "string"}}}
    answers: Document = {str(route.status): good}
    if route.key and route.status != 200:
        answers["200"] = {**good, "description": "The key was known: the original"}
    statuses = [400, 401, 403, 404, 503]
    if route.method != "GET":
        statuses += [409, 413, 422]
    for status in sorted(statuses):
        answers[str(status)] = {"$ref": f"#/components/responses/{status}"}
    return answers


def _problem(text: str) -> Document:
    schema = {"$ref": REF.format(model=told.Problem.__name__)}
    return {"description": text, "content": {"application/problem+json": {"schema": schema}}}
