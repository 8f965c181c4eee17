"""Interrupts a saga's coroutine that does not yield: one alarm per turn of decisions, raised in the main thread, and
only inside a decision, as something no saga catches by accident.

Outside the main thread it does nothing; the assembly's watchdog then ends the process instead. A turn takes a few
milliseconds, so an alarm set at its start finds the culprit within its second. One alarm proves nothing: on a machine
without a free core, or one that stood still, a second passes in which the saga has not computed. It is interrupted when
it then goes on computing, or does nothing while alarm after alarm finds it in the same place.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Final

from engine.plan import Plan
from engine.run.decide import Decision, decide
from engine.run.inputs import Input
from engine.run.state import RunState

DECIDE_SECONDS: Final = 1.0
"""How long a saga's coroutine may run without yielding."""

AGAIN_SECONDS: Final = 0.05
"""The alarm comes again this soon: it may have fallen between two decisions, or proves too little."""

PROOF_SECONDS: Final = 0.2
"""CPU time after its first alarm that shows that a decision computes on; half of what it may take, where that is less.
"""

BLOCKED_ALARMS: Final = 10
"""So many alarms more in the same decision show that it is blocked: with each of them it had a core to compute on."""


class SagaStuck(BaseException):
    """The coroutine ran longer than it may without yielding. Not an `Exception`, so that a saga's `except Exception`
    does not swallow it.
    """


class Interrupter:
    """`begin` and `end` frame a turn of decisions, `with interrupter:` frames each decision in it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._proof = min(PROOF_SECONDS, seconds / 2)
        self._deciding = False
        self._installed = False
        self._decision = 0
        self._suspect = 0
        self._alarms = 0
        self._computed = 0.0

    def install(self) -> bool:
        """Takes SIGALRM for this process. False outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return False
        signal.signal(signal.SIGALRM, self._alarm)
        self._installed = True
        return True

    def begin(self) -> None:
        if self._installed:
            signal.setitimer(signal.ITIMER_REAL, self._seconds, AGAIN_SECONDS)

    def end(self) -> None:
        if self._installed:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def __enter__(self) -> None:
        self._decision += 1
        self._deciding = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deciding = False

    def ask(
        self, state: RunState, given: Input, plan: Plan, *, hold: bool = False, stuck: str | None = None
    ) -> Decision:
        """`decide`, within a turn, with the saga's coroutine interrupted if it does not yield within its second."""
        try:
            with self:
                return decide(state, given, plan, hold=hold, stuck=stuck)
        except SagaStuck as still:
            # What happened is recorded all the same; only the saga is not asked what follows from it.
            plan.forget(state)
            return decide(state, given, plan, hold=hold, stuck=str(still))

    def _alarm(self, signum: int, frame: FrameType | None) -> None:
        if not self._deciding:
            return
        if self._suspect != self._decision:
            self._suspect, self._alarms, self._computed = self._decision, 0, time.thread_time()
            return
        self._alarms += 1
        if self._alarms < BLOCKED_ALARMS and time.thread_time() - self._computed < self._proof:
            return
        self._deciding = False
        where = (
            f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}"
            if frame is not None
            else "an unknown line"
        )
        raise SagaStuck(f"the saga did not yield in time; it was at {where}")
