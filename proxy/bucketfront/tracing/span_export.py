"""The export of spans by OTLP over HTTP, in a thread of the SDK. Nothing here makes the event loop wait."""

import os
import threading
from collections.abc import Sequence
from typing import cast

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from bucketfront import __version__
from bucketfront.config.tracing_settings import TracingSettings

MAX_PENDING = 2048  # spans that wait, at about 2 KiB each; beyond it they are dropped
MAX_BATCH = 512
TIMEOUT_S = 5.0  # of one export with its retries
CLOSE_TIMEOUT_S = 2.0  # for the last spans; a stop has 45 s in all


class SpanExport:
    """A bounded queue in front of an exporter. The counts are of spans."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._counted = _CountedExporter(exporter)
        self._processor = BatchSpanProcessor(
            cast("SpanExporter", self._counted), max_queue_size=MAX_PENDING + MAX_BATCH, max_export_batch_size=MAX_BATCH
        )
        self._taken = 0
        self.dropped = 0  # because the collector was too slow

    @property
    def exported(self) -> int:
        return self._counted.exported

    @property
    def failed(self) -> int:
        """Return how many were lost because the collector refused them, or was not reached."""
        return self._counted.failed

    def emit(self, span: ReadableSpan) -> None:
        """Take a span, or drop it if too many wait. Never blocks."""
        if self._taken - self.exported - self.failed >= MAX_PENDING:
            self.dropped += 1
            return
        self._taken += 1
        self._processor.on_end(span)

    def close(self) -> None:
        """Export what waits, within CLOSE_TIMEOUT_S. Blocks."""
        ending = threading.Thread(target=self._processor.shutdown, name="end of the traces", daemon=True)
        ending.start()
        ending.join(CLOSE_TIMEOUT_S)


class _CountedExporter:
    """Counts what an exporter does, in the thread of the export. It has the methods that the processor calls."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.exported = self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is SpanExportResult.SUCCESS:
                self.exported += len(spans)
            else:
                self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def open_export(settings: TracingSettings) -> SpanExport:
    """Return an export to the collector of the settings, or else of the OTEL_ variables of the environment."""
    endpoint = None if settings.otlp_endpoint is None else f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
    is_set = any(f"OTEL_EXPORTER_OTLP{name}_TIMEOUT" in os.environ for name in ("", "_TRACES"))
    return SpanExport(OTLPSpanExporter(endpoint, timeout=None if is_set else TIMEOUT_S))


def resource() -> Resource:
    """Return what all spans have in common. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence."""
    name = os.environ.get("OTEL_SERVICE_NAME")
    given = Resource.create({"service.version": __version__})
    if name is None and "service.name" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        return given.merge(Resource({"service.name": "bucketfront"}))
    return given
