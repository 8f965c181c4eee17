"""A metric that nothing feeds shows 0 for ever, which is a lie: every one is moved somewhere in the product, by a call
that fits its kind, on what the types say are the `Metrics` of the process.
"""

from __future__ import annotations

import ast

from engine.metrics import METRICS, Metric
from tests.pure.test_settings_are_read import Attributes, Reading, sources

HOME = "engine/metrics.py"
FITTING = {"counter": {"inc"}, "gauge": {"set", "put"}, "histogram": {"observe"}}


class Feeding(Reading):
    """Notes `metrics.<name>.<verb>(...)` and `metrics.<name>.of(...).<verb>(...)`."""

    def __init__(self, module: str, classes: set[str], attributes: Attributes) -> None:
        super().__init__(module, classes, attributes)
        self.fed: set[tuple[str, str]] = set()

    def visit_Call(self, node: ast.Call) -> None:  # noqa: N802 -- the name that NodeVisitor looks for
        match node.func:
            case ast.Attribute(attr=verb, value=ast.Call(func=ast.Attribute(attr="of", value=family))):
                self.note(family, verb)
            case ast.Attribute(attr=verb, value=family):
                self.note(family, verb)
        self.generic_visit(node)

    def note(self, family: ast.expr, verb: str) -> None:
        if isinstance(family, ast.Attribute) and self.type_of(family.value) == "Metrics":
            self.fed.add((family.attr, verb))


def feeds() -> set[tuple[str, str]]:
    """(metric, verb) of every call; twice over the sources, first to learn what attributes of classes hold."""
    modules = [(name, tree) for name, tree in sources() if name != HOME]
    classes = {node.name for _, tree in modules for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    attributes: Attributes = {}
    found: set[tuple[str, str]] = set()
    for _ in range(2):
        found = set()
        for name, tree in modules:
            feeding = Feeding(name, classes | {"Metrics"}, attributes)
            feeding.visit(tree)
            found |= feeding.fed
    return found


def unfed(rows: tuple[Metric, ...], found: set[tuple[str, str]]) -> list[str]:
    return [row.name for row in rows if not any((row.name, verb) in found for verb in FITTING[row.kind])]


def test_every_metric_is_fed_somewhere() -> None:
    assert unfed(METRICS, feeds()) == []


def test_a_namesake_or_a_call_that_does_not_fit_feeds_nothing() -> None:
    text = """
class Other:
    steps: int
class Part:
    def __init__(self, metrics: Metrics, other: Other, anything):
        self._metrics, self._other = metrics, other
        other.steps.inc()
        anything.undos.of("x").inc()
        metrics.events
    def work(self):
        self._other.commits.of("x").inc()
        self._metrics.stuck_runs.inc()
        self._metrics.runs_hot.set(1)
        self._metrics.ignored.of("fact").inc()
"""
    attributes: Attributes = {}
    feeding = Feeding("x.py", {"Other", "Part", "Metrics"}, attributes)
    feeding.visit(ast.parse(text))
    rows = tuple(
        row for row in METRICS if row.name in {"steps", "undos", "events", "commits", "stuck_runs", "runs_hot"}
    )
    assert set(unfed(rows, feeding.fed)) == {"steps", "undos", "events", "commits", "stuck_runs"}
    assert ("ignored", "inc") in feeding.fed
