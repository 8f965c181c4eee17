"""The contracts as documents: one JSON Schema per message type, the envelope's, and an AsyncAPI 3 description of the
bus. Generated, deterministic, kept current by a test. Regenerate with `python -m contracts.schema`.

Each schema says under `x-unwind` what the manifest declares beside the fields (role, correlation keys, outcomes,
undo), so that a folder of these files is the whole contract and two folders can be compared
(`contracts.compatibility`). `openapi.json` lives here too; the HTTP API generates it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
from pydantic import BaseModel
from pydantic.json_schema import model_json_schema

from contracts.blueprint import Blueprint
from contracts.envelope import CONTENT_TYPE, MAX_ID_LENGTH
from contracts.manifest import Module, QueryRefusedV1
from contracts.registry import CommandEntry, EventEntry, QueryEntry, Registry
from contracts.version import __version__

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
EXTENSION: Final = "x-unwind"

Document = dict[str, Any]


def generate(registry: Registry) -> dict[str, bytes]:
    """File name to content, for every type of the registry, the envelope, and `asyncapi.json`."""
    files = {f"{name}.json": schema for name, schema in schemas(registry).items()}
    files["envelope.json"] = {"$schema": DIALECT, "$id": "urn:unwind:envelope", **envelope_schema()}
    files["blueprint.json"] = {"$schema": DIALECT, "$id": "urn:unwind:blueprint", **blueprint_schema()}
    files["asyncapi.json"] = asyncapi(registry)
    return {name: render(document) for name, document in sorted(files.items())}


def render(document: Document) -> bytes:
    """The one spelling of a generated document."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def schemas(registry: Registry) -> dict[str, Document]:
    """One self-contained JSON Schema per type: of events, commands, queries and answers, by type."""
    found: dict[str, Document] = {}
    for event in registry.events.values():
        found[event.type] = _schema(event.type, event.event.model, _event_facts(event))
    for command in registry.commands.values():
        found[command.type] = _schema(command.type, command.command.model, _command_facts(command))
    for query in registry.queries.values():
        found[query.type] = _schema(query.type, query.query.model, _query_facts(query))
        found[query.answer.type] = _schema(query.answer.type, query.query.answer, {"role": "answer"})
        refusal = _refusal(query.module)
        found[refusal] = _schema(refusal, QueryRefusedV1, {"role": "answer"})
    return found


def envelope_schema() -> Document:
    """What `contracts.envelope` checks, for other languages."""
    text = {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH}
    return {
        "title": "Envelope",
        "description": "CloudEvents 1.0, structured mode, with Unwind's extension attributes (docs/wire.md).",
        "type": "object",
        "required": ["specversion", "id", "source", "type", "time", "tenantid"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {**text, "description": "The dedup key, with tenantid and source. The same whenever it is sent."},
            "source": {"type": "string", "pattern": "^/modules/[a-z][a-z0-9_]{0,62}$"},
            "type": {
                "type": "string",
                "pattern": "^[a-z][a-z0-9_]{0,62}\\.[A-Z][A-Za-z0-9]{0,99}V[1-9][0-9]{0,3}$",
                "description": "<module>.<Name>V<n>, equal to the routing key.",
            },
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"type": "string", "default": "application/json"},
            "tenantid": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"},
            "subject": {**text, "description": "Commands: the idempotency key. Facts: the aggregate it is about."},
            "correlationid": {**text, "description": "Ties one story together; inherited."},
            "causationid": {**text, "description": "The id of the message this one answers or follows from."},
            "traceparent": {**text, "description": "W3C trace context."},
            "dataschema": text,
            "data": {"type": "object"},
        },
    }


def blueprint_schema() -> Document:
    """What `contracts.blueprint` reads: workflows as data (docs/blueprints.md)."""
    return Blueprint.model_json_schema(by_alias=True)


def asyncapi(registry: Registry) -> Document:
    """AsyncAPI 3.0. Each operation is told from the side of the module that owns the channel: it sends facts, receives
    commands and replies with outcomes.
    """
    components: Document = {"schemas": {"envelope": envelope_schema()}, "messages": {}}
    for name, schema in schemas(registry).items():
        _add_message(components, name, schema)
    channels: Document = {}
    operations: Document = {}
    for module in registry.modules.values():
        _describe(module, registry, channels, operations)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Unwind message bus",
            "version": __version__,
            "description": "Facts, commands and queries of the installed modules. docs/wire.md says how to take part.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {"broker": {"host": "localhost:5672", "protocol": "amqp", "protocolVersion": "0.9.1"}},
        "channels": channels,
        "operations": operations,
        "components": components,
    }


