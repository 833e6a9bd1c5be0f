"""All metrics of bucketfront, in the order of docs/metrics.md."""

from collections.abc import Mapping, Sequence

from bucketfront.admin.collectors import (
    cache_collector,
    event_collector,
    fleet_collector,
    origin_collector,
    process_collector,
    removal_collector,
    server_collector,
    summary_collector,
    tls_collector,
    tracing_collector,
    traffic_collector,
    upload_collector,
)
from bucketfront.server.telemetry import request_metrics
from bucketfront.server.telemetry.metric_family import MetricFamily

FAMILIES: Mapping[str, Sequence[MetricFamily]] = {
    "Requests of clients": request_metrics.FAMILIES,
    "Connections of clients": (*server_collector.FAMILIES, *tls_collector.FAMILIES),
    "The cache": (*cache_collector.FAMILIES, *removal_collector.FAMILIES),
    "S3": (*origin_collector.FAMILIES, *traffic_collector.FAMILIES),
    "The bus": fleet_collector.FAMILIES,
    "Events of S3": event_collector.FAMILIES,
    "Money and sizing": summary_collector.FAMILIES,
    "Uploads": upload_collector.FAMILIES,
    "Traces": tracing_collector.FAMILIES,
    "The process": process_collector.FAMILIES,
}

# Of prometheus-client, under the names that all programs in Python have.
STANDARD_PREFIXES = ("process_", "python_gc_")
