"""The metrics of what comes from S3 and what S3 charges for, by mount."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bucketfront.cache import Cache
from bucketfront.s3.client import S3Origin
from bucketfront.server.telemetry.metric_family import counter

_RECEIVED = counter(
    "origin_received_bytes",
    "Bytes of objects that came from S3. `cause` is fill (a client requested them, or the blocks around its range),"
    " read-ahead, or pass-through (the cache could not store them).",
    "mount",
    "cause",
)
_WASTED = counter(
    "origin_wasted_bytes",
    "Those of them that were of no use. `cause` is unread (the object was removed for space or idleness before a client"
    " read them), outdated (a write, a purge or another version came before that), twice (another request brought the"
    " same bytes), or cut-off (of a block that did not come whole, or outside of the part that was wanted). Of a block"
    " that a client read in part, all counts as read, and so does all of a complete object after a hit. Objects that a"
    " restart or too many open files pushed out of memory count as read.",
    "mount",
    "cause",
)
_CHARGED = counter(
    "origin_charged_requests",
    "Requests that S3 charges for: those with a response below 500, except deletes. `kind` is read (GET and HEAD) or"
    " write (PUT, COPY, POST and LIST), as in S3's price list. `mount` is empty for requests about no key of a mount.",
    "mount",
    "kind",
)

FAMILIES = (_RECEIVED, _WASTED, _CHARGED)


class TrafficCollector(Collector):
    """`mount` is the mount with the longest `prefix` of the key, whatever path clients requested it by."""

    def __init__(self, registry: CollectorRegistry, cache: Cache, origin: S3Origin) -> None:
        self._cache = cache
        self._origin = origin
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        yield _RECEIVED.values(
            ((mount, cause.value), count)
            for mount, account in sorted(self._cache.traffic.items())
            for cause, count in account.received.items()
        )
        yield _WASTED.values(
            ((mount, cause.value), count)
            for mount, account in sorted(self._cache.traffic.items())
            for cause, count in account.wasted.items()
        )
        yield _CHARGED.values(
            ((mount, kind.value), count) for (mount, kind), count in sorted(self._origin.billing.counts.items())
        )
