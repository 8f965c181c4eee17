"""How a world is: sizes, and how likely each fault is where a port is crossed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from scripts.simulation.chance import Odds

KILLED: Final = "killed"
FROZEN: Final = "frozen"
BROKEN: Final = "connection lost"
REFUSED: Final = "refused"
LOST: Final = "answer lost"

AT_REST: Final = frozenset(
    {
        "add_key", "bus.consume", "bus.declare", "bus.start", "checkpoint", "claim_inputs", "claim_outbox",
        "claim_runs", "declare_dead", "due_timers", "forget_past_people", "head", "heartbeat", "keys", "lane_of",
        "lanes", "module.open", "prune_journal", "queued_runs", "read_log", "register", "root_ids",
        "runs_without_wake", "setting", "slots_held",
    }
)  # fmt: skip
"""Ports that a process crosses as it begins, and again and again with nothing to do."""


def at_rest(place: str) -> bool:
    return place.partition(":")[0] in AT_REST


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """`kill` and what follows it are probabilities at each crossing of a port."""

    engines: int = 2
    fault_seconds: float = 16.0
    kills: int = 25
    """It heals when so many processes were killed, or `fault_seconds` are over, or nothing is left to be done."""
    heal_seconds: float = 180.0
    kill: float = 0.25
    refuse: float = 0.01
    lose: float = 0.01
    slow: float = 0.05
    freeze: float = 0.008
    duplicate: float = 0.08
    reorder: float = 0.1
    lost_confirm: float = 0.04
    lost_message: float = 0.03
    skew_seconds: float = 2.0

    rest: float = 0.22
    down_seconds: float = 0.6
    """So much less likely is a kill at what is crossed without work: a world is to break off work."""

    def odds(self, place: str) -> Odds:
        """Of the faults at this place, such as `append:before`."""
        call = (REFUSED, self.refuse) if place.endswith(":before") else (LOST, self.lose)
        kill = self.kill * (self.rest if at_rest(place) else 1)
        each = ((KILLED, kill), (BROKEN, kill / 8), (FROZEN, self.freeze), call)
        return tuple(zip((name for name, _ in each), accumulate(odds for _, odds in each), strict=True))
