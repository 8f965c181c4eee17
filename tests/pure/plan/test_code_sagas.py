"""Code sagas as plans: what they ask, what they may not ask, how they end, and what they catch."""

from __future__ import annotations

import asyncio
import functools
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from contracts.calls import ActionCall, ActionSpec, RetryPolicy
from contracts.shapes import Shape
from engine.interrupt import SagaStuck
from engine.plan import Ask, Finished, GaveUp, SleepAsked, StepAsked, ValueAsked, WaitAsked
from engine.plan.code import MAX_PASSED_BYTES, Run, StepFailed, function_action, saga
from engine.plan.replay import MAX_OPERATIONS, CodePlan
from engine.run.inputs import StepDone, StepLost
from engine.triggers import Plans
from tests.pure.plan.asking import NOW, RUN, ask, begun, do, names, of, other, started

CHARGE = ActionSpec(
    name="pay.charge",
    kind="command",
    command="pay.ChargeV1",
    undo="pay.refund",
    timeout_seconds=7,
    retry=RetryPolicy(attempts=9),
)
REFUND = ActionSpec(name="pay.refund", kind="command", command="pay.RefundV1")
ACTIONS = {spec.name: spec for spec in (CHARGE, REFUND)}


def done(step: str, output: Any = None, visit: int = 1) -> StepDone:
    return StepDone(at=NOW, step=step, visit=visit, output=output)


async def _nothing(run: Run, data: Any) -> Any:
    await run.sleep("for ever", until=datetime(9999, 1, 1, tzinfo=UTC))


def raised(body: Any) -> str:
    """Why a run whose saga asks for this parks."""
    state = begun(of(body), actions=ACTIONS)
    (incident,) = (state.incidents or {}).values()
    assert (incident.reason, incident.step) == ("saga_raised", None)
    return incident.detail


def test_a_step_takes_undo_retry_and_timeout_from_its_action_unless_told() -> None:
    async def body(run: Run, data: Any) -> Any:
        await run.gather(
            run.step("declared", "pay.charge", amount=5),
            run.step("told", "pay.charge", undo=None, timeout_seconds=1, retry=RetryPolicy(attempts=2)),
            run.step("undone by a function", "pay.charge", undo=do),
        )

    state = begun(of(body), actions=ACTIONS)
    declared, told, function = (state.step(name, 1) for name in ("declared", "told", "undone by a function"))
    assert declared is not None
    assert told is not None
    assert function is not None
    assert (declared.undo, declared.timeout_seconds, declared.retry, declared.input) == (
        "pay.refund",
        7,
        None,
        {"amount": 5},
    )
    assert (told.undo, told.timeout_seconds) == (None, 1)
    assert told.retry is not None
    assert told.retry["attempts"] == 2
    assert function.undo == f"{do.__module__}:do"


def test_each_operation_becomes_its_own_request() -> None:
    async def body(run: Run, data: Any) -> Any:
        await run.gather(
            run.step("step", do, x=1),
            run.sleep("nap", 5),
            run.wait_for("fact", "a.HappenedV1", key=("order", 7), timeout_seconds=9),
            run.now(),
        )

    answer = ask(of(body), started())
    assert isinstance(answer, Ask)
    assert [type(one) for one in answer.operations] == [StepAsked, SleepAsked, WaitAsked, ValueAsked]
    assert answer.operations[2] == WaitAsked("fact", 1, "a.HappenedV1", "order", "7", 9)


def test_the_same_name_again_is_another_visit_with_another_key() -> None:
    async def body(run: Run, data: Any) -> Any:
        for _ in range(2):
            await run.step("again", do)

    state = begun(of(body), done("again"))
    assert [step.key for step in (state.steps or {}).values()] == [f"{RUN}/again/1", f"{RUN}/again/2"]


# ---------------------------------------------------------------------------------------------------- what parks a run


class Holder:
    def method(self, call: ActionCall) -> Any:
        return None


def local_function() -> Any:
    captured = 1

    def inner(call: ActionCall) -> Any:
        return captured

    return inner


def counted(function: Any) -> Any:
    calls = []

    @functools.wraps(function)
    def wrapper(call: ActionCall) -> Any:
        calls.append(call)
        return function(call)

    return wrapper


@counted
def wrapped(call: ActionCall) -> Any:
    """Looks like a module-level function, but what it closes over dies with the process."""


@pytest.mark.parametrize(
    "function",
    [wrapped, local_function(), lambda call: None, Holder().method, Holder.method, print, Holder],
    ids=["wrapped", "local", "lambda", "bound method", "method", "built-in", "class"],
)
def test_a_step_that_another_process_could_not_find_is_refused(function: Any) -> None:
    async def body(run: Run, data: Any) -> Any:
        await run.step("one", function)

    assert "use a module-level function without closure" in raised(body)


