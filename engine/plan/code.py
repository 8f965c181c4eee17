"""Code-first sagas: a coroutine driven by hand with recorded results, fed in recorded completion order.

    @saga("customer-onboarding", version=1, on="crm.SignupRequestedV1")
    async def onboard(run, signup):
        account = await run.step("account", "identity.create_user", email=signup["email"])
        await run.step("billing", "billing.create_customer", account_id=account["account_id"])

There is no event loop and no sandbox: `run.step(...)` yields a request, `Driver` notes it, and sends the result in
when the log has it. Operations are
matched by name and visit, not by line, so code may move around them. The live coroutine is a cache: `forget` drops it
and the next call replays it.
"""

from __future__ import annotations

import hashlib
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import FunctionType
from typing import Any, Final

import orjson

from contracts.calls import ActionSpec, Perform, RetryPolicy
from contracts.pointers import MISSING, resolve, segments
from engine.plan import (
    ApprovalAsked,
    Ask,
    Diverged,
    Finished,
    GaveUp,
    Next,
    OnFailure,
    Operation,
    Raised,
    SleepAsked,
    StateAsked,
    StepAsked,
    ValueAsked,
    WaitAsked,
)
from engine.run.state import Completion, Key, RunState

MAX_OPERATIONS: Final = 1000
MAX_PASSED_BYTES: Final = 64 * 1024
LIVE_COROUTINES: Final = 20_000
_DEFAULT: Final = "<the action's own>"
_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS

Actions = Mapping[str, ActionSpec]


class StepFailed(Exception):
    """A step with `on_failure="continue"` has used up its attempts; `error` is {code, message}. Catch it to take
    another path.
    """

    def __init__(self, step: str, error: Mapping[str, Any]) -> None:
        super().__init__(f"step {step!r} failed: {error.get('code')}: {error.get('message')}")
        self.step = step
        self.error = error


class SagaFailed(Exception):
    """Raised by a saga's author to end the run as failed and unwind it."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.code = code


class SagaMistake(Exception):
    """The saga asked for something that cannot be: an unknown action, a closure, an argument that is not JSON. Parks
    the run.
    """


class _Request:
    """What a saga's coroutine yields; awaiting it gives the recorded result."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self)


class _Operation(_Request):
    __slots__ = ("build", "name")

    def __init__(self, name: str, build: Callable[[int], Operation]) -> None:
        self.name = name
        self.build = build


class _Gather(_Request):
    __slots__ = ("children",)

    def __init__(self, children: Sequence[Awaitable[Any]]) -> None:
        self.children = children


