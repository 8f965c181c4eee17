"""What is said of an event, for every way in which it can do something or nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from engine.explain import EventExplanation, explain_event
from engine.store import DeadLetter, Journaled, Pending

NOW = datetime(2030, 1, 1, tzinfo=UTC)
RUN, OTHER = UUID(int=7), UUID(int=8)
SOURCE = "/modules/crm"


def came(*outcomes: str, pending: tuple[Pending, ...] = (), cause: str | None = None) -> Journaled:
    return Journaled(
        type="crm.SignupRequestedV1",
        received_at=NOW,
        causation_id=cause,
        body=b"sealed",
        outcomes=outcomes,
        pending=pending,
    )


def letter() -> DeadLetter:
    return DeadLetter(
        id=OTHER, tenant="acme", reason="payload_invalid", detail="", source="x", routing_key="", event_id="e1",
        type=None, attempts=[], envelope=b"", headers={}, state="dead", created_at=NOW,
    )  # fmt: skip


def told(journaled: Journaled | None, **more: Any) -> EventExplanation:
    given: dict[str, Any] = {"started": {}, "triggers": {}, "letters": ()} | more
    return explain_event(SOURCE, journaled, given.pop("started"), given.pop("triggers"), given.pop("letters"), **given)


@pytest.mark.parametrize(("explanation", "sentence"), [
    (told(came(), started={"onboarding": RUN}, triggers={"onboarding": 2}), f"It started run {RUN} of onboarding."),
    (told(None, started={"onboarding": RUN}), f"It started run {RUN} of onboarding."),
    (told(came(), triggers={"onboarding": 2}),
     "It starts this workflow today and did not when it came: it was not installed then."),
    (told(came(pending=(Pending("start", RUN, "onboarding", None, None),))),
     "The start is recorded and waits for a process that runs this workflow."),
    (told(came("refused: payload_invalid: name is missing"), triggers={"onboarding": 2}),
     "Refused: payload_invalid: name is missing."),
    (told(came(f"matched: {RUN} a/b/1")), f"It woke run {RUN}, which waited in 'a/b'."),
    (told(came(f"matched: {RUN} paid/1", "ignored: the run had ended")),
     f"It woke run {RUN}, which waited in 'paid'. Ignored: the run had ended."),
    (told(came(cause="c-1"), answers="crm.CreateContactV1"), "It is an outcome of crm.CreateContactV1."),
    (told(came(), keys=("user", "email")),
     ("It started nothing: no workflow here is started by crm.SignupRequestedV1. "
     "No run was waiting for it by its user, email.")),
    (told(came()),
     ("It started nothing: no workflow here is started by crm.SignupRequestedV1. "
     "No run was waiting for it, and it has no key that a run could wait for.")),
    (told(None, letters=[letter()]),
     "It became a dead letter (payload_invalid): nothing was started or woken by it."),
    (told(None), "Nothing of it is known any more."),
])  # fmt: skip
def test_one_sentence_says_what_became_of_it(explanation: EventExplanation, sentence: str) -> None:
    assert explanation.sentence == sentence


def test_a_wait_that_its_owner_has_not_been_given_yet_is_told_as_recorded() -> None:
    waiting = Pending("fact", RUN, None, "paid", 2)
    found = told(came(f"matched: {RUN} paid/2", f"matched: {OTHER} paid/1", pending=(waiting,)))
    assert [(one.run_id, one.wait, one.said) for one in found.woke] == [
        (RUN, "paid", "It is recorded for this run and waits for its owner."),
        (OTHER, "paid", "It was given to this wait."),
    ]


def test_each_workflow_says_for_itself_what_became_of_its_start() -> None:
    found = told(came(), started={"first": RUN, "gone": OTHER}, triggers={"first": 1, "second": 3})
    assert [(one.workflow, one.version, one.run_id) for one in found.starts] == [
        ("first", 1, RUN),
        ("gone", None, OTHER),
        ("second", 3, None),
    ]
    assert found.command_id is None
