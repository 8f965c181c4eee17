"""Sends finished spans to a collector: OTLP over HTTP in its JSON form, one request per batch. Spans that the collector
does not take are gone; nothing waits for it.

Called by OpenTelemetry's batch processor, in a thread of its own. It needs the standard library alone: OpenTelemetry's
own HTTP exporter stands on a client whose certificates come under a licence that this project does not take.
Source: OTLP 1.5, "OTLP/HTTP" and "JSON Protobuf Encoding".
"""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, StatusCode

EXPORT_SECONDS: Final = 5.0

log = logging.getLogger("unwind.tracing")


class OtlpJson(SpanExporter):
    """`endpoint` is the whole address, `https://collector:4318/v1/traces`; `headers` go with every request."""

    def __init__(self, endpoint: str, headers: Mapping[str, str] | None = None) -> None:
        self._endpoint = endpoint
        self._headers = {**(headers or {}), "Content-Type": "application/json"}
        # The collector is the operator's own: no proxy of the environment stands between.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._complained = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        body = json.dumps(document(spans)).encode()
        request = urllib.request.Request(self._endpoint, data=body, headers=self._headers, method="POST")
        try:
            with self._open(request, timeout=EXPORT_SECONDS) as answer:
                taken = answer.status == HTTPStatus.OK
        except (OSError, ValueError):
            taken = False
        if taken:
            self._complained = False
            return SpanExportResult.SUCCESS
        if not self._complained:
            # Once per outage: tracing must not flood the log that tells what is wrong.
            self._complained = True
            log.warning("the trace collector does not take spans; they are dropped until it does")
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """There is nothing to close."""


def document(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """An ExportTraceServiceRequest. All spans of a process have one resource and one scope."""
    resource = spans[0].resource.attributes if spans else {}
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeSpans": [{"scope": {"name": "unwind"}, "spans": [_span(span) for span in spans]}],
            }
        ]
    }


def _span(span: ReadableSpan) -> dict[str, Any]:
    assert span.context is not None
    told: dict[str, Any] = {
        **_ids(span.context),
        "name": span.name,
        # The SDK counts kinds from internal = 0, the protocol from 1.
        "kind": span.kind.value + 1,
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _attributes(span.attributes or {}),
        "links": [_ids(link.context) for link in span.links],
    }
    if span.parent is not None:
        told["parentSpanId"] = f"{span.parent.span_id:016x}"
    if span.status.status_code is not StatusCode.UNSET:
        told["status"] = {"code": span.status.status_code.value}
    return told


def _ids(context: SpanContext) -> dict[str, Any]:
    return {"traceId": f"{context.trace_id:032x}", "spanId": f"{context.span_id:016x}"}


def _attributes(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in given.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": str(value)}
