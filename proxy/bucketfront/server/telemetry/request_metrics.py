"""The metrics of requests: plain numbers, counted in batches, and formatted for Prometheus at a scrape."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bucketfront.server.cut import Cut
from bucketfront.server.telemetry.access_log import AccessRecord, FinishedRequest
from bucketfront.server.telemetry.metric_family import counter, histogram

_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})
_BUCKETS_S = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)  # upper bounds, from a hit to a large download
_BOUNDS = tuple(map(floatToGoString, (*_BUCKETS_S, float("inf"))))

_REQUESTS = counter("requests", "Requests by method, status class and cache decision.", "method", "status", "cache")
_SENT = counter("sent_bytes", "Body bytes of objects sent to clients.")
_RECEIVED = counter("received_bytes", "Body bytes of uploads.")
_CUT = counter("responses_cut", "Responses that the proxy itself ended early, by reason.", "reason")
_SECONDS = histogram("request_seconds", "Time to the last byte.", "cache")
_LINES = counter("access_log_lines_dropped", "Lines that the access log could not write.")

FAMILIES = (_REQUESTS, _SENT, _RECEIVED, _CUT, _SECONDS, _LINES)


class _RequestSeries:
    """One series of the counter of requests."""

    __slots__ = ("count", "created")

    def __init__(self, created: float) -> None:
        self.count = 0
        self.created = created


class _DurationSeries:
    """One series of the histogram: the requests of each bucket alone, and the sum of their seconds."""

    __slots__ = ("counts", "created", "seconds")

    def __init__(self, created: float) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.seconds = 0.0
        self.created = created


class RequestMetrics(Collector):
    """The metrics of all requests, exact at each scrape, because it calls `process_batch` first.

    `lost` returns how many lines the access log lost. `clock` is wall time in seconds since the epoch.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        process_batch: Callable[[], None],
        lost: Callable[[], int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._process_batch = process_batch
        self._lost = lost
        self._clock = clock
        self._created = clock()
        self._requests: dict[tuple[str, str, str], _RequestSeries] = {}
        self._durations: dict[str, _DurationSeries] = {}
        self._sent = 0
        self._received = 0
        self._cut = dict.fromkeys(Cut, 0)
        registry.register(self)

    def add(self, requests: Sequence[FinishedRequest]) -> None:
        alike: dict[AccessRecord, list[float]] = {}
        for record, sent, _, _, seconds, _ in requests:
            try:
                alike[record].append(seconds)
            except KeyError:
                alike[record] = [seconds]
            self._sent += sent
        for record, durations in alike.items():
            self._received += record.received * len(durations)
            if record.cut is not None:
                self._cut[record.cut] += len(durations)
            self._count(record.method, record.status, record.outcome, len(durations))
            self._observe(record.outcome, durations)

    def collect(self) -> Iterable[Metric]:
        self._process_batch()
        yield self._request_family()
        yield _SENT.value(self._sent, self._created)
        yield _RECEIVED.value(self._received, self._created)
        yield _CUT.series(((cut,), count, self._created) for cut, count in self._cut.items())
        yield self._duration_family()
        yield _LINES.value(self._lost(), self._created)

    def _request_family(self) -> Metric:
        return _REQUESTS.series((labels, series.count, series.created) for labels, series in self._requests.items())

    def _duration_family(self) -> Metric:
        family = _SECONDS.histogram()
        for outcome, series in self._durations.items():
            buckets = list(zip(_BOUNDS, accumulate(series.counts), strict=True))
            family.add_metric((outcome,), buckets, series.seconds)
            family.add_sample(f"{family.name}_created", {"cache": outcome}, series.created)
        return family

    def _count(self, method: str, status: int, outcome: str, times: int) -> None:
        # Labels come from closed sets (docs/invariants.md#secrets-stay-in).
        labels = (method if method in _METHODS else "other", f"{status // 100}xx", outcome)
        if labels not in self._requests:
            self._requests[labels] = _RequestSeries(self._clock())
        self._requests[labels].count += times

    def _observe(self, outcome: str, durations: Sequence[float]) -> None:
        if outcome not in self._durations:
            self._durations[outcome] = _DurationSeries(self._clock())
        series = self._durations[outcome]
        for seconds in durations:
            series.counts[bisect_left(_BUCKETS_S, seconds)] += 1
        series.seconds += sum(durations)
