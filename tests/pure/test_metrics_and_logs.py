"""Metrics come from one table and cannot explode; log lines are JSON and hold no payload."""

from __future__ import annotations

import ast
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
import structlog

from engine import logs
from engine.metrics import METRICS, Metrics, table


def rendered(metrics: Metrics) -> str:
    return metrics.render()[0].decode()


def test_every_row_of_the_table_is_an_attribute_and_every_attribute_a_row() -> None:
    assert set(Metrics.__annotations__) == {row.name for row in METRICS}
    assert len({name for name, *_ in table()}) == len(METRICS)


def test_every_row_is_served_under_its_full_name() -> None:
    metrics = Metrics()
    for row in METRICS:
        child = getattr(metrics, row.name).of(*("x" for _ in row.labels))
        {"counter": lambda c: c.inc(), "gauge": lambda c: c.set(1), "histogram": lambda c: c.observe(0.5)}[row.kind](
            child
        )
    text = rendered(metrics)
    for row in METRICS:
        sample = row.full_name + ("_count" if row.kind == "histogram" else "")
        assert any(line.startswith((sample + "{", sample + " ")) for line in text.splitlines()), row.full_name


def test_a_label_past_its_limit_counts_as_other() -> None:
    metrics = Metrics(values_per_label=2)
    for workflow in ("a", "b", "c", "d", "a"):
        metrics.runs_started.of(workflow).inc()
    text = rendered(metrics)
    assert 'unwind_runs_started_total{workflow="a"} 2.0' in text
    assert 'unwind_runs_started_total{workflow="other"} 2.0' in text
    assert 'workflow="c"' not in text


def test_a_wrong_number_of_labels_is_a_mistake_at_once() -> None:
    with pytest.raises(ValueError, match="2 declared"):
        Metrics().steps.of("only one")


def test_two_engines_in_one_process_count_apart() -> None:
    one, two = Metrics(), Metrics()
    one.events.inc(5)
    assert "unwind_events_total 5.0" in rendered(one)
    assert "unwind_events_total 0.0" in rendered(two)


def test_a_gauge_is_on_the_page_from_its_first_value_until_it_is_forgotten() -> None:
    metrics = Metrics()
    for family in (metrics.outbox_rows, metrics.outbox_rows):
        assert "unwind_outbox_rows" not in rendered(metrics)
        family.set(0)
        assert "unwind_outbox_rows 0.0" in rendered(metrics)
        family.forget()
        family.forget()
    assert "unwind_outbox_rows" not in rendered(metrics)
    metrics.runs_open.put({"parked": 1})
    metrics.runs_open.forget()
    assert "unwind_runs_open{" not in rendered(metrics)


