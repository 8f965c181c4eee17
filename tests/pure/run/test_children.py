"""A child is a step that waits for another run: without a slot, with a receipt, and undone with its parent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from contracts import run_events as ev
from engine.plan.code import Run, saga
from engine.plan.replay import CodePlan
from engine.run import react as fx
from engine.run.children import MAX_DEPTH, child_id, child_scope
from engine.run.replay import replay
from engine.run.rerun import adopt
from tests.pure.run import sagas
from tests.pure.run.telling import (
    RUN,
    START,
    Story,
    begun,
    cancelled,
    done,
    given,
    lost,
    retried,
    saw,
    terminated,
    undo_lost,
    undone,
)

CHILD = {"run_id": str(UUID(int=9)), "output": "grown up"}


def test_a_child_is_waited_for_without_a_slot_and_gives_its_output() -> None:
    story = given(sagas.parental)
    story.then(saw(ev.RunStarted), saw(ev.StepScheduled, step="child", action="run:three", undo="undo-run:three"))
    story.is_("waiting")
    assert not story.state.holds_slot
    assert story.effects == [fx.Send("child", 1, 1)]
    story.when(done("child", CHILD)).then(saw(ev.StepSucceeded), saw(ev.StepScheduled, input={"grown": "grown up"}))


def test_a_succeeded_child_is_undone_by_its_receipt_and_an_open_one_is_recalled() -> None:
    story = given(sagas.parental, done("child", CHILD), lost("after", retryable=False))
    assert story.new[-1].receipt == CHILD  # type: ignore[attr-defined]
    assert fx.Send("child", 1, 1, undo=True) in story.effects
    story.when(undone("child")).is_("compensated")
    open_ = given(sagas.parental, cancelled()).is_("compensating")
    assert fx.Recall("child", 1) in open_.effects
    open_.when(lost("child", "cancelled", retryable=False)).is_("cancelled")


def test_a_run_that_is_terminated_takes_its_open_children_with_it_and_leaves_what_has_ended() -> None:
    open_ = given(sagas.parental, terminated()).is_("cancelled")
    assert [effect for effect in open_.effects if isinstance(effect, fx.Recall)] == [fx.Recall("child", 1, True)]
    ended = given(sagas.parental, done("child", CHILD), terminated()).is_("cancelled")
    assert not [effect for effect in ended.effects if isinstance(effect, fx.Recall)]


def test_a_child_that_cannot_be_taken_back_parks_the_undo() -> None:
    story = given(sagas.parental, done("child", CHILD), lost("after", retryable=False))
    story.when(undo_lost("child", retryable=False)).is_("parked")
    story.when(retried()).then(saw(ev.IncidentResolved), saw(ev.UndoScheduled, attempt=2))


def test_a_child_reports_its_end_to_its_parent_and_other_runs_do_not() -> None:
    parent = {"run_id": str(UUID(int=9)), "step": "child", "visit": 1, "attempt": 1, "undo": False}
    child = Story(sagas.three).when(begun(trigger={"kind": "child", "id": parent["run_id"], "parent": parent}))
    child.when(done("one"), done("two"), done("three"))
    assert [type(effect) for effect in child.effects if isinstance(effect, fx.Report)] == [fx.Report]
    alone = given(sagas.three, done("one"), done("two"), done("three"))
    assert not [effect for effect in alone.effects if isinstance(effect, fx.Report)]


def test_a_run_that_unwinds_another_does_nothing_else() -> None:
    before = given(sagas.three, done("one", "first"), done("two", "second"), done("three")).state
    story = Story(sagas.three).when(
        begun(trigger={"kind": "unwind", "id": "x"}, scope="s", adopted=adopt(before), queued=True)
    )
    assert not story.state.queued
    assert story.steps(ev.StepReused) == ["one", "two", "three"]
    story.when(undone("three"), undone("two"), undone("one")).is_("compensated")
    assert [event.receipt for event in story.of(ev.UndoScheduled)] == [None, "second", "first"]
    assert not story.of(ev.StepScheduled)
    *_, last = replay(RUN, "acme", story.log, CodePlan(sagas.three, {}))
    assert (last.difference, last.events) == (None, len(story.log))
    assert adopt(story.state) == ()


def test_nothing_to_undo_is_undone_at_once() -> None:
    story = Story(sagas.three).when(begun(trigger={"kind": "unwind", "id": "x"}, adopted=()))
    story.is_("compensated")


@saga("deep", version=1)
async def deep(run: Run, data: Any) -> Any:
    return await run.child("deeper", "deep")


def test_children_nest_only_so_deep() -> None:
    fine = Story(deep).when(begun(trigger={"kind": "child", "id": "x", "depth": MAX_DEPTH - 1}))
    fine.is_("waiting")
    parked = Story(deep).when(begun(trigger={"kind": "child", "id": "x", "depth": MAX_DEPTH}))
    parked.is_("parked")
    assert "nested 10 deep" in parked.of(ev.IncidentOpened)[0].detail


@pytest.mark.parametrize("data", [{"bad": object()}, {"long": "x" * 70_000}])
def test_what_a_child_is_given_is_json_and_bounded(data: dict[str, Any]) -> None:
    @saga("giving", version=1)
    async def giving(run: Run, _: Any) -> Any:
        return await run.child("child", "three", data)

    given(giving).is_("parked")


def test_the_id_of_a_child_is_a_time_ordered_one_that_follows_from_its_attempt() -> None:
    ids = [child_id(RUN, "child", 1, attempt, START + timedelta(seconds=attempt)) for attempt in (1, 2, 3)]
    assert ids == sorted(ids)
    assert {(one.version, one.variant) for one in ids} == {(7, "specified in RFC 4122")}
    assert ids[0] == child_id(RUN, "child", 1, 1, START + timedelta(seconds=1))
    assert len({child_id(RUN, what, visit, 1, START) for what in ("a", "a/undo", "b") for visit in (1, 2)}) == 6
    assert child_scope("k", 1) == child_scope("k", 1) != child_scope("k", 2)


def test_a_saga_goes_on_in_another_run_and_this_one_has_succeeded() -> None:
    story = given(sagas.rolling, done("pass"), data={"left": 2, "email": "ann@example.org"})
    story.then(
        saw(ev.StepSucceeded),
        saw(ev.RunContinued, data={"left": 1, "email": "ann@example.org"}),
        saw(ev.RunEnded, status="succeeded", output=None),
    )
    assert story.effects[-1] == fx.Continue(story.of(ev.RunContinued)[0])
    *_, last = replay(RUN, "acme", story.log, CodePlan(sagas.rolling, {}))
    assert (last.difference, last.events) == (None, len(story.log))


def test_only_the_last_of_the_runs_reports() -> None:
    parent = {"run_id": str(UUID(int=9)), "step": "child", "visit": 1, "attempt": 1, "undo": False}
    trigger = {"kind": "child", "id": parent["run_id"], "parent": parent}
    first = Story(sagas.rolling).when(begun({"left": 1}, trigger=trigger), done("pass"))
    assert not [effect for effect in first.effects if isinstance(effect, fx.Report)]
    last = Story(sagas.rolling).when(begun({"left": 0}, trigger=trigger), done("pass"))
    assert [effect.event.output for effect in last.effects if isinstance(effect, fx.Report)] == ["rolled"]


@pytest.mark.parametrize("data", [["no object"], {"bad": object()}, {"long": "x" * 70_000}])
def test_what_a_saga_continues_with_is_a_bounded_object(data: Any) -> None:
    @saga("unfit", version=1)
    async def unfit(run: Run, _: Any) -> Any:
        raise run.continue_as(data)

    given(unfit).is_("parked")
