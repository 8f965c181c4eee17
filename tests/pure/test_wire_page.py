"""docs/wire.md is what other languages build from: the real parser reads its examples, and they fit real contracts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from contracts import envelope
from contracts.modules import SHIPPED
from contracts.notices import UNWIND
from contracts.registry import Registry
from contracts.schema import envelope_schema
from contracts.sdk import topology, transport

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text()
BLOCKS: list[dict[str, Any]] = [orjson.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
ENVELOPES = [block for block in BLOCKS if "specversion" in block]
REGISTRY = Registry([UNWIND, *SHIPPED])


def test_there_is_an_example_of_each_kind_of_message() -> None:
    kinds = {message["type"] for message in ENVELOPES}
    assert kinds & REGISTRY.events.keys()
    assert kinds & REGISTRY.commands.keys()
    assert "identity.SignInAnswerV1" in kinds


@pytest.mark.parametrize("message", ENVELOPES, ids=lambda message: message["type"])
def test_an_example_is_a_message_that_the_engine_takes(message: dict[str, Any]) -> None:
    read = envelope.parse(orjson.dumps(message))
    if read.type in REGISTRY.events:
        assert REGISTRY.check_event(read).payload == message["data"]
    elif read.type in REGISTRY.commands:
        assert REGISTRY.check_command(read.type, read.data) == message["data"]
    else:
        answers = {entry.answer.type: entry.answer for entry in REGISTRY.queries.values()}
        assert answers[read.type].check(read.data) == message["data"]


def test_the_outcome_shown_answers_the_command_shown() -> None:
    command = next(m for m in ENVELOPES if m["type"] == "billing.CreateSubscriptionV1")
    outcome = next(m for m in ENVELOPES if m.get("causationid") == command["id"] and m["id"].startswith("c2a6"))
    spec = next(s for s in REGISTRY.action_specs().values() if s.command == command["type"])
    assert outcome["type"] == spec.success
    assert (outcome["tenantid"], outcome["correlationid"]) == (command["tenantid"], command["correlationid"])


def test_the_undo_shown_undoes_the_command_shown() -> None:
    command = next(m for m in ENVELOPES if m["type"] == "billing.CreateSubscriptionV1")
    undo = next(m for m in ENVELOPES if m["type"] == "billing.CancelSubscriptionV1")
    assert undo["subject"] == command["subject"] + "/undo"
    assert undo["data"]["input"] == command["data"]


def test_names_and_limits_on_the_page_are_those_of_the_code() -> None:
    for exchange in topology.EXCHANGES:
        assert f"| `{exchange.name}` | {exchange.kind}, durable |" in PAGE
    assert transport.UNROUTED_EXCHANGE in PAGE
    assert f'"x-delivery-limit": {topology.DELIVERY_LIMIT}' in PAGE
    assert f"`{topology.module_queue('<name>')}`" in PAGE
    assert f"`{topology.query_queue('<name>')}`" in PAGE
    assert f"over {envelope.MAX_ENVELOPE_BYTES // 1024} KiB" in PAGE
    assert f"deeper than {envelope.MAX_DEPTH}" in PAGE
    assert f"at most {envelope.MAX_ID_LENGTH} characters" in PAGE
    for name in envelope_schema()["properties"]:
        assert f"| `{name}` |" in PAGE
