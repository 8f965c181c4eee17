"""What a simulated action answers, and the ledger of what it did: scripts, their outcomes in virtual time, effects by
idempotency key. It knows nothing of what follows from an outcome: that is `engine.simulate`, from which test authors
import the script words too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from inspect import isawaitable
from types import FunctionType
from typing import Any, Final

import orjson

from contracts.calls import ActionCall, ActionFailed, ActionSpec, Costed
from engine.attempts import call_for
from engine.plan import Plan
from engine.plan.code import function_action
from engine.run.inputs import FateLearned, Input, StepDone, StepLost
from engine.run.react import Perform, Send
from engine.run.state import RunState, Step


class SimulationMistake(Exception):
    """The test asks for something that cannot be: an action without a script, time that runs backwards."""


class _Never:
    def __repr__(self) -> str:
        return "NEVER"


NEVER: Final = _Never()
"""No answer at all: the step's own timeout passes, and nobody knows whether it happened."""


@dataclass(frozen=True, slots=True)
class _Later:
    seconds: float
    script: Any


@dataclass(frozen=True, slots=True)
class _InTurn:
    scripts: tuple[Any, ...]


def fails(
    code: str,
    message: str = "",
    *,
    retryable: bool = False,
    ambiguous: bool = False,
    irrecoverable: bool = False,
    retry_after_seconds: float | None = None,
    put_off_seconds: float | None = None,
) -> ActionFailed:
    """A scripted failure; unlike a real one it is final unless told otherwise."""
    return ActionFailed(
        code,
        message or code,
        retryable=retryable,
        ambiguous=ambiguous,
        irrecoverable=irrecoverable,
        retry_after_seconds=retry_after_seconds,
        put_off_seconds=put_off_seconds,
    )


def later(seconds: float, script: Any = None) -> Any:
    """The script's outcome, `seconds` of virtual time after the attempt began."""
    return _Later(seconds, script)


def in_turn(*scripts: Any) -> Any:
    """One script per attempt of a key; the last one stays."""
    return _InTurn(scripts)