class Run:
    """What a saga sees of its run: who it is for, and the durable operations. Everything else it needs comes in as
    `data` or as a step's result.
    """

    def __init__(self, state: RunState, actions: Actions, on_failure: OnFailure) -> None:
        self.id = state.run_id
        self.tenant = state.tenant
        self.workflow = state.workflow
        self.correlation_id = state.correlation_id
        self.initiator = state.initiator
        self._actions = actions
        self._on_failure = on_failure

    def step(
        self,
        name: str,
        action: str | Perform,
        /,
        *,
        undo: str | Perform | None = _DEFAULT,
        on_failure: OnFailure | None = None,
        retry: RetryPolicy | None = None,
        timeout_seconds: float | None = None,
        **arguments: Any,
    ) -> Awaitable[Any]:
        """Runs `action` (a registered action, a module's command, or a module-level function) durably and answers its
        output.

        `undo` defaults to the action's declared undo; None says there is nothing to undo. `on_failure` defaults to the
        saga's, `retry` and `timeout_seconds` to the action's. Arguments must be JSON. Parks the run (`SagaMistake`)
        when they are not, or the action is unknown.
        """
        spec = self._spec(action)
        undo_name = spec.undo if undo == _DEFAULT else None if undo is None else self._spec(undo).name
        try:
            canonical = orjson.dumps(arguments, option=_CANONICAL)
        except orjson.JSONEncodeError as error:
            raise SagaMistake(f"step {name!r}: the arguments of {spec.name} must be JSON ({error})") from None
        if len(canonical) > MAX_PASSED_BYTES:
            raise SagaMistake(
                f"step {name!r}: the arguments are {len(canonical)} bytes; pass at most {MAX_PASSED_BYTES}"
            )
        digest = hashlib.blake2b(canonical, digest_size=12).hexdigest()
        content = orjson.loads(canonical)
        policy = on_failure or self._on_failure
        limit = spec.timeout_seconds if timeout_seconds is None else timeout_seconds
        return _Operation(
            name, lambda visit: StepAsked(name, visit, spec, content, digest, undo_name, policy, retry, limit)
        )

    def sleep(self, name: str, seconds: float | None = None, *, until: datetime | None = None) -> Awaitable[None]:
        """Waits for `seconds`, or until an instant; survives restarts and holds no resources."""
        if (seconds is None) == (until is None):
            raise SagaMistake(f"sleep {name!r}: give either seconds or until")
        return _Operation(name, lambda visit: SleepAsked(name, visit, seconds, until))

    def wait_for(
        self, name: str, event: str, *, key: tuple[str, Any], timeout_seconds: float | None = None
    ) -> Awaitable[Any]:
        """Waits for the fact `event` whose declared correlation key `key[0]` equals `key[1]`; answers its data, or
        None after `timeout_seconds`.

        A fact that came earlier, since the run started, counts.
        """
        key_name, key_value = key
        return _Operation(name, lambda visit: WaitAsked(name, visit, event, key_name, str(key_value), timeout_seconds))

    def approve(
        self,
        name: str,
        title: str,
        *,
        role: str = "approver",
        context: Any = None,
        timeout_seconds: float | None = None,
    ) -> Awaitable[Any]:
        """Asks people holding `role`; answers {approved, by, comment, timed_out}."""
        return _Operation(name, lambda visit: ApprovalAsked(name, visit, title, role, context, timeout_seconds))

    def state(self, name: str) -> Awaitable[None]:
        """Enters a named business state: an event, a notice on the bus, an audit entry, a metric."""
        return _Operation(f"state:{name}", lambda visit: StateAsked(name, visit))

    def now(self, name: str = "now") -> Awaitable[str]:
        """The engine's time, recorded; RFC 3339."""
        return _Operation(name, lambda visit: ValueAsked(name, visit, "now"))

    def uuid(self, name: str = "uuid") -> Awaitable[str]:
        return _Operation(name, lambda visit: ValueAsked(name, visit, "uuid"))

    def random(self, name: str = "random") -> Awaitable[float]:
        """A number in [0, 1), recorded."""
        return _Operation(name, lambda visit: ValueAsked(name, visit, "random"))

    def gather(self, *branches: Awaitable[Any]) -> Awaitable[list[Any]]:
        """Runs branches side by side (operations or coroutines of this saga) and answers their results in order, once
        all are settled.
        """
        return _Gather(branches)

    def fail(self, code: str, message: str = "") -> SagaFailed:
        """`raise run.fail("rejected")` ends the run as failed and unwinds what it did."""
        return SagaFailed(code, message)

    def _spec(self, action: str | Perform) -> ActionSpec:
        if isinstance(action, str):
            spec = self._actions.get(action)
            if spec is None:
                raise SagaMistake(f"no installed module or connector brings the action {action!r}")
            return spec
        return function_action(action)


def function_action(function: Any) -> ActionSpec:
    """A module-level function as a local action, named `module:function` so that any process that loads the saga finds
    it again.
    """
    if (
        not isinstance(function, FunctionType)
        or function.__closure__
        or "<" in function.__qualname__
        or "." in function.__qualname__
    ):
        raise SagaMistake(f"{function!r} cannot be a step: use a module-level function without closure")
    spec = _FUNCTIONS.get(function)
    if spec is None:
        spec = _FUNCTIONS[function] = ActionSpec(
            name=f"{function.__module__}:{function.__name__}", kind="local", perform=function
        )
    return spec


