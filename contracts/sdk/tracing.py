"""The spans of one process: recorded when what they tell is over, sent over OTLP/HTTP, never with a payload.

    tracing = Tracing.to("http://collector:4318/v1/traces", service="billing")
    service.trace(tracing)

A span is recorded once, at its end, with a context that was known from its beginning (`contracts.traceparent`), so
nothing is kept open over a wait or a crash. Attributes are the few named here; there is no place for anything else. It
needs the extra `tracing`; a process that traces nothing loads nothing of it and holds None instead.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, TypedDict, Unpack, cast

import orjson

from contracts.problems import Problem
from contracts.sdk.transport import Message, Published
from contracts.traceparent import SpanContext, read, trace_id

if TYPE_CHECKING:
    from opentelemetry import trace as otel
    from opentelemetry.sdk.trace import SpanProcessor

Kind = Literal["internal", "server", "client", "producer", "consumer"]


class Told(TypedDict, total=False):
    """What a span may say beside its name: where it belongs, and how it ended. Ids of runs and names of code only."""

    tenant: str
    run_id: str
    workflow: str
    step: str
    attempt: int
    outcome: str
    destination: str
    method: str
    route: str
    status: int


_ATTRIBUTES: Final[Mapping[str, str]] = {
    "tenant": "unwind.tenant",
    "run_id": "unwind.run_id",
    "workflow": "unwind.workflow",
    "step": "unwind.step",
    "attempt": "unwind.attempt",
    "outcome": "unwind.outcome",
    "destination": "messaging.destination.name",
    "method": "http.request.method",
    "route": "http.route",
    "status": "http.response.status_code",
}
"""Semantic conventions where they have a name for it; ours begin with `unwind.`."""

STOP_SECONDS: Final = 5.0
_WHOLE: Final = 1 << 64


class TracingMissing(Problem):
    code = "tracing_missing"
    title = "Tracing is asked for and not installed"
    exit_code = 2


class Tracing:
    """Where a process's spans go: `processor` takes each when it is over. `sample` is the share of new traces that are
    sent; a trace that comes from elsewhere keeps the decision it came with.
    """

    def __init__(self, processor: SpanProcessor, *, service: str, sample: float = 1.0) -> None:
        from opentelemetry.sdk.resources import Resource

        self._processor = processor
        self._resource = Resource.create({"service.name": service})
        self._below = int(sample * _WHOLE)

    @classmethod
    def to(
        cls, endpoint: str, *, service: str, sample: float = 1.0, headers: Mapping[str, str] | None = None
    ) -> Tracing:
        """Sends in batches from a thread of its own. Raises `TracingMissing`, naming the extra to install."""
        try:
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            from contracts.sdk.otlp import OtlpJson
        except ImportError:
            raise TracingMissing(
                "spans are to be sent, but OpenTelemetry is not installed: pip install 'unwind-saga[tracing]'"
            ) from None
        return cls(BatchSpanProcessor(OtlpJson(endpoint, headers)), service=service, sample=sample)

    async def stop(self) -> None:
        """Sends what has gathered, for a few seconds at most."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.to_thread(self._processor.shutdown)
        except TimeoutError:
            pass

    # ------------------------------------------------------------------------------------------------ contexts

    def about(self, parent: SpanContext | None, *about: object) -> SpanContext:
        """The context of the span about this: in the parent's trace, or the first of a trace of its own."""
        if parent is not None:
            return parent.child(*about)
        return self.first(trace_id(*about)).child(*about)

    def fresh(self, parent: SpanContext | None) -> SpanContext:
        """A context that no other span has, for what nobody else has to name."""
        return self.about(parent, random.getrandbits(128))

    def first(self, trace: int) -> SpanContext:
        """A new trace, and whether it is of the share that is sent: every process of one setting decides alike."""
        return SpanContext(trace, 0, (trace & (_WHOLE - 1)) < self._below)

    # ------------------------------------------------------------------------------------------------ spans

    def published(self, message: Message, fate: Published, began: datetime, ended: datetime) -> None:
        """A message was sent, in the trace that it carries; one that carries none is in none."""
        sent = message_context(message.body)
        if sent is None:
            return
        self.record(
            f"publish {message.routing_key}",
            self.fresh(sent),
            began=began,
            ended=ended,
            parent=sent,
            kind="producer",
            failed=fate is not Published.CONFIRMED,
            destination=message.exchange,
            outcome=fate.value,
        )

    def record(
        self,
        name: str,
        context: SpanContext,
        *,
        began: datetime,
        ended: datetime,
        parent: SpanContext | None = None,
        kind: Kind = "internal",
        links: Iterable[SpanContext] = (),
        failed: bool = False,
        **told: Unpack[Told],
    ) -> None:
        """One span, over. `parent` may be of another process; `links` are spans of other traces that it goes on from.
        Does nothing in a trace that is not sampled.
        """
        if not context.sampled:
            return
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import Link, SpanKind
        from opentelemetry.trace.status import Status, StatusCode

        self._processor.on_end(
            ReadableSpan(
                name,
                context=_otel(context),
                parent=None if parent is None else _otel(parent),
                resource=self._resource,
                attributes={_ATTRIBUTES[key]: cast("str | int", value) for key, value in told.items()},
                links=[Link(_otel(link)) for link in links if link != context],
                kind=SpanKind[kind.upper()],
                status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
                start_time=_nanoseconds(began),
                end_time=max(_nanoseconds(began), _nanoseconds(ended)),
            )
        )


def message_context(body: bytes) -> SpanContext | None:
    """The context in a structured envelope."""
    try:
        document = orjson.loads(body)
    except ValueError:
        return None
    found = document.get("traceparent") if isinstance(document, dict) else None
    return read(found) if isinstance(found, str) else None


def _otel(context: SpanContext) -> otel.SpanContext:
    from opentelemetry import trace as otel

    flags = otel.TraceFlags(otel.TraceFlags.SAMPLED if context.sampled else otel.TraceFlags.DEFAULT)
    return otel.SpanContext(context.trace_id, context.span_id, is_remote=True, trace_flags=flags)


_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MICROSECOND: Final = timedelta(microseconds=1)


def _nanoseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND * 1000
