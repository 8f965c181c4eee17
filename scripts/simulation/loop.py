"""An event loop whose time is virtual: it jumps to the next timer instead of waiting, runs what is ready in an order of
the seed's own, and says so when nothing is left that could ever happen.

Tasks belong to the simulated process in whose context they were begun (`BELONGS_TO`), so that a kill can drop them all.
"""

from __future__ import annotations

import asyncio
import heapq
import types
from collections import deque
from collections.abc import Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, Protocol

from scripts.simulation.chance import Chance


class Owner(Protocol):
    """A simulated process: `tasks` are those begun in it, in order."""

    tasks: dict[asyncio.Task[Any], None]

    def forget(self, task: asyncio.Task[Any]) -> None:
        """This one of `tasks` has ended."""


BELONGS_TO: ContextVar[Owner | None] = ContextVar("BELONGS_TO", default=None)


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set: whatever is awaited can never come."""


class _Handle(asyncio.Handle):
    """Without what a loop in debug mode remembers of it: a world makes thousands."""

    __slots__ = ()

    _loop: VirtualLoop
    _context: Context

    def __init__(self, callback: Any, args: Any, context: Context | None) -> None:
        self._callback, self._args, self._cancelled = callback, args, False
        self._context = copy_context() if context is None else context

    def cancel(self) -> None:
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._callback!r}>"


class _Timer(_Handle, asyncio.TimerHandle):
    __slots__ = ()

    def when(self) -> float:
        return self._when  # type: ignore[attr-defined, no-any-return]


class _Due(float):
    """When a timer is due: of all comparisons with others, those of floats cost least."""

    __slots__ = ("timer",)

    timer: _Timer


class VirtualLoop(asyncio.BaseEventLoop):
    """Time starts at 0, and nothing comes from outside. `chance` decides in which order ready callbacks run; None
    leaves them in theirs. `tasks` are those that belong to no process.
    """

    _ready: deque[_Handle]
    _scheduled: list[_Due]
    _stopping: bool

    def __init__(self, chance: Chance | None = None) -> None:
        self.now = 0.0
        self._chance = chance
        self.tasks: dict[asyncio.Task[Any], None] = {}
        super().__init__()

    get_debug = staticmethod(bool)  # never; each future asks, and this answers fastest

    def time(self) -> float:
        return self.now

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

    def forget(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    def create_task(  # type: ignore[override]  # typeshed ties the task to what its coroutine returns
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        owner = BELONGS_TO.get() or self
        owner.tasks[task] = None
        task.add_done_callback(owner.forget)
        return task

    def call_soon(  # type: ignore[override]  # typeshed ties the arguments to the callback's
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer, due = _Timer(callback, args, context), _Due(when)
        timer._when, due.timer = when, timer  # type: ignore[attr-defined]
        heapq.heappush(self._scheduled, due)
        return timer

    def _run_once(self) -> None:
        """All turns until it is to stop, each as the base class takes it, but that time passes at once and that the
        order is drawn.
        """
        ready, scheduled = self._ready, self._scheduled
        while True:
            while scheduled and scheduled[0].timer._cancelled:
                heapq.heappop(scheduled)
            if not ready:
                if scheduled:
                    self.now = max(self.now, float(scheduled[0]))
                elif not self._stopping:
                    raise Deadlock("no callback is ready and no timer is set")
            while scheduled and scheduled[0] <= self.now:
                ready.append(heapq.heappop(scheduled).timer)
            if len(ready) > 1 and self._chance is not None:
                turn = list(ready)
                ready.clear()
                self._chance.shuffle(turn)
            else:
                turn = [ready.popleft()] if ready else []
            for handle in turn:
                if not handle._cancelled:
                    try:
                        handle._context.run(handle._callback, *handle._args)
                    except (SystemExit, KeyboardInterrupt):
                        raise
                    except BaseException as error:
                        self.call_exception_handler({"message": f"error in {handle}", "exception": error})
            if self._stopping:
                return


@types.coroutine
def turn() -> Generator[None, None, None]:
    """Lets all others who are ready go first, as `asyncio.sleep(0)` does."""
    yield
