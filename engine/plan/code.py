"""Code-first sagas: the words an author writes one with, the run they see, and what they may ask of it.

    @saga("customer-onboarding", version=1, on="crm.SignupRequestedV1")
    async def onboard(run, signup):
        account = await run.step("account", "identity.create_user", email=signup["email"])
        await run.step("billing", "billing.create_customer", account_id=account["account_id"])

There is no event loop and no sandbox: awaiting an operation yields a request, and nothing here performs or remembers
it. `engine.plan.driver` feeds the coroutine with results, `engine.plan.replay` makes a plan of the saga.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import FunctionType
from typing import Any, Final

import orjson

from contracts.calls import ActionSpec, Perform, RetryPolicy
from engine.plan import ApprovalAsked, OnFailure, Operation, SleepAsked, StateAsked, StepAsked, ValueAsked, WaitAsked
from engine.run.children import MAX_DEPTH, STARTS, child_spec
from engine.run.limits import QUOTA_EXCEEDED, Breach, limits_of
from engine.run.state import RunState

MAX_PASSED_BYTES: Final = 64 * 1024
CANONICAL: Final = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
"""How arguments and results become JSON: what JSON has no word for is refused, not guessed."""
_DEFAULT: Final = "<the action's own>"

Actions = Mapping[str, ActionSpec]


class StepFailed(Exception):
    """A step with `on_failure="continue"` has used up its attempts. Catch it to take another path.

    `error` is {code, message}.
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


class SagaContinues(Exception):
    """Raised by a saga's author to go on in another run, with a history of its own."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        super().__init__("the saga continues in another run")
        self.data = data


class SagaMistake(Exception):
    """The saga asked for something that cannot be: an unknown action, a closure, an argument that is not JSON.

    It parks the run.
    """


class Request:
    """What a saga's coroutine yields; awaiting it gives the recorded result."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self)


class Asked(Request):
    """One operation; `build` makes it of the visit its name has come to."""

    __slots__ = ("build", "name")

    def __init__(self, name: str, build: Callable[[int], Operation]) -> None:
        self.name = name
        self.build = build


