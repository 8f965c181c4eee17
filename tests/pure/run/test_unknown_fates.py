"""What becomes of an attempt of unknown fate whose action declares `ambiguous="query"`: whoever can say is asked, and
the answer decides."""

from __future__ import annotations

from typing import Any

import pytest

from contracts import run_events as ev
from contracts.calls import ActionCall, ActionSpec, Fate, RetryPolicy
from engine.actions.registry import ActionInvalid, ActionRegistry, action
from engine.explain import explain_run
from engine.plan.code import Run, saga
from engine.rehearsal import rehearse
from engine.run import inputs as given_
from engine.run import react as fx
from engine.simulate import NEVER, Simulation
from tests.pure.run.telling import (
    ONCE,
    THRICE,
    Heard,
    Story,
    abandoned,
    admitted,
    cancelled,
    do,
    done,
    due,
    given,
    lost,
    retried,
    saw,
    skipped,
    undo_it,
    undone,
)

RECEIPT = {"charge_id": "ch-1"}


def charging(retry: RetryPolicy = ONCE) -> dict[str, ActionSpec]:
    charge = ActionSpec(
        name="pay.charge",
        kind="command",
        command="pay.ChargeV1",
        undo="pay.refund",
        ambiguous="query",
        query="pay.FindChargeV1",
        retry=retry,
    )
    return {"pay.charge": charge, "pay.refund": ActionSpec(name="pay.refund", kind="command", command="pay.RefundV1")}


@saga("charging", version=1)
async def charge(run: Run, data: Any) -> Any:
    await run.step("first", do, undo=undo_it)
    return await run.step("charge", "pay.charge", amount=5)


@saga("charging-or-parking", version=1)
async def charge_or_park(run: Run, data: Any) -> Any:
    await run.step("first", do, undo=undo_it)
    return await run.step("charge", "pay.charge", amount=5, on_failure="park")


@saga("charging-abreast", version=1)
async def abreast(run: Run, data: Any) -> Any:
    await run.gather(run.step("charge", "pay.charge", amount=5), run.step("right", do, undo=undo_it, retry=ONCE))


def learned(happened: bool | None, *, closing: bool = False, attempt: int = 1, output: Any = None) -> Heard:
    return lambda at: given_.FateLearned(
        at=at,
        step="charge",
        visit=1,
        attempt=attempt,
        happened=happened,
        closing=closing,
        output=output,
        detail="no answer within 10 s" if happened is None else "",
    )


def doubtful(retry: RetryPolicy = ONCE, definition: Any = charge) -> Story:
    """A run whose charge has been sent and never answered."""
    return given(definition, done("first"), due("deadline/charge/1/1"), actions=charging(retry))


# ---------------------------------------------------------------------------------------------------- the question


def test_an_attempt_that_nobody_answered_is_asked_about_before_anything_else_follows() -> None:
    story = doubtful(THRICE)
    story.then(saw(ev.StepDoubted, step="charge", attempt=1, retryable=True)).is_("running")
    assert story.effects == [fx.Perform("charge", 1, 1, ask=True), fx.ClearTimer("deadline/charge/1/1")]
    said = explain_run(story.state, {}, story.now).sentence
    assert said == "It is asked whether step 'charge' (pay.charge, attempt 1) happened."


def test_a_definite_failure_is_not_asked_about() -> None:
    story = given(charge, done("first"), lost("charge", retryable=False), actions=charging())
    story.then(saw(ev.StepFailed, final=True), saw(ev.CompensationStarted), saw(ev.UndoScheduled, step="first"))


def test_what_happened_is_recorded_as_the_steps_outcome() -> None:
    story = doubtful().when(learned(True, output=RECEIPT))
    story.then(saw(ev.StepSucceeded, step="charge", attempt=1, output=RECEIPT), saw(ev.RunEnded, output=RECEIPT))


def test_what_did_not_happen_is_tried_again_under_the_same_key() -> None:
    story = doubtful(THRICE).when(learned(False))
    story.then(saw(ev.StepCleared, closing=False), saw(ev.StepFailed, final=False, ambiguous=True)).is_("waiting")
    story.when(due("retry/charge/1/1")).then(saw(ev.StepAttempted, attempt=2))
    assert fx.Send("charge", 1, 2) in story.effects


