"""A metric's name, kind, labels and text, once for `/metrics` and for docs/metrics.md."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

PREFIX = "bucketfront_"


class Kind(Enum):
    """The value is the name of the type in Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """`name` lacks PREFIX, and the `_total` of counters. Values of labels come from closed sets
    (docs/invariants.md#secrets-stay-in).
    """

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()

    @property
    def exposed_name(self) -> str:
        """Return the name in queries."""
        return f"{PREFIX}{self.name}{'_total' if self.kind is Kind.COUNTER else ''}"

    @property
    def series_names(self) -> tuple[str, ...]:
        """Return the names of all series that a scrape has."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.exposed_name}{suffix}" for suffix in ("_bucket", "_sum", "_count"))
        return (self.exposed_name,)

    def value(self, value: float, created: float | None = None) -> Metric:
        """Return the metric with its one series. `created` is the time of a counter's begin, since the epoch."""
        return self.series([((), value, created)])

    def values(self, values: Iterable[tuple[Sequence[str], float]]) -> Metric:
        """Return the metric with a series for each list of values of labels."""
        return self.series((labels, value, None) for labels, value in values)

    def series(self, series: Iterable[tuple[Sequence[str], float, float | None]]) -> Metric:
        """Return the metric with series that know when they were created."""
        assert self.kind is not Kind.HISTOGRAM
        if self.kind is Kind.GAUGE:
            gauge = GaugeMetricFamily(PREFIX + self.name, self.text, labels=self.labels)
            for labels, value, _ in series:
                gauge.add_metric(labels, value)
            return gauge
        counter = CounterMetricFamily(PREFIX + self.name, self.text, labels=self.labels)
        for labels, value, created in series:
            counter.add_metric(labels, value, created=created)
        return counter

    def histogram(self) -> HistogramMetricFamily:
        """Return the metric without series, for the caller to add them."""
        assert self.kind is Kind.HISTOGRAM
        return HistogramMetricFamily(PREFIX + self.name, self.text, labels=self.labels)


def counter(name: str, text: str, *labels: str) -> MetricFamily:
    return MetricFamily(name, Kind.COUNTER, text, labels)


def gauge(name: str, text: str, *labels: str) -> MetricFamily:
    return MetricFamily(name, Kind.GAUGE, text, labels)


def histogram(name: str, text: str, *labels: str) -> MetricFamily:
    return MetricFamily(name, Kind.HISTOGRAM, text, labels)