class Gathered(Request):
    """Branches to run side by side."""

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
        self._depth = int((state.trigger or {}).get("depth") or 0)
        self._most_depth = limits_of(state.trigger).get("depth")
        self.breaches: list[Breach] = []
        """The quotas that the saga has met; `engine.plan.replay` takes those that are news."""
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
        content, digest = _canonical(name, spec.name, arguments)
        policy = on_failure or self._on_failure
        limit = spec.timeout_seconds if timeout_seconds is None else timeout_seconds
        return Asked(name, lambda visit: StepAsked(name, visit, spec, content, digest, undo_name, policy, retry, limit))

    async def child(
        self,
        name: str,
        workflow: str,
        data: Mapping[str, Any] | None = None,
        /,
        *,
        undo: bool = True,
        on_failure: OnFailure | None = None,
    ) -> Any:
        """Runs `workflow` with `data` as a run of its own and answers its output once it has succeeded.

        Its story and tenant are this run's. When it ends otherwise the step has failed, and `on_failure` says what
        follows. When this run is unwound, an open child is cancelled, and what a succeeded one did is undone by a run
        that unwinds it; with `undo` False that stays. Parks the run (`SagaMistake`) when the data is no JSON, or
        children are nested deeper than `engine.run.children.MAX_DEPTH`. Where the tenant's quota `depth` is less, a
        child beyond it has failed: `StepFailed` with code `quota_exceeded`.
        """
        if self._most_depth is not None and self._depth >= self._most_depth:
            why = f"the quota depth of the tenant is {self._most_depth}; this run is as deep as that"
            self.breaches.append(Breach("depth", self._depth + 1, self._most_depth))
            raise StepFailed(name, {"code": QUOTA_EXCEEDED, "message": why})
        if self._depth >= MAX_DEPTH:
            raise SagaMistake(f"child {name!r}: runs may be nested {MAX_DEPTH} deep; this one is as deep as that")
        spec = child_spec(f"{STARTS}{workflow}")
        assert spec is not None
        content, digest = _canonical(name, spec.name, data or {})
        policy = on_failure or self._on_failure
        undo_name = spec.undo if undo else None
        answer = await Asked(
            name, lambda visit: StepAsked(name, visit, spec, content, digest, undo_name, policy, None, 0)
        )
        return answer["output"]

    def sleep(self, name: str, seconds: float | None = None, *, until: datetime | None = None) -> Awaitable[None]:
        """Waits for `seconds`, or until an instant; survives restarts and holds no resources."""
        if (seconds is None) == (until is None):
            raise SagaMistake(f"sleep {name!r}: give either seconds or until")
        return Asked(name, lambda visit: SleepAsked(name, visit, seconds, until))

    def wait_for(
        self, name: str, event: str, *, key: tuple[str, Any], timeout_seconds: float | None = None
    ) -> Awaitable[Any]:
        """Waits for the fact `event` whose declared correlation key `key[0]` equals `key[1]`; answers its data, or
        None after `timeout_seconds`.

        A fact that came earlier, since the run started, counts.
        """
        key_name, key_value = key
        return Asked(name, lambda visit: WaitAsked(name, visit, event, key_name, str(key_value), timeout_seconds))

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
        return Asked(name, lambda visit: ApprovalAsked(name, visit, title, role, context, timeout_seconds))

    def state(self, name: str) -> Awaitable[None]:
        """Enters a named business state: an event, a notice on the bus, an audit entry, a metric."""
        return Asked(f"state:{name}", lambda visit: StateAsked(name, visit))

    def now(self, name: str = "now") -> Awaitable[str]:
        """The engine's time, recorded; RFC 3339."""
        return Asked(name, lambda visit: ValueAsked(name, visit, "now"))

    def uuid(self, name: str = "uuid") -> Awaitable[str]:
        return Asked(name, lambda visit: ValueAsked(name, visit, "uuid"))

    def random(self, name: str = "random") -> Awaitable[float]:
        """A number in [0, 1), recorded."""
        return Asked(name, lambda visit: ValueAsked(name, visit, "random"))

    def gather(self, *branches: Awaitable[Any]) -> Awaitable[list[Any]]:
        """Runs branches side by side (operations or coroutines of this saga) and answers their results in order, once
        all are settled.
        """
        return Gathered(branches)

    def fail(self, code: str, message: str = "") -> SagaFailed:
        """`raise run.fail("rejected")` ends the run as failed and unwinds what it did."""
        return SagaFailed(code, message)

    def continue_as(self, data: Mapping[str, Any]) -> SagaContinues:
        """`raise run.continue_as(data)` ends this run and starts the newest version of its workflow with `data`: for
        loops without an end, whose history would grow without one. What this run did stands for good: nothing undoes it
        when a later one fails. Whoever waits for this run waits for the last one.
        """
        return SagaContinues(data)

    def _spec(self, action: str | Perform) -> ActionSpec:
        if isinstance(action, str):
            spec = self._actions.get(action)
            if spec is None:
                raise SagaMistake(f"no installed module or connector brings the action {action!r}")
            return spec
        return function_action(action)


def _canonical(name: str, action: str, arguments: Mapping[str, Any]) -> tuple[Any, str]:
    """What the step is given, as JSON has it, and its hash."""
    try:
        canonical = orjson.dumps(arguments, option=CANONICAL)
    except orjson.JSONEncodeError as error:
        raise SagaMistake(f"step {name!r}: the arguments of {action} must be JSON ({error})") from None
    if len(canonical) > MAX_PASSED_BYTES:
        raise SagaMistake(f"step {name!r}: the arguments are {len(canonical)} bytes; pass at most {MAX_PASSED_BYTES}")
    return orjson.loads(canonical), hashlib.blake2b(canonical, digest_size=12).hexdigest()


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
        _BY_NAME[spec.name] = spec
    return spec


_FUNCTIONS: dict[FunctionType, ActionSpec] = {}
_BY_NAME: dict[str, ActionSpec] = {}


def function_named(name: str) -> ActionSpec | None:
    """The local action `module:function` of a module that is loaded; None when there is no such function any more."""
    known = _BY_NAME.get(name)
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
    """JSON pointers to personal values in the trigger's data, where no contract marks them: webhooks, manual starts."""
    permission: str | None = None
    """What a person needs, beside runs.start, to start it by hand; None: nothing more. Events start it anyway."""


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
    permission: str | None = None,
) -> Callable[[SagaFunction], Saga]:
    """Declares an `async def (run, data)` as one version of the saga `name`; several may be installed side by side."""
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
            permission=permission,
        )

    return declare
