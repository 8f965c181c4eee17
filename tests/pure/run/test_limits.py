"""What bounds a run is in its first event: decided from it, and derived again from it."""

from __future__ import annotations

from typing import Any

import pytest

from contracts import run_events as ev
from contracts.problems import PayloadOverQuota
from contracts.quotas import MOST_DEPTH, MOST_STEPS, Quotas
from engine.guards.breaches import payload_breach
from engine.guards.quotas import check_payload
from engine.plan.code import Run, Saga, StepFailed, saga
from engine.plan.replay import CodePlan
from engine.run.limits import Breach
from engine.run.replay import replay
from tests.pure.run import sagas
from tests.pure.run.telling import ONCE, RUN, Story, admitted, begun, do, done, due, undo_it, undone


def bounded(**limits: int) -> Any:
    return begun(trigger={"kind": "manual", "id": "1", "limits": limits})


def deep(depth: int, most: int) -> Any:
    """A run so many runs below another."""
    return begun(trigger={"kind": "child", "id": "x", "depth": depth, "limits": {"depth": most}})


def agrees(story: Story, definition: Saga) -> None:
    """Today's code derives the run again, from its log alone."""
    *_, last = replay(RUN, "acme", story.log, CodePlan(definition, {}))
    assert (last.difference, last.events) == (None, len(story.log))


@saga("two-and-two", version=1)
async def two_and_two(run: Run, data: Any) -> Any:
    await run.step("one", do, undo=undo_it, retry=ONCE)
    await run.gather(run.step("two", do, undo=None), run.step("three", do, undo=None))
    return "done"


@saga("nested", version=1)
async def nested(run: Run, data: Any) -> Any:
    return await run.child("inner", "nested")


@saga("careful", version=1)
async def careful(run: Run, data: Any) -> Any:
    try:
        return await run.child("inner", "nested")
    except StepFailed as failed:
        return failed.error["code"]


@saga("in-another-way", version=1)
async def in_another_way(run: Run, data: Any) -> Any:
    try:
        await run.child("inner", "nested")
    except StepFailed:
        await run.step("a", do, undo=None)
    await run.step("b", do, undo=None)


def test_one_operation_more_than_the_quota_fails_the_run_and_none_of_those_asked_with_it_begins() -> None:
    fits = Story(two_and_two).when(bounded(steps=3), done("one"), done("two"), done("three"))
    fits.is_("succeeded")
    over = Story(two_and_two).when(bounded(steps=2), done("one"))
    [unwinding] = over.of(ev.CompensationStarted)
    assert (unwinding.cause, unwinding.by, unwinding.error["code"]) == ("failed", "saga", "quota_exceeded")
    assert "quota steps of the tenant is 2" in unwinding.error["message"]
    assert over.steps(ev.StepScheduled) == ["one"]
    over.when(undone("one")).is_("compensated")
    assert (fits.breaches, over.breaches) == ([], [Breach("steps", 3, 2)])
    agrees(fits, two_and_two)
    agrees(over, two_and_two)


def test_a_child_deeper_than_the_quota_has_failed_and_the_saga_may_take_another_way() -> None:
    Story(nested).when(deep(1, 2)).is_("waiting")
    over = Story(nested).when(deep(2, 2)).is_("failed")
    [unwinding] = over.of(ev.CompensationStarted)
    assert unwinding.error["code"] == "quota_exceeded"
    assert "quota depth of the tenant is 2" in unwinding.error["message"]
    caught = Story(careful).when(deep(0, 0)).is_("succeeded")
    assert caught.state.end_output == "quota_exceeded"
    assert (over.breaches, caught.breaches) == ([Breach("depth", 3, 2)], [Breach("depth", 1, 0)])
    agrees(over, nested)
    agrees(caught, careful)


def test_a_quota_that_a_saga_has_got_round_is_said_when_it_is_met_and_not_when_the_run_is_loaded_again() -> None:
    story = Story(in_another_way).when(deep(0, 0))
    assert story.breaches == [Breach("depth", 1, 0)]
    for step in ("a", "b"):
        story.plan.forget(story.state)
        story.when(done(step))
    story.is_("succeeded")
    assert story.breaches == [Breach("depth", 1, 0)]


def test_a_quota_met_while_no_slot_is_free_is_said_once_the_run_goes_on() -> None:
    held = Story(in_another_way).holding().when(deep(0, 0)).is_("queued")
    assert held.breaches == []
    assert held.holding(False).when(admitted()).breaches == [Breach("depth", 1, 0)]


def test_a_run_has_no_longer_than_the_quota_and_no_longer_than_its_saga_allows() -> None:
    for seconds, allowed in ((30, 30), (60, 60), (90, 60)):
        story = Story(sagas.timed).when(bounded(run_seconds=seconds))
        assert story.state.deadline is not None
        assert (story.state.deadline - story.log[0].at).total_seconds() == allowed
    late = Story(two_and_two).when(bounded(run_seconds=30))
    late.after(seconds=31).when(due("run/deadline"))
    assert late.of(ev.CompensationStarted)[0].cause == "timed_out"
    assert late.breaches == [Breach("run_seconds", 31, 30)]
    own = Story(sagas.timed).when(bounded(run_seconds=90)).after(seconds=61).when(due("run/deadline"))
    assert (own.of(ev.CompensationStarted)[0].cause, own.breaches) == ("timed_out", [])
    agrees(late, two_and_two)


def test_no_deadline_bounds_what_unwinds_a_run() -> None:
    trigger = {"kind": "unwind", "id": "x", "limits": {"run_seconds": 1}}
    assert Story(sagas.three).when(begun(trigger=trigger, adopted=())).state.deadline is None


def test_a_payload_may_be_as_large_as_the_quota() -> None:
    data = {"text": "x" * 10}  # 21 bytes
    for most in (None, 21):
        check_payload(most, 1_000, data, field="data")
    with pytest.raises(PayloadOverQuota) as refused:
        check_payload(20, 1_000, data, field="data")
    assert (refused.value.status, refused.value.code) == (413, "quota_exceeded")
    assert "payload_bytes of the tenant is 20, and data has 21 bytes" in refused.value.detail
    assert payload_breach(refused.value) == Breach("payload_bytes", 21, 20)


@pytest.mark.parametrize("over", [{"steps": MOST_STEPS + 1}, {"depth": MOST_DEPTH + 1}, {"run_seconds": 0}])
def test_a_quota_does_not_widen_what_the_engine_allows(over: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(over))):
        Quotas.model_validate(over)
