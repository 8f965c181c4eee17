"""Fails every step of a saga in turn and looks whether the effect ledger is back at neutral: what a publisher of a saga
wants to know before its first customer does.

Each step of the good run fails three ways: definitely (`refused`), without anybody knowing (`unknown`), and by a cancel
that comes while it is under way (`cancelled`). A run that parks is abandoned. Called by tests and by who publishes
sagas; it performs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from contracts.blueprint import (
    ApproveOperation,
    BlueprintInvalid,
    SleepOperation,
    StepOperation,
    WaitOperation,
    Workflow,
)
from contracts.calls import ActionCall, ActionSpec
from engine.plan.blueprint import fill, saga_from, walk
from engine.plan.code import Saga, SagaMistake
from engine.scripted import NEVER, SimulationMistake, fails
from engine.simulate import HasActions, Refused, Simulation

WAYS: Final = ("refused", "unknown", "cancelled")
SAFE: Final = frozenset({"retriable", "pivot"})
"""Coverage of actions that may stand without an undo."""

Drive = Callable[[Simulation], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One failure: what became of the run, and the steps (`name/visit`) whose effect stands although it has an undo. A
    run that succeeds without the step (`on_failure="continue"`) keeps what it did.
    """

    step: str
    way: str
    status: str
    standing: tuple[str, ...]

    @property
    def neutral(self) -> bool:
        return self.status == "succeeded" or not self.standing


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """All failures of one saga. `uncovered` are actions that have an effect, no undo, and are not declared retriable
    or pivot: their effect stays whatever happens.
    """

    cases: tuple[Case, ...]
    uncovered: tuple[str, ...]

    @property
    def neutral(self) -> bool:
        return all(case.neutral for case in self.cases)

    def __str__(self) -> str:
        lines = [
            f"{case.step:<24} {case.way:<10} {case.status:<20} "
            + ("neutral" if case.neutral else "STANDS: " + ", ".join(case.standing))
            for case in self.cases
        ]
        lines += [f"no undo: {name}" for name in self.uncovered]
        return "\n".join(lines)


def rehearse(
    saga: Saga,
    data: Any = None,
    *,
    actions: Mapping[Any, Any] | None = None,
    registry: Mapping[str, ActionSpec] | HasActions | None = None,
    drive: Drive = Simulation.run_until_idle,  # type: ignore[assignment]
) -> Rehearsal:
    """`drive` plays what the good run needs from outside: facts, approvals, time. Raises `SimulationMistake` when the
    run it drives does not succeed.
    """

    def simulate(steps: Mapping[str, Any] | None = None, cancel_during: str | None = None) -> Simulation:
        sim = Simulation(saga, data, actions=actions, registry=registry, steps=steps, cancel_during=cancel_during)
        try:
            drive(sim)
        except Refused:
            # In a failing run what `drive` answers may never be asked for; the good run must have taken all of it.
            if steps is None and cancel_during is None:
                raise
        return sim

    good = simulate()
    if good.status != "succeeded":
        raise SimulationMistake(f"the run to rehearse ends {good.status}: {good.explain().sentence}")
    effects = list(good.ledger.values())
    names = list(dict.fromkeys(effect.step for effect in effects))
    uncovered = sorted({e.action for e in effects if e.undo is None and e.stands and e.coverage not in SAFE})
    cases = [_case(simulate, name, way) for name in names for way in WAYS]
    return Rehearsal(tuple(cases), tuple(uncovered))


def _case(simulate: Callable[..., Simulation], step: str, way: str) -> Case:
    if way == "cancelled":
        sim = simulate(None, step)
    else:
        sim = simulate({step: fails("rehearsed") if way == "refused" else NEVER}, None)
    for _ in range(2):
        sim.run_until_idle()
        if sim.status == "parked":
            sim.abandon(reason="rehearsal")
    sim.run_until_idle()
    standing = tuple(
        "/".join(effect.key.rsplit("/", 2)[1:])
        for effect in sim.ledger.values()
        if effect.undo is not None and effect.stands
    )
    return Case(step, way, sim.status, standing)


def rehearse_workflow(workflow: Workflow, actions: Mapping[str, ActionSpec]) -> Rehearsal:
    """Fails every step of the workflow's own example in turn. Raises `BlueprintInvalid` when the example does not
    succeed: its outputs do not give what the operations take.
    """
    example = workflow.example
    scope = {"data": example.input, "steps": example.outputs}

    def answers(call: ActionCall) -> Any:
        return example.outputs.get(call.key.rsplit("/", 2)[1], {})

    def drive(sim: Simulation) -> None:
        for operation in walk(workflow.operations):
            match operation:
                case WaitOperation():
                    [(key, value)] = operation.key.items()
                    data = example.outputs.get(operation.wait, {})
                    if data is not None:
                        sim.fact(operation.event, key=(key, fill(value, scope)), data=data)
                case SleepOperation():
                    sim.forward(seconds=operation.seconds)
                case ApproveOperation():
                    sim.approve(operation.approve)

    scripts = {one.action: answers for one in walk(workflow.operations) if isinstance(one, StepOperation)}
    try:
        return rehearse(saga_from(workflow), example.input, actions=scripts, registry=actions, drive=drive)
    except (SimulationMistake, SagaMistake, Refused) as mistake:
        raise BlueprintInvalid(
            f"the example of {workflow.name!r} is no good run: {mistake}; give the outputs that its steps take",
            field="example",
        ) from mistake
