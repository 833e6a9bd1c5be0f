"""Formats the counters of all rooms as Prometheus metrics. Each room counts its own events."""

import math
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bucketfront.admin.health import Health
from bucketfront.cache import Cache
from bucketfront.fair_share import FairShares
from bucketfront.s3.client import S3Origin
from bucketfront.s3.upload.journal import UploadJournal
from bucketfront.server.fast_path.fast_connection import FastPath
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.handshake_failure import HandshakeFailure
from bucketfront.server.http1.proxy_headers import ProxyHeaders
from bucketfront.server.http1.server_tls import ServerTls
from bucketfront.troubles import Reason
from bucketfront.tus.manager import UploadManager

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
    "partials": ("cache_partials", "Lookups that found an entry without some of the requested bytes."),
    "misses": ("cache_misses", "Lookups that found no entry, or an entry without any bytes."),
    "revalidations": ("cache_revalidations", "Lookups that found a stale entry and asked the origin."),
    "lookups": ("lookups", "Metadata flights that went to the origin."),
    "lookups_joined": ("lookups_joined", "Requests that waited on another's metadata flight."),
    "flights": ("flights", "Parts asked of the origin."),
    "flights_split": ("flights_split", "Parts cut in two for a reader further on."),
    "hedges": ("hedges", "Second requests for bytes that were late."),
    "hedges_won": ("hedges_won", "Second requests that brought bytes sooner than the first."),
    "retries_refused": ("retries_refused", "Failures that the retry budget made final."),
    "passthroughs": ("passthroughs", "Stretches that went on without the cache."),
    "passthrough_pauses": (
        "passthrough_pauses",
        "Times that such a stretch waited for its client, without an origin connection.",
    ),
    "written": ("uploads_cached", "Uploads whose body became the cached entry."),
    "evicted": ("evicted", "Entries removed for space or idleness."),
    "corrupt_blocks": ("corrupt_blocks", "Blocks whose checksum did not fit."),
    "corrupt_objects": ("corrupt_objects", "Objects that were not what S3's own checksum told."),
    "compared_objects": ("compared_objects", "Objects compared with S3's own checksum."),
    "scrubbed_blocks": ("scrubbed_blocks", "Blocks read by the scrubber."),
    "disk_failures": ("disk_failures", "Calls to the cache folder that failed."),
}


class CacheCollector(Collector):
    def __init__(self, registry: CollectorRegistry, cache: Cache) -> None:
        self._cache = cache
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        now = self._cache.statistics()
        for field, (name, text) in _GAUGES.items():
            yield GaugeMetricFamily(f"bucketfront_{name}", text, value=float(getattr(now, field)))
        for field, (name, text) in _COUNTERS.items():
            yield CounterMetricFamily(f"bucketfront_{name}", text, value=float(getattr(now, field)))
        endings = CounterMetricFamily("bucketfront_flights_ended", "Flights by how they ended.", labels=("ending",))
        for ending, count in now.endings:
            endings.add_metric((ending,), count)
        yield endings


class UploadCollector(Collector):
    """The metrics of uploads: parts at S3, multipart uploads to abort, and resumable uploads."""

    def __init__(
        self, registry: CollectorRegistry, origin: S3Origin, journal: UploadJournal, manager: UploadManager
    ) -> None:
        self._origin = origin
        self._journal = journal
        self._manager = manager
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        origin = self._origin
        to_abort = len(self._journal.abandoned)
        unfinished, waiting = self._manager.unfinished
        yield CounterMetricFamily("bucketfront_upload_parts", "Parts of uploads that S3 took.", float(origin.parts))
        yield CounterMetricFamily(
            "bucketfront_upload_parts_retried", "Parts of uploads that were sent again.", float(origin.parts_retried)
        )
        yield GaugeMetricFamily(
            "bucketfront_uploads_to_abort", "Multipart uploads left at S3, to be aborted.", float(to_abort)
        )
        yield GaugeMetricFamily("bucketfront_resumable_uploads", "Unfinished ones.", float(unfinished))
        yield GaugeMetricFamily(
            "bucketfront_resumable_waiting_bytes", "Bytes of them that S3 does not have yet.", float(waiting)
        )


