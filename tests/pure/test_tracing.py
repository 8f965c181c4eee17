"""Spans of a run: every process names the same one, nothing is kept open over a wait, no payload is told."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from contracts.sdk.otlp import OtlpJson, document
from contracts.sdk.tracing import Tracing, message_context
from contracts.traceparent import SpanContext, read
from engine.plan.code import Run, saga
from engine.run.inputs import TimerDue
from engine.tracing import RunTracing
from tests.pure.run.telling import (
    ONCE,
    START,
    THRICE,
    Heard,
    Story,
    begun,
    cancelled,
    do,
    done,
    due,
    lost,
    matched,
    undo_it,
    undone,
)

ROOT = Path(__file__).resolve().parents[2]
HEARD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Turned:
    def now(self) -> datetime:
        return START

    def database_now(self) -> datetime | None:
        return None


@saga("voyage", version=1)
async def voyage(run: Run, data: Any) -> Any:
    await run.step("pack", do, undo=undo_it, retry=THRICE)
    await run.wait_for("ticket", "travel.TicketIssuedV1", key=("trip", "t-1"), timeout_seconds=86_400)
    await run.step("board", do, undo=undo_it, retry=ONCE)
    await run.sleep("night", 3600)
    await run.step("land", do, undo=undo_it, retry=ONCE)


@saga("branches", version=1)
async def branches(run: Run, data: Any) -> Any:
    async def beside() -> None:
        await run.step("first", do, retry=ONCE)
        await run.step("second", do, retry=ONCE)

    await run.gather(
        beside(), run.wait_for("ticket", "travel.TicketIssuedV1", key=("trip", "t-1"), timeout_seconds=86_400)
    )


def traced(sample: float = 1.0) -> tuple[RunTracing, InMemorySpanExporter]:
    kept = InMemorySpanExporter()
    return RunTracing(Tracing(SimpleSpanProcessor(kept), service="test", sample=sample), Turned()), kept


def told(plan: Any, *heard: Heard, tracing: RunTracing) -> Story:
    """The story with every commit told to `tracing`."""
    story = Story(plan)
    for one in heard:
        before = story.state
        given = one(story.now + timedelta(seconds=1))
        story.hear(one)
        tracing.committed(before, story.new, story.state, [given])
    return story


def by_name(kept: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """Attempts by the name of their step, all others by their own."""
    spans = kept.get_finished_spans()
    named = {_step(span) if span.name.startswith(("step ", "undo ")) else span.name: span for span in spans}
    assert len(named) == len(spans), [span.name for span in spans]
    return named


def _step(span: ReadableSpan) -> str:
    return str((span.attributes or {}).get("unwind.step"))


def context(span: ReadableSpan) -> SpanContext:
    assert span.context is not None
    return SpanContext(span.context.trace_id, span.context.span_id)


def links(span: ReadableSpan) -> set[SpanContext]:
    return {SpanContext(link.context.trace_id, link.context.span_id) for link in span.links}


def test_what_follows_a_wait_is_in_a_trace_of_its_own_that_links_back() -> None:
    tracing, kept = traced()
    first = begun({"email": "ann@example.org"}, traceparent=HEARD)
    story = told(
        voyage, first, done("pack"), matched("ticket", {"seat": "12A"}), done("board"), due("sleep/night/1"),
        done("land"), tracing=tracing,
    )  # fmt: skip
    spans = by_name(kept)
    start, ticket, night = (context(spans[name]) for name in ("start voyage", "wake ticket", "wake night"))
    assert start.trace_id == int(HEARD[3:35], 16)
    assert len({start.trace_id, ticket.trace_id, night.trace_id}) == 3
    assert (links(spans["wake ticket"]), links(spans["wake night"])) == ({start}, {start, ticket})
    assert [context(spans[step]).trace_id for step in ("pack", "board", "land")] == [
        start.trace_id,
        ticket.trace_id,
        night.trace_id,
    ]
    assert context(spans["end voyage"]).trace_id == night.trace_id
    assert spans["timer sleep"].parent is not None
    assert spans["timer sleep"].parent.span_id == night.span_id
    text = orjson.dumps(document(kept.get_finished_spans()))
    assert b"12A" not in text
    assert b"ann@example.org" not in text
    assert story.state.status == "succeeded"


def test_the_owner_that_sent_a_command_and_the_one_that_hears_its_reply_name_the_same_span() -> None:
    """Whatever was recorded in between: a wait beside it that was over first, a retry, a fold from the log."""
    tracing, _ = traced()
    story = told(branches, begun(), done("first"), tracing=tracing)
    carried = tracing.attempt(story.state, "second", 1, 1, undo=False)
    story.hear(matched("ticket"))
    before = story.folded()
    another, kept = traced()
    another.committed(before, story.hear(done("second")).new, story.folded(), [])
    assert context(by_name(kept)["second"]) == carried


def test_every_attempt_is_a_span_from_its_intent_to_its_outcome() -> None:
    tracing, kept = traced()
    told(voyage, begun(), lost("pack"), due("retry/pack/1/1"), done("pack"), tracing=tracing)
    attempts = [span for span in kept.get_finished_spans() if span.name.startswith("step ")]
    said = [(span.attributes or {}) for span in attempts]
    assert [(one["unwind.attempt"], one["unwind.outcome"]) for one in said] == [(1, "retried"), (2, "succeeded")]
    assert len({context(span) for span in attempts}) == 2
    assert [(span.end_time or 0) - (span.start_time or 0) for span in attempts] == [10**9, 10**9]


def test_unwinding_is_a_trace_of_its_own_and_its_undos_are_in_it() -> None:
    tracing, kept = traced()
    told(voyage, begun(), done("pack"), cancelled(), undone("pack"), tracing=tracing)
    spans = {span.name: span for span in kept.get_finished_spans()}
    start, unwinding = context(spans["start voyage"]), context(spans["unwind voyage"])
    assert unwinding.trace_id != start.trace_id
    assert start in links(spans["unwind voyage"])
    [undo] = [span for span in kept.get_finished_spans() if span.name.startswith("undo ")]
    assert undo.parent is not None
    assert (context(undo).trace_id, undo.parent.span_id) == (unwinding.trace_id, unwinding.span_id)
    assert context(spans["end voyage"]).trace_id == unwinding.trace_id


@pytest.mark.parametrize(("heard", "sample", "sent"), [
    (HEARD, 0.0, True), (HEARD[:-2] + "00", 1.0, False), (None, 1.0, True), (None, 0.0, False),
])  # fmt: skip
def test_a_trace_from_elsewhere_keeps_its_decision_and_others_are_sampled(
    heard: str | None, sample: float, sent: bool
) -> None:
    tracing, kept = traced(sample)
    story = told(voyage, begun(traceparent=heard), done("pack"), matched("ticket"), tracing=tracing)
    assert bool(kept.get_finished_spans()) is sent
    # Modules are told what was decided.
    assert tracing.attempt(story.state, "board", 1, 1, undo=False).sampled is sent


def test_a_share_of_the_traces_is_about_that_share() -> None:
    tracing = traced(0.25)[0].tracing
    sampled = sum(tracing.about(None, "run", number).sampled for number in range(4000))
    assert 850 < sampled < 1150


def test_a_timer_that_answers_nothing_known_is_still_told() -> None:
    tracing, kept = traced()
    story = told(voyage, begun(), tracing=tracing)
    tracing.committed(story.state, [], story.state, [TimerDue(at=START, key="run/deadline")])
    assert "timer run/deadline" in {span.name for span in kept.get_finished_spans()}


@pytest.mark.parametrize("text", [
    None, "", "00", HEARD[:-1], HEARD + "0", HEARD + "-more", "ff" + HEARD[2:], HEARD.upper(),
    "00-" + "0" * 32 + HEARD[35:], HEARD[:36] + "0" * 16 + HEARD[52:],
])  # fmt: skip
def test_what_is_no_traceparent_is_none(text: str | None) -> None:
    assert read(text) is None


def test_a_traceparent_of_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert read("01" + HEARD[2:] + "-what comes then") == read(HEARD)
    found = read(HEARD)
    assert found is not None
    assert found.traceparent == HEARD


@pytest.mark.parametrize(
    ("body", "known"), [(b"{", False), (b"[]", False), (b'{"traceparent": 7}', False), (b"{}", False)]
)
def test_a_message_without_a_trace_is_in_none(body: bytes, known: bool) -> None:
    assert (message_context(body) is not None) is known


def test_a_collector_that_is_away_costs_the_spans_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    tracing, kept = traced()
    told(voyage, begun(), tracing=tracing)
    away = OtlpJson("http://127.0.0.1:1/v1/traces")
    spans = kept.get_finished_spans()
    assert {away.export(spans).name for _ in range(3)} == {"FAILURE"}
    assert len(caplog.records) == 1


def test_a_span_in_the_protocols_json_form() -> None:
    tracing, kept = traced()
    parent = SpanContext(1, 2)
    tracing.tracing.record(
        "GET /x",
        parent.child("x"),
        began=datetime(2030, 1, 1, tzinfo=UTC),
        ended=datetime(2030, 1, 1, 0, 0, 1, tzinfo=UTC),
        parent=parent,
        kind="server",
        links=[SpanContext(3, 4)],
        failed=True,
        route="/x",
        status=503,
    )
    [resource] = document(kept.get_finished_spans())["resourceSpans"]
    assert {"key": "service.name", "value": {"stringValue": "test"}} in resource["resource"]["attributes"]
    [span] = resource["scopeSpans"][0]["spans"]
    assert span.pop("spanId") == f"{parent.child('x').span_id:016x}"
    assert span == {
        "traceId": f"{1:032x}",
        "parentSpanId": f"{2:016x}",
        "name": "GET /x",
        "kind": 2,
        "startTimeUnixNano": "1893456000000000000",
        "endTimeUnixNano": "1893456001000000000",
        "attributes": [
            {"key": "http.route", "value": {"stringValue": "/x"}},
            {"key": "http.response.status_code", "value": {"intValue": "503"}},
        ],
        "links": [{"traceId": f"{3:032x}", "spanId": f"{4:016x}"}],
        "status": {"code": 2},
    }


def test_a_process_that_traces_nothing_loads_nothing_of_it() -> None:
    probe = (
        "import sys, consumers.assembly, consumers.web, consumers.module_host, contracts.sdk;"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_tracing_without_its_extra_is_refused_with_the_remedy() -> None:
    probe = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from contracts.sdk.tracing import Tracing, TracingMissing\n"
        "try: Tracing.to('http://127.0.0.1:4318/v1/traces', service='x')\n"
        "except TracingMissing as missing: print(missing.detail)"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "unwind-saga[tracing]" in done.stdout
