"""The metrics of requests: plain numbers, counted in batches, put into Prometheus' words when it asks."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bucketfront.server.telemetry.access_log import AccessRecord, Record

_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})
_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)  # upper bounds, in seconds
_BOUNDS = tuple(map(floatToGoString, (*_BUCKETS, float("inf"))))


class _Requests:
    """One series of the counter."""

    __slots__ = ("count", "created")

    def __init__(self, created: float) -> None:
        self.count = 0
        self.created = created


class _Durations:
    """One series of the histogram: requests per bucket, not accumulated, and their seconds."""

    __slots__ = ("counts", "created", "seconds")

    def __init__(self, created: float) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.seconds = 0.0
        self.created = created


class RequestMetrics(Collector):
    """Exact at each scrape: `settle` is called first, so that it can add what is still pending. `lost` counts the
    lines that the access log dropped. `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        settle: Callable[[], None],
        lost: Callable[[], int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settle = settle
        self._lost = lost
        self._clock = clock
        self._created = clock()
        self._requests: dict[tuple[str, str, str], _Requests] = {}
        self._durations: dict[str, _Durations] = {}
        self._sent = 0
        self._received = 0
        self._cut = 0
        registry.register(self)

    def add(self, records: Sequence[Record]) -> None:
        alike: dict[AccessRecord, list[float]] = {}
        for told, sent, _, _, seconds in records:
            try:
                alike[told].append(seconds)
            except KeyError:
                alike[told] = [seconds]
            self._sent += sent
        for told, durations in alike.items():
            self._received += told.received * len(durations)
            self._count(told.method, told.status, told.outcome, len(durations))
            self._observe(told.outcome, durations)

    def cut(self) -> None:
        self._cut += 1

    def collect(self) -> Iterable[Metric]:
        self._settle()
        yield self._told_requests()
        yield self._counter("sent_bytes", "Body bytes of objects sent to clients.", self._sent)
        yield self._counter("received_bytes", "Body bytes of uploads.", self._received)
        yield self._counter("responses_cut", "Responses cut off after their head, by us.", self._cut)
        yield self._told_durations()
        yield self._counter("access_log_lines_dropped", "Lines that the access log could not write.", self._lost())

    def _told_requests(self) -> Metric:
        family = CounterMetricFamily(
            "bucketfront_requests",
            "Requests by method, status class and cache decision.",
            labels=("method", "status", "cache"),
        )
        for labels, series in self._requests.items():
            family.add_metric(labels, series.count, created=series.created)
        return family

    def _told_durations(self) -> Metric:
        family = HistogramMetricFamily("bucketfront_request_seconds", "Time to the last byte.", labels=("cache",))
        for outcome, series in self._durations.items():
            buckets = list(zip(_BOUNDS, accumulate(series.counts), strict=True))
            family.add_metric((outcome,), buckets, series.seconds)
            family.add_sample("bucketfront_request_seconds_created", {"cache": outcome}, series.created)
        return family

    def _counter(self, name: str, text: str, value: int) -> Metric:
        return CounterMetricFamily(f"bucketfront_{name}", text, value=value, created=self._created)

    def _count(self, method: str, status: int, outcome: str, times: int) -> None:
        labels = (method if method in _METHODS else "other", f"{status // 100}xx", outcome)  # closed sets (I28)
        if labels not in self._requests:
            self._requests[labels] = _Requests(self._clock())
        self._requests[labels].count += times

    def _observe(self, outcome: str, durations: Sequence[float]) -> None:
        if outcome not in self._durations:
            self._durations[outcome] = _Durations(self._clock())
        series = self._durations[outcome]
        for seconds in durations:
            series.counts[bisect_left(_BUCKETS, seconds)] += 1
        series.seconds += sum(durations)
