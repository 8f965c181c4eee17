"""The long-lived parts of a process: begun in an order, stopped in the reverse of it, asked meanwhile whether one died.

Not a supervisor: nothing is begun again. What a dead part means is the assembly's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable


class Part(Protocol):
    """Everything long-lived has the same life."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@runtime_checkable
class Mortal(Protocol):
    """What should run for ever, and can say which error ended it."""

    def failed(self) -> BaseException | None: ...


class Parts:
    """What has been begun, in order."""

    def __init__(self) -> None:
        self._begun: list[Part] = []
        self._failing: list[Callable[[], BaseException | None]] = []

    async def begin(self, *parts: Part, stopped_last: bool = False) -> None:
        """Starts them, one after the other; those that can die are watched from then on. `stopped_last`: after all that
        was begun before. One that cannot start keeps those before it, so that they are stopped.
        """
        for part in parts:
            await part.start()
            if isinstance(part, Mortal):
                self.watch(part)
            self._begun.insert(0 if stopped_last else len(self._begun), part)

    def keep(self, part: Part) -> None:
        """One that starts by itself, when it is first used, or has been started: stopped like the others."""
        self._begun.append(part)

    def watch(self, *parts: Mortal) -> None:
        """Those that somebody else starts and stops."""
        self._failing += [part.failed for part in parts]

    def failure(self) -> BaseException | None:
        """The error that ended a part which should run for ever, if one has."""
        return next((error for failed in self._failing if (error := failed()) is not None), None)

    async def stop(self) -> None:
        """The last begun first."""
        for part in reversed(self._begun):
            await part.stop()
