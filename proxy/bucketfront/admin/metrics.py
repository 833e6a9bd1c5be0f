"""`Cache.statistics()` as Prometheus metrics. It only formats: the numbers are counted where they happen."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bucketfront.cache import Statistics
from bucketfront.server.http1.listener import ConnectionLimit

_GAUGES = {
    "entries": ("cache_entries", "Objects in the cache."),
    "bytes_used": ("cache_bytes", "Bytes charged against max_size."),
    "bytes_limit": ("cache_limit_bytes", "max_size."),
    "index_bytes": ("cache_index_bytes", "Bytes of the index itself."),
    "flights_running": ("flights_running", "Parts being fetched now."),
    "disk_is_usable": ("disk_usable", "0 while the cache folder fails and requests pass through."),
    "absences": ("absences", "404s remembered."),
}
_COUNTERS = {
    "hits": ("cache_hits", "Lookups answered by a fresh entry or a remembered 404."),
    "stale_hits": ("cache_stale_hits", "Lookups answered by a stale entry."),
    "misses": ("cache_misses", "Lookups that found nothing."),
    "revalidations": ("cache_revalidations", "Lookups that found a stale entry and asked the origin."),
    "lookups": ("lookups", "Metadata flights that went to the origin."),
    "lookups_joined": ("lookups_joined", "Requests that waited on another's metadata flight."),
    "flights": ("flights", "Parts asked of the origin."),
    "flights_split": ("flights_split", "Parts cut in two for a reader further on."),
    "hedges": ("hedges", "Second requests for bytes that were late."),
    "hedges_won": ("hedges_won", "Second requests that brought bytes sooner than the first."),
    "retries_refused": ("retries_refused", "Failures that the retry budget made final."),
    "passthroughs": ("passthroughs", "Stretches that went on without the cache."),
    "written": ("uploads_cached", "Uploads whose body became the cached entry."),
    "evicted": ("evicted", "Entries removed for space or idleness."),
    "corrupt_blocks": ("corrupt_blocks", "Blocks whose checksum did not fit."),
    "corrupt_objects": ("corrupt_objects", "Objects that were not what S3's own checksum told."),
    "compared_objects": ("compared_objects", "Objects compared with S3's own checksum."),
    "scrubbed_blocks": ("scrubbed_blocks", "Blocks read by the scrubber."),
    "disk_failures": ("disk_failures", "Calls to the cache folder that failed."),
}


class CacheCollector(Collector):
    def __init__(self, registry: CollectorRegistry, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        now = self._statistics()
        for field, (name, text) in _GAUGES.items():
            yield GaugeMetricFamily(f"bucketfront_{name}", text, value=float(getattr(now, field)))
        for field, (name, text) in _COUNTERS.items():
            yield CounterMetricFamily(f"bucketfront_{name}", text, value=float(getattr(now, field)))
        endings = CounterMetricFamily("bucketfront_flights_ended", "Flights by how they ended.", labels=("ending",))
        for ending, count in now.endings:
            endings.add_metric((ending,), count)
        yield endings

    def describe(self) -> Iterable[Metric]:
        """Empty: registering must not ask a cache that is not open yet."""
        return ()


@dataclass(frozen=True, slots=True)
class UploadFigures:
    """`parts`: that S3 took. `to_abort`: multipart uploads that are nobody's any more, and still at S3. `resumable`:
    unfinished ones, with `waiting` bytes that S3 does not have yet.
    """

    parts: int
    parts_retried: int
    to_abort: int
    resumable: int
    waiting: int


class UploadCollector(Collector):
    def __init__(self, registry: CollectorRegistry, figures: Callable[[], UploadFigures]) -> None:
        self._figures = figures
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        now = self._figures()
        yield CounterMetricFamily("bucketfront_upload_parts", "Parts of uploads that S3 took.", float(now.parts))
        yield CounterMetricFamily(
            "bucketfront_upload_parts_retried", "Parts of uploads that were sent again.", float(now.parts_retried)
        )
        yield GaugeMetricFamily(
            "bucketfront_uploads_to_abort", "Multipart uploads left at S3, to be aborted.", float(now.to_abort)
        )
        yield GaugeMetricFamily("bucketfront_resumable_uploads", "Unfinished ones.", float(now.resumable))
        yield GaugeMetricFamily(
            "bucketfront_resumable_waiting_bytes", "Bytes of them that S3 does not have yet.", float(now.waiting)
        )

    def describe(self) -> Iterable[Metric]:
        """Empty: there are no uploads yet when this is registered."""
        return ()


class FastPathCollector(Collector):
    def __init__(self, registry: CollectorRegistry, answered: Callable[[], int]) -> None:
        self._answered = answered
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "bucketfront_fast_path_answers", "Hits answered before aiohttp saw them.", float(self._answered())
        )


class ConnectionCollector(Collector):
    """Of the listener for clients."""

    def __init__(self, registry: CollectorRegistry, connections: ConnectionLimit) -> None:
        self._connections = connections
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        counts = self._connections
        yield GaugeMetricFamily("bucketfront_connections", "Connections of clients.", float(counts.open))
        yield GaugeMetricFamily("bucketfront_connections_limit", "Connections that there may be.", float(counts.limit))
        yield CounterMetricFamily(
            "bucketfront_connections_refused", "Connections beyond the limit, answered 503.", float(counts.refused)
        )


@dataclass(frozen=True, slots=True)
class OriginHealth:
    """The circuit breaker's state and counters, and the bodies that were ended because they came too slowly.

    `outages` counts how often the breaker opened, `refused` the reads that it refused.
    """

    is_resting: bool
    outages: int
    refused: int
    slow_bodies: int


class OriginCollector(Collector):
    def __init__(self, registry: CollectorRegistry, health: Callable[[], OriginHealth]) -> None:
        self._health = health
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        now = self._health()
        yield GaugeMetricFamily(
            "bucketfront_origin_resting", "1 while the origin is left alone.", float(now.is_resting)
        )
        yield CounterMetricFamily(
            "bucketfront_origin_outages", "Times the origin was out of reach.", float(now.outages)
        )
        yield CounterMetricFamily("bucketfront_origin_refused", "Reads not sent to it meanwhile.", float(now.refused))
        yield CounterMetricFamily(
            "bucketfront_origin_drips", "Bodies ended because they came too slowly.", float(now.slow_bodies)
        )

    def describe(self) -> Iterable[Metric]:
        """Empty: there is no origin yet when this is registered."""
        return ()
