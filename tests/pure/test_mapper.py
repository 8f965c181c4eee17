"""Sealed bodies: bound to their place, personal values apart, erased for good, shown redacted."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.problems import EventNewer, TopicUnknown
from contracts.run_events import RunStarted, StepSucceeded
from engine.store import InputRow, Recorded, Stored
from engine.store.key_ring import create_key_ring
from engine.store.keys import Erased, KeysNotLoaded, SealBroken, SubjectKeys, TenantKeys, Vault
from engine.store.mapper import Mapper, arrival_ident, open_blob, open_input, redacted, seal_blob
from tests.pure.kept_in_memory import MemoryCatalog

AT = datetime(2030, 1, 1, 12, tzinfo=UTC)
RUN = UUID("01900000-0000-7000-8000-000000000001")
MAPPER = Mapper()
KEYS = TenantKeys("acme", {1: b"t" * 32}, {1: b"i" * 32})
OTHER = TenantKeys("other", {1: b"t" * 32}, {1: b"i" * 32})
SCOPE = KEYS.subject_scope("ada")
ADA = SubjectKeys("acme", SCOPE, {7: b"s" * 32}, 0.0)
KEYS.remember(SCOPE, ADA)


def started(**changes: Any) -> RunStarted:
    values: dict[str, Any] = {
        "at": AT,
        "workflow": "onboarding",
        "workflow_version": 1,
        "trigger": {"kind": "event", "id": "e1"},
        "data": {"email": "ada@example.org", "plan": "pro", "people": [{"name": "Ada"}, {"name": "Bob"}]},
        "scope": str(RUN),
        "initiator": "system",
        "correlation_id": "c1",
        "subject": "ada",
    }
    return RunStarted(**{**values, **changes})


def stored(recorded: Recorded, version: int = 1) -> Stored:
    return Stored(version, recorded.topic, recorded.body, AT)


MARKED = started(marks=("/data/email", "/data/people/0/name"))


def test_an_event_comes_back_as_it_went() -> None:
    for event in (started(), MARKED, started(marks=("/data",)), started(data=None, marks=("/data/email",))):
        for subject in (None, ADA):
            recorded = MAPPER.encode(KEYS, RUN, 1, event, subject)
            assert MAPPER.decode(KEYS, RUN, stored(recorded)) == event


@given(
    data=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=12,
    ),
    marks=st.lists(
        st.sampled_from(
            ["/data", "/data/a", "/data/0", "/data/*", "/data/a/b", "/data/*/a", "/at", "/marks", "", "/nothing"]
        ),
        max_size=5,
    ),
)
def test_whatever_is_marked_comes_back_as_it_went(data: Any, marks: list[str]) -> None:
    event = StepSucceeded(
        at=AT, step="s", visit=1, attempt=1, output={"data": data}, marks=tuple("/output" + mark for mark in marks)
    )
    assert MAPPER.decode(KEYS, RUN, stored(MAPPER.encode(KEYS, RUN, 1, event, ADA))) == event


def test_a_body_shows_nothing_in_clear_and_personal_values_are_not_in_the_skeleton() -> None:
    recorded = MAPPER.encode(KEYS, RUN, 1, MARKED, ADA)
    assert b"ada@example.org" not in recorded.body
    assert b"onboarding" not in recorded.body
    stranger = TenantKeys("acme", {1: b"t" * 32}, {1: b"i" * 32})
    stranger.remember(SCOPE, Erased("acme", SCOPE))
    skeleton = MAPPER.decode(stranger, RUN, stored(recorded))
    assert isinstance(skeleton, RunStarted)
    assert skeleton.data == {
        "email": {"$erased": True},
        "plan": "pro",
        "people": [{"name": {"$erased": True}}, {"name": "Bob"}],
    }
    assert skeleton.workflow == "onboarding"


@pytest.mark.parametrize("subject", [None, ADA])
def test_a_body_opens_only_at_its_tenant_stream_version_and_topic(subject: SubjectKeys | None) -> None:
    body = stored(MAPPER.encode(KEYS, RUN, 3, MARKED, subject), 3)
    for keys, stream, moved in (
        (OTHER, RUN, body),
        (KEYS, uuid4(), body),
        (KEYS, RUN, replace(body, version=4)),
        (KEYS, RUN, replace(body, topic="step.succeeded")),
    ):
        with pytest.raises(SealBroken):
            MAPPER.decode(keys, stream, moved)


@pytest.mark.parametrize("subject", [None, ADA])
def test_a_body_with_any_byte_changed_or_cut_never_opens(subject: SubjectKeys | None) -> None:
    body = stored(MAPPER.encode(KEYS, RUN, 1, MARKED, subject))
    broken = [body.body[:cut] for cut in range(len(body.body))]
    for at in range(len(body.body)):
        changed = bytearray(body.body)
        changed[at] ^= 1
        broken.append(bytes(changed))
    for bytes_ in broken:
        try:
            event = MAPPER.decode(KEYS, RUN, replace(body, body=bytes_))
        except (SealBroken, KeysNotLoaded):
            continue
        # Another key id in the personal frame is a key that was dropped, as far as anyone can tell.
        assert isinstance(event, RunStarted)
        assert event.data["email"] == {"$erased": True}


def test_a_personal_frame_of_another_event_does_not_fit() -> None:
    from engine.store.data_keys import join_frames, split_frames

    one = MAPPER.encode(KEYS, RUN, 1, MARKED, ADA)
    two = MAPPER.encode(KEYS, RUN, 2, MARKED, ADA)
    mixed = join_frames(split_frames(one.body)[0], split_frames(two.body)[1])
    with pytest.raises(SealBroken):
        MAPPER.decode(KEYS, RUN, replace(stored(one), body=mixed))


def test_a_body_of_a_newer_class_version_is_refused_not_guessed() -> None:
    from contracts.codec import RUN_EVENTS

    document = orjson.loads(RUN_EVENTS.encode(started()))
    document["v"] = 99
    aad = KEYS.aad_prefix + RUN.bytes + (1).to_bytes(8, "big") + b"run.started"
    newer = Stored(1, "run.started", KEYS.seal(aad, orjson.dumps(document)), AT)
    with pytest.raises(EventNewer, match="upgrade this process"):
        MAPPER.decode(KEYS, RUN, newer)


def test_a_topic_outside_the_closed_table_is_never_imported() -> None:
    topic = "os:system"
    aad = KEYS.aad_prefix + RUN.bytes + (1).to_bytes(8, "big") + topic.encode()
    with pytest.raises(TopicUnknown):
        MAPPER.decode(KEYS, RUN, Stored(1, topic, KEYS.seal(aad, b'{"v":1,"at":"x","marks":[]}'), AT))


async def test_erasing_a_subject_blanks_marked_values_only_and_for_every_reader(tmp_path: Path) -> None:
    catalog, ring = MemoryCatalog(), create_key_ring(tmp_path / "keys.json")
    vault = Vault(catalog, ring)
    keys = await vault.keys_for("acme")
    body = stored(MAPPER.encode(keys, RUN, 1, MARKED, await vault.subject_keys("acme", "ada")))
    await vault.erase("acme", "ada")
    for reader in (vault, Vault(catalog, ring)):
        ready = await reader.ready("acme", [body.body])
        event = MAPPER.decode(ready, RUN, body)
        assert isinstance(event, RunStarted)
        assert event.data["email"] == {"$erased": True}
        assert event.data["plan"] == "pro"
        assert redacted(event)["data"]["email"] == "[erased]"


def test_redacted_masks_marks_and_names_and_nothing_else() -> None:
    event = started(
        marks=("/data/email", "/data/people/*/name", "/initiator"),
        data={
            "email": "ada@example.org",
            "plan": "pro",
            "people": [{"name": "Ada"}, {"name": "Bob", "age": 3}],
            "api_key": "k",
            "max_tokens": 5,
        },
    )
    shown = redacted(event)
    assert shown["data"] == {
        "email": "[redacted]",
        "plan": "pro",
        "people": [{"name": "[redacted]"}, {"name": "[redacted]", "age": 3}],
        "api_key": "[redacted]",
        "max_tokens": 5,
    }
    assert shown["initiator"] == "[redacted]"
    assert (shown["workflow"], shown["at"], "v" in shown) == ("onboarding", "2030-01-01T12:00:00Z", False)
    assert event.data["email"] == "ada@example.org"


def test_an_event_whose_mark_cannot_be_understood_shows_nothing() -> None:
    shown = redacted(started(marks=("data/email",)))
    assert "ada" not in repr(shown)


def test_a_blob_opens_only_for_its_purpose_identity_and_tenant() -> None:
    for subject in (None, ADA):
        body = seal_blob(KEYS, "arrival", arrival_ident("/modules/crm", "e1"), b"hello", subject)
        assert open_blob(KEYS, "arrival", "/modules/crm|e1", body) == b"hello"
        with pytest.raises(SealBroken):
            open_blob(KEYS, "outbox", "/modules/crm|e1", body)
        with pytest.raises(SealBroken):
            open_blob(KEYS, "arrival", "/modules/crm|e2", body)
        with pytest.raises(SealBroken):
            open_blob(KEYS, "arrival", "/modules/crm|e1", b"")
    with pytest.raises(SealBroken):
        open_blob(OTHER, "arrival", "x", seal_blob(KEYS, "arrival", "x", b"hello"))


def test_a_blob_and_an_event_body_cannot_stand_for_each_other() -> None:
    recorded = MAPPER.encode(KEYS, RUN, 1, started())
    with pytest.raises(SealBroken):
        open_blob(KEYS, "arrival", "", recorded.body)


def test_a_subjects_blob_is_erased_with_the_subject() -> None:
    body = seal_blob(KEYS, "snapshot", str(RUN), b"state", ADA)
    erased = TenantKeys("acme", {1: b"t" * 32}, {1: b"i" * 32})
    erased.remember(SCOPE, Erased("acme", SCOPE))
    assert open_blob(erased, "snapshot", str(RUN), body) == Erased("acme", SCOPE)


def test_a_pending_input_opens_whichever_body_it_carries() -> None:
    of_journal = seal_blob(KEYS, "arrival", arrival_ident("/modules/crm", "e1"), b"envelope")
    of_itself = seal_blob(KEYS, "input", str(RUN), b"note")
    row = InputRow(1, "acme", "fact", RUN, None, "w", 1, ("/modules/crm", "e1"), of_journal)
    assert open_input(KEYS, row) == b"envelope"
    assert open_input(KEYS, replace(row, kind="note", arrival=None, body=of_itself)) == b"note"
    assert open_input(KEYS, replace(row, arrival=None, body=None)) is None


def test_the_data_subject_is_never_shown_and_ids_of_our_own_always_are() -> None:
    event = replace(
        started(data={"note": "n"}),
        subject="somebody",
        correlation_id="order-+491701234567",
        initiator="ann@example.org",
    )
    shown, text = MAPPER.show(KEYS, RUN, stored(MAPPER.encode(KEYS, RUN, 1, event)))
    assert shown == redacted(event) == orjson.loads(text)
    assert (shown["subject"], shown["correlation_id"], shown["initiator"]) == (
        "[redacted]", "order-+491701234567", "ann@example.org",
    )  # fmt: skip


def test_what_is_personal_by_its_form_is_masked_in_every_field_that_is_looked_at() -> None:
    event = started(data={"note": "ask ada@example.org", "+49 170 1234567": [4111111111111111]})
    shown, _ = MAPPER.show(KEYS, RUN, stored(MAPPER.encode(KEYS, RUN, 1, event)))
    assert shown["data"] == {"note": "ask [redacted]", "[redacted]": ["[redacted]"]}
