"""Golden histories: streams that a log somewhere holds must fold to the state they always folded to, and event classes
keep their shape unless their VERSION says that it is another."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from contracts.codec import RUN_EVENTS
from contracts.run_events import RunEvent, all_run_events
from engine.run.evolve import fold
from engine.run.state import RunState
from tests.histories.record import HERE, SHAPES, SHAPES_OF_RUNS, shapes, shown

HISTORIES = sorted(path for path in HERE.glob("*.json") if path != SHAPES)
EACH = pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)


def read(path: Path) -> tuple[dict[str, Any], list[RunEvent]]:
    history: dict[str, Any] = orjson.loads(path.read_bytes())
    events = [RUN_EVENTS.decode_body(one["topic"], orjson.dumps(one["body"])) for one in history["events"]]
    return history, events


def missing(expected: Any, actual: Any, place: str = "") -> list[str]:
    """Where `actual` does not hold what was expected; fields that came later are allowed in objects."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return [
            line
            for name, value in expected.items()
            for line in missing(value, actual.get(name, "<absent>"), f"{place}/{name}")
        ]
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        return [
            line for index, value in enumerate(expected) for line in missing(value, actual[index], f"{place}/{index}")
        ]
    return [] if expected == actual else [f"{place}: was {expected!r}, is {actual!r}"]


@EACH
def test_a_golden_history_folds_to_the_state_it_always_folded_to(path: Path) -> None:
    history, events = read(path)
    state = fold(RunState(UUID(history["run_id"]), history["tenant"]), events)
    assert state.status == history["status"]
    assert missing(history["state"], orjson.loads(orjson.dumps(shown(state)))) == []


@EACH
def test_a_golden_history_is_read_back_as_it_was_written(path: Path) -> None:
    history, events = read(path)
    for stored, event in zip(history["events"], events, strict=True):
        if stored["body"]["v"] == event.VERSION:
            assert orjson.loads(RUN_EVENTS.encode(event)) == stored["body"]


def test_every_event_class_is_in_a_golden_history() -> None:
    told = {one["topic"] for path in HISTORIES for one in read(path)[0]["events"]}
    assert told == {event.TOPIC for event in all_run_events()}


def test_every_recorded_shape_of_a_run_has_its_history() -> None:
    assert set(SHAPES_OF_RUNS) <= {path.stem for path in HISTORIES}


def test_an_event_class_changes_its_shape_only_with_its_version() -> None:
    pinned: dict[str, dict[str, list[str]]] = orjson.loads(SHAPES.read_bytes())
    for topic, versions in shapes().items():
        for version, shape in versions.items():
            assert pinned.get(topic, {}).get(version) == shape, (
                f"{topic} looks different from its version {version}: raise VERSION, write an upcast, and pin the new "
                "shape with python -m tests.histories.record"
            )


def test_no_topic_ever_disappears() -> None:
    pinned: dict[str, Any] = orjson.loads(SHAPES.read_bytes())
    assert set(pinned) == set(shapes())
