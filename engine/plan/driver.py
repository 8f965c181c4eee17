"""A saga's coroutine driven by hand: each request it yields is noted under its name and visit, each recorded result is
fed to whoever awaits it.

It has no event loop and performs nothing; it is as deterministic as the saga is. `engine.plan.replay` keeps one driver
per live run and feeds it in the order in which the log has the completions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import Any

from engine.plan import Operation
from engine.plan.code import Asked, Gathered, SagaMistake, StepFailed
from engine.run.limits import Breach
from engine.run.state import Completion, Key


class Driver:
    """One live coroutine and how far it has been fed. `breaches` are the quotas that it has met since it was fed last,
    or since it began.
    """

    __slots__ = ("asked", "breaches", "error", "fed", "finished", "fresh", "output", "pending", "visits")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], breaches: list[Breach]) -> None:
        self.breaches = breaches
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
        self.breaches.clear()
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
                if isinstance(request, Asked):
                    self._ask(branch, request)
                    return
                if not isinstance(request, Gathered):
                    value = None
                    error = SagaMistake(f"a saga can only await its run's operations, not {type(request).__name__}")
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

    def _ask(self, branch: _Branch, request: Asked) -> None:
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
