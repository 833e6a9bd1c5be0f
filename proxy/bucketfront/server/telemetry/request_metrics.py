"""The metrics of requests: plain numbers, counted in batches, and formatted for Prometheus at a scrape."""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bucketfront.server.cut import Cut
from bucketfront.server.telemetry.access_log import LAST, AccessRecord, FinishedRequest
from bucketfront.server.telemetry.client_reads import ClientReads, is_read
from bucketfront.server.telemetry.forecast import Forecast
from bucketfront.server.telemetry.metric_family import MetricFamily, counter, histogram
from bucketfront.server.telemetry.request_group import Labels, RequestGroup
from bucketfront.server.telemetry.sizing import SizingCurve

NO_MOUNT = ""  # of requests that no mount serves
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})
_BUCKETS_S = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)  # upper bounds, from a hit to a large download
_BOUNDS = tuple(map(floatToGoString, (*_BUCKETS_S, float("inf"))))

_REQUESTS = counter(
    "requests",
    "Requests by method, status class, cache decision and mount. `mount` is empty if no mount serves the path.",
    "method",
    "status",
    "cache",
    "mount",
)
_SENT = counter("sent_bytes", "Body bytes of objects sent to clients, by cache decision and mount.", "cache", "mount")
_RECEIVED = counter("received_bytes", "Body bytes of uploads.")
_CUT = counter("responses_cut", "Responses that the proxy itself ended early, by reason.", "reason")
_SECONDS = histogram("request_seconds", "Time from the start of a request to the last byte of its response.", "cache")
_FIRST_BYTE = histogram("first_byte_seconds", "Time from the start of a request to the head of its response.", "cache")
_READS = counter("reads", "GETs and HEADs that S3 would have served, and charged for, without bucketfront.", "mount")
_READ_BYTES = counter("read_bytes", "Bytes that S3 would have sent for these.", "mount")
_CACHED_BYTES = counter(
    "read_cached_bytes", "Those of these bytes that the cache had when they were requested.", "mount"
)
_LINES = counter("access_log_lines_dropped", "Lines that the access log could not write.")

FAMILIES = (
    _REQUESTS, _SENT, _RECEIVED, _CUT, _SECONDS, _FIRST_BYTE, _READS, _READ_BYTES, _CACHED_BYTES, _LINES,
)  # fmt: skip


@dataclass(slots=True)
class _Count:
    """One series of a counter."""

    created: float
    value: int = 0


@dataclass(slots=True)
class _Durations:
    """One series of a histogram: the requests of each bucket alone, and the sum of their seconds."""

    created: float
    counts: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))
    seconds: float = 0.0

    def add(self, durations: Sequence[float]) -> None:
        """Add requests. Most are hits, and all of these fall into the first bucket."""
        self.seconds += sum(durations)
        if not durations or max(durations) <= _BUCKETS_S[0]:
            self.counts[0] += len(durations)
            return
        for seconds in durations:
            self.counts[bisect_left(_BUCKETS_S, seconds)] += 1


@dataclass(frozen=True, slots=True)
class RequestTotals:
    """All requests so far. `requests` and `sent` bytes are by the cache's decision, and `received` bytes of uploads.

    `cut` are responses that the proxy ended early.
    """

    requests: Mapping[str, int]
    sent: Mapping[str, int]
    received: int
    client_errors: int
    server_errors: int
    cut: int


