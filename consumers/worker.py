"""Carries out local attempts of the runs this process owns, and hands their outcome back through the one door.

The intent is in the log before this is called. Plain functions run at once; async ones as tasks with the attempt's own
time limit, in pools per action so that many slow calls of one kind do not stop the others.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections import defaultdict
from collections.abc import Awaitable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

import orjson

from consumers.asking import Asking
from contracts.calls import PROGRESS_BYTES, ActionCall, ActionFailed, ActionSpec, Costed, waits
from contracts.problems import Unavailable
from engine.answers import Result
from engine.attempts import call_for
from engine.clock import Clock
from engine.coordinator import Coordinator
from engine.guards.permission_sets import PermissionSets
from engine.logs import logger
from engine.metrics import Metrics
from engine.plan import Plan
from engine.run.inputs import FateLearned, StepDone, StepLost, StepMoved
from engine.run.react import Perform
from engine.run.state import RunState, Step
from engine.store import Appended
from engine.tracing import RunTracing

ACTIONS_IN_FLIGHT: Final = 100
"""Attempts of one action under way at once, per process."""
STACK_LINES: Final = 12


class _Over(asyncio.CancelledError):
    """The attempt is no longer the one under way: nobody waits for its outcome."""


class Worker:
    """`perform` is the coordinator's way in. `stop` cancels what is under way: its intent stays recorded, and whoever
    owns the run next tries again.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        clock: Clock,
        metrics: Metrics,
        asking: Asking | None = None,
        *,
        actions_in_flight: int = ACTIONS_IN_FLIGHT,
        tracing: RunTracing | None = None,
        permission_sets: PermissionSets | None = None,
    ) -> None:
        self._asking = asking or Asking()
        self._door = coordinator
        self._clock = clock
        self._metrics = metrics
        self._log = logger("worker")
        self._tracing = tracing
        self._sets = permission_sets
        self._tasks: set[asyncio.Task[None]] = set()
        self._pools: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(actions_in_flight))

    async def start(self) -> None:
        """Nothing to begin: it is called."""

    def perform(self, state: RunState, plan: Plan, attempt: Perform) -> None:
        """Makes one attempt; its outcome is submitted, never raised."""
        step = state.step(attempt.step, attempt.visit)
        assert step is not None
        name = (step.undo or "") if attempt.undo else step.action
        spec = plan.action(name)
        if attempt.ask:
            self._begin(self._ask(state, attempt, spec, self._call(state, step, attempt, name)))
            return
        if spec is None or spec.perform is None:
            self._lost(
                state, attempt, "action_missing", f"no installed connector brings the action {name!r}", retryable=False
            )
            return
        if not attempt.undo and spec.permission is not None and not self._permitted(state, plan, attempt, spec):
            return
        call = self._call(state, step, attempt, name)
        if not attempt.undo:
            call = replace(call, keep=partial(self._keep, state, attempt, self._door.epoch))
        try:
            result = spec.perform(call)
        except Exception as error:
            self._raised(state, attempt, error)
            return
        if inspect.isawaitable(result):
            self._begin(self._await(state, attempt, spec, result, _limit(step, spec, attempt)))
        else:
            self._succeeded(state, attempt, result)

    def _permitted(self, state: RunState, plan: Plan, attempt: Perform, spec: ActionSpec) -> bool:
        """Whether the attempt may be made now. If not it is refused, for good; or it is made once the permissions that
        the run was triggered with have been read.
        """
        captured = (state.trigger or {}).get("permissions")
        if captured is None:
            return True
        held = frozenset[str]() if self._sets is None else self._sets.known(captured)
        if held is None:
            self._begin(self._once_read(state, plan, attempt, captured))
            return False
        if spec.permission not in held:
            detail = f"whoever triggered this run lacked the permission {spec.permission}, which {spec.name} asks for"
            self._lost(state, attempt, "forbidden", detail, retryable=False)
            return False
        return True

    async def _once_read(self, state: RunState, plan: Plan, attempt: Perform, captured: str) -> None:
        assert self._sets is not None
        try:
            await self._sets.of(captured)
        except Unavailable as problem:
            self._lost(state, attempt, problem.code, "the run's permissions could not be read")
        else:
            self.perform(state, plan, attempt)

    def _call(self, state: RunState, step: Step, attempt: Perform, name: str) -> ActionCall:
        call = call_for(state, step, attempt, name)
        if self._tracing is None:
            return call
        span = self._tracing.attempt(state, attempt.step, attempt.visit, attempt.attempt, undo=attempt.undo)
        return replace(call, traceparent=span.traceparent)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, state: RunState, attempt: Perform, spec: ActionSpec | None, call: ActionCall) -> None:
        closing = state.cause is not None
        async with self._pools[f"what became of {call.action}"]:
            fate = await self._asking.fate(spec, call, closing=closing)
        given = FateLearned(
            at=self._clock.now(),
            step=attempt.step,
            visit=attempt.visit,
            attempt=attempt.attempt,
            happened=None if isinstance(fate, str) else fate.happened,
            closing=closing,
            output=None if isinstance(fate, str) else fate.receipt,
            detail=fate if isinstance(fate, str) else "",
        )
        self._door.submit(state.tenant, state.run_id, given)
        self._door.performed(state.run_id)

    async def _await(
        self, state: RunState, attempt: Perform, spec: ActionSpec, result: Awaitable[Any], limit_seconds: float
    ) -> None:
        try:
            async with self._pools[spec.name], asyncio.timeout(limit_seconds or None):
                output = await result
        except _Over:
            return
        except TimeoutError:
            self._lost(state, attempt, "timeout", f"no outcome within {limit_seconds:g} s", ambiguous=True)
        except Exception as error:
            self._raised(state, attempt, error)
        else:
            self._succeeded(state, attempt, output)

    async def _keep(self, state: RunState, attempt: Perform, epoch: int, progress: Any) -> None:
        """Returns when the progress is in the log. Only the process that began the attempt may move it on: when it was
        declared dead meanwhile, or the attempt is over, the attempt ends here and says nothing.
        """
        try:
            content = orjson.dumps(progress)
        except orjson.JSONEncodeError as error:
            raise ActionFailed("progress_invalid", f"progress must be JSON ({error})", retryable=False) from None
        if len(content) > PROGRESS_BYTES:
            detail = f"progress of {len(content)} bytes; at most {PROGRESS_BYTES} are kept"
            raise ActionFailed("progress_too_large", detail, retryable=False)
        heard: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def hear(result: Result) -> None:
            if not heard.done():
                heard.set_result(result)

        if self._door.epoch != epoch:
            raise _Over
        given = StepMoved(
            at=self._clock.now(),
            step=attempt.step,
            visit=attempt.visit,
            attempt=attempt.attempt,
            progress=orjson.loads(content),
        )
        self._door.submit(state.tenant, state.run_id, given, hear)
        if isinstance(await heard, Appended):
            return
        if self._door.epoch == epoch:
            self._door.performed(state.run_id)
        raise _Over

    def _succeeded(self, state: RunState, attempt: Perform, output: Any) -> None:
        cost = 0.0
        if type(output) is Costed:
            output, cost = output.output, output.cost
        try:
            content = None if output is None else orjson.loads(orjson.dumps(output))
        except orjson.JSONEncodeError as error:
            self._lost(
                state,
                attempt,
                "output_invalid",
                f"the action's result must be JSON ({error})",
                retryable=False,
                ambiguous=True,
            )
            return
        given = StepDone(
            at=self._clock.now(),
            step=attempt.step,
            visit=attempt.visit,
            attempt=attempt.attempt,
            output=content,
            cost=cost,
            undo=attempt.undo,
        )
        self._door.submit(state.tenant, state.run_id, given)
        self._door.performed(state.run_id)

    def _raised(self, state: RunState, attempt: Perform, error: Exception) -> None:
        if isinstance(error, ActionFailed):
            self._lost(
                state,
                attempt,
                error.code,
                error.message,
                retryable=error.retryable,
                ambiguous=error.ambiguous,
                irrecoverable=error.irrecoverable,
                more=waits(error.retry_after_seconds, error.put_off_seconds),
            )
            return
        # The type and place only: an exception's text may hold what was being worked on.
        stack = [line.strip() for line in traceback.format_tb(error.__traceback__)[-STACK_LINES:]]
        self._log.warning(
            "action_raised",
            tenant_id=state.tenant,
            run_id=state.run_id,
            correlation_id=state.correlation_id,
            step_id=attempt.step,
            attempt=attempt.attempt,
            error=type(error).__name__,
            frames=stack,
        )
        self._lost(state, attempt, "raised", type(error).__name__, ambiguous=True, stack=stack)

    def _lost(
        self,
        state: RunState,
        attempt: Perform,
        code: str,
        message: str,
        *,
        retryable: bool = True,
        ambiguous: bool = False,
        irrecoverable: bool = False,
        stack: list[str] | None = None,
        more: Mapping[str, float] | None = None,
    ) -> None:
        error: dict[str, Any] = {"code": code, "message": message, **(more or {})}
        if stack:
            error["stack"] = stack
        given = StepLost(
            at=self._clock.now(),
            step=attempt.step,
            visit=attempt.visit,
            attempt=attempt.attempt,
            error=error,
            retryable=retryable,
            ambiguous=ambiguous,
            irrecoverable=irrecoverable,
            undo=attempt.undo,
        )
        self._door.submit(state.tenant, state.run_id, given)
        self._door.performed(state.run_id)

    async def stop(self) -> None:
        """Cancels what is under way. Twice is fine."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _limit(step: Step, spec: ActionSpec, attempt: Perform) -> float:
    return spec.timeout_seconds if attempt.undo else step.timeout_seconds
