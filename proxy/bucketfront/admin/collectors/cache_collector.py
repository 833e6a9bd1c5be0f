"""The metrics of the cache."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bucketfront.cache import Cache
from bucketfront.server.telemetry.metric_family import MetricFamily, counter, gauge

# By the name of the field in `Statistics`.
_OF_STATISTICS = {
    "entries": gauge("cache_entries", "Objects in the cache."),
    "bytes_used": gauge("cache_bytes", "Bytes charged against cache.max_size."),
    "bytes_limit": gauge("cache_limit_bytes", "cache.max_size."),
    "index_bytes": gauge("cache_index_bytes", "Bytes of the index itself."),
    "flights_running": gauge("flights_running", "Part fetches that run now."),
    "disk_is_usable": gauge("disk_usable", "0 while the cache folder fails and requests pass through."),
    "disk_size": gauge("disk_size_bytes", "Bytes of the file system of the cache folder."),
    "disk_free": gauge("disk_free_bytes", "Bytes of that file system that are free for this process."),
    "disk_inodes": gauge(
        "disk_inodes", "Inodes of that file system, each of which holds one file; 0 if their number is not fixed."
    ),
    "disk_free_inodes": gauge("disk_free_inodes", "Inodes of that file system that are free for this process."),
    "absences": gauge("absences", "404s in the negative cache."),
    "hits": counter("cache_hits", "Lookups that a fresh entry with all requested bytes, or a remembered 404, served."),
    "stale_hits": counter("cache_stale_hits", "Lookups that a stale entry with all requested bytes served."),
    "partials": counter("cache_partials", "Lookups that found an entry without some of the requested bytes."),
    "misses": counter("cache_misses", "Lookups that found no entry, or an entry without any bytes."),
    "revalidations": counter("cache_revalidations", "Lookups that found a stale entry and sent a request."),
    "lookups": counter("lookups", "Lookups at the origin."),
    "lookups_joined": counter("lookups_joined", "Requests that waited for the lookup of another one."),
    "flights": counter("flights", "Part fetches."),
    "flights_split": counter("flights_split", "Part fetches cut in two for a reader further on."),
    "hedges": counter("hedges", "Second requests for late bytes."),
    "hedges_won": counter("hedges_won", "Hedges that brought bytes before the first request."),
    "retries_refused": counter("retries_refused", "Failures that were final because the retry budget was spent."),
    "passthroughs": counter("passthroughs", "Stretches that were served without the cache."),
    "passthrough_pauses": counter(
        "passthrough_pauses", "Waits of such stretches for their clients, without an origin connection."
    ),
    "written": counter("uploads_cached", "Bodies of uploads that became entries."),
    "evicted": counter("evicted", "Entries removed for space or idleness."),
    "corrupt_blocks": counter("corrupt_blocks", "Blocks whose bytes on disk had another checksum."),
    "corrupt_objects": counter("corrupt_objects", "Objects whose bytes did not fit S3's own checksum."),
    "compared_objects": counter("compared_objects", "Objects compared with S3's own checksum."),
    "scrubbed_blocks": counter("scrubbed_blocks", "Blocks read by the scrubber."),
    "disk_failures": counter("disk_failures", "Calls to the cache folder that failed."),
}
_ENDED = counter("flights_ended", "Part fetches by outcome.", "ending")

FAMILIES: tuple[MetricFamily, ...] = (*_OF_STATISTICS.values(), _ENDED)


class CacheCollector(Collector):
    def __init__(self, registry: CollectorRegistry, cache: Cache) -> None:
        self._cache = cache
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        now = self._cache.statistics()
        for field, family in _OF_STATISTICS.items():
            yield family.value(float(getattr(now, field)))
        yield _ENDED.values(((ending,), count) for ending, count in now.endings)
