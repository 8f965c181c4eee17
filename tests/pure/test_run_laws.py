"""Laws of a run, on the pure heart alone: a saga, its inputs, and the events that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts import run_events as ev
from contracts.calls import ActionCall, ActionSpec, RetryPolicy
from contracts.run_events import RunEvent
from engine.plan.code import Run, saga
from engine.plan.replay import CodePlan
from engine.recording import command_id
from engine.run.decide import decide
from engine.run.evolve import fold
from engine.run.inputs import (
    AbandonAsked,
    Begin,
    CancelAsked,
    Input,
    RetryAsked,
    StepDone,
    StepLost,
    TerminateAsked,
    TimerDue,
)
from engine.run.react import Send, Settled, react
from engine.run.state import RunState

RUN = UUID(int=7)
START = datetime(2030, 1, 1, tzinfo=UTC)
NEVER_AGAIN = RetryPolicy(attempts=1)
THRICE = RetryPolicy(attempts=3, delay_seconds=1, factor=2, jitter=0)


def do(call: ActionCall) -> Any:
    raise AssertionError("the pure heart performs nothing")


def undo_it(call: ActionCall) -> Any:
    raise AssertionError("the pure heart performs nothing")


@saga("three", version=1)
async def three(run: Run, data: Any) -> Any:
    for name in ("one", "two", "three"):
        await run.step(name, do, undo=undo_it, retry=NEVER_AGAIN)
    return "all done"


@saga("abreast", version=1)
async def abreast(run: Run, data: Any) -> Any:
    left, right = run.step("left", do, undo=undo_it), run.step("right", do, undo=undo_it)
    await run.gather(left, right)
    await run.step("last", do, undo=undo_it, retry=NEVER_AGAIN)


@saga("stubborn", version=1)
async def stubborn(run: Run, data: Any) -> Any:
    return await run.step("try", do, undo=undo_it, retry=THRICE)


@saga("patient", version=1, on_failure="park")
async def patient(run: Run, data: Any) -> Any:
    await run.step("before", do, undo=undo_it)
    return await run.step("try", do, undo=undo_it, retry=NEVER_AGAIN)


@saga("known", version=1, attributes={"email": "/email", "plan": "/plan"})
async def known(run: Run, data: Any) -> Any:
    await run.step("one", do, undo=undo_it)


@saga("distant", version=1, on_failure="park")
async def distant(run: Run, data: Any) -> Any:
    return await run.step("mail", "mail.send", retry=NEVER_AGAIN)


MAIL = ActionSpec(
    name="mail.send",
    kind="command",
    command="mail.SendV1",
    outcomes=("mail.SentV1", "mail.DelayedV1"),
    success="mail.SentV1",
)


class Play:
    """One run under the hand: `given(...)` decides one input a second later and answers its events."""

    def __init__(self, definition: Any, *actions: ActionSpec) -> None:
        self.plan = CodePlan(definition, {action.name: action for action in actions})
        self.state = RunState(RUN, "acme")
        self.log: list[RunEvent] = []
        self.ignored: str | None = None
        self.now = START
        trigger = {"kind": "manual", "id": "1"}
        self.given(Begin, run_id=RUN, tenant="acme", trigger=trigger, data={}, initiator="test", correlation_id="c")

    def given(self, kind: Callable[..., Input], **fields: Any) -> list[RunEvent]:
        self.now += timedelta(seconds=1)
        decision = decide(self.state, kind(at=self.now, **fields), self.plan)
        self.state, self.ignored = decision.state, decision.ignored
        self.log += decision.events
        return list(decision.events)

    def done(self, step: str, output: Any = None, *, undo: bool = False) -> list[RunEvent]:
        return self.given(StepDone, step=step, visit=1, output=output, undo=undo)

    def lost(self, step: str, **how: Any) -> list[RunEvent]:
        return self.given(StepLost, step=step, visit=1, error={"code": "broken", "message": "no"}, **how)

    def effects(self, events: list[RunEvent]) -> list[type]:
        return [type(effect) for event in events for effect in react(event, self.state)]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.log if isinstance(event, kind)]


def test_the_intent_of_a_step_is_recorded_before_it_is_performed() -> None:
    play = Play(three)
    assert [type(event) for event in play.log] == [ev.RunStarted, ev.StepScheduled]
    assert [type(event) for event in play.done("one")] == [ev.StepSucceeded, ev.StepScheduled]


def test_undo_goes_from_the_newest_completion_to_the_oldest() -> None:
    play = Play(three)
    play.done("one")
    play.done("two")
    play.lost("three")
    play.done("two", undo=True)
    play.done("one", undo=True)
    assert [event.step for event in play.of(ev.UndoScheduled)] == ["two", "one"]
    assert play.state.ended == "compensated"


def test_parallel_steps_are_undone_in_reverse_order_of_their_completion() -> None:
    play = Play(abreast)
    play.done("right")
    play.done("left")
    play.lost("last")
    play.done("left", undo=True)
    play.done("right", undo=True)
    assert [event.step for event in play.of(ev.UndoScheduled)] == ["left", "right"]


def test_one_undo_at_a_time() -> None:
    play = Play(three)
    play.done("one")
    play.done("two")
    play.lost("three")
    assert [event.step for event in play.of(ev.UndoScheduled)] == ["two"]


def test_undo_gets_the_receipt_of_do() -> None:
    play = Play(three)
    play.done("one", {"account": "a-1"})
    play.lost("two")
    (undo,) = play.of(ev.UndoScheduled)
    assert (undo.receipt, undo.key) == ({"account": "a-1"}, f"{RUN}/one/1/undo")


def test_an_ambiguous_step_is_undone_first_and_without_a_receipt() -> None:
    play = Play(three)
    play.done("one", {"account": "a-1"})
    play.lost("two", ambiguous=True)
    first = play.of(ev.UndoScheduled)[0]
    assert (first.step, first.receipt) == ("two", None)


def test_a_retry_keeps_the_key_and_waits_for_its_timer() -> None:
    play = Play(stubborn)
    (failed,) = play.lost("try")
    assert isinstance(failed, ev.StepFailed)
    assert failed.retry_at == play.now + timedelta(seconds=1)
    (attempted,) = play.given(TimerDue, key="retry/try/1/1")
    assert isinstance(attempted, ev.StepAttempted)
    assert [event.key for event in play.of(ev.StepScheduled)] == [f"{RUN}/try/1"]
    assert play.state.step("try", 1) is not None
    play.done("try")
    assert play.state.ended == "succeeded"


def test_retries_are_bounded_and_then_the_run_is_unwound() -> None:
    play = Play(stubborn)
    play.lost("try")
    play.given(TimerDue, key="retry/try/1/1")
    play.lost("try")
    play.given(TimerDue, key="retry/try/1/2")
    play.lost("try")
    assert [event.final for event in play.of(ev.StepFailed)] == [False, False, True]
    assert play.state.ended == "failed"


def test_an_answer_that_cannot_be_retried_stops_at_once() -> None:
    play = Play(stubborn)
    play.lost("try", retryable=False)
    assert [event.final for event in play.of(ev.StepFailed)] == [True]


def test_a_parked_run_undoes_nothing_until_it_is_abandoned() -> None:
    play = Play(patient)
    play.done("before")
    play.lost("try")
    assert (play.state.status, play.of(ev.UndoScheduled)) == ("parked", [])
    play.given(AbandonAsked, by="operator")
    assert [event.step for event in play.of(ev.UndoScheduled)] == ["before"]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (StepDone, {"step": "one", "visit": 1}),
        (StepLost, {"step": "one", "visit": 1, "error": {"code": "late"}}),
        (TimerDue, {"key": "run/deadline"}),
        (CancelAsked, {"by": "operator"}),
        (TerminateAsked, {"by": "operator"}),
        (AbandonAsked, {"by": "operator"}),
    ],
)
def test_a_finished_run_takes_nothing_and_says_why(kind: Callable[..., Input], fields: dict[str, Any]) -> None:
    play = Play(three)
    for name in ("one", "two", "three"):
        play.done(name)
    assert play.state.ended == "succeeded"
    assert play.given(kind, **fields) == []
    assert play.ignored == "the run has ended (succeeded)"


def test_a_second_answer_to_the_same_step_changes_nothing() -> None:
    play = Play(three)
    play.done("one", 1)
    assert play.done("one", 2) == []
    assert play.ignored == "step 'one' is succeeded already"


def test_the_state_is_the_fold_of_the_log() -> None:
    play = Play(three)
    play.done("one")
    play.lost("two")
    play.done("one", undo=True)
    folded = fold(RunState(RUN, "acme"), play.log)
    assert folded == play.state


def test_an_attribute_that_repeats_a_personal_value_is_marked_too() -> None:
    begin = Begin(
        at=START,
        run_id=RUN,
        tenant="acme",
        trigger={"kind": "manual", "id": "1"},
        data={"email": "ann@example.org", "plan": "starter"},
        marks=("/email",),
        initiator="test",
        correlation_id="c",
    )
    started = decide(RunState(RUN, "acme"), begin, CodePlan(known, {})).events[0]
    assert isinstance(started, ev.RunStarted)
    assert started.marks == ("/data/email", "/attributes/email")


def test_a_parked_command_is_still_awaited_so_that_its_retry_can_be_answered() -> None:
    play = Play(distant, MAIL)
    assert Settled not in play.effects(play.lost("mail"))
    assert play.state.status == "parked"
    assert Send in play.effects(play.given(RetryAsked, by="operator"))
    assert Settled in play.effects(play.done("mail", {"id": "m-1"}))
    assert play.state.ended == "succeeded"


def test_a_command_is_known_by_its_key() -> None:
    # Spelled out: a command sent by an older release must still be the same one.
    assert command_id("scope/charge/1") == "0788c2a7-0560-534e-9104-3a0e0f2b148c"
    assert command_id("scope/charge/2") != command_id("scope/charge/1")
