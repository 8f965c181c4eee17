"""A saga that changed under a running run: what still fits goes on, all else parks with a diff that a person reads."""

from __future__ import annotations

from typing import Any

import pytest

from engine.plan import Ask, Diverged
from engine.plan.code import Run
from engine.run.inputs import FactMatched, StepDone
from engine.run.state import RunState
from tests.pure.plan.asking import NOW, ask, begun, do, names, of, other


async def before(run: Run, data: Any) -> Any:
    await run.step("one", do, x=1)
    await run.wait_for("paid", "billing.PaidV1", key=("order", "1"))
    await run.step("two", do, x=2)


def at_two() -> RunState:
    """one is done, paid has matched, two is under way."""
    one = StepDone(at=NOW, step="one", visit=1, output="first")
    paid = FactMatched(at=NOW, name="paid", visit=1, event_id="e", data={})
    return begun(of(before), one, paid)


def diff(after: Any) -> str:
    answer = ask(of(after), at_two())
    assert isinstance(answer, Diverged), answer
    return answer.diff


def test_an_unchanged_saga_fits() -> None:
    assert ask(of(before), at_two()) == Ask(())


def test_a_renamed_step_parks_and_the_diff_names_both() -> None:
    async def after(run: Run, data: Any) -> Any:
        await run.step("uno", do, x=1)

    assert diff(after).splitlines() == [
        f"- step 'one' (visit 1, {do.__module__}:do): recorded, not asked for any more",
        f"+ step 'uno' (visit 1, {do.__module__}:do): asked for, not recorded",
    ]


def test_another_action_parks_and_the_diff_names_both() -> None:
    async def after(run: Run, data: Any) -> Any:
        await run.step("one", other, x=1)
        await run.wait_for("paid", "billing.PaidV1", key=("order", "1"))
        await run.step("two", do, x=2)

    assert diff(after) == (
        f"~ one (visit 1): recorded step {do.__module__}:do, the code now asks for step {do.__module__}:other"
    )


def test_another_input_parks_without_showing_it() -> None:
    async def after(run: Run, data: Any) -> Any:
        await run.step("one", do, x="secret")
        await run.wait_for("paid", "billing.PaidV1", key=("order", "1"))
        await run.step("two", do, x=2)

    assert diff(after) == (
        f"~ one (visit 1): step {do.__module__}:do is now asked with another input than the recorded one"
    )


def test_another_event_or_key_to_wait_for_parks() -> None:
    async def event(run: Run, data: Any) -> Any:
        await run.step("one", do, x=1)
        await run.wait_for("paid", "billing.SettledV1", key=("order", "1"))
        await run.step("two", do, x=2)

    async def key(run: Run, data: Any) -> Any:
        await run.step("one", do, x=1)
        await run.wait_for("paid", "billing.PaidV1", key=("order", "2"))
        await run.step("two", do, x=2)

    assert diff(event) == (
        "~ paid (visit 1): recorded fact billing.PaidV1, the code now asks for fact billing.SettledV1"
    )
    assert "another input" in diff(key)


def test_a_step_that_became_a_sleep_parks() -> None:
    async def after(run: Run, data: Any) -> Any:
        await run.sleep("one", 5)
        await run.wait_for("paid", "billing.PaidV1", key=("order", "1"))
        await run.step("two", do, x=2)

    assert "recorded step" in diff(after)
    assert "asks for sleep" in diff(after)


def test_a_removed_step_parks() -> None:
    async def after(run: Run, data: Any) -> Any:
        await run.step("one", do, x=1)
        await run.step("two", do, x=2)

    assert "fact 'paid' (visit 1, billing.PaidV1)" in diff(after)


def test_a_removed_last_step_that_is_under_way_parks() -> None:
    async def after(run: Run, data: Any) -> Any:
        await run.step("one", do, x=1)
        await run.wait_for("paid", "billing.PaidV1", key=("order", "1"))

    assert diff(after).splitlines() == [
        f"- step 'two' (visit 1, {do.__module__}:do): recorded, not asked for any more",
        "+ the saga ends",
    ]


