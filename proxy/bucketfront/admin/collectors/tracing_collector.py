"""The metrics of traces."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bucketfront.server.telemetry.metric_family import counter
from bucketfront.tracing.assembly import Tracing

_SPANS = counter(
    "trace_spans",
    "Spans by outcome: `exported`, `dropped` because too many wait for the collector, `failed` because it refuses them"
    " or is out of reach. Without `tracing` there is no series.",
    "outcome",
)

FAMILIES = (_SPANS,)


class TracingCollector(Collector):
    def __init__(self, registry: CollectorRegistry, tracing: Tracing | None) -> None:
        self._tracing = tracing
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        export = None if self._tracing is None else self._tracing.export
        counts = {} if export is None else {
            "exported": export.exported, "dropped": export.dropped, "failed": export.failed,
        }  # fmt: skip
        yield _SPANS.values(((outcome,), count) for outcome, count in counts.items())