def _describe(module: Module, registry: Registry, channels: Document, operations: Document) -> None:
    events = [module.type_of(event.model) for event in module.all_events]
    commands = [module.type_of(command.model) for command in module.commands]
    queries = [module.type_of(query.model) for query in module.queries]
    answers = [module.type_of(query.answer) for query in module.queries]
    if events:
        channels[f"{module.name}.events"] = _channel(module, "Facts and outcomes", "unwind.events", events)
    if commands:
        channels[f"{module.name}.commands"] = _channel(module, "Commands", "unwind.commands", commands)
    if queries:
        channels[f"{module.name}.queries"] = _channel(module, "Queries", "unwind.commands", queries)
        channels[f"{module.name}.answers"] = {
            "address": None,
            "description": "The queue that the query's AMQP property reply_to names, through the default exchange.",
            "messages": {name: _reference("messages", name) for name in (*answers, _refusal(module))},
            "bindings": {
                "amqp": {
                    "is": "queue",
                    "queue": {"durable": False, "exclusive": True, "autoDelete": True},
                    "bindingVersion": "0.3.0",
                }
            },
        }
    for name in events:
        operations[f"publish.{name}"] = _operation("send", f"{module.name}.events", name)
    for command in module.commands:
        name = module.type_of(command.model)
        outcomes = [module.type_of(outcome) for outcome in command.outcomes]
        operations[f"handle.{name}"] = {
            **_operation("receive", f"{module.name}.commands", name),
            "reply": {
                "channel": {"$ref": f"#/channels/{module.name}.events"},
                "messages": [_in_channel(f"{module.name}.events", outcome) for outcome in outcomes],
            },
            EXTENSION: _command_facts(registry.command(name)),
        }
    for query in module.queries:
        name = module.type_of(query.model)
        operations[f"answer.{name}"] = {
            **_operation("receive", f"{module.name}.queries", name),
            "reply": {
                "address": {"location": "$message.header#/reply_to"},
                "channel": {"$ref": f"#/channels/{module.name}.answers"},
                "messages": [
                    _in_channel(f"{module.name}.answers", answer)
                    for answer in (module.type_of(query.answer), _refusal(module))
                ],
            },
        }


def _refusal(module: Module) -> str:
    """What a module answers when it cannot answer a question."""
    return module.type_of(QueryRefusedV1)


def _channel(module: Module, what: str, exchange: str, names: Iterable[str]) -> Document:
    return {
        "address": f"{module.name}.{{name}}",
        "description": f"{what} of module {module.name}. The routing key is the message's type.",
        "parameters": {"name": {"description": "The model's name with its version, such as UserCreatedV1."}},
        "messages": {name: _reference("messages", name) for name in names},
        "bindings": {
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": exchange, "type": "topic", "durable": True, "autoDelete": False},
                "bindingVersion": "0.3.0",
            }
        },
    }


def _operation(action: str, channel: str, name: str) -> Document:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [_in_channel(channel, name)],
        "bindings": {"amqp": {"deliveryMode": 2, "mandatory": True, "ack": True, "bindingVersion": "0.3.0"}},
    }


def _in_channel(channel: str, name: str) -> Document:
    return {"$ref": f"#/channels/{channel}/messages/{name}"}


def _reference(kind: str, name: str) -> Document:
    return {"$ref": f"#/components/{kind}/{name}"}


def _add_message(components: Document, name: str, schema: Mapping[str, Any]) -> None:
    """The schema's inner definitions become components of their own, since its references are to the whole document
    now.
    """
    own = {key: value for key, value in schema.items() if key not in ("$defs", "$schema", "$id")}
    components["schemas"][name] = _rebased(own, name)
    for inner, definition in schema.get("$defs", {}).items():
        components["schemas"][f"{name}.{inner}"] = _rebased(definition, name)
    components["messages"][name] = {
        "name": name,
        "title": schema["title"],
        **({"summary": schema["description"]} if "description" in schema else {}),
        "contentType": CONTENT_TYPE,
        "correlationId": {"location": "$message.payload#/correlationid"},
        "payload": {
            "allOf": [
                _reference("schemas", "envelope"),
                {"properties": {"type": {"const": name}, "data": _reference("schemas", name)}, "required": ["data"]},
            ]
        },
    }


def _rebased(schema: Any, name: str) -> Any:
    if isinstance(schema, dict):
        return {
            key: f"#/components/schemas/{name}.{value.removeprefix('#/$defs/')}"
            if key == "$ref" and isinstance(value, str)
            else _rebased(value, name)
            for key, value in schema.items()
        }
    return [_rebased(item, name) for item in schema] if isinstance(schema, list) else schema


def _schema(name: str, model: type[BaseModel], facts: Document) -> Document:
    # What a sender must fulfil, hence "validation": a field with a default may be left out.
    body = model_json_schema(model, mode="validation")
    body["title"] = name.partition(".")[2]
    return {"$schema": DIALECT, "$id": f"urn:unwind:{name}", EXTENSION: facts, **body}


def _event_facts(entry: EventEntry) -> Document:
    facts: Document = {"role": "event", "keys": dict(entry.event.keys)}
    if entry.event.subject is not None:
        facts["subject"] = entry.event.subject
    return facts


def _command_facts(entry: CommandEntry) -> Document:
    command, module = entry.command, entry.module
    facts: Document = {
        "role": "command",
        "action": entry.action,
        "success": module.type_of(command.success),
        "failures": [module.type_of(outcome) for outcome in command.failures],
        "irrecoverable": [module.type_of(outcome) for outcome in command.irrecoverable],
        "coverage": command.coverage,
        "ambiguous": command.ambiguous,
        "timeout_seconds": command.timeout_seconds,
    }
    if command.undo is not None:
        facts["undo"] = f"{module.name}.{command.undo}"
    if command.query is not None:
        facts["query"] = f"{module.name}.{command.query}"
    if command.permission is not None:
        facts["permission"] = command.permission
    return facts


def _query_facts(entry: QueryEntry) -> Document:
    facts: Document = {"role": "query", "answer": entry.answer.type}
    if entry.query.permission is not None:
        facts["permission"] = entry.query.permission
    return facts
