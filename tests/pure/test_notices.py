"""The engine's own notices: declared like any module's events, and unable to carry anything personal."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from contracts.manifest import marks_of
from contracts.notices import UNWIND, CompensationStartedV1, RunEndedV1, RunResumedV1
from contracts.registry import Registry
from contracts.run_events import TERMINAL, CompensationStarted, IncidentResolved, RunEnded
from contracts.version import __version__

REGISTRY = Registry([UNWIND])
PAYLOADS = {"data", "input", "output", "payload", "receipt", "context"}
FREE_TEXTS = {"message", "detail", "title", "comment", "error"}


@pytest.mark.parametrize("kind", REGISTRY.events)
def test_a_notice_has_no_place_for_a_payload_or_a_free_text(kind: str) -> None:
    model = REGISTRY.event(kind).event.model
    assert not (PAYLOADS | FREE_TEXTS) & model.model_fields.keys()
    assert marks_of(model) == ()
    assert REGISTRY.event(kind).subject_place is None


def test_what_a_sender_adds_to_a_notice_is_not_kept() -> None:
    checked = REGISTRY.check_event_data(
        REGISTRY.event("unwind.RunStateEnteredV1"),
        {"run_id": "r1", "workflow": "onboarding", "workflow_version": 1, "state": "Active", "email": "a@example.org"},
    )
    assert checked.payload == {
        "run_id": "r1",
        "workflow": "onboarding",
        "workflow_version": 1,
        "state": "Active",
        "previous": None,
    }
    assert checked.keys == {"run": "r1", "workflow": "onboarding", "state": "Active"}


def test_notices_use_the_words_of_the_log() -> None:
    assert set(get_args(get_type_hints(RunEndedV1)["status"])) == TERMINAL
    assert get_type_hints(RunEndedV1)["status"] == get_type_hints(RunEnded)["status"]
    assert get_type_hints(RunResumedV1)["how"] == get_type_hints(IncidentResolved)["how"]
    assert get_type_hints(CompensationStartedV1)["cause"] == get_type_hints(CompensationStarted)["cause"]


def test_the_engine_is_a_module_like_any_other() -> None:
    assert UNWIND.source == "/modules/unwind"
    assert UNWIND.version == __version__
    assert "unwind.SignatureRefusedV1" in REGISTRY.events