_FUNCTIONS: dict[FunctionType, ActionSpec] = {}


def _function_named(name: str) -> ActionSpec | None:
    """The local action `module:function` of a module that is loaded; None when there is no such function any more."""
    known = next((spec for spec in _FUNCTIONS.values() if spec.name == name), None)
    if known is not None:
        return known
    # A process that has taken a run over was never asked for this step by the saga: it is in the log alone.
    module, _, function = name.partition(":")
    found = getattr(sys.modules.get(module), function, None)
    try:
        spec = function_action(found)
    except SagaMistake:
        return None
    return spec if spec.name == name else None


@dataclass(slots=True)
class _Branch:
    coroutine: Coroutine[Any, Any, Any]
    parent: _Join | None = None
    index: int = 0


@dataclass(slots=True)
class _Join:
    """Where branches of a gather meet."""

    waiter: _Branch
    results: list[Any]
    left: int
    error: BaseException | None = None


class Driver:
    """One live coroutine and how far it has been fed."""

    __slots__ = ("asked", "error", "fed", "finished", "fresh", "output", "pending", "visits")

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.pending: dict[Key, _Branch] = {}
        self.asked: dict[Key, Operation] = {}
        self.visits: dict[str, int] = {}
        self.fresh: list[Operation] = []
        self.fed = 0
        self.finished = False
        self.output: Any = None
        self.error: BaseException | None = None
        self._resume(_Branch(coroutine), None, None)

    def feed(self, completion: Completion) -> bool:
        """Gives a recorded result to whoever awaits it; False when nobody asked for it."""
        branch = self.pending.pop((completion.name, completion.visit), None)
        if branch is None:
            return False
        self.fed += 1
        if completion.ok:
            self._resume(branch, completion.value, None)
        else:
            self._resume(branch, None, StepFailed(completion.name, completion.value))
        return True

    def _resume(self, branch: _Branch, value: Any, error: BaseException | None) -> None:
        while True:
            try:
                request = branch.coroutine.send(value) if error is None else branch.coroutine.throw(error)
            except StopIteration as stop:
                outcome, failure = stop.value, None
            except Exception as raised:
                outcome, failure = None, raised
            else:
                if isinstance(request, _Operation):
                    self._ask(branch, request)
                    return
                if not isinstance(request, _Gather):
                    value, error = (
                        None,
                        SagaMistake(f"a saga can only await its run's operations, not {type(request).__name__}"),
                    )
                    continue
                if request.children:
                    join = _Join(branch, [None] * len(request.children), len(request.children))
                    for index, child in enumerate(request.children):
                        self._resume(_Branch(_as_coroutine(child), join, index), None, None)
                    return
                value, error = [], None
                continue
            joined = branch.parent
            if joined is None:
                self.finished, self.output, self.error = True, outcome, failure
                return
            joined.results[branch.index] = outcome
            joined.error = joined.error or failure
            joined.left -= 1
            if joined.left:
                return
            branch, value, error = joined.waiter, joined.results, joined.error

    def _ask(self, branch: _Branch, request: _Operation) -> None:
        visit = self.visits.get(request.name, 0) + 1
        self.visits[request.name] = visit
        operation = request.build(visit)
        key = (request.name, visit)
        self.pending[key] = branch
        self.asked[key] = operation
        self.fresh.append(operation)


