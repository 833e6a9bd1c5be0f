"""The metrics of what left the cache, and of what never entered it."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bucketfront.cache import AGE_BOUNDS_S, Cache
from bucketfront.server.telemetry.metric_family import counter, histogram

_BOUNDS = tuple(map(floatToGoString, (*AGE_BOUNDS_S, float("inf"))))

_REMOVED = counter("removed_entries", "Entries that were removed, by reason: see docs/metrics.md.", "reason")
_AGE = histogram("removed_entry_age_seconds", "How long removed entries had been in the cache.", "reason")
_IDLE = histogram("removed_entry_idle_seconds", "How long ago the last use of removed entries was.", "reason")
_NOT_STORED = counter("objects_not_stored", "Objects that the cache did not store, by reason.", "reason")

FAMILIES = (_REMOVED, _AGE, _IDLE, _NOT_STORED)


class RemovalCollector(Collector):
    def __init__(self, registry: CollectorRegistry, cache: Cache) -> None:
        self._cache = cache
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        removals = self._cache.removals()
        yield _REMOVED.values(((one.reason.value,), one.count) for one in removals)
        ages, idles = _AGE.histogram(), _IDLE.histogram()
        for one in removals:
            _add(ages, one.reason.value, one.ages, one.age_sum)
            _add(idles, one.reason.value, one.idles, one.idle_sum)
        yield ages
        yield idles
        yield _NOT_STORED.values(((reason.value,), count) for reason, count in self._cache.storage_refusals())


def _add(metric: HistogramMetricFamily, reason: str, counts: Sequence[int], seconds: float) -> None:
    metric.add_metric((reason,), list(zip(_BOUNDS, accumulate(counts), strict=True)), seconds)