@dataclass(slots=True)
class Effect:
    """One line of the effect ledger. `did`: yes, no, or maybe (nobody knows); `undone` once its undo has succeeded."""

    key: str
    step: str
    action: str
    undo: str | None
    coverage: str = "compensatable"
    did: str = "no"
    undone: bool = False
    attempts: int = 0
    undo_attempts: int = 0

    @property
    def stands(self) -> bool:
        """It happened, or may have, and has not been taken back."""
        return self.did != "no" and not self.undone

    def book(self, undo: bool, happened: str) -> None:
        """Notes one attempt. A definite failure after an unknown one of the same key leaves it unknown."""
        if undo:
            self.undone = self.undone or happened == "yes"
        elif happened != "no" and self.did != "yes":
            self.did = happened

    def learn(self, happened: bool | None, *, closing: bool) -> None:
        """Somebody was asked. What has not happened may still come, unless that was the last question."""
        if happened:
            self.did = "yes"
        elif happened is False and closing:
            self.did = "no"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ends: `seconds` after it began, as which input; `given` None: it never does."""

    seconds: float
    happened: str
    given: Callable[[datetime], Input] | None


class ScriptedActions:
    """The actions of one simulation. A step's own script goes before its action's."""

    def __init__(
        self, plan: Plan, actions: Mapping[Any, Any], steps: Mapping[str, Any], fates: Mapping[str, Any]
    ) -> None:
        self._plan = plan
        self._steps = dict(steps)
        self._fates = fates
        self._scripts: dict[str, Any] = {}
        for action, script in actions.items():
            self.script(action, script)
        self.ledger: dict[str, Effect] = {}
        self.calls: list[ActionCall] = []

    def script(self, action: Any, script: Any) -> None:
        """What `action` (its name, or a function) answers from now on."""
        self._scripts[function_action(action).name if isinstance(action, FunctionType) else action] = script

    def attempt(self, state: RunState, attempt: Perform | Send) -> Outcome:
        """Makes the attempt and books what it did."""
        step = state.step(attempt.step, attempt.visit)
        assert step is not None
        spec = self._plan.action((step.undo or "") if attempt.undo else step.action)
        name = spec.name if spec is not None else step.undo if attempt.undo else step.action
        call = call_for(state, step, attempt, name or "")
        self.calls.append(call)
        effect = self.ledger.setdefault(
            step.key,
            Effect(step.key, step.name, step.action, step.undo, spec.coverage if spec else "compensatable"),
        )
        if attempt.undo:
            effect.undo_attempts += 1
        else:
            effect.attempts += 1
        limit = (spec.timeout_seconds if spec else 30.0) if attempt.undo else step.timeout_seconds
        outcome = play(self._chosen(step, call, spec), call, attempt, limit)
        effect.book(attempt.undo, outcome.happened)
        return outcome

    def find(self, state: RunState, attempt: Perform, at: datetime) -> FateLearned:
        """The answer to whoever asks what became of an attempt."""
        step = state.step(attempt.step, attempt.visit)
        assert step is not None
        closing = state.cause is not None
        given = found(attempt, self._fates.get(step.action), closing=closing, at=at)
        self.ledger[step.key].learn(given.happened, closing=closing)
        return given

    def _chosen(self, step: Step, call: ActionCall, spec: ActionSpec | None) -> Any:
        if not call.undo and step.name in self._steps:
            return self._steps[step.name]
        if call.action in self._scripts:
            return self._scripts[call.action]
        if spec is not None and spec.perform is not None:
            return spec.perform
        if call.undo:
            return None
        raise SimulationMistake(
            f"step {step.name!r} calls {call.action}, which has no script; give actions={{{call.action!r}: ...}}"
        )


def play(script: Any, call: ActionCall, attempt: Perform | Send, limit_seconds: float) -> Outcome:
    """Follows a script to its outcome. A local attempt is timed by its process, a command by a timer of its run."""
    seconds = 0.0
    while isinstance(script, _InTurn | _Later):
        if isinstance(script, _InTurn):
            script = script.scripts[min(call.attempt, len(script.scripts)) - 1]
        else:
            seconds += script.seconds
            script = script.script
    local = isinstance(attempt, Perform)
    if script is NEVER or (local and 0 < limit_seconds <= seconds):
        if not local or limit_seconds <= 0:
            return Outcome(0.0, "maybe", None)
        error = {"code": "timeout", "message": f"no outcome within {limit_seconds:g} s"}
        return Outcome(limit_seconds, "maybe", lost(attempt, error, ambiguous=True))
    try:
        output = script(call) if callable(script) else script
        if isinstance(output, ActionFailed):
            raise output
        output, cost = _finished(output, call), 0.0
        if isinstance(output, Costed):
            output, cost = output.output, output.cost
        content = orjson.loads(orjson.dumps(output))
    except ActionFailed as failed:
        given = lost(attempt, failed.error, failed.retryable, failed.ambiguous, failed.irrecoverable)
        return Outcome(seconds, "maybe" if failed.ambiguous else "no", given)
    except (SimulationMistake, AssertionError):
        raise
    except Exception as raised:
        error = {"code": "raised", "message": type(raised).__name__}
        return Outcome(seconds, "maybe", lost(attempt, error, ambiguous=True))
    return Outcome(seconds, "yes", done(attempt, content, cost))


def _finished(output: Any, call: ActionCall) -> Any:
    """The result of an async action that needs nothing from outside; anything else must be scripted."""
    if not isawaitable(output):
        return output
    waiting = output.__await__()
    try:
        next(waiting)
    except StopIteration as stop:
        return stop.value
    except RuntimeError as error:
        if "no running event loop" not in str(error):
            raise
    else:
        waiting.close()
    raise SimulationMistake(f"{call.action} waits for the outside world; script it: actions={{{call.action!r}: ...}}")


def done(attempt: Perform | Send, output: Any, cost: float = 0.0) -> Callable[[datetime], Input]:
    number = attempt.attempt if isinstance(attempt, Perform) else 0
    return lambda at: StepDone(
        at=at, step=attempt.step, visit=attempt.visit, attempt=number, output=output, cost=cost, undo=attempt.undo
    )


def found(attempt: Perform, fate: Any, *, closing: bool, at: datetime) -> FateLearned:
    """What is answered to the question what became of an attempt: `fate` is the receipt, None or `NEVER`."""
    happened = None if fate is NEVER else fate is not None
    return FateLearned(
        at=at,
        step=attempt.step,
        visit=attempt.visit,
        attempt=attempt.attempt,
        happened=happened,
        closing=closing,
        output=fate if happened else None,
        detail="no answer" if happened is None else "",
    )


def lost(
    attempt: Perform | Send,
    error: Mapping[str, Any],
    retryable: bool = True,
    ambiguous: bool = False,
    irrecoverable: bool = False,
) -> Callable[[datetime], Input]:
    number = attempt.attempt if isinstance(attempt, Perform) else 0
    return lambda at: StepLost(
        at=at,
        step=attempt.step,
        visit=attempt.visit,
        attempt=number,
        error=error,
        retryable=retryable,
        ambiguous=ambiguous,
        irrecoverable=irrecoverable,
        undo=attempt.undo,
    )