async def _awaiting(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _as_coroutine(awaitable: Awaitable[Any]) -> Coroutine[Any, Any, Any]:
    return awaitable if isinstance(awaitable, Coroutine) else _awaiting(awaitable)


SagaFunction = Callable[[Run, Any], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, kw_only=True)
class Saga:
    """A saga as declared: its function and everything the engine must know before a run of it exists."""

    name: str
    version: int
    function: SagaFunction
    on: tuple[str, ...] = ()
    """Event types that start it."""
    hook: str | None = None
    """Webhook path that starts it, such as /signup."""
    on_failure: OnFailure = "compensate"
    parked_state: str | None = None
    """The business state shown while the run is parked."""
    unwound_states: Mapping[str, str] | None = None
    """Cause of unwinding (failed, cancelled, timed_out, abandoned) -> business state in which the run then ends."""
    timeout_seconds: float | None = None
    attributes: Mapping[str, str] | None = None
    """Run attribute -> JSON pointer into the trigger's data."""
    subject: str | None = None
    """JSON pointer to the data subject in the trigger's data; None: the event's own."""
    personal: tuple[str, ...] = ()
    """JSON pointers to personal values in the trigger's data, for triggers without a contract (webhooks, manual
    starts).
    """


def saga(
    name: str,
    *,
    version: int,
    on: str | Sequence[str] = (),
    hook: str | None = None,
    on_failure: OnFailure = "compensate",
    parked_state: str | None = None,
    unwound_states: Mapping[str, str] | None = None,
    timeout_seconds: float | None = None,
    attributes: Mapping[str, str] | None = None,
    subject: str | None = None,
    personal: Sequence[str] = (),
) -> Callable[[SagaFunction], Saga]:
    """Declares an `async def (run, data)` as version `version` of the saga `name`. Several versions may be installed
    side by side.
    """
    events = (on,) if isinstance(on, str) else tuple(on)

    def declare(function: SagaFunction) -> Saga:
        return Saga(
            name=name,
            version=version,
            function=function,
            on=events,
            hook=hook,
            on_failure=on_failure,
            parked_state=parked_state,
            unwound_states=unwound_states,
            timeout_seconds=timeout_seconds,
            attributes=attributes,
            subject=subject,
            personal=tuple(personal),
        )

    return declare


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
            spec = _function_named(name)
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
            driver = Driver(self.definition.function(Run(state, self._actions, self.on_failure), state.data))
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
        if not driver.finished:
            return Ask(fresh)
        self.forget(state)
        return _ending(driver)


def _ending(driver: Driver) -> Next:
    error = driver.error
    if error is None:
        try:
            canonical = orjson.dumps(driver.output, option=_CANONICAL)
        except orjson.JSONEncodeError as unfit:
            return Raised(f"the saga's result must be JSON ({unfit})")
        if len(canonical) > MAX_PASSED_BYTES:
            return Raised(f"the saga's result is {len(canonical)} bytes; return at most {MAX_PASSED_BYTES}")
        return Finished(orjson.loads(canonical))
    if isinstance(error, SagaFailed):
        return GaveUp(error.code, str(error))
    if isinstance(error, StepFailed):
        return GaveUp(str(error.error.get("code", "step_failed")), str(error))
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
        now = _recorded_form(operation)
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
    asked = {key: _recorded_form(operation) for key, operation in driver.asked.items() if key not in recorded}
    lines = [f"+ {_spell(key, asked)}: asked for, not recorded" for key in asked]
    if driver.finished:
        lines.append("+ the saga ends" if driver.error is None else f"+ the saga raises {type(driver.error).__name__}")
    return lines


def _recorded_form(operation: Operation) -> tuple[str, str, str]:
    match operation:
        case StepAsked():
            return ("step", operation.spec.name, operation.input_hash)
        case SleepAsked():
            return ("sleep", "", "")
        case WaitAsked():
            return ("fact", operation.event, operation.key_value)
        case ApprovalAsked():
            return ("approval", operation.role, "")
        case StateAsked():
            return ("state", operation.name, "")
        case ValueAsked():
            return ("value", "", "")


def _name(operation: Operation) -> str:
    return f"state:{operation.name}" if isinstance(operation, StateAsked) else operation.name


def _spell(key: Key, recorded: Mapping[Key, tuple[str, str, str]]) -> str:
    kind, what, _ = recorded.get(key, ("operation", "", ""))
    return f"{kind} {key[0]!r} (visit {key[1]}{', ' + what if what else ''})"
