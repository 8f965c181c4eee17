"""A pytest plug-in: remembers how every test marked `@pytest.mark.acceptance("H1", ...)` ended, and on which stack,
for `unwind acceptance`.

A test's stack is its `stack` parameter if it has one; else `postgres` or `rabbitmq` marks mean production, an
`embedded` mark means embedded, and a test with neither proves its row for both. It changes no test's outcome; only a
mark that names no row of docs/acceptance.md stops the session."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from scripts.acceptance import STACKS, Result, Stack, merge, read_results, read_rows, write_results

PROPERTY = "acceptance"
_RANK = {"passed": 0, "skipped": 1, "failed": 2}


class AcceptanceRecorder:
    """One per session. Under xdist the workers only tag their reports; the controller, which sees them all, writes."""

    def __init__(self, config: pytest.Config) -> None:
        self._writes = not hasattr(config, "workerinput")
        self._whole_files = not any("::" in argument for argument in config.args)
        self._collected: set[str] = set()
        self._results: dict[str, Result] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Before anything is deselected: what is not collected at all is gone, what is deselected is not."""
        if self._whole_files:
            self._collected = {item.nodeid for item in items}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """After every other plug-in has given its marks."""
        known = {row.id for row in read_rows()}
        for item in session.items:
            named = rows_of(item)
            unknown = sorted(set(named) - known)
            if unknown:
                raise pytest.UsageError(
                    f"{item.nodeid}: no acceptance row {', '.join(unknown)} in docs/acceptance.md; correct the mark"
                )
            if named:
                item.user_properties.append((PROPERTY, [list(named), list(stacks_of(item))]))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == PROPERTY and isinstance(value, list):
                self._note(report, tuple(value[0]), tuple(value[1]))

    def _note(self, report: pytest.TestReport, rows: tuple[str, ...], stacks: tuple[Stack, ...]) -> None:
        # Set-up, call and tear-down each report; the worst of them is the test's fate.
        before = self._results.get(report.nodeid)
        if before is None or _RANK[report.outcome] > _RANK[before.outcome]:
            at = datetime.now(UTC).isoformat(timespec="seconds")
            self._results[report.nodeid] = Result(report.nodeid, rows, stacks, report.outcome, at)

    def pytest_sessionfinish(self) -> None:
        if self._writes and self._results:
            write_results(merge(read_results(), self._results.values(), self._collected))


def rows_of(item: pytest.Item) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(row) for mark in item.iter_markers("acceptance") for row in mark.args))


def stacks_of(item: pytest.Item) -> tuple[Stack, ...]:
    return tuple(_stacks(item)) or STACKS


def _stacks(item: pytest.Item) -> Iterator[Stack]:
    callspec = getattr(item, "callspec", None)
    named = str(callspec.params.get("stack", "")) if callspec is not None else ""
    if named in STACKS:
        yield from (stack for stack in STACKS if stack == named)
    elif item.get_closest_marker("postgres") or item.get_closest_marker("rabbitmq"):
        yield "production"
    elif item.get_closest_marker("embedded"):
        yield "embedded"


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(AcceptanceRecorder(config), "unwind-acceptance-recorder")
