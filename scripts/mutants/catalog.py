"""The mutants: each a law, the smallest change that breaks it, and the test that must notice. A test keeps them
current with the code."""

from __future__ import annotations

from typing import Final

from scripts.mutants.run import Mutant

_LAWS: Final = "tests/pure/test_run_laws.py"
_PURE: Final = "tests/pure/test_pure_below_the_door.py"

HEART: Final = (
    Mutant(
        name="undo-oldest-first",
        law="Undo goes from the newest completion to the oldest",
        path="engine/run/unwind.py",
        old='key=lambda step: (step.status != "succeeded", step.completed)',
        new='key=lambda step: (step.status != "succeeded", -step.completed)',
        test=f"{_LAWS}::test_undo_goes_from_the_newest_completion_to_the_oldest",
    ),
    Mutant(
        name="undo-all-at-once",
        law="One undo at a time",
        path="engine/run/unwind.py",
        old="            run.attempt_undo(following, 1)\n        else:\n"
        "            _ask_whether_it_happened(run, following)\n        return\n",
        new="            while following is not None:\n                run.attempt_undo(following, 1)\n"
        "                following = next_undo(run.state)\n"
        '    if any(step.undo_status == "open" for step in _steps(run.state)):\n        return\n',
        test=f"{_LAWS}::test_one_undo_at_a_time",
    ),
    Mutant(
        name="undo-without-receipt",
        law="Undo gets the receipt of do",
        path="engine/run/draft.py",
        old='receipt = step.output if step.status == "succeeded" else None',
        new="receipt = None",
        test=f"{_LAWS}::test_undo_gets_the_receipt_of_do",
    ),
    Mutant(
        name="undo-shares-the-key",
        law="An undo has a key of its own",
        path="engine/run/draft.py",
        old='key=step.key + "/undo"',
        new="key=step.key",
        test=f"{_LAWS}::test_undo_gets_the_receipt_of_do",
    ),
    Mutant(
        name="ambiguous-undone-last",
        law="Ambiguous steps are undone first",
        path="engine/run/unwind.py",
        old='(step.status != "succeeded", step.completed)',
        new='(step.status == "succeeded", step.completed)',
        test=f"{_LAWS}::test_an_ambiguous_step_is_undone_first_and_without_a_receipt",
    ),
    Mutant(
        name="terminal-stays-open",
        law="A finished stream takes no event",
        path="engine/run/decide.py",
        old="    if state.ended is not None:\n"
        '        return Decision((), state, f"the run has ended ({state.ended})")\n',
        new="",
        test=f"{_LAWS}::test_a_finished_run_takes_nothing_and_says_why",
    ),
    Mutant(
        name="second-answer-counts",
        law="A step is answered once",
        path="engine/run/decide.py",
        old='    if step.status not in ("open", "backoff", "parked"):\n'
        '        return f"step {given.step!r} is {step.status} already"\n',
        new="",
        test=f"{_LAWS}::test_a_second_answer_to_the_same_step_changes_nothing",
    ),
    Mutant(
        name="retries-without-end",
        law="Retries are bounded",
        path="engine/run/decide.py",
        old="    final = retry_at is None\n    run.emit(\n        ev.StepFailed(",
        new="    retry_at = retry_at or run.at\n    final = retry_at is None\n    run.emit(\n        ev.StepFailed(",
        test=f"{_LAWS}::test_retries_are_bounded_and_then_the_run_is_unwound",
    ),
    Mutant(
        name="park-unwinds",
        law="A parked run undoes nothing",
        path="engine/run/decide.py",
        old='    elif step.on_failure == "park" and not lost.irrecoverable:\n',
        new="    elif False:\n",
        test=f"{_LAWS}::test_a_parked_run_undoes_nothing_until_it_is_abandoned",
    ),
    Mutant(
        name="heart-looks-at-the-clock",
        law="No clock below the door",
        path="engine/run/draft.py",
        old="        self.at: datetime = given.at\n",
        new="        self.at: datetime = datetime.now(given.at.tzinfo)\n",
        test=_PURE,
    ),
    Mutant(
        name="heart-imports-the-store",
        law="The heart imports contracts and pure libraries only",
        path="engine/run/draft.py",
        old="from engine.run.state import Incident, RunState, Step\n",
        new="from engine.run.state import Incident, RunState, Step\nfrom engine.store import Commit as Commit\n",
        test=_PURE,
    ),
)

MUTANTS: Final[tuple[Mutant, ...]] = (*HEART,)
