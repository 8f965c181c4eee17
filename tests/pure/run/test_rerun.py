"""A rerun knows what the run before it did: what stands is not done again, what was undone gets a new key, what nobody
knows keeps the old one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from contracts import run_events as ev
from contracts.problems import Conflict
from engine.plan.code import Run, saga
from engine.plan.replay import CodePlan
from engine.run import react as fx
from engine.run.evolve import fold
from engine.run.inputs import Begin
from engine.run.replay import replay
from engine.run.rerun import inherit
from engine.run.state import RunState
from engine.snapshots import freeze, thaw
from tests.pure.run import sagas
from tests.pure.run.telling import (
    ONCE,
    Heard,
    Story,
    admitted,
    approved,
    do,
    done,
    due,
    given,
    lost,
    matched,
    retried,
    saw,
    skipped,
    terminated,
    undo_it,
    undo_lost,
    undone,
)


def again(before: Story, number: int = 8, **how: Any) -> Story:
    """The rerun of an ended run, as far as it comes at once."""
    story = Story(before.plan.definition)
    story.state = RunState(UUID(int=number), "acme")

    def begin(at: Any) -> Begin:
        return Begin(
            at=at,
            run_id=story.state.run_id,
            tenant="acme",
            trigger={"kind": "rerun", "id": str(before.state.run_id)},
            data=before.state.data,
            initiator="ann",
            correlation_id="c",
            scope=before.state.scope,
            inherited=inherit(before.state, **how),
        )

    return story.hear(begin)


def keys(story: Story) -> list[str]:
    return [event.key for event in story.of(ev.StepScheduled)]


SCOPE = str(UUID(int=7))
WALK: tuple[Heard, ...] = (
    done("one", "first"),
    matched("paid", {"amount": 5}),
    approved("check"),
    due("sleep/nap/1"),
    done("two", "second"),
)


def test_what_was_undone_is_done_under_new_keys_and_what_was_waited_for_is_known() -> None:
    before = given(sagas.long_way, *WALK, lost("three", retryable=False), undone("two"), undone("one"))
    before.is_("compensated")
    rerun = again(before)
    assert keys(rerun) == [f"{SCOPE}/one/2"]
    [number] = [event.value for event in rerun.of(ev.ValueRecorded)]
    assert [number] == [event.value for event in before.of(ev.ValueRecorded)]
    rerun.when(done("one", "anew"))
    assert [event.kind for event in rerun.of(ev.ResultReused)] == ["fact", "approval", "sleep"]
    assert rerun.of(ev.ResultReused)[0].value == {"amount": 5}
    assert not [*rerun.of(ev.WaitStarted), *rerun.of(ev.ApprovalRequested), *rerun.of(ev.SleepStarted)]
    rerun.when(done("two", "anew"), done("three")).is_("succeeded")
    assert keys(rerun) == [f"{SCOPE}/one/2", f"{SCOPE}/two/2", f"{SCOPE}/three/2"]


def test_what_stands_is_reused_with_its_receipt_which_an_undo_receives() -> None:
    before = given(sagas.long_way, *WALK, terminated()).is_("cancelled")
    rerun = again(before)
    assert rerun.steps(ev.StepReused) == ["one", "two"]
    assert [event.output for event in rerun.of(ev.StepReused)] == ["first", "second"]
    assert [effect.step for effect in rerun.effects if isinstance(effect, fx.Perform)] == ["three"]
    assert keys(rerun) == [f"{SCOPE}/three/1"]
    rerun.when(lost("three", retryable=False))
    rerun.then(saw(ev.StepFailed), saw(ev.CompensationStarted), saw(ev.UndoScheduled, step="two", receipt="second"))
    rerun.when(undone("two")).then(
        saw(ev.UndoSucceeded), saw(ev.UndoScheduled, step="one", receipt="first", key=f"{SCOPE}/one/1/undo")
    )
    rerun.when(undone("one")).is_("compensated")


def test_a_fate_that_nobody_knows_keeps_its_key() -> None:
    before = given(sagas.three, done("one"), terminated())
    rerun = again(before)
    assert (rerun.steps(ev.StepReused), keys(rerun)) == (["one"], [f"{SCOPE}/two/1"])


def test_from_a_step_on_everything_is_done_again_under_the_keys_it_had() -> None:
    before = given(sagas.long_way, *WALK, done("three")).is_("succeeded")
    rerun = again(before, from_step="two").when(done("two"), done("three")).is_("succeeded")
    assert (rerun.steps(ev.StepReused), keys(rerun)) == (["one"], [f"{SCOPE}/two/1", f"{SCOPE}/three/1"])
    assert len(rerun.of(ev.ResultReused)) == 3
    first = again(before, from_step="one")
    assert keys(first) == [f"{SCOPE}/one/1"]
    first.when(done("one"))
    assert [event.name for event in first.of(ev.WaitStarted)] == ["paid"]


def test_a_second_effect_is_had_by_name_alone_and_only_once() -> None:
    before = given(sagas.three, done("one"), done("two"), done("three")).is_("succeeded")
    rerun = again(before, repeat=("two",))
    assert (rerun.steps(ev.StepReused), keys(rerun)) == (["one"], [f"{UUID(int=8)}/two/1"])
    rerun.when(done("two", "more")).is_("succeeded")
    third = again(rerun, 9, from_step="two")
    assert keys(third) == [f"{UUID(int=8)}/two/1"]
    cut_short = again(before, repeat=("two", "one")).when(terminated())
    assert keys(again(cut_short, 9).when(done("one"))) == [f"{UUID(int=8)}/one/1", f"{SCOPE}/two/1"]


def test_a_rerun_of_a_rerun_knows_what_the_first_one_did_and_never_takes_a_key_twice() -> None:
    before = given(sagas.three, done("one"), done("two"), lost("three", retryable=False), undone("two"), undone("one"))
    second = again(before).when(done("one"), lost("two", retryable=False), undone("one")).is_("compensated")
    assert keys(second) == [f"{SCOPE}/one/2", f"{SCOPE}/two/2"]
    third = again(second, 9).when(done("one"), done("two"), done("three")).is_("succeeded")
    assert keys(third) == [f"{SCOPE}/one/3", f"{SCOPE}/two/3", f"{SCOPE}/three/2"]


@saga("looping-steps", version=1)
async def looping_steps(run: Run, data: Any) -> Any:
    for _ in range(3):
        await run.step("pass", do, undo=undo_it, retry=ONCE)


def test_visits_of_a_loop_get_keys_that_no_visit_has_had() -> None:
    before = given(looping_steps, done("pass"), lost("pass", visit=2, retryable=False), undone("pass"))
    rerun = again(before).when(done("pass"), done("pass", visit=2), done("pass", visit=3)).is_("succeeded")
    assert keys(rerun) == [f"{SCOPE}/pass/3", f"{SCOPE}/pass/4", f"{SCOPE}/pass/5"]


def test_a_wait_in_vain_and_a_refusal_are_asked_for_again() -> None:
    vain = given(sagas.long_way, done("one"), due("wait/paid/1"), approved("check", False), undone("one"))
    rerun = again(vain.is_("compensated")).when(done("one"))
    assert [event.name for event in rerun.of(ev.WaitStarted)] == ["paid"]
    rerun.when(matched("paid"))
    assert [event.name for event in rerun.of(ev.ApprovalRequested)] == ["check"]


@saga("welcome", version=1)
async def welcome(run: Run, data: Any) -> Any:
    account = await run.step("account", do, undo=undo_it, retry=ONCE)
    await run.step("mail", do, undo=None, retry=ONCE, to=account)
    await run.wait_for("confirmed", "identity.ConfirmedV1", key=("user", account))
    await run.step("last", do, undo=undo_it, retry=ONCE)


def test_what_was_about_something_that_was_undone_is_done_once_more_about_the_new_one() -> None:
    before = given(welcome, done("account", "a-1"), done("mail"), matched("confirmed"), lost("last", retryable=False))
    before.when(undone("account")).is_("compensated")
    rerun = again(before).when(done("account", "a-2"))
    assert keys(rerun) == [f"{SCOPE}/account/2", f"{SCOPE}/mail/2"]
    rerun.when(done("mail")).is_("waiting")
    assert [event.key_value for event in rerun.of(ev.WaitStarted)] == ["a-2"]
    same = again(before).when(done("account", "a-1")).is_("running")
    assert (same.steps(ev.StepReused), keys(same)[-1]) == (["mail"], f"{SCOPE}/last/2")


def test_what_an_operator_supplied_is_reused_and_has_no_undo() -> None:
    before = given(sagas.patient, done("before"), lost("try"), skipped("try", "by hand")).is_("succeeded")
    rerun = again(before).is_("succeeded")
    assert (rerun.state.end_output, rerun.state.step("try", 1).undo) == ("by hand", None)  # type: ignore[union-attr]


def test_a_saga_that_asks_otherwise_than_what_stands_parks_before_anything_is_done() -> None:
    @saga("three", version=2)
    async def changed(run: Run, data: Any) -> Any:
        await run.gather(run.step("one", do, undo=undo_it, size=2), run.step("new", do))

    before = given(sagas.three, done("one"), terminated())
    story = Story(changed)
    story.plan = CodePlan(changed, {})
    rerun = again_with(story, before)
    rerun.is_("parked")
    [incident] = rerun.of(ev.IncidentOpened)
    assert (incident.reason, rerun.of(ev.StepScheduled)) == ("saga_changed", [])
    assert "'one' (visit 1): tests.pure.run.telling:do stands and is now asked with another input" in incident.detail
    rerun.plan = CodePlan(sagas.three, {})
    rerun.when(retried())
    assert rerun.steps(ev.StepReused) == ["one"]


def again_with(story: Story, before: Story) -> Story:
    return story.hear(
        lambda at: Begin(
            at=at,
            run_id=story.state.run_id,
            tenant="acme",
            trigger={"kind": "rerun", "id": "x"},
            data=before.state.data,
            initiator="ann",
            correlation_id="c",
            scope=before.state.scope,
            inherited=inherit(before.state),
        )
    )


def test_without_a_slot_a_rerun_queues_and_remembers() -> None:
    before = given(sagas.three, done("one"), terminated())
    rerun = Story(sagas.three)
    rerun.hear(
        lambda at: Begin(
            at=at,
            run_id=rerun.state.run_id,
            tenant="acme",
            trigger={"kind": "rerun", "id": "x"},
            data={},
            initiator="ann",
            correlation_id="c",
            scope=before.state.scope,
            inherited=inherit(before.state),
            queued=True,
        )
    ).is_("queued")
    rerun.when(admitted())
    assert (rerun.steps(ev.StepReused), keys(rerun)) == (["one"], [f"{SCOPE}/two/1"])


@pytest.mark.parametrize(
    ("heard", "how", "field"),
    [
        ((done("one"), terminated()), {"from_step": "four"}, "from_step"),
        ((done("one"), terminated()), {"repeat": ("three",)}, "repeat_effects"),
        ((done("one"), lost("two", retryable=False), undo_lost("one"), terminated()), {}, "repeat_effects"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(heard: tuple[Heard, ...], how: dict[str, Any], field: str) -> None:
    before = given(sagas.three, *heard)
    assert before.state.ended is not None
    with pytest.raises(Conflict) as refused:
        inherit(before.state, **how)
    assert refused.value.field == field


def test_an_undo_of_unknown_outcome_is_done_over_when_it_is_named() -> None:
    before = given(sagas.three, done("one"), lost("two", retryable=False), undo_lost("one"), terminated())
    assert keys(again(before, repeat=("one",))) == [f"{UUID(int=8)}/one/1"]


def test_what_is_personal_stays_so() -> None:
    actions: dict[str, Any] = {}
    before = Story(sagas.personal, actions)
    data = {"email": "ann@example.org", "plan": "x"}
    before.hear(
        lambda at: Begin(
            at=at,
            run_id=before.state.run_id,
            tenant="acme",
            trigger={"kind": "manual", "id": "1"},
            data=data,
            initiator="t",
            correlation_id="c",
            marks=("/email",),
            subject="ann",
        )
    )
    before.when(done("account", {"login": "ann@example.org"}), matched("confirmed", {"by": "ann@example.org"}))
    before.when(terminated())
    found = {one.name: one.marks for one in inherit(before.state)}
    assert found == {"account": ("/value/login",), "confirmed": ("/value/by",)}


@pytest.mark.parametrize("how", [{}, {"from_step": "two"}, {"repeat": ("two",)}])
def test_a_rerun_is_derived_from_its_own_events_and_survives_a_snapshot(how: dict[str, Any]) -> None:
    before = given(sagas.long_way, *WALK, done("three"))
    rerun = again(before, **how)
    assert thaw(freeze(rerun.state)) == rerun.state
    assert fold(RunState(UUID(int=8), "acme"), rerun.log) == rerun.state
    *_, last = replay(UUID(int=8), "acme", rerun.log, CodePlan(sagas.long_way, {}))
    assert (last.difference, last.events) == (None, len(rerun.log))
