"""What was decided is derived again from its events alone: in every state that the small sagas can reach, and for whole
recorded histories. Where today's code decides otherwise, the first difference is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from contracts import run_events as ev
from contracts.run_events import RunEvent
from engine.plan.code import Run, Saga, saga
from engine.plan.replay import CodePlan
from engine.run.replay import Replayed, derive, replay
from tests.histories.record import SHAPES_OF_RUNS
from tests.pure.run.searching import SAGAS, search
from tests.pure.run.telling import ONCE, RUN, Story, begun, do, done, lost, undo_it

CHANGED_ON_THE_WAY = "saga-changed"


@saga("pair", version=1)
async def pair(run: Run, data: Any) -> Any:
    await run.step("one", do, undo=undo_it, retry=ONCE)
    await run.step("two", do, undo=undo_it, retry=ONCE)


@saga("pair", version=1)
async def pair_turned(run: Run, data: Any) -> Any:
    await run.step("one", do, undo=undo_it, retry=ONCE)
    await run.step("three", do, undo=undo_it, retry=ONCE)


def replayed(log: Sequence[RunEvent], definition: Saga) -> Replayed:
    *_, account = replay(RUN, "acme", log, CodePlan(definition, {}))
    return account


@pytest.mark.parametrize("definition", SAGAS, ids=lambda definition: definition.name)
def test_every_decision_in_every_state_is_derived_from_its_events_alone(definition: Saga) -> None:
    plan = CodePlan(definition, {})
    decisions = 0
    for one in search(definition).found:
        if not one.decision.events:
            continue
        plan.forget(one.before)
        assert derive(one.before, one.decision.events, plan).matched == one.decision.events, (one.word, one.hold)
        decisions += 1
    assert decisions > 1000


@pytest.mark.parametrize("shape", sorted(set(SHAPES_OF_RUNS) - {CHANGED_ON_THE_WAY}))
def test_a_recorded_run_of_every_shape_is_decided_again_as_it_was(shape: str) -> None:
    played = SHAPES_OF_RUNS[shape]()
    log: Sequence[RunEvent] = played.log if isinstance(played, Story) else played.events
    plan = CodePlan(played.plan.definition, played.plan._actions)
    accounts = list(replay(played.state.run_id, played.state.tenant, log, plan))
    assert accounts[-1] == Replayed(len(log), len(log), len(accounts))
    assert 1 < len(accounts) <= len(log)


def test_the_first_thing_that_a_changed_saga_decides_otherwise_is_named() -> None:
    story = Story(pair).when(begun(), done("one"), done("two"))
    account = replayed(story.log, pair_turned)
    assert (account.recorded, account.events, account.decisions) == (6, 2, 1)
    difference = account.difference
    assert difference is not None
    assert difference.version == 3
    assert [type(event) for event in difference.recorded] == [ev.StepSucceeded, ev.StepScheduled]
    assert [getattr(event, "step", None) for event in difference.recorded] == ["one", "two"]
    assert [getattr(event, "step", None) for event in difference.derived] == ["one", "three"]


def test_a_field_that_would_be_another_is_a_difference() -> None:
    log = list(Story(pair).when(begun(), lost("one")).log)
    [failed] = [place for place, event in enumerate(log) if isinstance(event, ev.StepFailed)]
    log[failed] = replace(log[failed], retry_at=log[failed].at + timedelta(seconds=1))  # type: ignore[call-arg]
    account = replayed(log, pair)
    assert account.difference is not None
    assert account.difference.version == failed + 1


def test_an_event_that_nothing_leads_to_is_a_difference_without_a_counterpart() -> None:
    log = [*Story(pair).when(begun()).log]
    log.append(ev.StepSkipped(at=log[-1].at + timedelta(seconds=1), step="one", visit=1, output=1, by="x", reason=""))
    difference = replayed(log, pair).difference
    assert difference is not None
    assert (difference.version, difference.recorded, difference.derived) == (3, (log[-1],), ())


def test_what_an_erasure_has_emptied_ends_the_replay_before_it() -> None:
    story = Story(pair).when(begun(), done("one", {"email": "a@example.org"}), done("two"))
    log = list(story.log)
    log[2] = replace(log[2], output={"email": {"$erased": True}}, marks=("/output/email",))  # type: ignore[call-arg]
    assert replayed(log, pair) == Replayed(6, 2, 1, erased=3)
