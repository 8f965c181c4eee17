"""Dashboard, alerts and runbooks against the product: every metric they name is served with these labels, each alert
has its runbook and each runbook its alert."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from engine.metrics import METRICS, Metric

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "scripts" / "monitoring"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = orjson.loads((MONITORING / "grafana" / "dashboard.json").read_bytes())
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
PROMETHEUS_OWN = {"up", "process_resident_memory_bytes"}
SCRAPED = {"job", "instance", "le"}

_NAME = re.compile(r"\b(unwind_[a-z0-9_]+|up|process_[a-z_]+)\b(?:\{([^}]*)\})?")
_BY = re.compile(r"\bby \(([^)]*)\)")


def served() -> dict[str, Metric]:
    """Every sample name of the page."""
    found: dict[str, Metric] = {}
    for row in METRICS:
        names = [f"{row.full_name}_{part}" for part in ("bucket", "sum", "count")]
        found |= dict.fromkeys(names if row.kind == "histogram" else [row.full_name], row)
    return found


def expressions() -> Iterator[tuple[str, str, set[str]]]:
    """Where, the PromQL, and the labels that its texts show."""
    for rule in RULES:
        shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        yield rule["alert"], rule["expr"], shown
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))


def mistakes(expression: str, shown: set[str]) -> list[str]:
    """What the expression names that no page has."""
    found: list[str] = []
    known = set(SCRAPED)
    for name, matchers in _NAME.findall(expression):
        row = served().get(name)
        if row is None and name not in PROMETHEUS_OWN:
            found.append(name)
        labels = SCRAPED | set(row.labels if row is not None else ())
        known |= labels
        found += [f"{name}{{{label}}}" for label in re.findall(r"(\w+)\s*[=!]", matchers) if label not in labels]
    grouped = {label.strip() for group in _BY.findall(expression) for label in group.split(",")}
    return found + sorted((grouped | shown) - known)


@pytest.mark.parametrize(("where", "expression", "shown"), list(expressions()))
def test_every_metric_and_label_that_is_asked_for_is_served(where: str, expression: str, shown: set[str]) -> None:
    assert mistakes(expression, shown) == [], where


@pytest.mark.parametrize("expression", [
    "max(unwind_outbox_aeg_seconds)", 'unwind_runs_open{state="x"}', "sum by (tenant) (unwind_outbox_rows)",
    "unwind_step_duration_seconds", "rate(unwind_steps[5m])",
])  # fmt: skip
def test_the_search_finds_what_it_is_for(expression: str) -> None:
    assert mistakes(expression, set())


def test_each_alert_has_its_runbook_and_each_runbook_its_alert() -> None:
    headings = re.findall(r"^## (\w+)$", RUNBOOKS, re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_each_alert_is_tested_firing_and_resting() -> None:
    tests = yaml.safe_load((ROOT / "tests/servers/alerts_test.yaml").read_text(encoding="utf-8"))["tests"]
    tried = [(case["alertname"], bool(case.get("exp_alerts"))) for one in tests for case in one["alert_rule_test"]]
    assert sorted(tried) == sorted((rule["alert"], fires) for rule in RULES for fires in (False, True))


def test_what_must_be_watched_is_watched() -> None:
    watched = {name for rule in RULES for name, _ in _NAME.findall(rule["expr"])}
    assert watched >= {
        "unwind_outbox_age_seconds", "unwind_projection_lag_events", "unwind_tenant_stuck_runs",
        "unwind_dead_letters_kept", "unwind_incidents_open", "unwind_processes", "unwind_timers_lateness_seconds",
        "unwind_event_loop_lag_seconds_bucket", "unwind_egress_requests_total",
    }  # fmt: skip


def test_every_panel_asks_the_data_source_that_is_chosen_and_says_what_it_shows() -> None:
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert all(panel["datasource"] == {"type": "prometheus", "uid": "${source}"} for panel in panels)
    assert all(panel["title"] and panel["description"] and panel["targets"] for panel in panels)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    sources = yaml.safe_load((MONITORING / "grafana" / "sources.yaml").read_text(encoding="utf-8"))["datasources"]
    [variable] = DASHBOARD["templating"]["list"]
    assert variable["current"]["value"] == sources[0]["uid"]
