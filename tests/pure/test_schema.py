"""The generated documents: current, deterministic, valid, and saying what the models say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from contracts import schema
from contracts.envelope import Envelope, parse_time
from contracts.manifest import marks_of
from contracts.modules import SHIPPED
from contracts.notices import UNWIND
from contracts.registry import Registry
from contracts.schema import EXTENSION, generate, schemas

FOLDER = Path(schema.__file__).parent
REGISTRY = Registry([UNWIND, *SHIPPED])
GENERATED_ELSEWHERE = {"openapi.json"}


def test_the_committed_documents_are_what_the_manifests_say() -> None:
    """When this fails: python -m contracts.schema"""
    committed = {path.name: path.read_bytes() for path in FOLDER.glob("*.json")}
    for name in GENERATED_ELSEWHERE:
        committed.pop(name, None)
    generated = generate(REGISTRY)
    assert committed.keys() == generated.keys()
    assert [name for name in generated if committed[name] != generated[name]] == []


def test_generating_twice_in_any_order_gives_the_same_bytes() -> None:
    assert generate(Registry([*reversed(SHIPPED), UNWIND])) == generate(REGISTRY)


def test_every_type_has_a_valid_schema_that_says_its_role() -> None:
    found = schemas(REGISTRY)
    assert {*REGISTRY.events, *REGISTRY.commands, *REGISTRY.queries} <= found.keys()
    for name, document in found.items():
        jsonschema.Draft202012Validator.check_schema(document)
        assert document["$id"] == f"urn:unwind:{name}"
        assert document[EXTENSION]["role"] in ("event", "command", "query", "answer")
        assert (document.get("additionalProperties") is False) == (document[EXTENSION]["role"] in ("command", "query"))


def test_personal_values_are_marked_in_the_schema_where_the_model_marks_them() -> None:
    document = schemas(REGISTRY)["identity.UserInvitedV1"]
    marked = [f"/{name}" for name, field in document["properties"].items() if field.get("pii")]
    assert tuple(marked) == marks_of(REGISTRY.event("identity.UserInvitedV1").event.model)
    assert marked


def test_the_envelope_schema_accepts_what_is_sent_and_refuses_what_the_parser_refuses() -> None:
    validator = jsonschema.Draft202012Validator(schema.envelope_schema())
    sent = Envelope(
        id="e1",
        source="/modules/billing",
        type="billing.SubscriptionActivatedV1",
        tenantid="acme",
        time=parse_time("2026-01-31T12:00:00Z"),
    )
    document = orjson.loads(sent.to_json())
    assert validator.is_valid(document)
    for name, value in {
        "specversion": "0.3",
        "id": "",
        "source": "billing",
        "type": "billing.Paid",
        "tenantid": "a/b",
        "data": [],
        "causationid": 1,
    }.items():
        assert not validator.is_valid({**document, name: value})


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in references(inner)]
    return [found for inner in value for found in references(inner)] if isinstance(value, list) else []


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = schema.asyncapi(REGISTRY)
    found = references(document)
    assert len(found) > 100
    for reference in found:
        place: Any = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_the_asyncapi_document_names_exchange_routing_key_and_reply_of_a_command() -> None:
    document = schema.asyncapi(REGISTRY)
    operation = document["operations"]["handle.billing.CreateSubscriptionV1"]
    assert operation["action"] == "receive"
    assert operation["reply"]["messages"] == [
        {"$ref": f"#/channels/billing.events/messages/{name}"}
        for name in (
            "billing.SubscriptionActivatedV1",
            "billing.BillingUnavailableV1",
            "billing.BillingRefusedV1",
        )
    ]
    channel = document["channels"]["billing.commands"]
    assert channel["bindings"]["amqp"]["exchange"]["name"] == "unwind.commands"
    assert "billing.CreateSubscriptionV1" in channel["messages"]


def test_a_message_of_the_asyncapi_document_validates_a_whole_envelope() -> None:
    document = schema.asyncapi(REGISTRY)
    payload = document["components"]["messages"]["billing.CreateSubscriptionV1"]["payload"]
    validator = jsonschema.Draft202012Validator({**payload, "components": document["components"]})
    envelope = {
        "specversion": "1.0",
        "id": "e1",
        "source": "/modules/unwind",
        "type": "billing.CreateSubscriptionV1",
        "time": "2026-01-31T12:00:00Z",
        "tenantid": "acme",
        "data": {"edition": "pro"},
    }
    assert validator.is_valid(envelope)
    assert not validator.is_valid({**envelope, "data": {"edition": 7}})
    assert not validator.is_valid({**envelope, "data": {"edition": "pro", "unknown": 1}})
    assert not validator.is_valid({**envelope, "type": "billing.CancelSubscriptionV1"})


def test_the_command_writes_what_is_missing_and_removes_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from contracts.schema import __main__ as command

    monkeypatch.setattr(command, "FOLDER", tmp_path)
    (tmp_path / "gone.LostV1.json").write_text("{}")
    (tmp_path / "openapi.json").write_text("{}")
    command.main()
    names = {path.name for path in tmp_path.iterdir()}
    assert names == generate(REGISTRY).keys() | {"openapi.json"}
    assert "documents are current" in capsys.readouterr().out
