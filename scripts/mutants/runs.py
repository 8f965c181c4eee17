"""Mutants of the rules of one run, of code sagas, and of the one door; part of the catalog."""

from __future__ import annotations

from typing import Final

from scripts.mutants.run import Mutant

_BACK: Final = "tests/pure/run/test_going_back.py"
_FORWARD: Final = "tests/pure/run/test_going_forward.py"
_FATES: Final = "tests/pure/run/test_unknown_fates.py"
_OPERATORS: Final = "tests/pure/run/test_operators.py"
_STATES: Final = "tests/pure/run/test_every_state.py"
_PERSONAL: Final = "tests/pure/run/test_personal_values.py"
_REPLAY: Final = "tests/pure/plan/test_replay.py"
_CHANGED: Final = "tests/pure/plan/test_changed_sagas.py"
_SAGAS: Final = "tests/pure/plan/test_code_sagas.py"
_COMMITS: Final = "tests/conformance/coordinator/test_commits.py"
_OWNERS: Final = "tests/conformance/coordinator/test_owners.py"
_SLOTS: Final = "tests/conformance/coordinator/test_slots.py"
_REPLIES: Final = "tests/conformance/coordinator/test_replies.py"
_STORM: Final = "tests/conformance/coordinator/test_storm.py"

RUNS: Final = (
    Mutant(
        name="retry-too-early",
        law="Whoever asks to be left alone is",
        path="engine/run/retry.py",
        old="at + max(backoff(policy, attempt, key), _asked_for(error))",
        new="at + backoff(policy, attempt, key)",
        test="tests/pure/run/test_going_forward.py::test_the_next_attempt_comes_no_earlier_than_the_failure_asks_and_no_later_than_an_hour",
    ),
    Mutant(
        name="put-off-takes-attempts",
        law="An attempt that was put off counts for nothing",
        path="engine/run/retry.py",
        old="attempt - put_off >= policy.attempts",
        new="attempt >= policy.attempts",
        test="tests/pure/run/test_going_forward.py::test_an_attempt_that_was_put_off_counts_for_nothing",
    ),
    Mutant(
        name="rerun-takes-an-old-key",
        law="A step that was undone is done again under a key that nobody has used",
        path="engine/run/rerun.py",
        old='return f"{root}/{last + 1}"',
        new='return f"{root}/{last}"',
        test="tests/pure/run/test_rerun.py",
    ),
    Mutant(
        name="waiting-for-a-child-holds-a-slot",
        law="A run of limit 1 with a child cannot deadlock",
        path="engine/run/state.py",
        old='if step.status == "open" and not step.is_child:',
        new='if step.status == "open":',
        test="tests/conformance/coordinator/test_children.py",
        needs=("postgres",),
    ),
    Mutant(
        name="children-stay-when-their-parent-goes",
        law="A run that is unwound recalls its open children",
        path="engine/run/react.py",
        old="for step in state.open_steps() if step.is_child]",
        new="for step in state.open_steps() if step.is_child and False]",
        test="tests/stories/test_children.py",
        needs=("postgres", "rabbitmq"),
    ),
    Mutant(
        name="rerun-reuses-what-was-undone",
        law="A rerun reuses only what stands",
        path="engine/run/rerun.py",
        old='        return "closed"\n    if step.undo_status:',
        new='        return "stands"\n    if step.undo_status:',
        test="tests/pure/run/test_rerun.py",
    ),
    Mutant(
        name="unknown-fate-not-asked-about",
        law="An attempt that nobody answered is asked about first",
        path="engine/run/outcomes.py",
        old="    if lost.ambiguous and not lost.irrecoverable and run.may_ask(step):\n",
        new="    if False:\n",
        test=f"{_FATES}::test_an_attempt_that_nobody_answered_is_asked_about_before_anything_else_follows",
    ),
    Mutant(
        name="any-no-closes-the-order",
        law="Only the last question closes an order",
        path="engine/run/outcomes.py",
        old="closing=back and given.closing",
        new="closing=back",
        test=f"{_FATES}::test_a_cancel_waits_for_the_answer_and_asks_again_for_good",
    ),
    Mutant(
        name="siblings-not-settled-first",
        law="Siblings under way settle before anything is undone",
        path="engine/run/unwind.py",
        old="    if run.state.open_steps() or any(step.undo_status in",
        new="    if any(step.undo_status in",
        test=f"{_BACK}::test_siblings_under_way_settle_before_anything_is_undone",
    ),
    Mutant(
        name="unknown-outcome-undone-blindly",
        law="An action that wants a person to look at an unknown outcome gets one",
        path="engine/run/unwind.py",
        old='    return spec is None or spec.ambiguous == "tombstone"\n',
        new="    return True\n",
        test=f"{_BACK}::test_an_action_that_wants_a_person_to_look_is_not_undone_blindly",
    ),
    Mutant(
        name="undo-retried-for-ever",
        law="An undo that used up its attempts parks",
        path="engine/run/retry.py",
        old="UNDO_RETRY, step.undo_attempt, step.undo_put_off",
        new="UNDO_RETRY, 0, step.undo_put_off",
        test=f"{_BACK}::test_an_undo_that_used_up_its_attempts_parks_and_later_undos_wait",
    ),
    Mutant(
        name="terminate-forgets-what-is-left",
        law="A terminated run lists what is left",
        path="engine/run/unwind.py",
        old='        and (step.status in ("succeeded", "open") or step.ambiguous)\n    )',
        new='        and step.status == "succeeded"\n    )',
        test=f"{_BACK}::test_a_terminated_run_closes_at_once_and_lists_what_is_left",
    ),
    Mutant(
        name="cancel-twice",
        law="A cancel during compensation is ignored",
        path="engine/run/decide.py",
        old='            if run.state.cause is not None:\n                return "the run is being unwound already"\n',
        new="",
        test=f"{_BACK}::test_a_cancel_during_compensation_is_ignored_with_its_reason",
    ),
    Mutant(
        name="deadline-runs-while-parked",
        law="The deadline stands still while the run is parked",
        path="engine/run/evolve.py",
        old="        state.deadline += event.at - state.parked_at\n",
        new="        pass\n",
        test=f"{_BACK}::test_the_deadline_stands_still_while_the_run_is_parked",
    ),
    Mutant(
        name="retry-without-a-slot",
        law="Without a slot no attempt begins",
        path="engine/run/outcomes.py",
        old="        if run.hold:\n",
        new="        if False:\n",
        test=f"{_FORWARD}::test_without_a_slot_a_retry_queues_and_is_made_when_the_run_is_admitted",
    ),
    Mutant(
        name="held-attempts-forgotten",
        law="What came due without a slot is made when one is granted",
        path="engine/run/decide.py",
        old="            attempt_held(run)\n",
        new="",
        test=_STATES,
    ),
    Mutant(
        name="late-retry-timer-left",
        law="A success during the backoff stops the retry's timer",
        path="engine/run/react.py",
        old="    elif step.attempt > 1 or step.error is not None or isinstance(event, ev.StepCancelled):\n",
        new="    elif step.attempt > 1 or isinstance(event, ev.StepCancelled):\n",
        test=f"{_FORWARD}::test_a_success_that_comes_during_the_backoff_counts_and_stops_the_timer",
    ),
    Mutant(
        name="one-fact-answers-every-pass",
        law="A wait in a loop sees only what came after its last match",
        path="engine/run/decide.py",
        old="    if any(other.matched == given.event_id for other in run.state.waits_called(given.name)):\n",
        new="    if False:\n",
        test=f"{_FORWARD}::test_a_wait_in_a_loop_sees_only_what_came_after_its_last_match",
    ),
    Mutant(
        name="skip-keeps-the-undo",
        law="A skipped step has no undo",
        path="engine/run/evolve.py",
        old='    step.status, step.output, step.undo = "skipped", event.output, None\n',
        new='    step.status, step.output = "skipped", event.output\n',
        test=f"{_OPERATORS}::test_a_skip_goes_on_with_the_given_output_and_has_no_undo",
    ),
    Mutant(
        name="park-state-stays",
        law="After the repair the run is back in the state before the park",
        path="engine/run/forward.py",
        old="        and state.business_state == run.plan.parked_state\n",
        new="        and state.business_state != run.plan.parked_state\n",
        test=f"{_OPERATORS}::test_a_retry_redoes_only_the_failed_step_and_returns_to_the_state_before",
    ),
    Mutant(
        name="errors-unmarked",
        law="No personal value is outside the marks",
        path="engine/run/outcomes.py",
        old='            marks=run.taint(lost.error, (), "/error"),\n',
        new="",
        test=f"{_PERSONAL}::test_a_failure_that_repeats_a_personal_value_is_marked_down_to_the_ending",
    ),
    Mutant(
        name="gather-in-order-of-completion",
        law="A gather answers in the order asked",
        path="engine/plan/driver.py",
        old="            joined.results[branch.index] = outcome\n",
        new="            joined.results[-joined.left] = outcome\n",
        test=_REPLAY,
    ),
    Mutant(
        name="another-input-fits",
        law="A recorded step asked with another input parks the run",
        path="engine/plan/replay.py",
        old='        elif now[2] != was[2] and was[0] in ("step", "fact"):\n',
        new="        elif False:\n",
        test=f"{_CHANGED}::test_another_input_parks_without_showing_it",
    ),
    Mutant(
        name="closures-allowed",
        law="A step is found again by another process",
        path="engine/plan/code.py",
        old="        or function.__closure__\n",
        new="",
        test=_SAGAS,
    ),
    Mutant(
        name="operations-without-end",
        law="A run asks for a thousand operations at most",
        path="engine/plan/replay.py",
        old="MAX_OPERATIONS: Final = MOST_STEPS\n",
        new="MAX_OPERATIONS: Final = 1_000_000_000\n",
        test=f"{_SAGAS}::test_a_run_asks_for_a_thousand_operations_and_not_one_more",
    ),
)