def test_what_is_no_longer_measured_under_a_label_is_zero() -> None:
    metrics = Metrics()
    metrics.incidents_open.put({"saga_raised": 2, "undo_failed": 1})
    metrics.incidents_open.put({"undo_failed": 3})
    text = rendered(metrics)
    assert 'unwind_incidents_open{reason="saga_raised"} 0.0' in text
    assert 'unwind_incidents_open{reason="undo_failed"} 3.0' in text


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure(stream=stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_its_places(out: io.StringIO) -> None:
    run = UUID("01932847-1234-7123-8123-123456789012")
    with logs.bind(tenant_id="acme", run_id=run):
        logs.logger("relay").info("published", count=12)
    logs.logger("relay").info("idle")
    first, second = lines(out)
    assert {key: first[key] for key in ("event", "part", "level", "tenant_id", "run_id", "count")} == {
        "event": "published", "part": "relay", "level": "info", "tenant_id": "acme", "run_id": str(run), "count": 12,
    }  # fmt: skip
    assert first["at"].endswith("Z")
    assert "run_id" not in second


def test_payloads_and_secrets_never_reach_a_line(out: io.StringIO) -> None:
    logs.logger("intake").info(
        "taken for ada@example.org",
        data={"x": "canary"},
        body=b"canary",
        api_key="canary",
        nested={"list": [{"password": "canary", "payload": "canary"}], "to": "ada@example.org"},
        deep=[[[[[[[[[["canary"]]]]]]]]]],
        error=ValueError("Bearer canary1234"),
        max_tokens=3,
    )
    written = out.getvalue()
    assert "canary" not in written
    assert "ada@" not in written
    assert lines(out)[0]["max_tokens"] == 3


def test_an_exception_is_logged_with_places_and_without_locals(out: io.StringIO) -> None:
    secret = "canary"
    try:
        raise ValueError(f"wrong address ada@example.org, {len(secret)}")
    except ValueError:
        logs.logger("worker").exception("failed")
    line = lines(out)[0]
    assert line["error"] == "ValueError: wrong address [redacted], 6"
    assert line["frames"][-1].startswith("pure/test_metrics_and_logs.py:")
    assert "canary" not in out.getvalue()


def test_a_line_that_cannot_be_redacted_is_reduced_to_that_fact(out: io.StringIO) -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("canary")

    logs.logger("worker").info("canary", thing=Hostile())
    assert lines(out)[0]["event"] == "log line could not be redacted"
    assert "canary" not in out.getvalue()


def test_libraries_speak_the_same_form(out: io.StringIO) -> None:
    logging.getLogger("aio_pika").warning("lost %s", "ada@example.org")
    logging.getLogger("aio_pika").info("chatter")
    (line,) = lines(out)
    assert (line["event"], line["logger"], line["level"]) == ("lost [redacted]", "aio_pika", "warning")


LOGGERS = {"log", "lines"}
LEVELS = {"debug", "info", "warning", "error", "exception"}


def log_calls() -> Iterator[tuple[str, str, set[str]]]:
    """(place, event, names) of every line that the engine's parts write by keyword."""
    root = Path(logs.__file__).resolve().parents[1]
    for floor in ("engine", "projections", "consumers"):
        for path in sorted((root / floor).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(func=ast.Attribute(attr=level, value=target), args=[ast.Constant(value=str(event))]):
                        name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")
                        if name.strip("_") in LOGGERS and level in LEVELS:
                            names = {keyword.arg or "" for keyword in node.keywords}
                            yield f"{path.relative_to(root)}:{node.lineno}", event, names


def test_every_line_about_a_run_names_its_tenant_and_none_has_a_place_for_a_payload() -> None:
    calls = list(log_calls())
    assert {"run_parked", "action_raised", "run_unreadable", "dead_letter", "declared_dead"} <= {e for _, e, _ in calls}
    wrong = [
        (place, event)
        for place, event, names in calls
        if ("run_id" in names and "tenant_id" not in names) or names & logs.PAYLOAD_NAMES
    ]
    assert wrong == []


def test_every_line_about_a_run_stands_in_the_operations_page() -> None:
    page = (Path(logs.__file__).resolve().parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")
    table = page[page.index("| event | level |") :].split("\n\n", 1)[0]
    about_runs = {event: names for _, event, names in log_calls() if "run_id" in names}
    for event, names in about_runs.items():
        [row] = [line for line in table.splitlines() if line.startswith(f"| `{event}` |")]
        assert set(re.findall(r"`(\w+)`", row.rsplit("|", 2)[1])) == names, event


def test_lines_of_modules_show_their_places_and_no_other_extra(out: io.StringIO) -> None:
    extra = {"tenant_id": "acme", "payload": "canary", "x": "canary"}
    logging.getLogger("unwind.module").warning("it raised", extra=extra)
    (line,) = lines(out)
    assert line["tenant_id"] == "acme"
    assert "canary" not in out.getvalue()


def test_lines_for_a_terminal_take_an_exception_and_its_places_too(out: io.StringIO) -> None:
    logs.configure(format="console", stream=out)
    try:
        raise ValueError("wrong")
    except ValueError:
        logs.logger("worker").exception("failed")
    assert "ValueError: wrong" in out.getvalue()


@pytest.mark.usefixtures("out")
def test_a_log_that_cannot_be_written_ends_nobody() -> None:
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 - closing it fails
    logs.configure(stream=full)
    logs.logger("relay").warning("one", count=1)
    logging.getLogger("library").warning("two")
    with pytest.raises(OSError, match="No space left"):
        full.close()