def test_a_module_level_function_is_found_again_by_its_name() -> None:
    spec = function_action(do)
    assert spec.name == f"{do.__module__}:do"
    assert CodePlan(of(_nothing), {}).action(spec.name) is spec


def never_asked(call: ActionCall) -> Any:
    return None


def test_a_function_in_the_log_is_found_before_this_process_was_asked_for_it() -> None:
    plan = CodePlan(of(_nothing), {})
    found = plan.action(f"{__name__}:never_asked")
    assert found is not None
    assert found.perform is never_asked
    assert plan.action(f"{__name__}:gone") is None
    assert plan.action(f"{__name__}:Holder") is None
    assert plan.action("not.loaded:never_asked") is None


def test_an_unknown_action_is_named() -> None:
    async def body(run: Run, data: Any) -> Any:
        await run.step("one", "pay.steal")

    assert raised(body) == "no installed module or connector brings the action 'pay.steal'"


class Debit(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    amount: int
    notes: list[str] = []


MODELLED = {"pay.debit": ActionSpec(name="pay.debit", kind="command", check=Shape("pay.DebitV1", Debit).read)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "/amount"),
        ({"amount": "hush"}, "/amount"),
        ({"amount": 5, "amuont": "hush"}, "/amuont"),
        ({"amount": 5, "notes": ["a", ["hush"]]}, "/notes/1"),
    ],
)
def test_arguments_that_the_actions_model_refuses_park_the_run_before_any_step_and_show_no_value(
    arguments: dict[str, Any], said: str
) -> None:
    async def body(run: Run, data: Any) -> Any:
        await run.gather(run.step("fits", "pay.debit", amount=1), run.step("pay", "pay.debit", **arguments))

    state = begun(of(body), actions=MODELLED)
    (incident,) = (state.incidents or {}).values()
    assert (incident.reason, incident.step, len(state.steps or {})) == ("saga_raised", None, 0)
    assert incident.detail.startswith(f"step 'pay' (pay.debit): payload_invalid: pay.DebitV1: {said}: ")
    assert "hush" not in incident.detail


def test_arguments_that_fit_are_asked_for_as_they_are() -> None:
    async def body(run: Run, data: Any) -> Any:
        await run.step("pay", "pay.debit", amount=5)

    step = begun(of(body), actions=MODELLED).step("pay", 1)
    assert step is not None
    assert step.input == {"amount": 5}


def test_a_recorded_step_is_not_held_against_a_model_that_came_later() -> None:
    async def body(run: Run, data: Any) -> Any:
        await run.step("pay", "pay.debit", amount="5")
        await run.sleep("a while", 1)

    before = begun(of(body), done("pay"), actions={"pay.debit": ActionSpec(name="pay.debit", kind="command")})
    assert ask(of(body), before, MODELLED) == Ask(())


@pytest.mark.parametrize("value", [object(), {1, 2}, datetime(2030, 1, 1, tzinfo=UTC), 1 << 70, "\ud800", {1: "a"}])
def test_arguments_that_are_not_json_are_refused(value: Any) -> None:
    async def body(run: Run, data: Any) -> Any:
        await run.step("one", do, x=value)

    assert "must be JSON" in raised(body)


def test_arguments_have_a_size() -> None:
    async def body(run: Run, data: Any) -> Any:
        await run.step("one", do, x="x" * MAX_PASSED_BYTES)

    assert f"pass at most {MAX_PASSED_BYTES}" in raised(body)


def test_a_sleep_needs_exactly_one_end() -> None:
    async def body(run: Run, data: Any) -> Any:
        await run.sleep("nap", 5, until=NOW)

    assert raised(body) == "sleep 'nap': give either seconds or until"


def test_a_foreign_awaitable_is_refused_and_not_waited_for() -> None:
    async def body(run: Run, data: Any) -> Any:
        await asyncio.sleep(0)

    assert raised(body).startswith("a saga can only await its run's operations")


def test_a_saga_may_not_gather_what_is_no_operation() -> None:
    async def body(run: Run, data: Any) -> Any:
        await run.gather(1)  # type: ignore[arg-type]

    assert "TypeError" in raised(body)


def test_what_a_saga_raises_is_told_by_type_and_place_without_its_text() -> None:
    async def body(run: Run, data: Any) -> Any:
        raise ValueError("ann@example.org")

    told = raised(body)
    assert told.startswith("the saga raised ValueError at body:")
    assert "ann" not in told


