"""What tenants used is gathered per tenant, sampled without a rhythm, and taken once."""

from __future__ import annotations

import time

import pytest

from engine.accounts import SAMPLE, Accounts


def test_what_was_counted_is_taken_once_per_tenant() -> None:
    accounts = Accounts()
    accounts.appended("b", 3, 1, 0)
    accounts.appended("a", 2, 0, 1)
    accounts.appended("b", 1, 1, 0)
    accounts.projected({"a": 1, "b": 3}, 4.0)
    first, second = accounts.take("2030-01-31")
    assert (first.tenant, first.rows, first.sends, first.actions, first.project_seconds) == ("a", 2, 0, 1, 1.0)
    assert (second.tenant, second.rows, second.sends, second.actions, second.project_seconds) == ("b", 4, 2, 0, 3.0)
    assert accounts.take("2030-01-31") == []


def test_the_sample_stands_for_all_and_no_rhythm_of_tenants_meets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each decision takes one second; every other one is of another tenant."""
    now = 0.0

    def thread_time() -> float:
        return now

    monkeypatch.setattr(time, "thread_time", thread_time)
    accounts = Accounts()
    measured, turns = 0, 160_000
    for turn in range(turns):
        began = accounts.begin()
        now += 1.0
        if began is not None:
            measured += 1
            accounts.decided("even" if turn % 2 == 0 else "odd", began)
    even, odd = accounts.take("2030-01-31")
    assert measured < turns / SAMPLE * 1.2
    assert even.decide_seconds == pytest.approx(turns / 2, rel=0.2)
    assert odd.decide_seconds == pytest.approx(turns / 2, rel=0.2)
