"""`unwind bench` as an answer: provides the servers, takes the rounds, and shows the figures as a table, a document,
or docs/performance.md."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from contracts.problems import NotFound, Unavailable
from scripts.answer import Answer, stacked, table
from scripts.bench.figures import FIGURES, Figure, Measured, Round, named
from scripts.bench.measure import FULL, QUICK, Measurements
from scripts.bench.stack import Servers

ROUNDS: Final = 3
PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
_EMBEDDED_ONLY: Final = frozenset({"embedded_vs_dbos"})


def bench(names: Sequence[str], *, quick: bool, peer: str, postgres_url: str, rabbitmq_url: str, write: bool) -> Answer:
    """Measures the named figures, or all. Raises `NotFound` for a name that is none."""
    unknown = sorted(set(names) - {figure.name for figure in FIGURES})
    if unknown:
        known = ", ".join(figure.name for figure in FIGURES)
        raise NotFound(f"no figure is called {unknown[0]}; known are {known}", field="only")
    figures = [figure for figure in named(names) if peer == "dbos" or "dbos" not in figure.name]
    with _servers(figures, postgres_url, rabbitmq_url) as servers:
        measured = measure(figures, servers, quick=quick)
    document = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "quick": quick,
        "figures": [one.to_document() for one in measured],
    }
    if write:
        text = renewed(PAGE.read_text(encoding="utf-8"), document) if names else page(document)
        PAGE.write_text(text, encoding="utf-8")
    rows = [
        (
            one.figure.name,
            _spell(one.value),
            one.figure.unit,
            _spell(one.figure.at_least),
            _spell(one.figure.goal),
            one.verdict,
            _beside(one.figure.beside, one.beside),
        )
        for one in measured
    ]
    note = (
        "\nOne short round: a smoke test, not a measurement."
        if quick
        else f"\nMedians of {ROUNDS} rounds; {machine()}."
    )
    columns = ("FIGURE", "VALUE", "UNIT", "AT LEAST", "GOAL", "VERDICT", "BESIDE")
    return Answer(document, stacked(table(columns, rows), note))


def measure(figures: Sequence[Figure], servers: Servers | None, *, quick: bool) -> list[Measured]:
    """All rounds of all figures; a round measures everything once, so that a ratio's two sides ran minutes apart at
    most."""
    rounds: dict[str, list[Round]] = {figure.name: [] for figure in figures}
    for number in range(1 if quick else ROUNDS):
        measurements = Measurements(servers, QUICK if quick else FULL, lambda what, number=number: _tell(number, what))  # type: ignore[misc]
        for figure in figures:
            if not (figure.once and number):
                rounds[figure.name].append(measurements.round(figure))
    return [Measured(figure, tuple(rounds[figure.name])) for figure in figures]


def machine() -> str:
    """What the figures were measured on, as far as it matters for ratios."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def page(document: dict[str, Any]) -> str:
    """docs/performance.md: the figures of one measurement, and how to take them again."""
    rounds = "one short round, a smoke test" if document["quick"] else "medians of three rounds"
    lines = [HEAD.format(measured_at=document["measured_at"], machine=document["machine"], rounds=rounds)]
    lines += [_row(row, _beside(_COLUMNS[row["figure"]], row["beside"])) for row in document["figures"]]
    return "\n".join([*lines, FOOT])


def renewed(text: str, document: dict[str, Any]) -> str:
    """The page with the rows of these figures replaced; each says when it was measured, since the others were not."""
    lines = text.split("\n")
    for row in document["figures"]:
        beside = (_beside(_COLUMNS[row["figure"]], row["beside"]), f"measured again {document['measured_at']}")
        for number, line in enumerate(lines):
            if line.startswith(f"| {row['question']} |"):
                lines[number] = _row(row, ", ".join(filter(None, beside)))
    return "\n".join(lines)


def _row(row: dict[str, Any], beside: str) -> str:
    unit = row["unit"] if row["unit"] == "x" else f" {row['unit']}"
    value = f"**{_spell(row['value'])}{unit}**"
    cells = (row["question"], value, _spell(row["at_least"]), _spell(row["goal"]), row["verdict"], beside)
    return f"| {' | '.join(cells)} |"


HEAD: Final = """\
# Performance

Every figure is a ratio taken within one run on one machine; absolute rates say more about the disk and the cores than
about the engine. Take them again with `unwind bench --write` (the peer is installed into the cache on first use).

Measured {measured_at} on {machine}; {rounds}.

| figure | value | at least | goal | verdict | beside |
|---|---|---|---|---|---|"""

FOOT: Final = """
Workload A: trigger events of about 400 bytes published on the stack's bus, a saga of five no-op local steps, every
transition durable before and after each step, with sealing, dedup, redaction and projections on. On PostgreSQL and
RabbitMQ the engine runs as two processes, one that owns runs and one that writes the read models; embedded it is one.
Engine, load generator, broker and database share the machine's cores; the peer does the same five steps with its own
defaults.

What takes minutes (A for 5 minutes, D, takeover, rebuild, lists) is measured in the first round only.

A for 5 minutes: with 2,000 runs in flight, after a minute of warming up. At the end the log's tables have outgrown the
server's buffers.

C: one run at a time. The clock of a run starts with the broker's confirm of its trigger, which is when the engine is
given it, and stops when another process has heard of its end; the peer's starts with the call of the workflow and stops
with its return, both in one process. Neither waits for a bus: what the confirmed publish takes before stands beside as
`publish ms`. Engine and peer take turns, five of each in a round, each pinned to one core, where both are at their
best.

Rebuild: what `unwind rebuild history` does, on PostgreSQL, with workload A's runs in the log. The living read model has
the same rows already; the time includes the comparison with it and the switch. `read and written per second` leaves
these out.

Lists: what the API asks, on PostgreSQL, of a history filled by SQL: nine in ten of the runs are one tenant's, nearly
all have succeeded, and what is rare is rare. `median kind ms` is the median of the kinds; `unwind bench --json` has
each.
"""


@contextmanager
def _servers(figures: Sequence[Figure], postgres_url: str, rabbitmq_url: str) -> Iterator[Servers | None]:
    """The given servers, else private ones that go away afterwards; none when only the embedded stack is measured."""
    if all(figure.name in _EMBEDDED_ONLY for figure in figures):
        yield None
        return
    if postgres_url and rabbitmq_url:
        yield Servers(postgres_url, rabbitmq_url)
        return
    from scripts.provision import NoServers, servers

    private = servers(postgres=not postgres_url, rabbitmq=not rabbitmq_url, durable=True, given=False)
    try:
        private.start()
    except NoServers as why:
        raise Unavailable(f"{why}; or name servers with --postgres and --rabbitmq") from None
    try:
        yield Servers(postgres_url or private.postgres_url, rabbitmq_url or private.rabbitmq_url)
    finally:
        private.close()


def _tell(number: int, what: str) -> None:
    if sys.stderr.isatty():
        print(f"round {number + 1}: {what}", file=sys.stderr, flush=True)


def _spell(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


_COLUMNS: Final = {figure.name: figure.beside for figure in FIGURES}


def _beside(names: Sequence[str], values: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_spell(values[name])}" for name in names if name in values)
