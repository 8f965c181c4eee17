"""What a step costs: said by its action or by a module's outcome, summed by the commit, hinted at while it is spent."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumers.inputs import answer_of
from contracts import run_events as ev
from contracts.calls import MOST_MICROS, Costed, cost_micros
from contracts.envelope import Envelope
from contracts.manifest import Command, CommandModel, EventModel, Module
from contracts.problems import ManifestInvalid
from contracts.registry import Registry
from engine.clock import VirtualClock
from engine.guards.budgets import AGAIN, SpentBudgets
from engine.recording import cost_of
from engine.run.inputs import StepDone
from engine.store import Cost, Limited
from engine.triggers import Plans

NOW = datetime(2030, 1, 31, 23, 59, 50, tzinfo=UTC)


class SendLetterV1(CommandModel):
    to: str


class LetterSentV1(EventModel):
    price: Any = None


POST = Module(
    name="post",
    version="1.0.0",
    commands=(Command(SendLetterV1, success=LetterSentV1, coverage="retriable", ambiguous="park", cost="/price"),),
)


@pytest.mark.parametrize(
    ("price", "cost"), [(0.75, 0.75), (2, 2.0), (None, 0.0), ("1", 0.0), (True, 0.0), (-1, 0.0), (float("inf"), 0.0)]
)
def test_an_outcome_says_what_its_command_has_cost(price: Any, cost: float) -> None:
    registry = Registry((POST,))
    plans = Plans((), registry.action_specs())
    data = {"price": price}
    envelope = Envelope(id="1", source=POST.source, type="post.LetterSentV1", tenantid="acme", time=NOW, data=data)
    given = answer_of(plans, envelope, data, "send", 1, at=NOW, settles=())
    assert isinstance(given, StepDone)
    assert given.cost == cost
    undone = answer_of(plans, envelope, data, "send/undo", 1, at=NOW, settles=())
    assert isinstance(undone, StepDone)
    assert undone.cost == 0.0


@pytest.mark.parametrize("pointer", ["price", "/prize", "/"])
def test_a_command_whose_cost_points_nowhere_is_refused(pointer: str) -> None:
    with pytest.raises(ManifestInvalid, match="cost of SendLetterV1 must point into LetterSentV1"):
        replace(POST, commands=(replace(POST.commands[0], cost=pointer),))


@pytest.mark.parametrize("cost", [-0.01, float("nan"), float("inf")])
def test_a_cost_is_an_amount(cost: float) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Costed(None, cost)


def test_costs_are_whole_millionths_that_a_sum_can_hold() -> None:
    assert [cost_micros(cost) for cost in (0.1, 0.0000005, 1e30)] == [100_000, 0, MOST_MICROS]


def test_a_commit_says_what_its_steps_have_cost_and_what_of_it_a_budget_forbids() -> None:
    paid = ev.StepSucceeded(at=NOW, step="a", visit=1, attempt=1, output=None, cost=0.5)
    free = replace(paid, cost=0.0)
    begun = ev.StepAttempted(at=NOW, step="b", visit=1, attempt=2, deadline=None)
    held = ev.RunHeld(at=NOW)
    assert cost_of("w", [free, begun], bounded=False) is None
    assert cost_of("w", [paid, paid, begun], bounded=False) == Cost("w", 1_000_000)
    assert cost_of("w", [free, begun], bounded=True) == Cost("w", 0, begins=True)
    assert cost_of("w", [paid, held], bounded=True) == Cost("w", 500_000)


def test_whose_budget_is_spent_is_not_asked_again_before_a_while_the_next_day_or_a_change() -> None:
    clock = VirtualClock(NOW - timedelta(minutes=5))
    spent = SpentBudgets(clock)
    spent.heard("acme", "w", Limited("workflow", 1, "daily_cost_micros"))
    spent.heard("globex", "w", Limited("tenant", 1, "monthly_cost_micros"))
    spent.heard("initech", "w", Limited("tenant", 1))
    asked = [("acme", "w"), ("acme", "v"), ("globex", "v"), ("initech", "w")]
    assert [spent(*one) for one in asked] == [True, False, True, False]
    clock.forward(seconds=AGAIN.total_seconds())
    assert [spent(*one) for one in asked] == [False] * 4
    spent.heard("acme", "w", Limited("tenant", 1, "daily_cost_micros"))
    spent.forget()
    assert not spent("acme", "w")
    clock.forward(seconds=(NOW - clock.now()).total_seconds())
    spent.heard("acme", "w", Limited("tenant", 1, "daily_cost_micros"))
    clock.forward(seconds=10)
    assert not spent("acme", "w")
