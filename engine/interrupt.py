"""Interrupts a saga's coroutine that does not yield: an alarm around the call, raised in the main thread as something
no saga catches by accident.

Outside the main thread (and where the platform has no interval timers) it does nothing; the assembly's watchdog then
ends the process instead.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_armed = False
_installed = False


class SagaStuck(BaseException):
    """The coroutine ran longer than it may without yielding. Not an `Exception`, so that a saga's `except Exception`
    does not swallow it.
    """


def _alarm(signum: int, frame: FrameType | None) -> None:
    if _armed:
        where = (
            f"{frame.f_code.co_filename.rsplit('/', 1)[-1]}:{frame.f_lineno}"
            if frame is not None
            else "an unknown line"
        )
        raise SagaStuck(f"the saga did not yield in time; it was at {where}")


def install() -> bool:
    """Takes SIGALRM for this process. False outside the main thread."""
    global _installed
    if threading.current_thread() is not threading.main_thread():
        return False
    signal.signal(signal.SIGALRM, _alarm)
    _installed = True
    return True


@contextmanager
def interrupting(seconds: float) -> Iterator[None]:
    """Raises `SagaStuck` inside the block when it takes longer than `seconds`."""
    global _armed
    if not _installed or threading.current_thread() is not threading.main_thread():
        yield
        return
    _armed = True
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        _armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
