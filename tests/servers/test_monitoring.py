"""Prometheus' own checker takes the alert rules, sees each of them fire and rest, and finds nothing to mend on a page
of metrics."""

from __future__ import annotations

import subprocess
from pathlib import Path

from engine.metrics import METRICS, Metrics
from tests.servers.checking import check_page

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "scripts" / "monitoring"
RULES_TEST = Path(__file__).with_name("alerts_test.yaml")


def test_the_alert_rules_and_the_scrape_configuration_are_valid(promtool: Path) -> None:
    checked = subprocess.run(
        [promtool, "check", "config", MONITORING / "prometheus.yaml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "rules found" in checked.stdout


def test_each_alert_fires_when_it_should_and_rests_otherwise(promtool: Path) -> None:
    tested = subprocess.run(
        [promtool, "test", "rules", RULES_TEST.name], cwd=RULES_TEST.parent, capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_page_with_every_metric_is_as_prometheus_wants_it(promtool: Path) -> None:
    metrics = Metrics()
    for row in METRICS:
        child = getattr(metrics, row.name).of(*("x" for _ in row.labels))
        getattr(child, {"counter": "inc", "gauge": "inc", "histogram": "observe"}[row.kind])(1)
    check_page(promtool, metrics.render()[0])
