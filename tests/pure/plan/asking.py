"""A code saga asked by hand: record what it asks for, complete what is open, ask again. Pure, no events in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from contracts.calls import ActionCall, ActionSpec
from contracts.run_events import RunStarted
from engine.plan import Ask, Next
from engine.plan.code import Run, Saga, saga
from engine.plan.replay import CodePlan
from engine.run.decide import decide
from engine.run.evolve import fold
from engine.run.inputs import Begin, Input
from engine.run.state import RunState

RUN = UUID(int=9)
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def do(call: ActionCall) -> Any:
    raise AssertionError("a plan performs nothing")


def other(call: ActionCall) -> Any:
    raise AssertionError("a plan performs nothing")


def begun(
    definition: Saga, *inputs: Input, data: Any = None, actions: Mapping[str, ActionSpec] | None = None
) -> RunState:
    """The state of a run that has begun and heard these."""
    plan = CodePlan(definition, actions or {})
    begin = Begin(
        at=NOW,
        run_id=RUN,
        tenant="acme",
        trigger={"kind": "manual", "id": "1"},
        data={} if data is None else data,
        initiator="test",
        correlation_id="c",
    )
    state = decide(RunState(RUN, "acme"), begin, plan).state
    for one in inputs:
        state = decide(state, one, plan).state
    return state


def started(data: Any = None) -> RunState:
    """A run that has begun and was never asked what comes next."""
    event = RunStarted(
        at=NOW,
        workflow="changing",
        workflow_version=1,
        trigger={"kind": "manual", "id": "1"},
        data={} if data is None else data,
        scope=str(RUN),
        initiator="test",
        correlation_id="c",
    )
    return fold(RunState(RUN, "acme"), [event])


def ask(definition: Saga, state: RunState, actions: Mapping[str, ActionSpec] | None = None) -> Next:
    """What a process that has never seen this run would answer."""
    return CodePlan(definition, actions or {}).next(state)


def names(answer: Next) -> Sequence[str]:
    assert isinstance(answer, Ask), answer
    return [operation.name for operation in answer.operations]


def of(body: Any, *, version: int = 1) -> Saga:
    """A saga called `changing`, so that one body can stand for another's later version."""

    async def function(run: Run, data: Any) -> Any:
        return await body(run, data)

    return saga("changing", version=version)(function)