def test_a_result_that_is_not_json_or_too_large_parks() -> None:
    async def odd(run: Run, data: Any) -> Any:
        return object()

    async def large(run: Run, data: Any) -> Any:
        return "x" * MAX_PASSED_BYTES

    assert "must be JSON" in raised(odd)
    assert f"return at most {MAX_PASSED_BYTES}" in raised(large)


def test_a_run_asks_for_a_thousand_operations_and_not_one_more() -> None:
    async def thousand(run: Run, data: Any) -> Any:
        for _ in range(MAX_OPERATIONS):
            await run.now()
        return "done"

    async def more(run: Run, data: Any) -> Any:
        while True:
            await run.now()

    assert begun(of(thousand)).ended == "succeeded"
    assert raised(more).startswith(f"the saga asked for more than {MAX_OPERATIONS} operations")


def test_what_parked_is_asked_again_when_it_is_mended() -> None:
    calls: list[int] = []

    async def body(run: Run, data: Any) -> Any:
        if not calls:
            calls.append(1)
            raise ValueError
        await run.step("one", do)

    state = begun(of(body))
    assert names(ask(of(body), state)) == ["one"]


# ------------------------------------------------------------------------------------------------------ how a saga ends


def test_a_saga_ends_with_its_result_as_json() -> None:
    async def body(run: Run, data: Any) -> Any:
        return {"b": (1, 2), "a": None}

    assert first_answer_of(body) == Finished({"a": None, "b": [1, 2]})


def test_a_saga_that_fails_gives_up_with_its_code() -> None:
    async def body(run: Run, data: Any) -> Any:
        raise run.fail("rejected", "not today")

    assert first_answer_of(body) == GaveUp("rejected", "not today")


def first_answer_of(body: Any) -> Any:
    return ask(of(body), started(), ACTIONS)


def lost(step: str, code: str) -> StepLost:
    return StepLost(at=NOW, step=step, visit=1, error={"code": code, "message": "m"}, retryable=False)


async def soft(run: Run, data: Any) -> Any:
    try:
        await run.step("one", do, on_failure="continue")
    except StepFailed as failed:
        return {"step": failed.step, "code": failed.error["code"], "text": str(failed)}
    return None


def test_a_failed_step_can_be_caught_and_says_how_it_failed() -> None:
    state = begun(of(soft), lost("one", "no_box"))
    assert state.end_output == {"step": "one", "code": "no_box", "text": "step 'one' failed: no_box: m"}


def test_a_failed_step_that_nobody_catches_fails_the_run_with_its_code() -> None:
    async def body(run: Run, data: Any) -> Any:
        await run.step("one", do, on_failure="continue")

    state = begun(of(body), lost("one", "no_box"))
    assert (state.ended, (state.cause_error or {})["code"]) == ("failed", "no_box")


def test_a_failure_in_one_branch_is_seen_when_all_branches_have_settled() -> None:
    async def body(run: Run, data: Any) -> Any:
        try:
            await run.gather(run.step("one", do, on_failure="continue"), run.step("two", do))
        except StepFailed as failed:
            return failed.step

    state = begun(of(body), lost("one", "no_box"))
    assert state.ended is None
    assert begun(of(body), lost("one", "no_box"), done("two")).end_output == "one"


def test_a_saga_cannot_swallow_its_interruption() -> None:
    async def body(run: Run, data: Any) -> Any:
        try:
            raise SagaStuck("too long")
        except Exception:
            return "swallowed"

    with pytest.raises(SagaStuck):
        ask(of(body), started())


# ------------------------------------------------------------------------------------------------------------ versions


@saga("growing", version=1, on="a.HappenedV1", hook="/a")
async def first(run: Run, data: Any) -> Any:
    await run.step("old", do)


@saga("growing", version=2, on="a.HappenedV1")
async def second(run: Run, data: Any) -> Any:
    await run.step("new", do)


def test_new_runs_start_on_the_latest_version_and_open_runs_stay_on_theirs() -> None:
    plans = Plans([second, first], {})
    assert plans.latest("growing").version == 2
    assert [plan.version for plan in plans.started_by("a.HappenedV1")] == [2]
    assert sorted(plans.known) == [("growing", 1), ("growing", 2)]
    old = plans.get("growing", 1)
    assert old is not None
    assert isinstance(old.next(begun(first)), Ask)
    assert plans.get("growing", 3) is None


def test_two_sagas_of_one_name_and_version_are_refused() -> None:
    with pytest.raises(ValueError, match="give one another version"):
        Plans([first, first], {})


def test_two_functions_of_one_module_are_two_actions() -> None:
    assert function_action(do).name != function_action(other).name
