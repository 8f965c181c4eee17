"""A coroutine that is thrown away and replayed asks the same: at every prefix of a history, in every order in which
branches may complete. The live one and the replayed one are the same saga."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from engine.plan import Ask
from engine.plan.code import Run, saga
from engine.plan.replay import CodePlan
from engine.run.decide import decide
from engine.run.inputs import Input, StepDone, TimerDue
from engine.run.state import RunState
from tests.pure.plan.asking import NOW, begun, do


@saga("four", version=1)
async def four(run: Run, data: Any) -> Any:
    """Four branches, two of them nested, one of them with a gather of its own."""

    async def pair(name: str) -> Any:
        first = await run.step(f"{name}1", do)
        return [first, await run.step(f"{name}2", do, of=first)]

    async def nested() -> Any:
        inside = await run.gather(run.step("c1", do), pair("c2"))
        await run.step("c3", do, of=inside)
        return inside

    return await run.gather(run.step("a", do), pair("b"), nested(), run.sleep("d", 5))


def complete(name: str) -> Input:
    if name == "d":
        return TimerDue(at=NOW, key="sleep/d/1")
    return StepDone(at=NOW, step=name, visit=1, output=f"out of {name}")


def ready(state: RunState) -> list[str]:
    return sorted([step.name for step in state.open_steps()] + [wait.name for wait in state.open_waits()])


def orders(state: RunState, plan: CodePlan) -> Iterator[RunState]:
    """Every order in which what is open may complete, depth first."""
    if state.ended is not None:
        yield state
        return
    for name in ready(state):
        plan.forget(state)
        yield from orders(decide(state, complete(name), plan).state, plan)


def test_four_branches_give_the_same_result_in_every_order_of_completion() -> None:
    plan = CodePlan(four, {})
    ends = list(orders(begun(four), plan))
    assert len(ends) == 2520
    assert len({tuple(one.name for one in end.completions or ()) for end in ends}) == len(ends)
    assert len({repr(end.end_output) for end in ends}) == 1
    assert len({frozenset(end.recorded or ()) for end in ends}) == 1
    assert {frozenset((step.key, step.input_hash) for step in (end.steps or {}).values()) for end in ends} == {
        frozenset((step.key, step.input_hash) for step in (ends[0].steps or {}).values())
    }


@settings(max_examples=60, deadline=None)
@for_all(choices=st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=8, max_size=8))
def test_a_replayed_coroutine_asks_what_the_live_one_asks_at_every_prefix(choices: list[tuple[int, bool]]) -> None:
    live = CodePlan(four, {})
    state = begun(four)
    for choice, throw_away in choices:
        # Replayed from its results it asks for nothing but what is recorded ...
        assert CodePlan(four, {}).next(state) == Ask(())
        open_now = ready(state)
        given = complete(open_now[choice % len(open_now)])
        if throw_away:
            live.forget(state)
        one, two = decide(state, given, live), decide(state, given, CodePlan(four, {}))
        # ... and goes on as if it had lived all along.
        assert (one.events, one.state) == (two.events, two.state)
        state = one.state
    assert state.ended == "succeeded"


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_gather_answers_in_the_order_asked_not_in_that_of_completion(size: int) -> None:
    @saga("wide", version=1)
    async def wide(run: Run, data: Any) -> Any:
        return await run.gather(*(run.step(str(n), do) for n in range(size)))

    state = begun(wide, *(complete(str(n)) for n in reversed(range(size))))
    assert state.end_output == [f"out of {n}" for n in range(size)]


def test_an_empty_gather_answers_at_once() -> None:
    @saga("empty", version=1)
    async def empty(run: Run, data: Any) -> Any:
        return [await run.gather(), await run.gather(run.gather())]

    assert begun(empty).end_output == [[], [[]]]


def test_coroutines_that_left_memory_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.plan.replay.LIVE_COROUTINES", 1)
    plan = CodePlan(four, {})
    one, two = begun(four), replace(begun(four), run_id=UUID(int=10))
    for name in ("a", "b1", "b2", "c1", "c21", "c22", "c3", "d"):
        one, two = (decide(state, complete(name), plan).state for state in (one, two))
    assert (
        one.end_output
        == two.end_output
        == [
            "out of a",
            ["out of b1", "out of b2"],
            ["out of c1", ["out of c21", "out of c22"]],
            None,
        ]
    )