def test_a_removed_loop_pass_parks() -> None:
    async def twice(run: Run, data: Any) -> Any:
        for _ in range(2):
            await run.step("again", do)

    async def once(run: Run, data: Any) -> Any:
        await run.step("again", do)

    state = begun(of(twice), StepDone(at=NOW, step="again", visit=1))
    answer = ask(of(once), state)
    assert isinstance(answer, Diverged)
    assert "'again' (visit 2" in answer.diff


def test_a_step_added_before_a_recorded_one_parks_since_it_could_as_well_replace_it() -> None:
    async def after(run: Run, data: Any) -> Any:
        await run.step("zero", do)
        await run.step("one", do, x=1)

    assert diff(after).splitlines() == [
        f"- step 'one' (visit 1, {do.__module__}:do): recorded, not asked for any more",
        f"+ step 'zero' (visit 1, {do.__module__}:do): asked for, not recorded",
    ]


def test_a_step_added_beside_recorded_ones_is_asked_for() -> None:
    async def pair(run: Run, data: Any) -> Any:
        await run.gather(run.step("one", do), run.step("two", do))

    async def three(run: Run, data: Any) -> Any:
        await run.gather(run.step("zero", do), run.step("one", do), run.step("two", do))

    state = begun(of(pair), StepDone(at=NOW, step="two", visit=1))
    assert names(ask(of(three), state)) == ["zero"]


def test_a_step_added_after_what_is_recorded_is_asked_for_in_its_turn() -> None:
    async def longer(run: Run, data: Any) -> Any:
        await before(run, data)
        await run.step("three", do)

    assert ask(of(longer), at_two()) == Ask(())


def test_code_may_move_around_as_long_as_it_asks_the_same() -> None:
    async def moved(run: Run, data: Any) -> Any:
        async def rest() -> Any:
            await run.wait_for("paid", "billing.PaidV1", key=("order", "1"))
            await run.step("two", do, x=2)

        first = run.step("one", do, x=1)
        await first
        await run.gather(rest())

    assert ask(of(moved), at_two()) == Ask(())


def test_a_changed_length_of_a_sleep_and_title_of_an_approval_do_not_matter() -> None:
    async def short(run: Run, data: Any) -> Any:
        await run.gather(run.sleep("nap", 5), run.approve("check", "Look", role="boss"))

    async def long(run: Run, data: Any) -> Any:
        await run.gather(run.sleep("nap", 50), run.approve("check", "Look again", role="boss"))

    assert ask(of(long), begun(of(short))) == Ask(())


def test_another_role_for_an_approval_parks() -> None:
    async def boss(run: Run, data: Any) -> Any:
        await run.approve("check", "Look", role="boss")

    async def anyone(run: Run, data: Any) -> Any:
        await run.approve("check", "Look", role="anyone")

    answer = ask(of(anyone), begun(of(boss)))
    assert isinstance(answer, Diverged)
    assert answer.diff == "~ check (visit 1): recorded approval boss, the code now asks for approval anyone"


@pytest.mark.parametrize("mend", [True, False])
def test_a_changed_saga_parks_its_run_until_it_is_mended_and_retried(mend: bool) -> None:
    from engine.plan.replay import CodePlan
    from engine.run.decide import decide
    from engine.run.inputs import RetryAsked

    async def renamed(run: Run, data: Any) -> Any:
        await run.step("uno", do)

    done = StepDone(at=NOW, step="two", visit=1)
    parked = decide(at_two(), done, CodePlan(of(renamed), {})).state
    (incident,) = (parked.incidents or {}).values()
    assert (parked.status, incident.reason) == ("parked", "saga_changed")
    retried = decide(parked, RetryAsked(at=NOW, by="ann"), CodePlan(of(before if mend else renamed), {})).state
    assert retried.status == ("succeeded" if mend else "parked")
