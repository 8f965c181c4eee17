"""A run being unwound: what settles first, in which order undos happen, what an undo that fails does, how it ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import pytest

from contracts import run_events as ev
from contracts.calls import ActionSpec, RetryPolicy
from engine.plan.code import Run, saga
from engine.run import react as fx
from tests.pure.run import sagas
from tests.pure.run.telling import (
    ONCE,
    RUN,
    Story,
    abandoned,
    begun,
    cancelled,
    do,
    done,
    due,
    given,
    lost,
    retried,
    saw,
    skipped,
    terminated,
    undo_it,
    undo_lost,
    undone,
)

Closing = Literal["tombstone", "query", "park"]


def failed_at_three() -> Story:
    return given(sagas.three, done("one", {"id": 1}), done("two", {"id": 2}), lost("three"))


def test_a_final_failure_unwinds_from_the_newest_completion() -> None:
    story = failed_at_three().then(
        saw(ev.StepFailed, final=True),
        saw(ev.CompensationStarted, cause="failed", by="engine"),
        saw(ev.UndoScheduled, step="two", receipt={"id": 2}, key=f"{RUN}/two/1/undo", attempt=1),
    )
    story.is_("compensating").when(undone("two")).then(
        saw(ev.UndoSucceeded, step="two"), saw(ev.UndoScheduled, step="one", receipt={"id": 1})
    )
    story.when(undone("one")).then(saw(ev.UndoSucceeded), saw(ev.RunEnded, status="compensated", left=()))


def test_a_run_that_had_nothing_to_undo_has_failed() -> None:
    given(sagas.three).when(lost("one")).then(
        saw(ev.StepFailed), saw(ev.CompensationStarted), saw(ev.RunEnded, status="failed")
    )


def test_siblings_under_way_settle_before_anything_is_undone() -> None:
    story = given(sagas.abreast).when(lost("right"))
    story.then(saw(ev.StepFailed), saw(ev.CompensationStarted)).is_("compensating")
    story.when(done("left", {"id": "l"})).then(
        saw(ev.StepSucceeded, step="left"), saw(ev.UndoScheduled, step="left", receipt={"id": "l"})
    )


def test_a_sibling_settles_at_the_latest_by_its_own_timeout_and_is_then_undone_without_a_receipt() -> None:
    story = given(sagas.abreast, lost("right")).when(due("deadline/left/1/1"))
    story.then(saw(ev.StepFailed, final=True, ambiguous=True), saw(ev.UndoScheduled, step="left", receipt=None))


def test_a_sibling_that_fails_while_unwinding_is_not_tried_again() -> None:
    given(sagas.abreast, lost("right")).when(lost("left")).then(
        saw(ev.StepFailed, step="left", final=True, retry_at=None), saw(ev.RunEnded, status="failed")
    )


def test_a_sibling_that_waits_for_another_attempt_gets_none() -> None:
    story = given(sagas.abreast, lost("left")).when(lost("right"))
    story.then(
        saw(ev.StepFailed),
        saw(ev.CompensationStarted),
        saw(ev.StepCancelled, step="left", ambiguous=False),
        saw(ev.RunEnded, status="failed"),
    )


def test_a_sibling_that_may_have_happened_is_undone_although_its_retry_is_cancelled() -> None:
    given(sagas.abreast, lost("left", ambiguous=True)).when(lost("right")).then(
        saw(ev.StepFailed),
        saw(ev.CompensationStarted),
        saw(ev.StepCancelled, step="left", ambiguous=True),
        saw(ev.UndoScheduled, step="left", receipt=None),
    )


def test_a_definite_failure_after_an_unknown_attempt_leaves_the_step_unknown() -> None:
    story = given(sagas.stubborn, due("deadline/try/1/1"), due("retry/try/1/1"), lost("try"), due("retry/try/1/2"))
    story.when(lost("try")).then(
        saw(ev.StepFailed, final=True), saw(ev.CompensationStarted), saw(ev.UndoScheduled, step="try", receipt=None)
    )


def test_unknown_steps_are_undone_before_any_completed_one() -> None:
    story = given(sagas.abreast, lost("left", ambiguous=True), done("right"), due("retry/left/1/1"), done("left"))
    story.when(lost("last", ambiguous=True))
    story.when(undone("last"), undone("left"), undone("right"))
    assert story.steps(ev.UndoScheduled) == ["last", "left", "right"]
    story.is_("compensated")


def test_waits_are_over_when_unwinding_begins() -> None:
    story = given(sagas.everything, done("soft")).when(cancelled())
    assert fx.Unsubscribe("fact", 1) in story.effects
    assert fx.ClearTimer("wait/fact/1") in story.effects
    story.when(due("wait/fact/1")).then_nothing("nothing called 'fact' is waiting")


def test_an_irrecoverable_failure_skips_retries_and_park() -> None:
    given(sagas.stubborn).when(lost("try", irrecoverable=True)).then(
        saw(ev.StepFailed, final=True, irrecoverable=True),
        saw(ev.CompensationStarted),
        saw(ev.RunEnded, status="failed"),
    )
    story = given(sagas.patient, done("before")).when(lost("try", irrecoverable=True))
    assert story.steps(ev.UndoScheduled) == ["before"]


def test_a_saga_that_gives_up_unwinds() -> None:
    @saga("resigned", version=1)
    async def resigned(run: Run, data: Any) -> Any:
        await run.step("one", do, undo=undo_it)
        raise run.fail("refused", "not wanted")

    given(resigned).when(done("one")).then(
        saw(ev.StepSucceeded),
        saw(ev.CompensationStarted, by="saga", error={"code": "refused", "message": "not wanted"}),
        saw(ev.UndoScheduled),
    )


# ---------------------------------------------------------------------------------------------------- undos that fail


def test_an_undo_is_tried_again_with_patience() -> None:
    story = failed_at_three().when(undo_lost("two"))
    (failed,) = story.of(ev.UndoFailed)
    assert not failed.final
    assert timedelta(seconds=0.9) <= failed.retry_at - story.now <= timedelta(seconds=1.1)
    assert fx.SetTimer("undo-retry/two/1/1", failed.retry_at) in story.effects
    story.is_("compensating").when(due("undo-retry/two/1/1")).then(
        saw(ev.UndoScheduled, attempt=2, key=f"{RUN}/two/1/undo", receipt={"id": 2})
    )


def exhausted() -> Story:
    story = failed_at_three()
    for attempt in range(1, 5):
        story.when(undo_lost("two"), due(f"undo-retry/two/1/{attempt}"))
    return story.when(undo_lost("two"))


def test_an_undo_that_used_up_its_attempts_parks_and_later_undos_wait() -> None:
    story = exhausted().then(
        saw(ev.UndoFailed, attempt=5, final=True, retry_at=None),
        saw(ev.IncidentOpened, reason="undo_failed", step="two"),
    )
    story.is_("parked")
    assert story.steps(ev.UndoScheduled) == ["two"] * 5


def test_an_answer_that_no_undo_can_help_parks_at_once() -> None:
    failed_at_three().when(undo_lost("two", retryable=False)).then(
        saw(ev.UndoFailed, attempt=1, final=True), saw(ev.IncidentOpened)
    )


def test_a_parked_undo_is_retried_by_an_operator_and_unwinding_goes_on() -> None:
    story = exhausted().when(retried("two"))
    story.then(saw(ev.IncidentResolved, how="retry", by="ann"), saw(ev.UndoScheduled, attempt=6))
    story.when(undone("two")).then(saw(ev.UndoSucceeded), saw(ev.UndoScheduled, step="one"))


def test_an_operator_may_say_that_a_parked_undo_is_done() -> None:
    exhausted().when(skipped("two", {"by": "hand"})).then(
        saw(ev.IncidentResolved, how="skip"),
        saw(ev.UndoSucceeded, output={"by": "hand"}),
        saw(ev.UndoScheduled, step="one"),
    )


def test_a_parked_undo_that_answers_late_resolves_its_incident() -> None:
    exhausted().when(undone("two")).then(
        saw(ev.IncidentResolved, how="redrive", by="engine"), saw(ev.UndoSucceeded), saw(ev.UndoScheduled, step="one")
    )


def test_only_abandoning_ends_a_run_whose_undo_failed_and_it_names_what_is_left() -> None:
    exhausted().when(abandoned()).then(saw(ev.RunEnded, status="compensation_failed", left=("one/1", "two/1")))


def test_a_run_being_unwound_without_trouble_cannot_be_abandoned() -> None:
    failed_at_three().when(abandoned()).then_nothing(
        "the run is being unwound already; abandon it again if an undo parks"
    )


def test_an_undo_that_takes_too_long_is_tried_again() -> None:
    failed_at_three().when(due("undo-deadline/two/1/1")).then(
        saw(ev.UndoFailed, final=False, error={"code": "timeout", "message": "no outcome in time"})
    )


def test_timers_and_failures_of_undo_attempts_that_are_over_change_nothing() -> None:
    story = failed_at_three().when(undo_lost("two"), due("undo-retry/two/1/1"))
    story.when(due("undo-retry/two/1/1")).then_nothing("attempt 1 of the undo of step 'two' is over")
    story.when(due("undo-retry/two/1/2")).then_nothing("the undo of step 'two' is open")
    story.when(undo_lost("two", attempt=1)).then_nothing("attempt 1 of the undo of step 'two' is over")
    story.when(undo_lost("one")).then_nothing("no undo of step 'one' is under way")
    story.when(undone("one")).then_nothing("no undo of step 'one' is under way")


# --------------------------------------------------------------------------- outcomes that nobody knows, and their undo


def charging(closing: Closing) -> dict[str, ActionSpec]:
    return {
        "pay.charge": ActionSpec(
            name="pay.charge", kind="command", command="pay.ChargeV1", undo="pay.refund", ambiguous=closing, retry=ONCE
        ),
        "pay.refund": ActionSpec(name="pay.refund", kind="command", command="pay.RefundV1"),
    }


@saga("charging", version=1)
async def charge(run: Run, data: Any) -> Any:
    await run.step("first", do, undo=undo_it)
    await run.step("charge", "pay.charge", amount=5)


def test_an_action_with_tombstones_is_undone_without_a_receipt() -> None:
    story = given(charge, done("first"), actions=charging("tombstone")).when(due("deadline/charge/1/1"))
    story.then(saw(ev.StepFailed), saw(ev.CompensationStarted), saw(ev.UndoScheduled, step="charge", receipt=None))


@pytest.mark.parametrize("closing", ["park"])
def test_an_action_that_wants_a_person_to_look_is_not_undone_blindly(closing: Closing) -> None:
    story = given(charge, done("first"), actions=charging(closing)).when(due("deadline/charge/1/1"))
    story.then(
        saw(ev.StepFailed), saw(ev.CompensationStarted), saw(ev.IncidentOpened, step="charge", reason="undo_failed")
    ).is_("parked")
    assert "nobody knows" in story.of(ev.IncidentOpened)[0].detail


def test_a_person_who_looked_undoes_it_or_says_that_nothing_happened() -> None:
    happened = given(charge, done("first"), due("deadline/charge/1/1"), actions=charging("park"))
    happened.when(retried()).then(saw(ev.IncidentResolved), saw(ev.UndoScheduled, step="charge", attempt=1))
    nothing = given(charge, done("first"), due("deadline/charge/1/1"), actions=charging("park"))
    nothing.when(skipped("charge")).then(
        saw(ev.IncidentResolved), saw(ev.UndoSucceeded), saw(ev.UndoScheduled, step="first")
    )


def test_a_known_outcome_is_undone_whatever_the_action_says_about_unknown_ones() -> None:
    story = given(charge, done("first"), done("charge", {"id": "p"}), actions=charging("park"))
    assert story.state.status == "succeeded"
    story = given(charge, done("first"), cancelled(), actions=charging("park"))
    story.when(done("charge", {"id": "p"})).then(
        saw(ev.StepSucceeded), saw(ev.UndoScheduled, step="charge", receipt={"id": "p"})
    )


def test_an_unknown_step_without_undo_is_passed_over() -> None:
    @saga("retriable", version=1)
    async def retriable(run: Run, data: Any) -> Any:
        await run.step("first", do, undo=undo_it)
        await run.step("mail", do, retry=ONCE)

    story = given(retriable, done("first")).when(lost("mail", ambiguous=True))
    assert story.steps(ev.UndoScheduled) == ["first"]


def test_the_notice_of_an_ending_names_the_attributes_that_are_not_personal() -> None:
    @saga("told", version=1, attributes={"email": "/email", "plan": "/plan", "greeting": "/greeting"})
    async def told(run: Run, data: Any) -> Any:
        raise run.fail("unwanted")

    data = {"email": "ann@example.org", "plan": "pro", "greeting": "dear ann@example.org"}
    story = Story(told).hear(begun(data, marks=("/email",)))
    [notice] = [effect for effect in story.effects if isinstance(effect, fx.Notify) and effect.notice == "RunEndedV1"]
    assert notice.fields["attributes"] == {"plan": "pro"}


# ------------------------------------------------------------------------------------------------ cancel and terminate


def test_a_cancelled_run_is_unwound_and_ends_cancelled() -> None:
    story = given(sagas.three, done("one")).when(cancelled())
    story.then(saw(ev.CompensationStarted, cause="cancelled", by="ann")).is_("compensating")
    story.when(done("two"), undone("two"), undone("one")).is_("cancelled")


def test_a_cancel_during_compensation_is_ignored_with_its_reason() -> None:
    failed_at_three().when(cancelled()).then_nothing("the run is being unwound already")


def test_a_terminated_run_closes_at_once_and_lists_what_is_left() -> None:
    story = given(sagas.three, done("one"), done("two")).when(terminated())
    story.then(saw(ev.RunEnded, status="cancelled", left=("one/1", "two/1", "three/1"), by="ann"))


def test_terminating_during_compensation_does_not_list_what_is_undone() -> None:
    failed_at_three().when(undone("two"), terminated()).then(saw(ev.RunEnded, left=("one/1",)))


def test_an_answer_after_the_end_is_ignored_with_its_reason() -> None:
    given(sagas.three, terminated()).when(done("one")).then_nothing("the run has ended (cancelled)")


# ------------------------------------------------------------------------------------------------------- run deadlines


def test_a_run_past_its_deadline_is_unwound_and_ends_timed_out() -> None:
    story = given(sagas.timed, done("before")).after(seconds=60).when(due("run/deadline"))
    story.then(saw(ev.CompensationStarted, cause="timed_out"), saw(ev.UndoScheduled, step="before"))
    story.when(undone("before")).is_("timed_out")


def test_a_run_that_parks_on_failure_parks_at_its_deadline_once() -> None:
    story = given(sagas.timed_parking, done("before")).after(seconds=60).when(due("run/deadline"))
    story.then(saw(ev.IncidentOpened, reason="run_timed_out", step=None)).is_("parked")
    story.when(due("run/deadline")).then_nothing("the run's deadline has been dealt with")


def test_an_operator_who_lets_a_late_run_go_on_gives_it_its_whole_time_again() -> None:
    story = given(sagas.timed_parking).after(seconds=60).when(due("run/deadline"), lost("before"))
    assert len(story.of(ev.IncidentOpened)) == 2
    story.after(seconds=300).when(retried())
    assert story.state.due == story.now + timedelta(seconds=60)
    story.after(seconds=60).when(due("run/deadline")).then(saw(ev.IncidentOpened, reason="run_timed_out"))


def test_the_deadline_stands_still_while_the_run_is_parked() -> None:
    story = given(sagas.timed_parking)
    deadline = story.state.deadline
    assert deadline is not None
    story.when(lost("before")).is_("parked")
    parked = story.now
    story.after(seconds=300).when(due("run/deadline")).then_nothing("the run is parked; its deadline stands still")
    assert story.state.due is None
    story.when(retried())
    assert story.state.due == deadline + (story.now - parked)
    story.when(due("run/deadline")).then_nothing("the run's deadline has moved")


def test_a_deadline_during_compensation_changes_nothing() -> None:
    story = given(sagas.timed, done("before"), cancelled()).after(seconds=60)
    story.when(due("run/deadline")).then_nothing("the run's deadline has been dealt with")


# -------------------------------------------------------- an order that was refused for a while may still happen


def test_an_order_that_was_refused_for_a_while_is_closed_before_the_run_ends() -> None:
    """A copy of it may be under way, and the module remembers no such refusal: only the undo's tombstone stops it."""
    story = given(charge, done("first"), lost("charge", "busy", retryable=True), actions=charging("tombstone"))
    story.then(
        saw(ev.StepFailed, final=True, ambiguous=True),
        saw(ev.CompensationStarted),
        saw(ev.UndoScheduled, step="charge", receipt=None),
    )
    story.when(undone("charge")).then(saw(ev.UndoSucceeded), saw(ev.UndoScheduled, step="first"))


def test_an_order_that_was_refused_for_good_is_remembered_so_and_needs_no_undo() -> None:
    story = given(charge, done("first"), lost("charge", "no", irrecoverable=True), actions=charging("tombstone"))
    story.then(
        saw(ev.StepFailed, final=True, ambiguous=False),
        saw(ev.CompensationStarted),
        saw(ev.UndoScheduled, step="first"),
    )


def test_an_order_between_two_attempts_is_closed_when_the_run_is_cancelled() -> None:
    twice = charging("tombstone")
    twice["pay.charge"] = replace(twice["pay.charge"], retry=RetryPolicy(attempts=2))
    story = given(charge, done("first"), lost("charge", "busy", retryable=True), actions=twice)
    story.when(cancelled()).then(
        saw(ev.CompensationStarted, cause="cancelled"),
        saw(ev.StepCancelled, step="charge", ambiguous=True),
        saw(ev.UndoScheduled, step="charge", receipt=None),
    )