class ServerCollector(Collector):
    """The metrics of the listener for clients. Without a fast path there is no metric for it."""

    def __init__(
        self,
        registry: CollectorRegistry,
        connections: ConnectionLimit,
        fast_path: FastPath | None,
        shares: FairShares,
        headers: ProxyHeaders,
    ) -> None:
        self._connections = connections
        self._fast_path = fast_path
        self._shares = shares
        self._headers = headers
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        connections, fast_path = self._connections, self._fast_path
        yield GaugeMetricFamily("bucketfront_connections", "Connections of clients.", float(connections.open))
        yield GaugeMetricFamily(
            "bucketfront_connections_limit", "Connections that there may be.", float(connections.limit)
        )
        yield CounterMetricFamily(
            "bucketfront_connections_refused", "Connections beyond the limit, answered 503.", float(connections.refused)
        )
        yield CounterMetricFamily(
            "bucketfront_connections_made_way",
            "Idle connections that were closed to make room for others.",
            float(connections.made_way),
        )
        refused = CounterMetricFamily(
            "bucketfront_share_refused",
            "Requests of clients that got none of a resource, because their share or the whole is used up.",
            labels=("resource", "reason"),
        )
        for (resource, refusal), count in self._shares.refused.items():
            refused.add_metric((resource.value, refusal.value), float(count))
        yield refused
        yield CounterMetricFamily(
            "bucketfront_proxy_headers_refused",
            "Connections of fronts that were closed, because they began with no valid PROXY header.",
            float(self._headers.refused),
        )
        if fast_path is not None:
            yield CounterMetricFamily(
                "bucketfront_fast_path_answers", "Hits answered before aiohttp saw them.", float(fast_path.served)
            )


class TlsCollector(Collector):
    """The metrics of the listeners with TLS."""

    def __init__(self, registry: CollectorRegistry, listeners: Sequence[ServerTls]) -> None:
        self._listeners = listeners
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        ends = GaugeMetricFamily(
            "bucketfront_tls_certificate_not_after_seconds",
            "When the certificate ends, in seconds since the epoch.",
            labels=("listener", "certificate"),
        )
        failures = CounterMetricFamily(
            "bucketfront_tls_handshakes_failed", "Handshakes that failed.", labels=("listener", "reason")
        )
        for tls in self._listeners:
            for certificate in tls.loaded.certificates:
                ends.add_metric((tls.name, str(certificate.path)), certificate.not_after)
            for reason in HandshakeFailure:
                failures.add_metric((tls.name, reason.value), tls.failures[reason])
        yield ends
        yield failures


class OriginCollector(Collector):
    def __init__(self, registry: CollectorRegistry, origin: S3Origin) -> None:
        self._origin = origin
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        breaker = self._origin.breaker
        yield GaugeMetricFamily(
            "bucketfront_origin_resting", "1 while the origin is left alone.", float(breaker.is_open)
        )
        yield CounterMetricFamily(
            "bucketfront_origin_outages", "Times the origin was out of reach.", float(breaker.opened)
        )
        yield CounterMetricFamily(
            "bucketfront_origin_refused", "Reads not sent to it meanwhile.", float(breaker.refused)
        )
        yield CounterMetricFamily(
            "bucketfront_origin_fields_dropped",
            "Fields of objects that were dropped because of control characters in them.",
            float(self._origin.dropped_fields),
        )
        yield CounterMetricFamily(
            "bucketfront_origin_drips", "Bodies ended because they came too slowly.", float(self._origin.slow_bodies)
        )
        yield CounterMetricFamily(
            "bucketfront_origin_credentials_replaced",
            "Loads that brought other credentials.",
            float(self._origin.credentials.replacements),
        )
        yield GaugeMetricFamily(
            "bucketfront_origin_clock_skew_seconds",
            "How far signatures are ahead of this machine's clock, because the origin refused its time.",
            self._origin.signing_clock.skew,
        )
        yield from self._requests()
        yield from self._paces()

    def _requests(self) -> Iterable[Metric]:
        requests = CounterMetricFamily(
            "bucketfront_origin_requests",
            "Requests to S3 by operation and outcome: ok, S3's code, else the status or the cause.",
            labels=("operation", "outcome"),
        )
        for labels, count in sorted(self._origin.calls.failures.counts.items()):
            requests.add_metric(labels, count)
        yield requests

    def _paces(self) -> Iterable[Metric]:
        limits = GaugeMetricFamily(
            "bucketfront_origin_pace_limit", "Requests a second to a bucket that asked for fewer.", labels=("bucket",)
        )
        throttled = CounterMetricFamily(
            "bucketfront_origin_throttled", "Requests after which S3 asked for fewer.", labels=("bucket",)
        )
        for bucket, pace in sorted(self._origin.calls.paces.items()):
            limits.add_metric((bucket,), math.inf if pace.limit is None else pace.limit)
            throttled.add_metric((bucket,), pace.throttled_count)
        yield limits
        yield throttled


class HealthCollector(Collector):
    """Why the proxy is degraded, as `/readyz` has it."""

    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        self._health = health
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        present = self._health.reasons
        degraded = GaugeMetricFamily("bucketfront_degraded", "1 for each reason that holds now.", labels=("reason",))
        for reason in Reason:
            degraded.add_metric((reason.value,), float(reason in present))
        yield degraded
