"""One of each tenant in turn, the oldest of a tenant first."""

from __future__ import annotations

import pytest

from consumers.turns import Turns


def filled(**items: int) -> Turns[str]:
    turns: Turns[str] = Turns()
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
