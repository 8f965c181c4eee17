"""The figures of `unwind bench` as data: what each compares, which value is asked for at least and which is the goal.
Nothing is measured here."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One ratio. `better` says which way is good; `beside` names measured values that are reported with it."""

    name: str
    question: str
    better: Literal["more", "less"]
    at_least: float
    goal: float
    unit: str = "x"
    beside: tuple[str, ...] = ()
    once: bool = False
    """Measured in the first round only: it takes minutes."""


FIGURES: Final = (
    Figure(
        name="steps_vs_dbos",
        question="A: durable steps/s against DBOS at its best (8 threads, pinned to one core), same PostgreSQL",
        better="more",
        at_least=15,
        goal=30,
        beside=("steps_per_second", "dbos_steps_per_second"),
    ),
    Figure(
        name="events_vs_ceiling",
        question="A: events/s against the raw append ceiling (one connection, unnest, bytea, batches of 1,000)",
        better="more",
        at_least=0.15,
        goal=0.30,
        beside=("events_per_second", "ceiling_events_per_second"),
    ),
    Figure(
        name="group_commit",
        question="A: steps/s with group commit against without it, on 20 connections",
        better="more",
        at_least=3,
        goal=4,
        beside=("steps_per_second", "single_commit_steps_per_second"),
    ),
    Figure(
        name="tail",
        question="A: p99/p50 from admission to terminal event, 200 runs in flight, closed loop",
        better="less",
        at_least=2,
        goal=1.5,
        beside=("p50_ms", "p99_ms"),
    ),
    Figure(
        name="latency_vs_dbos",
        question="C: p50 of one run at a time against DBOS one at a time, each pinned to one core",
        better="less",
        at_least=0.35,
        goal=0.2,
        beside=("p50_ms", "dbos_p50_ms", "publish_ms"),
    ),
    Figure(
        name="transactions_saturated",
        question="append transactions per run of 5 steps, saturated",
        better="less",
        at_least=0.1,
        goal=0.02,
        unit="per run",
        beside=("relay", "checkpoints", "heartbeats", "projector", "all_commits"),
    ),
    Figure(
        name="transactions_idle",
        question="append transactions per run of 5 steps, one at a time",
        better="less",
        at_least=7,
        goal=6,
        unit="per run",
        beside=("relay", "checkpoints", "heartbeats", "projector", "all_commits"),
    ),
    Figure(
        name="lasting_rate",
        question="A for 5 minutes: steps/s of the last minute against the first after warming up",
        better="more",
        at_least=0.85,
        goal=0.95,
        beside=("first_steps_per_second", "last_steps_per_second", "runs"),
        once=True,
    ),
    Figure(
        name="lasting_lag",
        question="A for 5 minutes: until the history shows, under that load, what the log holds at the end",
        better="less",
        at_least=2,
        goal=0.5,
        unit="s",
        once=True,
    ),
    Figure(
        name="lasting_memory",
        question="A for 5 minutes: growth of the engine's resident memory from the first minute to the last",
        better="less",
        at_least=10,
        goal=1,
        unit="%",
        beside=("first_mib", "last_mib"),
        once=True,
    ),
    Figure(
        name="commands_vs_dbos",
        question="B: steps/s where each of 5 steps is a command to a module process and its reply, against DBOS's local"
        " steps",
        better="more",
        at_least=1.5,
        goal=4,
        beside=("steps_per_second", "dbos_steps_per_second"),
    ),
    Figure(
        name="storm",
        question="p95 from event to end of the other tenants' runs while one tenant sends ten times what they send"
        " together, against the same events sent by all tenants alike",
        better="less",
        at_least=2,
        goal=0.5,
        beside=("storm_p95_ms", "alike_p95_ms", "storm_steps_per_second", "alike_steps_per_second"),
    ),
    Figure(
        name="guardrails",
        question="A: steps/s with every guardrail against the same build with guardrails that let everything pass",
        better="more",
        at_least=0.85,
        goal=0.95,
        beside=("steps_per_second", "unguarded_steps_per_second"),
    ),
    Figure(
        name="tenants",
        question="A: steps/s for 20 tenants in turn, each with a chain of audit entries of its own, against those for"
        " one",
        better="more",
        at_least=0.85,
        goal=0.95,
        beside=("steps_per_second", "one_tenant_steps_per_second"),
    ),
    Figure(
        name="redaction",
        question="a megabyte of records full of personal data and secrets, redacted",
        better="less",
        at_least=1,
        goal=0.25,
        unit="s",
        beside=("quarter_seconds", "times_the_quarter"),
    ),
    Figure(
        name="takeover",
        question="10,000 open runs of a killed process: from the end of its lease to all of them owned by a living one",
        better="less",
        at_least=10,
        goal=3,
        unit="s",
        beside=("runs", "lease_seconds"),
        once=True,
    ),
    Figure(
        name="waiting_memory",
        question="D: resident memory of the owning process with 100,000 waiting runs over idle",
        better="less",
        at_least=5,
        goal=0.5,
        unit="%",
        beside=("idle_mib", "waiting_mib", "runs"),
        once=True,
    ),
    Figure(
        name="wake_up",
        question="D: one of 100,000 waiting runs, from its event to its end, p50",
        better="less",
        at_least=50,
        goal=10,
        unit="ms",
        beside=("p99_ms",),
        once=True,
    ),
    Figure(
        name="due_at_once",
        question="D: 10,000 waiting runs due at the same moment, until the last has ended",
        better="less",
        at_least=10,
        goal=3,
        unit="s",
        beside=("runs",),
        once=True,
    ),
    Figure(
        name="rebuild",
        question="history rebuilt beside the living one, compared with it and switched to",
        better="more",
        at_least=20_000,
        goal=60_000,
        unit="events/s",
        beside=("events", "read_and_written_per_second", "cpu_us_per_event"),
        once=True,
    ),
    Figure(
        name="memory_growth",
        question="resident memory of the process that rebuilds, in the last fifth of the events over the second",
        better="less",
        at_least=5,
        goal=1,
        unit="%",
        beside=("early_mib", "late_mib", "events"),
        once=True,
    ),
    Figure(
        name="list_page",
        question="a page of the list of 1,000,000 runs, p50 of the slowest of 28 kinds: newest, deep, by status,"
        " workflow, state and story, of one tenant and of all",
        better="less",
        at_least=50,
        goal=10,
        unit="ms",
        beside=("runs", "median_kind_ms"),
        once=True,
    ),
    Figure(
        name="find_by_attribute",
        question="runs found by an attribute among 1,000,000, p50 of the slowest of 5 kinds: one run's own value,"
        " nobody's, and one that all share, deep or with a rare status",
        better="less",
        at_least=50,
        goal=10,
        unit="ms",
        beside=("runs", "median_kind_ms"),
        once=True,
    ),
    Figure(
        name="embedded_vs_dbos",
        question="A embedded (synchronous=FULL): steps/s against DBOS on SQLite with its defaults, pinned to one core",
        better="more",
        at_least=5,
        goal=20,
        beside=("steps_per_second", "dbos_steps_per_second"),
    ),
)


