"""Which runs stay in memory: those with something to do, and of those that only wait the newest few."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid4

from contracts import run_events as ev
from engine.hot_runs import Hot, HotRuns
from engine.run.evolve import fold
from engine.run.state import RunState

AT = datetime(2030, 1, 1, tzinfo=UTC)
STARTED = ev.RunStarted(
    at=AT, workflow="w", workflow_version=1, trigger={}, data={}, scope="s", initiator="i", correlation_id="c"
)
STEP = ev.StepScheduled(at=AT, step="s", visit=1, key="k", action="a", kind="command", input={}, input_hash="h")


def runs(limit: int, waiting: int) -> HotRuns:
    return HotRuns(limit, waiting=waiting, on_ready=lambda: None, on_idle=lambda: None)


def rest(among: HotRuns, *events: ev.RunEvent) -> UUID:
    run_id = uuid4()
    hot = among.by_id[run_id] = Hot("acme", run_id, fold(RunState(run_id, "acme"), events))
    decided(among, hot)
    return run_id


def decided(among: HotRuns, hot: Hot) -> None:
    """It had something to decide, and rests."""
    among.make_ready(hot)
    among.ready.remove(hot)
    hot.ready = False
    among.rest(hot)


def test_of_runs_that_only_wait_the_newest_stay() -> None:
    among = runs(100, 2)
    waiting = [rest(among, STARTED) for _ in range(5)]
    assert list(among.by_id) == waiting[-2:]


def test_a_run_with_a_step_under_way_is_not_counted_among_them() -> None:
    among = runs(100, 1)
    busy = [rest(among, STARTED, STEP) for _ in range(3)]
    queued = [rest(among, replace(STARTED, queued=True)) for _ in range(3)]
    assert list(among.by_id) == [*busy, queued[-1]]


def test_a_run_that_woke_up_is_not_forgotten_for_one_that_waits() -> None:
    among = runs(100, 1)
    woken = rest(among, STARTED)
    among.make_ready(among.by_id[woken])
    rest(among, STARTED)
    assert woken in among.by_id
    assert woken in among.active


def test_none_stays_that_only_waits_when_none_may() -> None:
    among = runs(100, 0)
    rest(among, STARTED)
    assert not among.by_id
    assert not among.active


def test_who_has_less_than_his_share_has_room_in_a_full_house() -> None:
    among = runs(100, 100)
    storm = [Hot("acme", uuid4()) for _ in range(12)]
    for hot in storm:
        assert among.has_room("acme", 12)
        among.make_ready(hot)
    assert not among.has_room("acme", 12)
    small = [Hot("globex", uuid4()) for _ in range(4)]
    for hot in small:
        assert among.has_room("globex", 12)  # 12 // 2, and 12 // 3 once it is one of two
        among.make_ready(hot)
    assert not among.has_room("globex", 12)
    assert among.has_room("initech", 12)
    for hot in (*storm, *small):
        among.ready.remove(hot)
        hot.ready = False
        among.rest(hot)
        among.forget(hot)
    assert (among.active, among.active_of) == (set(), {})


def test_everybody_has_room_for_one() -> None:
    among = runs(100, 100)
    for number in range(5):
        assert among.has_room(f"tenant-{number}", 2)
        among.make_ready(Hot(f"tenant-{number}", uuid4()))
        assert not among.has_room(f"tenant-{number}", 1)
