"""An event loop whose time is virtual: it jumps to the next timer instead of waiting, runs what is ready in an order of
the seed's own, and says so when nothing is left that could ever happen.

Tasks belong to the simulated process in whose context they were begun (`BELONGS_TO`), so that a kill can drop them all.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
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


class _Selector(selectors.BaseSelector):
    """Hears of nothing, since nothing comes from outside. The loop's own wake-up pipe is registered and forgotten."""

    def __init__(self) -> None:
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Any:
        return self._keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[fileobj]

    def close(self) -> None:
        self._keys.clear()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []


class _Handle(asyncio.Handle):
    """Without what a loop in debug mode remembers of it: a world makes thousands."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., object], args: Sequence[Any], loop: VirtualLoop, context: Context | None
    ) -> None:
        _fill(self, callback, args, loop, context)


class _Timer(asyncio.TimerHandle):
    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: Sequence[Any],
        loop: VirtualLoop,
        context: Context | None,
    ) -> None:
        _fill(self, callback, args, loop, context)
        self._when, self._scheduled = when, True


def _fill(
    handle: Any, callback: Callable[..., object], args: Sequence[Any], loop: VirtualLoop, context: Context | None
) -> None:
    handle._context = copy_context() if context is None else context
    handle._loop, handle._callback, handle._args = loop, callback, args
    handle._cancelled, handle._repr, handle._source_traceback = False, None, None


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time starts at 0. `chance` decides in which order ready callbacks run; None leaves them in theirs. `tasks` are
    those that belong to no process.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, chance: Chance | None = None) -> None:
        self.now = 0.0
        self._chance = chance
        self.tasks: dict[asyncio.Task[Any], None] = {}
        super().__init__(_Selector())
        self.set_task_factory(_factory)  # type: ignore[arg-type]  # typeshed wants one overload of a task's arguments

    def time(self) -> float:
        return self.now

    def forget(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    def call_soon(  # type: ignore[override]  # typeshed ties the arguments to the callback's
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        return timer

    def _run_once(self) -> None:
        """One turn, as the base class takes it, but that time passes at once and that the order is drawn."""
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0]._cancelled:
            _unscheduled(scheduled)
        if not ready:
            if scheduled:
                self.now = max(self.now, scheduled[0].when())
            elif not self._stopping:  # type: ignore[attr-defined]
                raise Deadlock("no callback is ready and no timer is set")
        while scheduled and scheduled[0].when() <= self.now:
            ready.append(_unscheduled(scheduled))
        if len(ready) > 1 and self._chance is not None:
            turn = list(ready)
            ready.clear()
            self._chance.shuffle(turn)
        else:
            turn = [ready.popleft()] if ready else []
        for handle in turn:
            if not handle._cancelled:
                handle._run()


def _unscheduled(scheduled: list[asyncio.TimerHandle]) -> asyncio.TimerHandle:
    handle = heapq.heappop(scheduled)
    handle._scheduled = False  # type: ignore[attr-defined]
    return handle


@types.coroutine
def turn() -> Generator[None, None, None]:
    """Lets all others who are ready go first, as `asyncio.sleep(0)` does."""
    yield


def _factory(loop: VirtualLoop, work: Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **more)
    owner = BELONGS_TO.get() or loop
    owner.tasks[task] = None
    task.add_done_callback(owner.forget)
    return task
