"""Park and what an operator may do about it: retry, skip, abandon; one branch of several; states around the park."""

from __future__ import annotations

import pytest

from contracts import run_events as ev
from engine.run import react as fx
from tests.pure.run import sagas
from tests.pure.run.telling import (
    Heard,
    Story,
    abandoned,
    admitted,
    cancelled,
    done,
    given,
    lost,
    retried,
    saw,
    skipped,
    stuck,
    terminated,
    undone,
)


def parked() -> Story:
    return given(sagas.patient, done("before"), lost("try"))


def test_a_park_undoes_nothing_and_shows_its_own_state() -> None:
    story = parked().then(
        saw(ev.StepFailed, final=True),
        saw(ev.IncidentOpened, reason="step_failed", step="try", detail="step 'try': broken: try failed"),
        saw(ev.StateEntered, name="Stuck", previous="Working", visit=0),
    )
    story.is_("parked")
    assert story.of(ev.UndoScheduled) == []


def test_a_retry_redoes_only_the_failed_step_and_returns_to_the_state_before() -> None:
    story = parked().when(retried())
    story.then(
        saw(ev.IncidentResolved, how="retry", by="ann"),
        saw(ev.StepAttempted, step="try", attempt=2),
        saw(ev.StateEntered, name="Working", previous="Stuck"),
    ).is_("running")
    story.when(done("try", "mended")).is_("succeeded")
    assert (story.state.end_output, story.steps(ev.StepScheduled)) == ("mended", ["before", "try"])


def test_a_retry_that_fails_parks_again() -> None:
    story = parked().when(retried(), lost("try"))
    story.then(saw(ev.StepFailed, attempt=2, final=True), saw(ev.IncidentOpened), saw(ev.StateEntered, name="Stuck"))


def test_without_a_slot_a_retry_waits_for_one() -> None:
    story = parked().holding().when(retried())
    story.then(saw(ev.IncidentResolved), saw(ev.RunHeld), saw(ev.StateEntered, name="Working")).is_("queued")
    story.holding(False).when(admitted()).then(saw(ev.RunAdmitted), saw(ev.StepAttempted, step="try", attempt=2))


def test_a_parked_step_that_answers_late_after_all_goes_on() -> None:
    story = parked().when(done("try", "late"))
    story.then(
        saw(ev.StepSucceeded, output="late"),
        saw(ev.IncidentResolved, how="redrive", by="engine"),
        saw(ev.StateEntered, name="Working"),
        saw(ev.StateEntered, name="Ready"),
        saw(ev.RunEnded, status="succeeded"),
    )


def test_a_skip_goes_on_with_the_given_output_and_has_no_undo() -> None:
    story = parked().when(skipped("try", {"by": "hand"}))
    story.then(
        saw(ev.IncidentResolved, how="skip"),
        saw(ev.StepSkipped, output={"by": "hand"}, by="ann", reason="done by hand"),
        saw(ev.StateEntered, name="Working"),
        saw(ev.StateEntered, name="Ready"),
        saw(ev.RunEnded, output={"by": "hand"}),
    )
    assert story.state.step("try", 1).undo is None  # type: ignore[union-attr]


def test_an_abandoned_run_is_unwound_and_ends_compensated() -> None:
    story = parked().when(abandoned())
    story.then(
        saw(ev.IncidentResolved, how="abandon"),
        saw(ev.CompensationStarted, cause="abandoned", by="ann"),
        saw(ev.StepCancelled, step="try"),
        saw(ev.UndoScheduled, step="before"),
    )
    story.when(undone("before")).is_("compensated")


def test_a_parked_run_may_be_cancelled_and_terminated() -> None:
    parked().when(cancelled(), undone("before")).is_("cancelled")
    parked().when(terminated()).then(saw(ev.RunEnded, status="cancelled", left=("before/1",)))


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (retried(), "nothing is parked"),
        (retried("before"), "step 'before' is not parked"),
        (skipped("before"), "step 'before' is not parked"),
        (abandoned(), "only a parked run can be abandoned; cancel it instead"),
    ],
)
def test_what_is_not_parked_cannot_be_repaired(asked: Heard, why: str) -> None:
    given(sagas.patient).when(asked).then_nothing(why)


def test_siblings_of_a_parked_step_run_on_to_their_next_wait() -> None:
    story = given(sagas.pair).when(lost("a1")).is_("running")
    story.when(done("b1")).then(saw(ev.StepSucceeded), saw(ev.StepScheduled, step="b2")).is_("running")
    story.when(done("b2")).is_("parked")


def test_each_parked_branch_is_repaired_by_itself() -> None:
    story = given(sagas.pair, lost("a1"), lost("b1")).is_("parked")
    story.when(retried("b1")).then(saw(ev.IncidentResolved), saw(ev.StepAttempted, step="b1")).is_("running")
    story.when(retried("b1")).then_nothing("step 'b1' is not parked")
    story.when(retried()).then(saw(ev.IncidentResolved), saw(ev.StepAttempted, step="a1"))
    story.when(done("a1"), done("b1"), done("a2"), done("b2")).is_("succeeded")


def test_a_retry_without_a_name_repairs_everything() -> None:
    story = given(sagas.pair, lost("a1"), lost("b1")).when(retried())
    assert story.steps(ev.StepAttempted) == ["a1", "b1"]


def test_a_saga_that_does_not_yield_parks_and_records_what_comes_meanwhile() -> None:
    story = given(sagas.three).when(stuck()).then(saw(ev.IncidentOpened, reason="saga_stuck", step=None))
    story.is_("running").when(done("one")).then(saw(ev.StepSucceeded)).is_("parked")
    story.when(retried()).then(saw(ev.IncidentResolved), saw(ev.StepScheduled, step="two"))


def test_takeovers_without_progress_park_under_their_own_reason() -> None:
    given(sagas.three).when(stuck("no_progress")).then(saw(ev.IncidentOpened, reason="no_progress"))


def test_a_run_being_unwound_does_not_ask_its_saga() -> None:
    given(sagas.three, cancelled()).when(stuck()).then_nothing(
        "the run is being unwound; its saga is not asked any more"
    )


def test_a_park_is_a_notice_and_so_is_the_repair() -> None:
    story = parked()
    (notice,) = [e for e in story.effects if isinstance(e, fx.Notify) and e.notice == "RunParkedV1"]
    assert notice.fields["step"] == "try"
    story.when(retried())
    assert "RunResumedV1" in [effect.notice for effect in story.effects if isinstance(effect, fx.Notify)]
