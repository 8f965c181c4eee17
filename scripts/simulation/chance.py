"""Seeded chance: every draw of a world comes from here, and every fault that was drawn has a number, so that a failing
seed can be told, played again, and played with some of its faults left out.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """Fault `number` of the world, as it was drawn: what happened, where, and at which virtual second."""

    number: int
    name: str
    where: str
    at: float

    def __str__(self) -> str:
        return f"{self.number}: {self.name} at {self.where}, second {self.at:.3f}"


class Chance:
    """`without` names faults by number that are drawn and then do not happen. `calm` ends all faults: it heals."""

    def __init__(self, seed: int, *, without: Collection[int] = ()) -> None:
        self.seed = seed
        self.faults: list[Fault] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self.calm = False
        self._without = frozenset(without)
        self._random = random.Random(seed)
        self._number = 0

    def happens(self, fault: str, where: str, probability: float, at: float) -> bool:
        """Whether this fault happens here and now."""
        if self.calm or self._random.random() >= probability:
            return False
        self._number += 1
        if self._number in self._without:
            return False
        self.faults.append(Fault(self._number, fault, where, at))
        self.counts[fault, where] += 1
        return True

    def below(self, probability: float) -> bool:
        """A draw that is no fault: which way a world goes."""
        return self._random.random() < probability

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._random.random()

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]

    def number(self, low: int, high: int) -> int:
        """Both ends are possible."""
        return low + int(self._random.random() * (high - low + 1))

    def shuffle(self, items: list[T]) -> None:
        for place in range(len(items) - 1, 0, -1):
            other = int(self._random.random() * (place + 1))
            items[place], items[other] = items[other], items[place]

    def identifier(self) -> int:
        """128 bits that depend on the seed alone."""
        return self._random.getrandbits(128)
