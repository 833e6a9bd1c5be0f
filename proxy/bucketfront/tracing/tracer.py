"""Makes spans of finished requests and of calls of S3, and hands them to an exporter.

Requests come in batches after their end, so tracing costs the fast path nothing. The ordinary path decides on the trace
of a request when it begins, because calls of S3 belong to it.
"""

import random
import secrets
from collections.abc import Callable, Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from bucketfront.http import trace_context
from bucketfront.request_trace import RequestTrace
from bucketfront.s3.finished_call import FinishedCall
from bucketfront.server.telemetry.access_log import FinishedRequest
from bucketfront.server.telemetry.logged_fields import NAMES, text_of

NS = 10**9
SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_TRACEPARENT_AT = NAMES.index(trace_context.TRACEPARENT)
_FLAG_AT = slice(54, 55)  # of the digit whose lowest bit says that the trace is sampled
_UNSAMPLED = frozenset("02468ace")
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"})


class Tracer:
    """Samples, and makes spans. `emit` takes each span without waiting. `ratio` is for traces that begin here."""

    def __init__(self, ratio: float, resource: Resource, emit: Callable[[ReadableSpan], None]) -> None:
        self._ratio = ratio
        self._resource = resource
        self._emit = emit

    def begin_trace(self) -> str | None:
        """Return the id of a new trace, or None if it is not sampled."""
        return secrets.token_hex(16) if random.random() < self._ratio else None  # noqa: S311 - a sample, no secret

    def add(self, requests: Sequence[FinishedRequest]) -> None:
        """Make the spans of a batch of requests."""
        for request in requests:
            place = self._place(request)
            if place is not None:
                self._emit(self._server_span(request, *place))

    def _place(self, request: FinishedRequest) -> tuple[str, str, str | None] | None:
        """Return the trace of a request, its span, and the parent of that. Returns None if it is not sampled."""
        record, traceparent = request[0], request[5][_TRACEPARENT_AT]
        if record.trace_id is not None:
            return record.trace_id, record.span_id or secrets.token_hex(8), None
        if traceparent is not None:
            text = text_of(traceparent)
            if text[_FLAG_AT] in _UNSAMPLED:  # which spares most hits the parsing
                return None
            if (trace := trace_context.parse(text)) is not None:
                return trace.trace_id, record.span_id or secrets.token_hex(8), trace.parent_id
        if record.is_sampling_decided or (began := self.begin_trace()) is None:
            return None
        return began, secrets.token_hex(8), None

    def _server_span(self, request: FinishedRequest, trace: str, span: str, parent: str | None) -> ReadableSpan:
        record, sent, client, at, seconds, _ = request
        method = record.method if record.method in _METHODS else "_OTHER"
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "url.path": record.path,
            "http.response.status_code": record.status,
            "http.response.body.size": sent,
            "client.address": client,
            "bucketfront.cache": record.outcome,
            "bucketfront.cache_status": record.cache,
            "bucketfront.bytes_from_origin": record.from_origin,
        }
        name = method
        if record.mount is not None:
            attributes["http.route"] = f"{record.mount}{{key}}"
            name = f"{method} {record.mount}{{key}}"
        if record.key is not None:
            attributes["aws.s3.bucket"] = record.key.bucket
            attributes["aws.s3.key"] = record.key.key
        is_error = record.status >= 500 or record.cut is not None
        if is_error:
            attributes["error.type"] = record.fault or str(record.status)
        return self._span(name, trace, span, parent, SpanKind.SERVER, attributes, at - seconds, at, is_error=is_error)

    def add_call(self, call: FinishedCall) -> None:
        """Make the span of a call of S3, if it belongs to a request that is sampled."""
        parent = _sampled(call.trace)
        if parent is None:
            return
        attributes: dict[str, str | int] = {
            "rpc.system": "aws-api",
            "rpc.service": "S3",
            "rpc.method": call.operation,
            "aws.s3.bucket": call.bucket,
        }
        optional = {
            "aws.s3.key": call.key,
            "aws.request_id": call.request_id,
            "http.response.status_code": call.status,
            "error.type": call.error,
        }
        attributes.update({name: value for name, value in optional.items() if value is not None})
        self._emit(
            self._span(
                f"S3.{call.operation}", parent[0], secrets.token_hex(8), parent[1], SpanKind.CLIENT, attributes,
                call.began, call.began + call.seconds, is_error=call.error is not None,
            )
        )  # fmt: skip

    def _span(
        self,
        name: str,
        trace: str,
        span: str,
        parent: str | None,
        kind: SpanKind,
        attributes: dict[str, str | int],
        start: float,
        end: float,
        *,
        is_error: bool,
    ) -> ReadableSpan:
        """Return a span. `start` and `end` are in seconds since the epoch."""
        return ReadableSpan(
            name,
            context=_context(trace, span, is_remote=False),
            parent=None if parent is None else _context(trace, parent, is_remote=kind is SpanKind.SERVER),
            resource=self._resource,
            attributes=attributes,
            kind=kind,
            status=Status(StatusCode.ERROR if is_error else StatusCode.UNSET),
            start_time=int(start * NS),
            end_time=int(end * NS),
        )


def _sampled(trace: RequestTrace | None) -> tuple[str, str] | None:
    """Return trace and span of the request that a call works for, if it is sampled."""
    found = None if trace is None else trace_context.parse(trace.traceparent)
    return (found.trace_id, found.parent_id) if found is not None and found.flags == "01" else None


def _context(trace: str, span: str, *, is_remote: bool) -> SpanContext:
    return SpanContext(int(trace, 16), int(span, 16), is_remote, SAMPLED)
