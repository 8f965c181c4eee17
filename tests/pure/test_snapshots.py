"""A snapshot is the fold: every state of every golden history comes back as it went, and what is of no use is passed
over."""

from __future__ import annotations

from uuid import UUID

import orjson
import pytest

from engine import snapshots
from engine.run.evolve import evolve, fold
from engine.run.state import RunState
from engine.store.key_ring import SealBroken
from engine.store.keys import Erased, SubjectKeys, TenantKeys
from tests.histories.test_histories import HISTORIES, read

RUN, OTHER = UUID(int=7), UUID(int=8)
KEYS = TenantKeys("acme", {1: b"k" * 32}, {1: b"i" * 32})
SCOPE = KEYS.subject_scope("ann")


def state_of(version: int = 3) -> RunState:
    _, events = read(next(path for path in HISTORIES if path.stem == "happy"))
    return fold(RunState(RUN, "acme"), events[:version])


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_every_state_of_a_golden_history_comes_back_and_goes_on_as_the_fold_does(path: object) -> None:
    _, events = read(path)  # type: ignore[arg-type]
    whole = fold(RunState(RUN, "acme"), events)
    state = RunState(RUN, "acme")
    for number, event in enumerate(events, 1):
        state = evolve(state, event)
        thawed = snapshots.thaw(snapshots.freeze(state))
        assert thawed == state
        assert thawed is not None
        assert fold(thawed, events[number:]) == whole


def test_a_snapshot_of_another_format_is_of_no_use() -> None:
    document = orjson.loads(snapshots.freeze(state_of()))
    assert snapshots.thaw(orjson.dumps(document)) is not None
    assert snapshots.thaw(orjson.dumps(document | {"format": "0.0"})) is None


@pytest.mark.parametrize("plain", [b"", b"[]", b"{", b'{"format": "%s"}' % snapshots.FORMAT.encode()])
def test_what_is_no_snapshot_is_of_no_use(plain: bytes) -> None:
    assert snapshots.thaw(plain) is None


def test_a_field_more_is_another_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_PARTS", snapshots._PARTS[1:])
    assert snapshots._format() != snapshots.FORMAT


def test_a_sealed_snapshot_opens_at_its_own_place_only() -> None:
    state = state_of()
    body = snapshots.seal(KEYS, None, state)
    assert snapshots.open_sealed(KEYS, "acme", RUN, 3, body) == state
    for run_id, version in ((RUN, 4), (OTHER, 3)):
        with pytest.raises(SealBroken):
            snapshots.open_sealed(KEYS, "acme", run_id, version, body)


def test_an_erased_subjects_snapshot_is_gone_with_its_key() -> None:
    state = state_of()
    keys = TenantKeys("acme", {1: b"k" * 32}, {1: b"i" * 32})
    subject = SubjectKeys("acme", SCOPE, {5: b"s" * 32}, 0.0)
    keys.remember(SCOPE, subject, limit=10)
    body = snapshots.seal(keys, subject, state)
    assert snapshots.open_sealed(keys, "acme", RUN, 3, body) == state
    keys.remember(SCOPE, Erased("acme", SCOPE), limit=10)
    assert snapshots.open_sealed(keys, "acme", RUN, 3, body) is None


@pytest.mark.parametrize(
    ("before", "after", "due"), [(0, 199, False), (199, 200, True), (200, 399, False), (399, 401, True)]
)
def test_a_snapshot_is_due_whenever_so_many_events_are_full(before: int, after: int, due: bool) -> None:
    def at(version: int, ended: str | None = None) -> RunState:
        return RunState(RUN, "acme", version=version, ended=ended)

    assert snapshots.is_due(at(before), at(after), 200) is due
    assert not snapshots.is_due(at(before), at(after, "succeeded"), 200)
    assert not snapshots.is_due(at(before), at(after), 0)