class RequestMetrics(Collector):
    """The metrics of all requests, exact at each scrape, because it calls `process_batch` first.

    `lost` returns how many lines the access log lost. `clock` is wall time in seconds since the epoch. `curve` gets the
    requests as well.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        process_batch: Callable[[], None],
        lost: Callable[[], int],
        clock: Callable[[], float] = time.time,
        curve: SizingCurve | Forecast | None = None,
    ) -> None:
        self._process_batch = process_batch
        self._lost = lost
        self._clock = clock
        self._curve = curve
        self._created = clock()
        self._requests: dict[tuple[str, ...], _Count] = {}
        self._sent: dict[tuple[str, ...], _Count] = {}
        self._durations: dict[str, _Durations] = {}
        self._first_bytes: dict[str, _Durations] = {}
        self._reads: dict[str, ClientReads] = {}
        self._received = 0
        self._groups: dict[tuple[Labels, bool], RequestGroup] = {}  # by labels, and by being plain
        self._cut = dict.fromkeys(Cut, 0)
        registry.register(self)

    @property
    def reads(self) -> Mapping[str, ClientReads]:
        """Return the reads of clients by mount."""
        self._process_batch()
        return self._reads

    def totals(self) -> RequestTotals:
        """Return what the counters of all series add up to."""
        self._process_batch()
        by_outcome: dict[str, int] = {}
        by_status: dict[str, int] = {}
        for (_, status, outcome, _), one in self._requests.items():
            by_outcome[outcome] = by_outcome.get(outcome, 0) + one.value
            by_status[status] = by_status.get(status, 0) + one.value
        sent = dict.fromkeys(by_outcome, 0)
        for (outcome, _), one in self._sent.items():
            sent[outcome] += one.value
        errors = by_status.get("4xx", 0), by_status.get("5xx", 0)
        return RequestTotals(by_outcome, sent, self._received, *errors, sum(self._cut.values()))

    def add(self, requests: Sequence[FinishedRequest]) -> None:
        touched: list[RequestGroup] = []
        latest: AccessRecord | None = None
        for record, sent, _, _, seconds, _ in requests:
            if record is not latest:
                latest = record
                if (found := record.group) is None:
                    found = self._new_group(record)
                group = found
                if not (group.short or group.long):
                    touched.append(group)
            group.sent += sent
            if group.is_plain:
                group.short.append(seconds)
            else:
                self._add_special(group, record, seconds)
        for group in touched:
            self._count(*group.labels, group)
            group.clear()
        if self._curve is not None:
            self._curve.add(requests)

    def _new_group(self, record: AccessRecord) -> RequestGroup:
        """Find the group of a record, which has it from now on."""
        # Labels come from closed sets (docs/invariants.md#secrets-stay-in).
        method = record.method if record.method in _METHODS else "other"
        labels: Labels = method, record.status, record.outcome, record.mount or NO_MOUNT
        is_plain = record.first_byte is LAST and not (record.from_origin or record.received or record.cut is not None)
        group = self._groups.get((labels, is_plain))
        if group is None:
            group = self._groups[labels, is_plain] = RequestGroup(labels, is_plain=is_plain)
        record.group = group
        return group

    def _add_special(self, group: RequestGroup, record: AccessRecord, seconds: float) -> None:
        first = record.first_byte
        if first is LAST:
            group.short.append(seconds)
        else:
            group.long.append(seconds)
            if first is not None:
                group.first_bytes.append(min(first, seconds))
        group.from_origin += record.from_origin
        self._received += record.received
        if record.cut is not None:
            self._cut[record.cut] += 1

    def _count(self, method: str, status: int, outcome: str, mount: str, group: RequestGroup) -> None:
        times = len(group.short) + len(group.long)
        self._add(self._requests, (method, f"{status // 100}xx", outcome, mount), times)
        if group.sent:
            self._add(self._sent, (outcome, mount), group.sent)
        wholes, heads = (self._series(series, outcome) for series in (self._durations, self._first_bytes))
        for of_short in (wholes, heads):
            of_short.add(group.short)
        if group.long:
            wholes.add(group.long)
            heads.add(group.first_bytes)
        if mount and is_read(method, status, outcome):
            if mount not in self._reads:
                self._reads[mount] = ClientReads()
            self._reads[mount].add(outcome, times, group.sent, group.from_origin)

    def _add(self, series: dict[tuple[str, ...], _Count], labels: tuple[str, ...], count: int) -> None:
        if labels not in series:
            series[labels] = _Count(self._clock())
        series[labels].value += count

    def _series(self, series: dict[str, _Durations], outcome: str) -> _Durations:
        if outcome not in series:
            series[outcome] = _Durations(self._clock())
        return series[outcome]

    def collect(self) -> Iterable[Metric]:
        self._process_batch()
        for family, counts in ((_REQUESTS, self._requests), (_SENT, self._sent)):
            yield family.series((labels, one.value, one.created) for labels, one in counts.items())
        yield _RECEIVED.value(self._received, self._created)
        yield _CUT.series(((cut,), count, self._created) for cut, count in self._cut.items())
        yield _histogram(_SECONDS, self._durations)
        yield _histogram(_FIRST_BYTE, self._first_bytes)
        reads = self._reads.items()
        yield _READS.series(((mount,), of_mount.requests, self._created) for mount, of_mount in reads)
        yield _READ_BYTES.series(((mount,), of_mount.bytes, self._created) for mount, of_mount in reads)
        yield _CACHED_BYTES.series(((mount,), of_mount.cached_bytes, self._created) for mount, of_mount in reads)
        yield _LINES.value(self._lost(), self._created)


def _histogram(family: MetricFamily, durations: Mapping[str, _Durations]) -> Metric:
    metric = family.histogram()
    for outcome, series in durations.items():
        buckets = list(zip(_BOUNDS, accumulate(series.counts), strict=True))
        metric.add_metric((outcome,), buckets, series.seconds)
        metric.add_sample(f"{metric.name}_created", {"cache": outcome}, series.created)
    return metric
