"""Worlds of a user's own sagas, for the pytest plug-in (`unwind_saga.pytest_plugin`): plays the seeds, and tells the
first that breaks a law with the fewest faults that still break it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from engine.plan.code import Saga
from scripts.simulation.chance import Chance
from scripts.simulation.play import Ended, EndedRun, MakeService, Play, Sent
from scripts.simulation.report import shrink
from scripts.simulation.weather import Weather
from scripts.simulation.world import Told, quiet, run_seed

__all__ = ["Chance", "Ended", "EndedRun", "LawBroken", "Played", "Sent", "Weather", "Worlds"]


class LawBroken(AssertionError):
    """A seed breaks a law; the text says which, with which faults, and how to play it again."""


@dataclass(frozen=True, slots=True)
class Played:
    """What the worlds came to, in sum."""

    seeds: int
    runs: int
    kills: int
    faults: int


class Worlds:
    """The fixture `unwind_worlds`. `seeds` are the ones to play; with `only` one seed is played again and its faults
    are told, whether a law holds or not. `name` is how the test is asked for again.
    """

    def __init__(self, seeds: int, only: int | None = None, name: str = "", say: Callable[[str], None] = print) -> None:
        self._seeds, self._only, self._name, self._say = seeds, only, name, say

    def __call__(
        self,
        *,
        sagas: Sequence[Saga],
        services: Sequence[MakeService],
        events: Callable[[Chance], Iterable[Sent]],
        check: Callable[[Ended], object] | None = None,
        begin: Callable[[], object] = lambda: None,
        weather: Weather | None = None,
        seeds: int | None = None,
    ) -> Played:
        """Plays the sagas in as many worlds as there are seeds.

        `services` make the modules that carry out their commands, each on the bus and the database it is given.
        `events` answers what is sent in a world, drawing from its chance alone. `begin` is called before each world;
        `check` at its end, and raises AssertionError for what must not be. `weather` says how bad the faults are and
        how long a world may take to end (180 virtual seconds), `seeds` how many worlds are played in place of
        `--unwind-seeds`. Raises `LawBroken` for the first seed that breaks a law, RuntimeError inside of a running
        event loop, since each world has a loop of its own.
        """
        _outside_of_a_loop()
        play = Play(tuple(sagas), tuple(services), events, begin, check)
        chosen = range(seeds or self._seeds) if self._only is None else [self._only]
        total = Played(0, 0, 0, 0)
        with quiet():
            for seed in chosen:
                told = run_seed(seed, weather, play)
                if told.violation is not None or seed == chosen[0]:
                    self._same_again(told, run_seed(seed, weather, play))
                if told.violation is not None:
                    raise LawBroken(self._sentence(told, shrink(seed, weather, play)[0]))
                total = Played(
                    total.seeds + 1, total.runs + told.runs, total.kills + told.kills, total.faults + len(told.faults)
                )
                if self._only is not None:
                    self._say("\n".join(map(str, told.faults)))
        self._say(
            f"{total.seeds} worlds, {total.runs} runs, {total.faults} faults, {total.kills} kills: every law held"
        )
        return total

    def _same_again(self, told: Told, again: Told) -> None:
        if again.trace != told.trace:
            told.violation = (
                "the same seed was another world the second time: a saga or a handler goes by a clock, by dice, by the "
                "order of a set, or by what an earlier world left behind (see `begin`)"
            )
            raise LawBroken(self._sentence(told))

    def _sentence(self, told: Told, fewest: Told | None = None) -> str:
        lines = [f"seed {told.seed}: {told.violation}"]
        if fewest is not None:
            said = "" if fewest.violation == told.violation else f": {fewest.violation}"
            lines.append(f"{len(fewest.faults)} of its {len(told.faults)} faults still break a law{said}")
            lines += [f"  {fault}" for fault in fewest.faults]
        return "\n".join([*lines, f"play it again: pytest {self._name} --unwind-seed {told.seed}".replace("  ", " ")])


def _outside_of_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "unwind_worlds plays on loops of its own; call it from a plain test function (def, not async def)"
    )
