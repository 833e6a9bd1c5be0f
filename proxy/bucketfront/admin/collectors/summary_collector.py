"""The metrics that follow from others: money by mount, and the hit ratios of other sizes of the cache."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bucketfront.admin.summary import Summary
from bucketfront.server.telemetry.metric_family import gauge

_SPENT = gauge(
    "money_spent",
    "What S3 charges for requests and bytes since the start, by `pricing`. Without prices there is no series.",
    "mount",
    "currency",
)
_SAVED = gauge(
    "money_saved",
    "What the reads of clients would have cost without bucketfront, less what its own reads cost. It may be negative.",
    "mount",
    "currency",
)
_PREDICTED = gauge(
    "predicted_hit_ratio",
    "The hit ratio of a cache of `factor` times cache.max_size, by requests or by bytes: see docs/sizing.md.",
    "factor",
    "by",
)
_SAMPLED = gauge("sizing_sampled_objects", "Objects in the sample that the predicted hit ratios are of.")

FAMILIES = (_SPENT, _SAVED, _PREDICTED, _SAMPLED)


class SummaryCollector(Collector):
    def __init__(self, registry: CollectorRegistry, summary: Summary) -> None:
        self._summary = summary
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        amounts, currency = self._summary.money(), self._summary.currency
        yield _SPENT.values(((mount, currency), amount.spent) for mount, amount in amounts.items())
        yield _SAVED.values(((mount, currency), amount.saved) for mount, amount in amounts.items())
        sizing = self._summary.sizing()
        estimates = () if sizing is None else sizing.estimates
        yield _PREDICTED.values(
            ((f"{factor:g}", by), ratio)
            for factor, ratios in estimates
            for by, ratio in (("requests", ratios.requests), ("bytes", ratios.bytes))
        )
        yield _SAMPLED.value(0 if sizing is None else sizing.objects)
