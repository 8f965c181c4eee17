"""What holds in every state that the small sagas can reach, for every input: totality, the fold, determinism, ends that
stay closed, a reason to wake, one undo at a time. Also a longer saga under random walks."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from contracts import run_events as ev
from contracts.run_events import TERMINAL
from engine.plan.code import Saga
from engine.plan.replay import CodePlan
from engine.run.decide import Decision, decide
from engine.run.evolve import evolve, fold
from engine.run.inputs import Input
from engine.run.react import react
from engine.run.state import RunState
from tests.pure.run import sagas
from tests.pure.run.searching import DIAGRAM, SAGAS, diagram, inputs, search
from tests.pure.run.telling import (
    RUN,
    START,
    Heard,
    abandoned,
    approved,
    begun,
    cancelled,
    done,
    due,
    lost,
    matched,
    retried,
    skipped,
    stuck,
    undo_lost,
    undone,
)

ALL_SAGAS = pytest.mark.parametrize("definition", SAGAS, ids=lambda definition: definition.name)


def check(before: RunState, decision: Decision) -> None:
    """The laws of one decision."""
    after, events = decision.state, decision.events
    # Totality: events, or a reason; never both, never neither.
    assert bool(events) != bool(decision.ignored)
    if not events:
        return
    assert before.ended is None
    assert fold(before, events) == after
    assert after.version == before.version + len(events)
    # Terminal is closed: the ending is the last event, and there is one.
    endings = [index for index, event in enumerate(events) if isinstance(event, ev.RunEnded)]
    assert endings in ([], [len(events) - 1])
    assert (after.status in TERMINAL) == bool(endings)
    undoing = [step for step in (after.steps or {}).values() if step.undo_status in ("open", "backoff", "parked")]
    assert len(undoing) <= 1
    # Nothing is undone while a sibling is under way, and nothing new begins while unwinding.
    assert not (undoing and after.open_steps())
    if before.cause is not None:
        assert not any(isinstance(event, ev.StepScheduled | ev.StepAttempted | ev.WaitStarted) for event in events)
    if after.queued and after.is_open:
        assert not after.holds_slot
    # Every parked step or undo has its incident, unless its attempt waits for a slot.
    asked = {(one.step, one.visit) for one in (after.incidents or {}).values()}
    for step in (after.steps or {}).values():
        if after.is_open and "parked" in (step.status, step.undo_status):
            assert (step.name, step.visit) in asked or after.queued
    if after.is_open:
        assert has_reason_to_wake(after)


def has_reason_to_wake(state: RunState) -> bool:
    """A slot asked for, an incident, a step or undo under way or with a retry due, or an open wait."""
    return bool(
        state.queued
        or state.incidents
        or state.open_waits()
        or any(
            step.status in ("open", "backoff") or step.undo_status in ("open", "backoff")
            for step in (state.steps or {}).values()
        )
    )


@ALL_SAGAS
def test_every_input_in_every_state_has_an_answer_that_keeps_the_laws(definition: Saga) -> None:
    found = search(definition)
    assert found.states > 300
    for one in found.found:
        check(one.before, one.decision)


def test_every_kind_of_input_is_among_them() -> None:
    assert {type(heard(START)) for _, heard in inputs()} == set(Input.__subclasses__())


@ALL_SAGAS
def test_every_event_in_every_state_is_folded_and_answered(definition: Saga) -> None:
    """No event is a surprise to `evolve` or to `react`, and what is asked for twice is asked for alike."""
    answered = Counter[type[ev.RunEvent]]()
    for one in search(definition).found:
        state = one.before
        for event in one.decision.events:
            state = evolve(state, event)
            effects = react(event, state)
            assert effects == react(event, state)
            answered[type(event)] += bool(effects)
    assert sum(count > 0 for count in answered.values()) > 12


@ALL_SAGAS
def test_the_same_input_in_the_same_state_gives_the_same_events(definition: Saga) -> None:
    for one in search(definition).found[::7]:
        again = decide(one.before, one.given, CodePlan(definition, {}), hold=one.hold)
        assert again == one.decision, one.word


@ALL_SAGAS
def test_without_a_slot_no_attempt_begins(definition: Saga) -> None:
    held = [one for one in search(definition).found if one.hold and one.decision.events]
    assert held
    for one in held:
        assert not one.decision.state.holds_slot, one.word
        assert not any(isinstance(e, ev.StepScheduled | ev.StepAttempted) for e in one.decision.events), one.word


def test_the_search_meets_every_status() -> None:
    met = {one.decision.state.status for saga in SAGAS for one in search(saga).found if one.decision.events}
    assert met == TERMINAL - {"skipped"} | {"queued", "running", "waiting", "parked", "compensating"}


def test_the_drawing_of_the_states_is_current() -> None:
    assert DIAGRAM.read_text(encoding="utf-8") == diagram()


HEARD: tuple[Heard, ...] = (
    *(heard for _, heard in inputs()),
    *(verb(step) for verb in (done, lost, undone, undo_lost, skipped) for step in ("soft", "hard", "last")),
    *(
        due(f"{kind}/{step}/1/{n}")
        for kind in ("retry", "deadline", "undo-retry")
        for step in ("hard",)
        for n in (1, 2)
    ),
    due("sleep/nap/1"),
    due("wait/fact/1"),
    due("approval/check/1"),
    matched("fact"),
    approved("check"),
    cancelled(),
    retried(),
    abandoned(),
    stuck(),
)


@settings(max_examples=150, deadline=None)
@for_all(st.lists(st.tuples(st.sampled_from(HEARD), st.booleans(), st.booleans()), max_size=40))
def test_a_long_saga_keeps_the_laws_on_any_walk(walk: list[tuple[Heard, bool, bool]]) -> None:
    """A live coroutine and one replayed for every decision decide alike, whatever happens in whatever order."""
    live = CodePlan(sagas.everything, {})
    now = START
    state = decide(RunState(RUN, "acme"), begun()(now), live).state
    for heard, hold, forget in walk:
        now += timedelta(seconds=1)
        given = heard(now)
        if forget:
            live.forget(state)
        decision = decide(state, given, live, hold=hold)
        assert decision == decide(state, given, CodePlan(sagas.everything, {}), hold=hold)
        check(state, decision)
        state = decision.state
