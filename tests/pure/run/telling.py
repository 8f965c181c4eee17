"""Given, when, then for one run: what was heard, what is heard now, what must follow. Pure; a second passes between two
inputs unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from contracts import run_events as ev
from contracts.calls import ActionCall, ActionSpec, RetryPolicy
from contracts.run_events import RunEvent
from engine.plan.code import Saga
from engine.plan.replay import CodePlan
from engine.run import inputs as given_
from engine.run.decide import decide
from engine.run.evolve import fold
from engine.run.inputs import Input
from engine.run.limits import Breach
from engine.run.react import Effect, react
from engine.run.state import RunState

RUN = UUID(int=7)
START = datetime(2030, 1, 1, tzinfo=UTC)
ONCE = RetryPolicy(attempts=1)
THRICE = RetryPolicy(attempts=3, delay_seconds=1, factor=2, jitter=0)

Heard = Callable[[datetime], Input]
"""An input that still needs its time."""


def do(call: ActionCall) -> Any:
    raise AssertionError("the pure heart performs nothing")


def undo_it(call: ActionCall) -> Any:
    raise AssertionError("the pure heart performs nothing")


# ------------------------------------------------------------------------------------------------------- what is heard


def begun(data: Any = None, **more: Any) -> Heard:
    fields = {"trigger": {"kind": "manual", "id": "1"}, "initiator": "test", "correlation_id": "c"} | more
    return lambda at: given_.Begin(at=at, run_id=RUN, tenant="acme", data={} if data is None else data, **fields)


def done(step: str, output: Any = None, *, visit: int = 1, **more: Any) -> Heard:
    return lambda at: given_.StepDone(at=at, step=step, visit=visit, output=output, **more)


def undone(step: str, *, visit: int = 1, **more: Any) -> Heard:
    return lambda at: given_.StepDone(at=at, step=step, visit=visit, undo=True, **more)


def lost(
    step: str, code: str = "broken", *, visit: int = 1, waits: Mapping[str, float] | None = None, **more: Any
) -> Heard:
    """`waits`: how long to wait, as the failure says."""
    error = {"code": code, "message": f"{step} failed", **(waits or {})}
    return lambda at: given_.StepLost(at=at, step=step, visit=visit, error=error, **more)


def undo_lost(step: str, code: str = "broken", **more: Any) -> Heard:
    return lost(step, code, undo=True, **more)


def due(key: str) -> Heard:
    return lambda at: given_.TimerDue(at=at, key=key)


def moved(step: str, progress: Any, *, visit: int = 1, attempt: int = 1) -> Heard:
    return lambda at: given_.StepMoved(at=at, step=step, visit=visit, attempt=attempt, progress=progress)


def learned(step: str, attempt: int, happened: bool | None, *, visit: int = 1) -> Heard:
    return lambda at: given_.FateLearned(
        at=at, step=step, visit=visit, attempt=attempt, happened=happened, closing=False, detail="asked"
    )


def matched(name: str, data: Any = None, *, visit: int = 1, id: str = "e-1", **more: Any) -> Heard:
    return lambda at: given_.FactMatched(at=at, name=name, visit=visit, event_id=id, data=data or {}, **more)


def approved(name: str, yes: bool = True) -> Heard:
    return lambda at: given_.Decided(at=at, name=name, approved=yes, by="ann", comment="seen")


def cancelled() -> Heard:
    return lambda at: given_.CancelAsked(at=at, by="ann", reason="no longer wanted")


def terminated() -> Heard:
    return lambda at: given_.TerminateAsked(at=at, by="ann", reason="now")


def retried(step: str | None = None) -> Heard:
    return lambda at: given_.RetryAsked(at=at, by="ann", step=step)


def skipped(step: str, output: Any = None) -> Heard:
    return lambda at: given_.SkipAsked(at=at, by="ann", step=step, output=output, reason="done by hand")


def abandoned() -> Heard:
    return lambda at: given_.AbandonAsked(at=at, by="ann", reason="hopeless")


def admitted() -> Heard:
    return lambda at: given_.Admitted(at=at)


def stuck(reason: str = "stuck") -> Heard:
    return lambda at: given_.PlanStuck(at=at, reason=reason, detail="it did not yield")


# --------------------------------------------------------------------------------------------------------- what follows


def saw(kind: type[RunEvent], /, **expected: Any) -> tuple[type[RunEvent], dict[str, Any]]:
    """An event of this class with these fields, whatever its others."""
    unknown = set(expected) - {field.name for field in fields(kind)}
    assert not unknown, f"{kind.__name__} has no {unknown}"
    return kind, expected


class Story:
    """One run and its log. `hold` says that no slot is free for the inputs that follow."""

    def __init__(self, saga: Saga, actions: Mapping[str, ActionSpec] | None = None) -> None:
        self.plan = CodePlan(saga, actions or {})
        self.state = RunState(RUN, "acme")
        self.log: list[RunEvent] = []
        self.new: list[RunEvent] = []
        self.breaches: list[Breach] = []
        self.effects: list[Effect] = []
        self.ignored: str | None = None
        self.now = START
        self.hold = False

    def hear(self, heard: Heard) -> Story:
        self.now += timedelta(seconds=1)
        decision = decide(self.state, heard(self.now), self.plan, hold=self.hold)
        self.new, self.ignored, self.state = list(decision.events), decision.ignored, decision.state
        self.effects = [effect for event in self.new for effect in react(event, self.state)]
        self.log.extend(decision.events)
        self.breaches.extend(decision.breaches)
        return self

    def when(self, *heard: Heard) -> Story:
        """The last one is what `then` speaks about."""
        for one in heard:
            self.hear(one)
        return self

    def after(self, **delta: float) -> Story:
        self.now += timedelta(**delta) - timedelta(seconds=1)
        return self

    def holding(self, hold: bool = True) -> Story:
        self.hold = hold
        return self

    def then(self, *expected: tuple[type[RunEvent], dict[str, Any]]) -> Story:
        """Exactly these events followed from the last input, in this order."""
        assert [type(event).__name__ for event in self.new] == [kind.__name__ for kind, _ in expected], self.ignored
        for event, (kind, values) in zip(self.new, expected, strict=True):
            seen = {name: getattr(event, name) for name in values}
            assert seen == values, kind.__name__
        return self

    def then_nothing(self, why: str) -> Story:
        """The last input changed nothing, for this reason."""
        assert (self.new, self.ignored) == ([], why)
        return self

    def is_(self, status: str) -> Story:
        assert self.state.status == status
        return self

    def of(self, kind: type[RunEvent]) -> list[Any]:
        return [event for event in self.log if isinstance(event, kind)]

    def steps(self, kind: type[RunEvent]) -> list[str]:
        return [event.step for event in self.of(kind)]

    def folded(self) -> RunState:
        return fold(RunState(RUN, "acme"), self.log)


def given(saga: Saga, *heard: Heard, data: Any = None, actions: Mapping[str, ActionSpec] | None = None) -> Story:
    """A run of `saga` that has begun and heard these."""
    return Story(saga, actions).hear(begun(data)).when(*heard)


__all__ = [name for name in dir() if not name.startswith("_")] + ["ev"]
