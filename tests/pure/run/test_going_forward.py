"""A run going forward: retries, timeouts, waits, facts, approvals, recorded values, slots."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from contracts import run_events as ev
from contracts.calls import RetryPolicy
from engine.plan.code import Run, saga
from engine.run import react as fx
from engine.run.retry import backoff
from tests.pure.run import sagas
from tests.pure.run.telling import (
    START,
    Story,
    admitted,
    approved,
    begun,
    cancelled,
    do,
    done,
    due,
    given,
    lost,
    matched,
    saw,
    undo_lost,
)


@saga("commanding", version=1)
async def commanding(run: Run, data: Any) -> Any:
    return await run.step("bill", "billing.bill", undo=None)


def test_the_end_of_one_step_and_the_intent_of_the_next_travel_together() -> None:
    given(sagas.three).when(done("one", {"id": 1})).then(
        saw(ev.StepSucceeded, step="one", output={"id": 1}, attempt=1), saw(ev.StepScheduled, step="two")
    ).is_("running")


def test_a_run_ends_with_what_its_saga_returned() -> None:
    given(sagas.three, done("one"), done("two")).when(done("three")).then(
        saw(ev.StepSucceeded), saw(ev.RunEnded, status="succeeded", output="all done", left=())
    )


def test_backoff_doubles_between_attempts() -> None:
    story = given(sagas.stubborn).when(lost("try"))
    story.then(saw(ev.StepFailed, final=False, retry_at=story.now + timedelta(seconds=1))).is_("waiting")
    story.when(due("retry/try/1/1"), lost("try"))
    story.then(saw(ev.StepFailed, attempt=2, retry_at=story.now + timedelta(seconds=2)))


@pytest.mark.parametrize(
    ("asked", "waited"),
    [(120.0, 120.0), (0.0, 1.0), (0.5, 1.0), (-5.0, 1.0), (3_600.0, 3_600.0), (86_400.0, 3_600.0)],
)
def test_the_next_attempt_comes_no_earlier_than_the_failure_asks_and_no_later_than_an_hour(
    asked: float, waited: float
) -> None:
    story = given(sagas.stubborn).when(lost("try", waits={"retry_after_seconds": asked}))
    story.then(saw(ev.StepFailed, final=False, retry_at=story.now + timedelta(seconds=waited)))


def test_whoever_asks_to_be_left_alone_takes_up_an_attempt_all_the_same() -> None:
    later = lost("try", waits={"retry_after_seconds": 60.0})
    story = given(sagas.stubborn).when(later, due("retry/try/1/1"), later, due("retry/try/1/2"), later)
    assert story.of(ev.StepFailed)[-1].final


def test_an_attempt_that_was_put_off_counts_for_nothing() -> None:
    story = given(sagas.stubborn)
    for number in range(1, 10):
        story.when(lost("try", waits={"put_off_seconds": 600.0}))
        story.then(saw(ev.StepFailed, attempt=number, final=False, retry_at=story.now + timedelta(seconds=600)))
        story.when(due(f"retry/try/1/{number}"))
    for number in (10, 11, 12):
        story.when(lost("try"), due(f"retry/try/1/{number}"))
    assert [event.final for event in story.of(ev.StepFailed)] == [*[False] * 11, True]


def test_an_undo_waits_as_it_is_asked_to_and_is_put_off_as_often_as_it_takes() -> None:
    story = given(sagas.three, done("one"), lost("two", retryable=False))
    story.when(undo_lost("one", waits={"retry_after_seconds": 90.0}))
    story.then(saw(ev.UndoFailed, final=False, retry_at=story.now + timedelta(seconds=90)))
    for number in range(1, 9):
        story.when(due(f"undo-retry/one/1/{number}"), undo_lost("one", waits={"put_off_seconds": 400.0}))
        story.then(saw(ev.UndoFailed, final=False, retry_at=story.now + timedelta(seconds=400)))


def test_backoff_has_a_ceiling_and_a_jitter_that_the_key_decides() -> None:
    policy = RetryPolicy(attempts=9, delay_seconds=1, factor=10, max_delay_seconds=60, jitter=0)
    assert [backoff(policy, n, "k").total_seconds() for n in (1, 2, 3, 4)] == [1, 10, 60, 60]
    spread = RetryPolicy(delay_seconds=100, jitter=0.1)
    delays = {backoff(spread, 1, f"run-{n}/step/1").total_seconds() for n in range(100)}
    assert len(delays) > 90
    assert all(90 <= delay <= 110 for delay in delays)
    assert backoff(spread, 1, "a") == backoff(spread, 1, "a")


def test_a_further_attempt_has_a_deadline_of_its_own() -> None:
    story = given(sagas.stubborn, lost("try")).when(due("retry/try/1/1"))
    story.then(saw(ev.StepAttempted, attempt=2, deadline=story.now + timedelta(seconds=10)))


def test_an_attempt_that_takes_too_long_is_ambiguous() -> None:
    given(sagas.stubborn).when(due("deadline/try/1/1")).then(
        saw(ev.StepFailed, ambiguous=True, final=False, error={"code": "timeout", "message": "no outcome within 10 s"})
    )


def test_the_timer_of_an_attempt_that_is_over_changes_nothing() -> None:
    story = given(sagas.stubborn, lost("try"), due("retry/try/1/1"))
    story.when(due("deadline/try/1/1")).then_nothing("attempt 1 of step 'try' is over")
    story.when(due("retry/try/1/1")).then_nothing("attempt 1 of step 'try' is over")
    story.when(due("retry/try/1/2")).then_nothing("step 'try' is open")


def test_a_failure_of_an_attempt_that_is_over_changes_nothing() -> None:
    given(sagas.stubborn, lost("try"), due("retry/try/1/1")).when(lost("try", attempt=1)).then_nothing(
        "attempt 1 of step 'try' is over; attempt 2 is under way"
    )


def test_a_success_that_comes_during_the_backoff_counts_and_stops_the_timer() -> None:
    story = given(sagas.stubborn, lost("try")).when(done("try", "late"))
    story.then(saw(ev.StepSucceeded, output="late"), saw(ev.RunEnded, status="succeeded"))
    assert fx.ClearTimer("retry/try/1/1") in story.effects


def test_a_step_that_may_continue_gives_its_error_to_the_saga() -> None:
    given(sagas.lenient, done("before")).when(lost("try", "no_box")).then(
        saw(ev.StepFailed, final=True), saw(ev.RunEnded, status="succeeded", output={"instead": "no_box"})
    )


def test_a_sleep_ends_by_its_timer() -> None:
    story = given(sagas.sleepy)
    assert story.of(ev.SleepStarted)[0].due == story.now + timedelta(seconds=60)
    assert fx.SetTimer("sleep/nap/1", story.now + timedelta(seconds=60)) in story.effects
    story.is_("waiting").when(due("sleep/nap/1")).then(saw(ev.SleepEnded), saw(ev.StepScheduled, step="after"))


def test_a_wait_is_answered_by_a_fact() -> None:
    story = given(sagas.waiting).is_("waiting")
    story.when(matched("paid", {"amount": 5})).then(
        saw(ev.WaitMatched, event_id="e-1"), saw(ev.RunEnded, output={"amount": 5})
    )
    assert fx.Unsubscribe("paid", 1) in story.effects
    assert fx.ClearTimer("wait/paid/1") in story.effects


def test_a_wait_may_be_answered_by_what_came_since_the_run_began() -> None:
    story = given(sagas.waiting)
    (wait,) = story.of(ev.WaitStarted)
    assert (wait.look_back, wait.key_value) == (story.state.started_at, "7")


def test_a_wait_that_nobody_answers_is_over_at_its_time() -> None:
    story = given(sagas.waiting)
    assert story.of(ev.WaitStarted)[0].due == story.now + timedelta(seconds=60)
    story.when(due("wait/paid/1")).then(saw(ev.WaitTimedOut), saw(ev.RunEnded, output=None))


def test_a_fact_heard_after_the_time_is_late_even_if_the_timer_has_not_fired() -> None:
    given(sagas.waiting).after(seconds=61).when(matched("paid")).then_nothing(
        "the wait 'paid' was over before this was heard"
    )


@pytest.mark.parametrize("first", ["fact", "time"])
def test_of_a_fact_at_the_very_deadline_and_its_timeout_the_first_one_counts(first: str) -> None:
    fact, time = matched("paid", {"amount": 5}), due("wait/paid/1")
    story = given(sagas.waiting).after(seconds=60)
    story.when(fact if first == "fact" else time).then(
        saw(ev.WaitMatched if first == "fact" else ev.WaitTimedOut),
        saw(ev.RunEnded, output={"amount": 5} if first == "fact" else None),
    )
    assert story.now == story.of(ev.WaitStarted)[0].due
    story.when(time if first == "fact" else fact).then_nothing("the run has ended (succeeded)")


def test_a_second_fact_finds_nothing_waiting() -> None:
    story = given(sagas.looping, matched("tick", id="e-1"))
    story.when(matched("tick", id="e-2", visit=1)).then_nothing("nothing called 'tick' is waiting")


def test_a_wait_in_a_loop_sees_only_what_came_after_its_last_match() -> None:
    story = given(sagas.looping, matched("tick", id="e-1"))
    first, second = story.of(ev.WaitStarted)
    assert (first.look_back, second.look_back) == (story.state.started_at, story.now)
    story.when(matched("tick", id="e-1", visit=2)).then_nothing("this fact has answered an earlier wait 'tick'")
    story.when(matched("tick", id="e-2", visit=2), matched("tick", id="e-3", visit=3)).is_("succeeded")


def test_an_approval_carries_who_and_why() -> None:
    story = given(sagas.approving).is_("waiting")
    (asked,) = story.of(ev.ApprovalRequested)
    assert (asked.role, asked.context, asked.due) == ("boss", {"amount": 5}, story.now + timedelta(seconds=60))
    story.when(approved("check")).then(
        saw(ev.ApprovalDecided, by="ann", approved=True),
        saw(ev.RunEnded, output={"approved": True, "by": "ann", "comment": "seen", "timed_out": False}),
    )


@pytest.mark.parametrize("first", ["person", "time"])
def test_of_an_approval_and_its_timeout_the_first_one_counts(first: str) -> None:
    person, time = approved("check"), due("approval/check/1")
    story = given(sagas.approving).when(*((person, time) if first == "person" else (time, person)))
    story.then_nothing("the run has ended (succeeded)")
    assert story.state.end_output["timed_out"] is (first == "time")
    assert story.state.end_output["approved"] is (first == "person")


def test_values_are_recorded_and_come_again_the_same() -> None:
    story = given(sagas.values)
    recorded = [event.value for event in story.of(ev.ValueRecorded)]
    story.plan.forget(story.state)
    story.when(done("one"))
    assert story.state.end_output[:3] == recorded
    now, identity, number = recorded
    assert now == "2030-01-01T00:00:01.000000Z"
    assert 0 <= number < 1
    assert len({identity, *[event.value for event in story.of(ev.ValueRecorded)]}) == 6


def test_a_business_state_names_the_one_before() -> None:
    story = given(sagas.patient, done("before"), done("try"))
    assert [(event.name, event.previous) for event in story.of(ev.StateEntered)] == [
        ("Working", None),
        ("Ready", "Working"),
    ]


# ------------------------------------------------------------------------------------------------------------- slots


def test_a_run_that_begins_without_a_slot_does_nothing_until_it_is_admitted() -> None:
    story = Story(sagas.three).when(begun(queued=True)).then(saw(ev.RunStarted, queued=True)).is_("queued")
    assert not story.state.holds_slot
    story.when(admitted()).then(saw(ev.RunAdmitted), saw(ev.StepScheduled, step="one")).is_("running")


def test_without_a_slot_what_woke_the_run_is_recorded_and_the_run_queues() -> None:
    story = given(sagas.sleepy).holding().when(due("sleep/nap/1"))
    story.then(saw(ev.SleepEnded), saw(ev.RunHeld)).is_("queued")
    story.holding(False).when(admitted()).then(saw(ev.RunAdmitted), saw(ev.StepScheduled, step="after"))


def test_without_a_slot_a_retry_queues_and_is_made_when_the_run_is_admitted() -> None:
    story = given(sagas.stubborn, lost("try")).holding().when(due("retry/try/1/1"))
    story.then(saw(ev.RunHeld)).is_("queued")
    assert not story.state.holds_slot
    story.when(due("retry/try/1/1")).then_nothing("the run is queued; the step is tried again once a slot is free")
    story.holding(False).when(admitted()).then(saw(ev.RunAdmitted), saw(ev.StepAttempted, attempt=2)).is_("running")
    assert fx.ClearTimer("retry/try/1/1") in story.effects


def test_a_run_that_only_waits_needs_no_slot() -> None:
    story = Story(sagas.waiting).holding().when(begun())
    assert (story.state.status, story.state.holds_slot) == ("waiting", False)


def test_a_run_that_is_not_queued_cannot_be_admitted() -> None:
    given(sagas.three).when(admitted()).then_nothing("the run is not queued")


def test_a_queued_run_that_is_cancelled_ends() -> None:
    Story(sagas.three).when(begun(queued=True), cancelled()).then(
        saw(ev.CompensationStarted), saw(ev.RunEnded, status="cancelled")
    )


@pytest.mark.parametrize("status", ["waiting", "backoff", "parked"])
def test_a_slot_is_held_only_while_an_attempt_is_under_way(status: str) -> None:
    story = {
        "waiting": given(sagas.sleepy),
        "backoff": given(sagas.stubborn, lost("try")),
        "parked": given(sagas.patient, done("before"), lost("try")),
    }[status]
    assert not story.state.holds_slot
    assert given(sagas.three).state.holds_slot


# ----------------------------------------------------------------------------------------------- what makes no sense


def test_a_run_begins_once() -> None:
    given(sagas.three).when(begun()).then_nothing("the run has begun already")


def test_a_run_that_has_not_begun_hears_nothing() -> None:
    Story(sagas.three).when(cancelled()).then_nothing("the run has not begun")


@pytest.mark.parametrize("key", ["", "retry", "retry/try", "retry/try/1", "wait/try", "nap/x/1", "retry/try/x/1", "/"])
def test_a_timer_nobody_set_is_refused_by_name(key: str) -> None:
    given(sagas.stubborn).when(due(key)).then_nothing(f"no timer is called {key!r}")


@pytest.mark.parametrize("name", ["a/b", "a/1", "with space", "état", "1", "undo-retry/1/1"])
def test_names_of_steps_and_waits_may_hold_anything(name: str) -> None:
    @saga("odd", version=1)
    async def odd(run: Run, data: Any) -> Any:
        await run.sleep(name, 5)
        return await run.step(name, do)

    story = given(odd, due(f"sleep/{name}/1"), lost(name, visit=2))
    (timer,) = [effect for effect in story.effects if isinstance(effect, fx.SetTimer)]
    story.when(due(timer.key)).then(saw(ev.StepAttempted, step=name, attempt=2))


def test_an_answer_nobody_asked_for_is_refused_by_name() -> None:
    given(sagas.three).when(done("four")).then_nothing("no step 'four' (visit 1) was asked for")
    given(sagas.three).when(lost("one", visit=2)).then_nothing("no step 'one' (visit 2) was asked for")
    given(sagas.three).when(approved("four")).then_nothing("no approval called 'four' is open")
    given(sagas.three).when(matched("four")).then_nothing("nothing called 'four' is waiting")


def test_time_comes_in_with_the_input() -> None:
    story = given(sagas.three)
    assert {event.at for event in story.log} == {START + timedelta(seconds=1)}
