"""Tenants in turn, by their weights, the oldest of a tenant first."""

from __future__ import annotations

from collections import Counter
from random import Random
from uuid import uuid4

import pytest

from consumers.turns import SPARE, Turns
from engine.hot_runs import Hot, HotRuns


def filled(weights: dict[str, int] | None = None, /, **items: int) -> Turns[str]:
    turns: Turns[str] = Turns(lambda tenant: (weights or {}).get(tenant, 1))
    for tenant, many in items.items():
        for number in range(many):
            turns.add(tenant, f"{tenant}-{number}")
    return turns


def taken(turns: Turns[str]) -> list[str]:
    return [turns.take() for _ in range(len(turns))]


def test_tenants_come_in_turn_and_their_oldest_first() -> None:
    assert taken(filled(acme=3, globex=1, initech=2)) == [
        "acme-0", "globex-0", "initech-0", "acme-1", "initech-1", "acme-2",
    ]  # fmt: skip


def test_who_comes_late_is_behind_one_of_each_and_not_behind_all_of_them() -> None:
    turns = filled(acme=50, globex=50)
    assert turns.take() == "acme-0"
    turns.add("initech", "initech-0")
    assert [turns.take() for _ in range(4)] == ["globex-0", "acme-1", "initech-0", "globex-1"]


def test_one_tenants_oldest_can_be_taken_out_of_turn() -> None:
    turns = filled(acme=2, globex=2)
    assert turns.take_of("globex") == "globex-0"
    assert (len(turns), turns.of("globex"), turns.of("acme"), turns.of("nobody")) == (3, 1, 2, 0)
    assert taken(turns) == ["acme-0", "globex-1", "acme-1"]


def test_nothing_that_waits_can_be_taken_twice() -> None:
    turns = filled(acme=1)
    assert dict(turns.counts()) == {"acme": 1}
    turns.take()
    assert not turns
    with pytest.raises(StopIteration):
        turns.take()
    with pytest.raises(KeyError):
        turns.take_of("acme")


def test_a_tenant_of_weight_three_has_three_turns_while_another_has_one_and_they_are_spread() -> None:
    order = taken(filled({"acme": 3}, acme=6, globex=2))
    assert [item.partition("-")[0] for item in order] == [
        "acme", "acme", "acme", "globex", "acme", "acme", "acme", "globex",
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_tenants_are_served_by_their_weights_and_nobody_waits_for_ever(seed: int) -> None:
    """Whoever always has something waiting gets his share of any stretch, within two turns, however others come."""
    dice = Random(seed)
    weights = {f"t{n}": dice.choice((1, 2, 3, 7, 20, 100)) for n in range(8)}
    always, total = list(weights)[:5], sum(weights.values())
    turns: Turns[str] = Turns(weights.__getitem__)
    served: Counter[str] = Counter()
    waited = dict.fromkeys(always, 0)
    for _ in range(4_000):
        for tenant in always:
            if turns.of(tenant) < 2:
                turns.add(tenant, tenant)
        if dice.random() < 0.3:
            other = dice.choice(list(weights)[5:])
            turns.add(other, other)
        who = turns.take()
        served[who] += 1
        for tenant in always:
            waited[tenant] = 0 if tenant == who else waited[tenant] + 1
            assert waited[tenant] <= 2 * total / weights[tenant] + len(weights)
    # Of what these five have got together each has its part.
    mine, weight = sum(served[tenant] for tenant in always), sum(weights[tenant] for tenant in always)
    for tenant in always:
        assert abs(served[tenant] - mine * weights[tenant] / weight) <= 2 + 0.02 * served[tenant]


def test_the_order_is_the_same_each_time() -> None:
    def order() -> list[str]:
        return taken(filled({"acme": 7, "globex": 3}, acme=70, globex=70, initech=70))

    assert order() == order()


def test_who_stood_first_without_room_does_not_get_all_of_it_at_once() -> None:
    turns = filled(acme=50, globex=50)
    for _ in range(20):
        turns.take_of("globex")
    assert [turns.take().partition("-")[0] for _ in range(4)] == ["acme", "globex", "acme", "globex"]


def test_the_line_stays_as_long_as_there_are_tenants_however_long_the_first_waits_for_room() -> None:
    turns = filled(acme=1, globex=1, initech=1)
    for number in range(10_000):
        turns.add("globex", f"more-{number}")
        turns.take_of("globex")
    assert next(turns.tenants()) == "acme"
    assert sorted(turns.tenants()) == ["acme", "globex", "initech"]
    assert len(turns._line) <= 2 * 3 + SPARE


def test_a_changed_weight_holds_from_the_next_turn_on() -> None:
    weights = {"acme": 1, "globex": 1}
    turns = filled(weights, acme=50, globex=50)
    assert Counter(turns.take().partition("-")[0] for _ in range(10)) == {"acme": 5, "globex": 5}
    weights["acme"] = 4
    assert Counter(turns.take().partition("-")[0] for _ in range(25)) == {"acme": 20, "globex": 5}


def test_a_full_house_has_room_for_a_tenants_share_by_its_weight() -> None:
    runs = HotRuns(1_000, on_ready=lambda: None, on_idle=lambda: None)
    for tenant, many in (("acme", 15), ("globex", 5)):
        for _ in range(many):
            runs.make_ready(Hot(tenant, uuid4()))
    assert [runs.has_room(tenant, 20) for tenant in ("acme", "globex", "initech")] == [False, True, True]
    runs.weigh(lambda tenant: 10 if tenant == "acme" else 1)
    assert [runs.has_room(tenant, 20) for tenant in ("acme", "globex", "initech")] == [False, False, True]
    runs.weigh(lambda tenant: 1)
    assert [runs.has_room(tenant, 20) for tenant in ("acme", "globex", "initech")] == [False, True, True]
