"""What a module did, counted by result, for whoever shows it: a test, a log, a metrics page.

handled     a delivery was settled well        resent       a command was answered from memory
dead        a delivery became a dead letter    tombstoned   a command was refused, its undo had come first
unroutable  a message reached no queue         sent         a message was confirmed
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Literal

Result = Literal["handled", "dead", "resent", "tombstoned", "sent", "unroutable"]


class Tally:
    def __init__(self) -> None:
        self.heard_by: Callable[[Result], None] | None = None
        self._counts: Counter[Result] = Counter()

    def __getitem__(self, result: Result) -> int:
        return self._counts[result]

    def add(self, result: Result) -> None:
        self._counts[result] += 1
        if self.heard_by is not None:
            self.heard_by(result)
