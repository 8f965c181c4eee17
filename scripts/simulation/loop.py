"""An event loop whose time is virtual: it jumps to the next timer instead of waiting, runs what is ready in an order of
the seed's own, and says so when nothing is left that could ever happen.

Tasks belong to the simulated process in whose context they were begun (`BELONGS_TO`), so that a kill can drop them all.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, Protocol

from scripts.simulation.chance import Chance


class Owner(Protocol):
    """A simulated process: `tasks` are those begun in it, in order."""

    tasks: dict[asyncio.Task[Any], None]


BELONGS_TO: ContextVar[Owner | None] = ContextVar("BELONGS_TO", default=None)


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set: whatever is awaited can never come."""


class _Selector(selectors.BaseSelector):
    """Waits for nothing but time, and lets it pass at once. The loop's own wake-up pipe is registered and forgotten."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
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
        if timeout is None:
            raise Deadlock("no callback is ready and no timer is set")
        self._loop.pass_time(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time starts at 0. `chance` decides in which order ready callbacks run; None leaves them in theirs."""

    def __init__(self, chance: Chance | None = None) -> None:
        self._virtual = 0.0
        self._chance = chance
        super().__init__(_Selector(self))
        self.set_task_factory(_factory)  # type: ignore[arg-type]  # typeshed wants one overload of a task's arguments

    def time(self) -> float:
        return self._virtual

    def pass_time(self, seconds: float) -> None:
        if seconds > 0:
            self._virtual += seconds
            return
        ready: Any = self._ready  # type: ignore[attr-defined]
        if self._chance is not None and len(ready) > 1:
            callbacks = list(ready)
            self._chance.shuffle(callbacks)
            ready.clear()
            ready.extend(callbacks)


def _factory(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **more: Any) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **more)
    owner = BELONGS_TO.get()
    if owner is not None:
        owner.tasks[task] = None
        task.add_done_callback(lambda done: owner.tasks.pop(done, None))
    return task