DOOR: Final = (
    Mutant(
        name="lost-answer-decided-anew",
        law="A lost answer neither doubles nor loses",
        path="engine/committer.py",
        old="            return Appended(0)\n",
        new="            return outcome\n",
        test=_COMMITS,
        select="lost_answer and sqlite",
    ),
    Mutant(
        name="timer-left-behind",
        law="A run that ends takes its reasons to wake with it",
        path="engine/coordinator.py",
        old="            hot.bare = False\n",
        new="            pass\n",
        test=_COMMITS,
        select="before_its_timer_is_due and sqlite",
    ),
    Mutant(
        name="reply-that-moves-nothing-is-forgotten",
        law="A reply is acknowledged only once it is kept",
        path="consumers/intake.py",
        old="                case Appended() | Duplicate() | Fenced():\n",
        new="                case _ if result is not None:\n",
        test=_REPLIES,
        select="makes_nothing_of and sqlite",
    ),
    Mutant(
        name="storm-stands-before-all",
        law="One tenant's events do not stand before all others'",
        path="consumers/intake.py",
        old="            self._provide(*self._waiting.take_of(tenant), aside=True)\n",
        new="            pass\n",
        test=_STORM,
        select="nobody_else and sqlite",
    ),
    Mutant(
        name="no-turns-at-the-intake",
        law="Room is given to tenants in turn",
        path="consumers/turns.py",
        old="            self._stand(tenant, self._now)\n        else:",
        new="            self._stand(tenant, 0)\n        else:",
        test="tests/pure/test_turns.py",
    ),
    Mutant(
        name="replies-overwrite-each-other",
        law="Of replies that come together each is kept",
        path="engine/coordinator.py",
        old="            if brought is not None and arrival is not None:\n",
        new="            if False:\n",
        test=_REPLIES,
        select="come_together and sqlite",
    ),
    Mutant(
        name="stale-not-reloaded",
        law="A stale decision is made again on what is true now",
        path="engine/coordinator.py",
        old="                self._setbacks.stale(hot, prepared)\n",
        new="                self.runs.rest(hot)\n",
        test=_COMMITS,
        select="stale_decision_on_an_open_run and sqlite",
    ),
    Mutant(
        name="takeover-does-not-perform",
        law="A takeover makes open local attempts again under the same key",
        path="engine/loading.py",
        old="        self._perform_again(hot)\n",
        new="",
        test=_OWNERS,
        select="takeover_makes_open_local_attempts and sqlite",
    ),
    Mutant(
        name="refused-admission-takes-all",
        law="What comes together with a refused admission is not lost",
        path="engine/setbacks.py",
        old="            prepared.answered = [one for one in prepared.answered if not isinstance(one[0], Admitted)]\n",
        new="            prepared.answered = []\n",
        test=_SLOTS,
        select="refused_admission and sqlite",
    ),
    Mutant(
        name="unreadable-run-stops-the-load",
        law="A run whose log cannot be read harms no other",
        path="engine/loading.py",
        old="                    await self._unreadable(hot, unreadable)\n",
        new="                    raise\n",
        test=_OWNERS,
        select="cannot_be_read and sqlite",
    ),
)
