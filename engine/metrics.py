"""Every metric of the product, once, as data; the table in the documentation is checked against it.

A process makes one `Metrics` and hands it to its parts: no module-level state, so tests and several engines in one
process do not mix. Children are bound once and kept, which makes counting a dictionary look-up and an addition. Labels
are bounded: past a limit a new value counts as `other`. A gauge is on the page of the process that measures it
and absent elsewhere, since 0 is a measurement. Called by everything that counts, read by `/metrics`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

PREFIX: Final = "unwind_"
OTHER: Final = "other"

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 86400.0, 604800.0)
_SIZES: Final = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One row: attribute `name` of `Metrics`; Prometheus sees `full_name`, with prefix and `_total` or unit."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: Literal["", "seconds", "events", "bytes"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = _FAST

    @property
    def full_name(self) -> str:
        stem = PREFIX + self.name
        if self.unit and not stem.endswith(self.unit):
            stem = f"{stem}_{self.unit}"
        return f"{stem}_total" if self.kind == "counter" else stem


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(name=name, kind="counter", unit="", labels=labels, help=help)


def _gauge(name: str, unit: Literal["", "seconds", "events"], help: str, *labels: str) -> Metric:
    return Metric(name=name, kind="gauge", unit=unit, labels=labels, help=help)


def _histogram(
    name: str,
    unit: Literal["", "seconds"],
    help: str,
    *labels: str,
    buckets: tuple[float, ...] = _FAST,
) -> Metric:
    return Metric(name=name, kind="histogram", unit=unit, labels=labels, help=help, buckets=buckets)


METRICS: Final[tuple[Metric, ...]] = (
    _counter("runs_started", "Runs started, by workflow", "workflow"),
    _counter("runs_ended", "Runs that reached a terminal status", "workflow", "status"),
    _histogram("run_duration", "seconds", "From start to terminal event", "workflow", "status", buckets=_LONG),
    _gauge("runs_open", "", "Open runs by status", "status"),
    _gauge("runs_hot", "", "Runs kept in memory by this process"),
    _counter("steps", "Step attempts that ended: succeeded, failed, retried, ambiguous, skipped", "action", "outcome"),
    _histogram("step_duration", "seconds", "From intent to outcome of one attempt", "action", buckets=_LONG),
    _counter("undos", "Undo attempts that ended: succeeded, failed", "action", "outcome"),
    _counter("appends", "Append batches, each one transaction", "result"),
    _counter("commits", "Commits by outcome: appended, duplicate, stale, limited, fenced, refused", "outcome"),
    _counter("events", "Events appended to the log"),
    _histogram("append_batch", "", "Commits in one append batch", buckets=_SIZES),
    _histogram("append_duration", "seconds", "One append batch, call to answer"),
    _counter("deliveries", "Deliveries taken from the bus: accepted, duplicate, dead, ignored", "queue", "result"),
    _counter("duplicates", "Inputs recognised as known, by what they repeated: arrival, start, input", "of"),
    _counter("ignored", "Inputs recorded as ignored: start, fact, reply, note", "kind"),
    _counter("published", "Messages sent: confirmed, unroutable, refused, unknown", "exchange", "result"),
    _gauge("outbox_age", "seconds", "Age of the oldest message that is still to be sent"),
    _gauge("outbox_rows", "", "Messages that are still to be sent"),
    _gauge("timers_late", "", "Timers and deadlines past their due time that nobody has answered"),
    _gauge("timers_lateness", "seconds", "How long the oldest of them has been due"),
    _gauge("projection_lag", "events", "Events that a view has still to read", "view", "lane"),
    _counter("projected", "Events that a view has read", "view"),
    _gauge("stuck_runs", "", "Open runs without a recorded reason to wake"),
    _gauge("tenant_stuck_runs", "", "The same by tenant, of tenants that have any", "tenant"),
    _counter("stuck_runs_repaired", "Runs that the janitor gave a reason to wake again"),
    _gauge("incidents_open", "", "Runs that wait for an operator, by their oldest incident", "reason"),
    _counter("incidents", "Incidents opened", "reason"),
    _gauge("dead_letters_kept", "", "Dead letters that wait for an operator"),
    _counter("dead_letters", "Messages buried", "reason"),
    _counter(
        "quota_breaches",
        "How often a full quota was met, by whatever it bounds",
        "quota",
    ),
    _counter("sign_ins", "Tries of people to sign in: ok, refused, limited", "result"),
    _counter("takeovers", "Runs taken over from a process declared dead"),
    _gauge("processes", "", "Processes that are alive"),
    Metric(
        name="tenant_cpu",
        kind="counter",
        unit="seconds",
        labels=("tenant", "stage"),
        help="CPU time by tenant, from samples: decide, project",
    ),
    _counter("tenant_rows", "Events of runs appended, by tenant", "tenant"),
    _counter("tenant_sends", "Messages that runs put into the outbox, by tenant", "tenant"),
    _counter("tenant_actions", "Local attempts begun, by tenant", "tenant"),
    _gauge("paused", "", "What an operator has stopped: tenants paused, all paused, maintenance", "scope"),
    _histogram("event_loop_lag", "seconds", "How late the event loop came back to a short sleep"),
    _counter(
        "module_messages",
        "What a shipped module did: handled, dead, resent, tombstoned, sent, unroutable",
        "module",
        "result",
    ),
    _counter("egress_requests", "Outbound calls: ok, refused, limited, timeout, failed", "kind", "result"),
    _counter(
        "outlet_deliveries",
        "Notices sent outside: delivered; retried later, failed for good, limited by rate",
        "outcome",
    ),
    _gauge("outlet_backlog", "", "Notices that wait for an outlet that is enabled"),
    _gauge("outlet_backlog_age", "seconds", "Age of the oldest of them"),
    _gauge("outlets_disabled", "", "Outlets that are disabled: failing, gone, or by a person", "reason"),
    _counter("http_requests", "Requests answered, by route and status class", "method", "route", "status"),
    _histogram("http_request_duration", "seconds", "Time to answer a request", "route"),
)


class Family:
    """One metric with its children. `of("billing.create")` answers the child for these label values, bound once."""

    __slots__ = ("_children", "_limit", "_metric", "_page", "_seen", "_width")

    def __init__(self, metric: Any, width: int, limit: int, page: CollectorRegistry | None) -> None:
        """`page` is where it comes with its first value; None: it stands there already."""
        self._metric = metric
        self._width = width
        self._limit = limit
        self._page = page
        self._children: dict[tuple[str, ...], Any] = {}
        self._seen: list[set[str]] = [set() for _ in range(width)]

    def of(self, *values: str) -> Any:
        """A prometheus child: `inc`, `set`, `observe`. Values past the limit of a label become `other`."""
        child = self._children.get(values)
        return child if child is not None else self._bind(values)

    def inc(self, amount: float = 1.0) -> None:
        self.of().inc(amount)

    def set(self, value: float) -> None:
        self.of().set(value)

    def observe(self, value: float) -> None:
        self.of().observe(value)

    def put(self, values: Mapping[str, float]) -> None:
        """Sets a gauge of one label to what was measured now: a value that has gone is 0."""
        for (known,), child in self._children.items():
            if known not in values:
                child.set(0)
        for value, measured in values.items():
            self.of(value).set(measured)

    def forget(self) -> None:
        """Takes a gauge off the page: what it said is no longer known to be so."""
        if self._width:
            self._metric.clear()
            self._seen = [set() for _ in range(self._width)]
        elif self._page is not None and self._children:
            self._page.unregister(self._metric)
        self._children.clear()

    def _bind(self, values: tuple[str, ...]) -> Any:
        if len(values) != self._width:
            raise ValueError(f"{len(values)} label values given, {self._width} declared in METRICS")
        kept = []
        bounded = False
        for value, seen in zip(values, self._seen, strict=True):
            if value in seen or len(seen) < self._limit:
                seen.add(value)
                kept.append(value)
            else:
                bounded = True
                kept.append(OTHER)
        child = self._metric.labels(*kept) if self._width else self._metric
        if self._page is not None:
            self._page.register(self._metric)
        if not bounded:
            # Only what is within the limits is kept, or the cache would grow where the labels may not.
            self._children[values] = child
        return child


class Metrics:
    """All families of one process, by attribute: `metrics.steps.of("billing.create", "succeeded").inc()`."""

    runs_started: Family
    runs_ended: Family
    run_duration: Family
    runs_open: Family
    runs_hot: Family
    steps: Family
    step_duration: Family
    undos: Family
    appends: Family
    commits: Family
    events: Family
    append_batch: Family
    append_duration: Family
    deliveries: Family
    duplicates: Family
    ignored: Family
    published: Family
    outbox_age: Family
    outbox_rows: Family
    timers_late: Family
    timers_lateness: Family
    projection_lag: Family
    projected: Family
    stuck_runs: Family
    tenant_stuck_runs: Family
    stuck_runs_repaired: Family
    incidents_open: Family
    incidents: Family
    dead_letters_kept: Family
    dead_letters: Family
    quota_breaches: Family
    sign_ins: Family
    takeovers: Family
    processes: Family
    tenant_cpu: Family
    tenant_rows: Family
    tenant_sends: Family
    tenant_actions: Family
    paused: Family
    event_loop_lag: Family
    module_messages: Family
    egress_requests: Family
    outlet_deliveries: Family
    outlet_backlog: Family
    outlet_backlog_age: Family
    outlets_disabled: Family
    http_requests: Family
    http_request_duration: Family

    def __init__(self, *, values_per_label: int = 200) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        for row in METRICS:
            # With labels it has no sample before its first value; without, it would say 0.
            later = row.kind == "gauge" and not row.labels
            metric = _make(row, None if later else self.registry)
            page = self.registry if later else None
            setattr(self, row.name, Family(metric, len(row.labels), values_per_label, page))
        ProcessCollector(registry=self.registry)

    def render(self) -> tuple[bytes, str]:
        """The body and content type of `/metrics`."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


def table() -> Iterator[tuple[str, str, str, str]]:
    """Rows for the documentation: full name, type, labels, meaning."""
    for row in METRICS:
        yield row.full_name, row.kind, ", ".join(row.labels), row.help


def _make(row: Metric, registry: CollectorRegistry | None) -> Any:
    # prometheus-client appends _total itself.
    name = row.full_name.removesuffix("_total")
    if row.kind == "counter":
        return Counter(name, row.help, row.labels, registry=registry)
    if row.kind == "gauge":
        return Gauge(name, row.help, row.labels, registry=registry)
    return Histogram(name, row.help, row.labels, buckets=row.buckets, registry=registry)
