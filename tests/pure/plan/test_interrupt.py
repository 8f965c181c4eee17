"""A saga that does not yield is interrupted by a real alarm in the main thread, and only inside a decision."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from engine.interrupt import Interrupter, SagaStuck
from engine.plan.code import Run, saga
from engine.plan.replay import CodePlan
from tests.pure.plan.asking import started

# The suite's own time limit must not use the alarm that is tested here.
pytestmark = pytest.mark.timeout(60, method="thread")


@saga("endless", version=1)
async def endless(run: Run, data: Any) -> Any:
    while True:
        try:
            pass
        except Exception:
            pass


@pytest.fixture
def interrupter() -> Iterator[Interrupter]:
    before = signal.getsignal(signal.SIGALRM)
    made = Interrupter(0.05)
    assert made.install()
    yield made
    made.end()
    signal.signal(signal.SIGALRM, before)


def test_an_endless_saga_is_interrupted_where_it_stands(interrupter: Interrupter) -> None:
    interrupter.begin()
    with pytest.raises(SagaStuck, match=r"it was at test_interrupt\.py:\d+"), interrupter:
        CodePlan(endless, {}).next(started())


def test_an_alarm_between_two_decisions_harms_nobody_and_comes_again(interrupter: Interrupter) -> None:
    interrupter.begin()
    _busy(0.08)
    with pytest.raises(SagaStuck), interrupter:
        CodePlan(endless, {}).next(started())


def test_a_saga_that_blocks_is_interrupted_though_it_computes_nothing(interrupter: Interrupter) -> None:
    interrupter.begin()
    with pytest.raises(SagaStuck), interrupter:
        threading.Event().wait(60)


def test_one_alarm_proves_nothing_of_a_decision_that_may_have_had_no_core_to_compute_on(
    interrupter: Interrupter,
) -> None:
    for _ in range(3):
        with interrupter:
            signal.raise_signal(signal.SIGALRM)


def test_a_turn_that_is_over_is_not_interrupted(interrupter: Interrupter) -> None:
    interrupter.begin()
    interrupter.end()
    with interrupter:
        _busy(0.1)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_outside_the_main_thread_nothing_is_installed_and_nothing_armed() -> None:
    before = signal.getsignal(signal.SIGALRM)
    made = Interrupter(0.01)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(made.install()))
    thread.start()
    thread.join()
    made.begin()
    assert (answers, signal.getsignal(signal.SIGALRM)) == ([False], before)


def _busy(seconds: float) -> None:
    """Works through a moment, as a long decision would: signals arrive between two instructions."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