def test_after_the_last_attempt_the_question_closes_the_order_and_nothing_is_left_to_undo() -> None:
    story = doubtful().when(learned(False))
    story.then(
        saw(ev.StepCleared, closing=False),
        saw(ev.StepFailed, final=True, ambiguous=True),
        saw(ev.CompensationStarted),
        saw(ev.StepDoubted, step="charge", retryable=False),
    ).is_("compensating")
    story.when(learned(False, closing=True)).then(
        saw(ev.StepCleared, closing=True), saw(ev.UndoScheduled, step="first")
    )
    story.when(undone("first")).is_("compensated")
    assert story.of(ev.RunEnded)[0].left == ()


def test_what_turns_out_to_have_happened_while_unwinding_is_undone_with_its_receipt() -> None:
    story = doubtful().when(learned(False)).when(learned(True, closing=True, output=RECEIPT))
    story.then(saw(ev.StepSucceeded, output=RECEIPT), saw(ev.UndoScheduled, step="charge", receipt=RECEIPT))


def test_a_failure_that_allows_no_retry_still_allows_the_question() -> None:
    story = given(charge, done("first"), lost("charge", retryable=False, ambiguous=True), actions=charging(THRICE))
    story.then(saw(ev.StepDoubted, retryable=False))
    story.when(learned(False))
    assert story.of(ev.StepFailed)[0].final


def test_a_late_outcome_settles_the_doubt_and_the_answer_comes_too_late() -> None:
    story = doubtful(THRICE).when(done("charge", RECEIPT)).is_("succeeded")
    story.when(learned(False)).then_nothing("the run has ended (succeeded)")


def test_a_late_definite_failure_settles_the_doubt_too() -> None:
    story = doubtful(THRICE).when(lost("charge"))
    story.then(saw(ev.StepFailed, ambiguous=False, final=False))
    story.when(learned(True)).then_nothing("nobody asks any more what became of attempt 1 of step 'charge'")


def test_the_deadline_of_a_doubted_attempt_changes_nothing() -> None:
    doubtful(THRICE).when(due("deadline/charge/1/1")).then_nothing("step 'charge' is in doubt")


def test_a_cancel_waits_for_the_answer_and_asks_again_for_good() -> None:
    story = doubtful(THRICE).when(cancelled()).then(saw(ev.CompensationStarted)).is_("compensating")
    story.when(learned(False)).then(saw(ev.StepCleared, closing=False), saw(ev.StepDoubted))
    story.when(learned(False, closing=True)).then(
        saw(ev.StepCleared, closing=True), saw(ev.UndoScheduled, step="first")
    )
    story.when(undone("first")).is_("cancelled")


def test_a_step_that_was_ambiguous_once_is_asked_about_when_a_sibling_fails() -> None:
    story = given(abreast, due("deadline/charge/1/1"), learned(False), actions=charging(THRICE))
    story.when(lost("right")).then(
        saw(ev.StepFailed, step="right"),
        saw(ev.CompensationStarted),
        saw(ev.StepCancelled, step="charge", ambiguous=True),
        saw(ev.StepDoubted, step="charge", retryable=False),
    )


def test_a_fold_of_the_log_is_the_state_at_every_turn_of_a_doubt() -> None:
    story = doubtful()
    for heard in (
        learned(False),
        learned(None, closing=True),
        retried(),
        learned(False, closing=True),
        undone("first"),
    ):
        assert story.folded() == story.state
        story.when(heard)
    assert story.folded() == story.state


# ------------------------------------------------------------------------------------------------- nobody can say


def test_without_an_answer_the_step_is_parked_and_a_retry_asks_again() -> None:
    story = doubtful(THRICE).when(learned(None))
    story.then(saw(ev.IncidentOpened, reason="fate_unknown", step="charge")).is_("parked")
    assert "no answer within 10 s" in story.of(ev.IncidentOpened)[0].detail
    story.when(retried()).then(saw(ev.IncidentResolved), saw(ev.StepDoubted, attempt=1, retryable=True)).is_("running")
    story.when(learned(True, output=RECEIPT)).is_("succeeded")