@dataclass(frozen=True, slots=True)
class Round:
    """One figure measured once: the ratio and the values beside it."""

    ratio: float
    beside: dict[str, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure after all rounds: the median ratio stands, its round's values beside it."""

    figure: Figure
    rounds: tuple[Round, ...]

    @property
    def value(self) -> float:
        return statistics.median(round_.ratio for round_ in self.rounds)

    @property
    def verdict(self) -> Literal["goal", "enough", "short"]:
        return verdict(self.figure, self.value)

    @property
    def beside(self) -> dict[str, float]:
        names = dict.fromkeys(name for round_ in self.rounds for name in round_.beside)
        return {
            name: statistics.median(round_.beside[name] for round_ in self.rounds if name in round_.beside)
            for name in names
        }

    def to_document(self) -> dict[str, Any]:
        return {
            "figure": self.figure.name,
            "question": self.figure.question,
            "value": self.value,
            "unit": self.figure.unit,
            "at_least": self.figure.at_least,
            "goal": self.figure.goal,
            "better": self.figure.better,
            "verdict": self.verdict,
            "rounds": [round_.ratio for round_ in self.rounds],
            "beside": self.beside,
        }


def verdict(figure: Figure, value: float) -> Literal["goal", "enough", "short"]:
    def reaches(bound: float) -> bool:
        return value >= bound if figure.better == "more" else value <= bound

    return "goal" if reaches(figure.goal) else "enough" if reaches(figure.at_least) else "short"


def named(names: Sequence[str]) -> tuple[Figure, ...]:
    """The figures of these names, in the order of the table; all of them when none is named."""
    return tuple(figure for figure in FIGURES if not names or figure.name in names)
