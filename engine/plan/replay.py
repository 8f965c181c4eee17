"""A saga as a plan: its coroutine replayed from the recorded results, and a divergence where the code no longer asks
for what the log holds.

Operations are matched by name and visit, not by line, so code may move around them. The live coroutine is a cache:
`forget` drops it and the next call replays it. `engine.triggers` makes one plan per installed saga.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import orjson

from contracts.calls import ActionSpec
from contracts.pointers import MISSING, resolve, segments
from contracts.problems import PayloadInvalid
from contracts.quotas import MOST_STEPS
from engine.plan import (
    Ask,
    Continued,
    Diverged,
    Finished,
    GaveUp,
    Next,
    OnFailure,
    Operation,
    Raised,
    StateAsked,
    StepAsked,
    recorded_form,
)
from engine.plan.code import (
    CANONICAL,
    MAX_PASSED_BYTES,
    Actions,
    Run,
    Saga,
    SagaContinues,
    SagaFailed,
    SagaMistake,
    StepFailed,
    function_named,
)
from engine.plan.driver import Driver
from engine.run.children import child_spec
from engine.run.limits import QUOTA_EXCEEDED, Breach, limits_of
from engine.run.state import Key, RunState

MAX_OPERATIONS: Final = MOST_STEPS
LIVE_COROUTINES: Final = 20_000


class CodePlan:
    """A `Saga` as a `Plan`: keeps live coroutines of recent runs, replays the others from their recorded results."""

    def __init__(self, definition: Saga, actions: Actions) -> None:
        self.definition = definition
        self.name = definition.name
        self.version = definition.version
        self.on_failure: OnFailure = definition.on_failure
        self.parked_state = definition.parked_state
        self.timeout_seconds = definition.timeout_seconds
        self._actions = actions
        self._live: OrderedDict[Any, Driver] = OrderedDict()

    def action(self, name: str) -> ActionSpec | None:
        spec = self._actions.get(name)
        if spec is None and ":" in name:
            spec = child_spec(name) or function_named(name)
        return spec

    def attributes(self, data: Any) -> Mapping[str, str]:
        declared = self.definition.attributes
        if not declared:
            return {}
        found = {name: resolve(data, segments(pointer)) for name, pointer in declared.items()}
        return {name: str(value) for name, value in found.items() if value is not None and value is not MISSING}

    def unwound_state(self, cause: str) -> str | None:
        return (self.definition.unwound_states or {}).get(cause)

    def forget(self, state: RunState) -> None:
        self._live.pop(state.run_id, None)

    def next(self, state: RunState) -> Next:
        driver = self._live.get(state.run_id)
        completions = state.completions or []
        replaying = driver is None or driver.fed > len(completions)
        if replaying:
            run = Run(state, self._actions, self.on_failure)
            driver = Driver(self.definition.function(run, state.data), run.breaches)
            self._live[state.run_id] = driver
            if len(self._live) > LIVE_COROUTINES:
                self._live.popitem(last=False)
        assert driver is not None
        recorded = state.recorded or {}
        while driver.fed < len(completions):
            completion = completions[driver.fed]
            if not driver.feed(completion):
                self.forget(state)
                missing = _spell((completion.name, completion.visit), recorded)
                return Diverged(
                    "\n".join([f"- {missing}: recorded, not asked for any more", *_added(driver, recorded)])
                )
        if replaying:
            diff = _divergence(driver, recorded)
            if diff is not None:
                self.forget(state)
                return Diverged(diff)
        fresh = tuple(op for op in driver.fresh if (_name(op), op.visit) not in recorded)
        driver.fresh.clear()
        if fresh and len(driver.asked) > MAX_OPERATIONS:
            self.forget(state)
            return Raised(f"the saga asked for more than {MAX_OPERATIONS} operations; continue in another run")
        most = limits_of(state.trigger).get("steps")
        if fresh and most is not None and len(driver.asked) > most:
            self.forget(state)
            why = f"the quota steps of the tenant is {most}, and the saga asked for more"
            return GaveUp(QUOTA_EXCEEDED, why, (*driver.breaches, Breach("steps", len(driver.asked), most)))
        misfit = _misfit(fresh)
        if misfit is not None:
            self.forget(state)
            return Raised(misfit)
        if not driver.finished:
            return Ask(fresh, _news(driver)) if fresh else Ask(fresh)
        self.forget(state)
        return _ending(driver)


def _news(driver: Driver) -> tuple[Breach, ...]:
    """The quotas met on the way to what is answered now; said once."""
    found = tuple(driver.breaches)
    driver.breaches.clear()
    return found


def _misfit(fresh: tuple[Operation, ...]) -> str | None:
    """What the first of these steps asks of its action that the action's model does not accept; None when all fit.

    Only what is asked for the first time is read: what is recorded was accepted by the model of its day.
    """
    for operation in fresh:
        if isinstance(operation, StepAsked) and operation.spec.check is not None:
            try:
                operation.spec.check(operation.input)
            except PayloadInvalid as invalid:
                return f"step {operation.name!r} ({operation.spec.name}): {invalid.code}: {invalid}"
    return None


def _continued(data: Any, breaches: tuple[Breach, ...]) -> Next:
    try:
        canonical = orjson.dumps(data, option=CANONICAL)
    except orjson.JSONEncodeError as unfit:
        return Raised(f"what the saga continues with must be JSON ({unfit})")
    if not isinstance(data, dict) or len(canonical) > MAX_PASSED_BYTES:
        return Raised(f"a saga continues with a JSON object of at most {MAX_PASSED_BYTES} bytes, not {len(canonical)}")
    return Continued(orjson.loads(canonical), breaches)


def _ending(driver: Driver) -> Next:
    error = driver.error
    if error is None:
        try:
            canonical = orjson.dumps(driver.output, option=CANONICAL)
        except orjson.JSONEncodeError as unfit:
            return Raised(f"the saga's result must be JSON ({unfit})")
        if len(canonical) > MAX_PASSED_BYTES:
            return Raised(f"the saga's result is {len(canonical)} bytes; return at most {MAX_PASSED_BYTES}")
        return Finished(orjson.loads(canonical), _news(driver))
    if isinstance(error, SagaContinues):
        return _continued(error.data, _news(driver))
    if isinstance(error, SagaFailed):
        return GaveUp(error.code, str(error), _news(driver))
    if isinstance(error, StepFailed):
        return GaveUp(str(error.error.get("code", "step_failed")), str(error), _news(driver))
    if isinstance(error, SagaMistake):
        return Raised(str(error))
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    line = f" at {where.tb_frame.f_code.co_name}:{where.tb_lineno}" if where is not None else ""
    return Raised(f"the saga raised {type(error).__name__}{line}")


def _divergence(driver: Driver, recorded: Mapping[Key, tuple[str, str, str]]) -> str | None:
    """What the code now asks differently from what is recorded, one line each; None when it fits."""
    lines = []
    removed = False
    for key, was in recorded.items():
        operation = driver.asked.get(key)
        if operation is None:
            lines.append(f"- {_spell(key, recorded)}: recorded, not asked for any more")
            removed = True
            continue
        now = recorded_form(operation)
        if now[:2] != was[:2]:
            lines.append(
                f"~ {key[0]} (visit {key[1]}): recorded {was[0]} {was[1]}, the code now asks for {now[0]} {now[1]}"
            )
        elif now[2] != was[2] and was[0] in ("step", "fact"):
            lines.append(
                f"~ {key[0]} (visit {key[1]}): {was[0]} {was[1]} is now asked with another input than the recorded one"
            )
    return "\n".join(lines + _added(driver, recorded) if removed else lines) or None


def _added(driver: Driver, recorded: Mapping[Key, tuple[str, str, str]]) -> list[str]:
    """What the code asks for that is not recorded, and how it ended: a renamed step shows in both."""
    asked = {key: recorded_form(operation) for key, operation in driver.asked.items() if key not in recorded}
    lines = [f"+ {_spell(key, asked)}: asked for, not recorded" for key in asked]
    if driver.finished:
        lines.append("+ the saga ends" if driver.error is None else f"+ the saga raises {type(driver.error).__name__}")
    return lines


def _name(operation: Operation) -> str:
    return f"state:{operation.name}" if isinstance(operation, StateAsked) else operation.name


def _spell(key: Key, recorded: Mapping[Key, tuple[str, str, str]]) -> str:
    kind, what, _ = recorded.get(key, ("operation", "", ""))
    return f"{kind} {key[0]!r} (visit {key[1]}{', ' + what if what else ''})"
