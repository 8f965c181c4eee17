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


Key = tuple[str, str, int]
"""(what, where, the how-manieth time that it could have happened there): a fault by what it is."""

Odds = Sequence[tuple[str, float]]
"""Faults of which one may happen, each with the sum of the probabilities up to and with its own."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Fault `number` of the world: what happened, where, at which virtual second."""

    number: int
    name: str
    where: str
    time: int
    at: float

    @property
    def key(self) -> Key:
        return (self.name, self.where, self.time)

    def __str__(self) -> str:
        return f"{self.number}: {self.name} at {self.where}, second {self.at:.3f}"


class Chance:
    """With `only`, these faults happen and no others, whatever is drawn. `calm` ends all faults: it heals. Faults are
    drawn apart from all else, so that a world with the same faults is the same world.
    """

    def __init__(self, seed: int | str, *, only: Collection[Key] | None = None) -> None:
        self.seed = seed
        self.faults: list[Fault] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self.calm = False
        self._only = None if only is None else frozenset(only)
        self._random = random.Random(seed)
        self._dice = self._random.random
        self._drawn = random.Random(f"{seed} faults").random
        self._times: dict[tuple[str, str], int] = {}
        self._crossed: dict[str, int] = {}

    def happens(self, fault: str, where: str, probability: float, at: float) -> bool:
        """Whether this fault happens here and now."""
        if self.calm:
            return False
        place = (fault, where)
        time = self._times[place] = self._times.get(place, 0) + 1
        if (self._drawn() >= probability) if self._only is None else ((fault, where, time) not in self._only):
            return False
        self._happened(fault, where, time, at)
        return True

    def one_of(self, odds: Odds, where: str, at: float) -> str | None:
        """Which of these faults happens here and now, if any does: at most one, by one draw."""
        if self.calm:
            return None
        time = self._crossed[where] = self._crossed.get(where, 0) + 1
        if self._only is None:
            drawn = self._drawn()
            if drawn >= odds[-1][1]:
                return None
            fault = next(name for name, below in odds if drawn < below)
        else:
            known = next((name for name, _ in odds if (name, where, time) in self._only), None)
            if known is None:
                return None
            fault = known
        self._happened(fault, where, time, at)
        return fault

    def _happened(self, fault: str, where: str, time: int, at: float) -> None:
        self.faults.append(Fault(len(self.faults) + 1, fault, where, time, at))
        self.counts[fault, where] += 1

    def below(self, probability: float) -> bool:
        """A draw that is no fault: which way a world goes."""
        return self._dice() < probability

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._random.random()

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]

    def number(self, low: int, high: int) -> int:
        """Both ends are possible."""
        return low + int(self._random.random() * (high - low + 1))

    def shuffle(self, items: list[T]) -> None:
        dice = self._dice
        for place in range(len(items) - 1, 0, -1):
            other = int(dice() * (place + 1))
            items[place], items[other] = items[other], items[place]

    def identifier(self) -> int:
        """128 bits that depend on the seed alone."""
        return self._random.getrandbits(128)