def test_a_retry_without_a_free_slot_asks_once_it_is_admitted() -> None:
    story = doubtful(THRICE).when(learned(None)).holding().when(retried())
    story.then(saw(ev.IncidentResolved), saw(ev.RunHeld)).is_("queued")
    story.holding(False).when(admitted()).then(saw(ev.RunAdmitted), saw(ev.StepDoubted, attempt=1))


def test_an_operator_who_knows_better_skips_it() -> None:
    story = doubtful(THRICE).when(learned(None)).when(skipped("charge", RECEIPT))
    story.then(saw(ev.IncidentResolved), saw(ev.StepSkipped, output=RECEIPT), saw(ev.RunEnded))


def test_a_late_outcome_answers_what_an_operator_was_asked() -> None:
    doubtful(THRICE).when(learned(None)).when(done("charge", RECEIPT)).then(
        saw(ev.StepSucceeded), saw(ev.IncidentResolved, how="redrive"), saw(ev.RunEnded)
    )


def test_an_abandoned_run_asks_once_more_before_it_undoes_anything() -> None:
    story = doubtful(THRICE).when(learned(None)).when(abandoned())
    story.then(
        saw(ev.IncidentResolved),
        saw(ev.CompensationStarted),
        saw(ev.StepCancelled, ambiguous=True),
        saw(ev.StepDoubted, retryable=False),
    )


def test_without_an_answer_while_unwinding_the_undo_is_parked_and_never_made_blindly() -> None:
    story = doubtful().when(learned(False)).when(learned(None, closing=True))
    story.then(saw(ev.IncidentOpened, reason="undo_failed", step="charge")).is_("parked")
    asked = story.when(retried()).then(saw(ev.IncidentResolved), saw(ev.StepDoubted)).is_("compensating")
    asked.when(learned(True, closing=True, output=RECEIPT)).then(
        saw(ev.StepSucceeded), saw(ev.UndoScheduled, step="charge", receipt=RECEIPT)
    )


def test_an_operator_who_looked_says_that_nothing_is_left_to_undo() -> None:
    story = doubtful().when(learned(False)).when(learned(None, closing=True)).when(skipped("charge"))
    story.then(saw(ev.IncidentResolved), saw(ev.UndoSucceeded, step="charge"), saw(ev.UndoScheduled, step="first"))


# ---------------------------------------------------------------------------------------------------- the test kit


@pytest.mark.parametrize(
    ("fate", "status", "neutral"),
    [(RECEIPT, "succeeded", False), (None, "compensated", True), (NEVER, "parked", False)],
)
def test_a_simulation_answers_the_question_as_it_is_told(fate: Any, status: str, neutral: bool) -> None:
    sim = Simulation(
        charge, actions={"pay.charge": NEVER, do: None, undo_it: None}, registry=charging(), fates={"pay.charge": fate}
    )
    sim.run_until_idle()
    sim.restart()
    assert (sim.status, sim.ledger_neutral) == (status, neutral)


def test_a_rehearsal_is_neutral_where_a_query_closes_what_nobody_knows() -> None:
    rehearsal = rehearse(charge, actions={"pay.charge": RECEIPT, do: None, undo_it: None}, registry=charging())
    assert rehearsal.neutral, str(rehearsal)


# --------------------------------------------------------------------------------------------------- declaring it


def look(call: ActionCall) -> Fate:
    return Fate(False)


def test_an_action_that_wants_to_ask_must_say_whom() -> None:
    with pytest.raises(ActionInvalid, match=r'ambiguous="query" without a function that looks \(find=...\)'):
        action("mail.print", ambiguous="query")(do)
    assert action("mail.print", ambiguous="query", find=look)(do).find is look


def test_a_command_that_wants_to_ask_must_name_its_query() -> None:
    spec = ActionSpec(name="pay.charge", kind="command", command="pay.ChargeV1", ambiguous="query")
    with pytest.raises(ActionInvalid, match=r"pay\.charge is ambiguous=.* without a query that its module declares"):
        ActionRegistry(commands={"pay.charge": spec})
