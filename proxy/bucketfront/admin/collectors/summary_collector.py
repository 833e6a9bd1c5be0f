"""The metrics that follow from others: money by mount, and the hit ratios of other sizes of the cache."""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bucketfront.admin.size_forecast import ForecastFigures
from bucketfront.admin.summary import Summary
from bucketfront.cache import CacheMode
from bucketfront.server.telemetry.metric_family import counter, gauge
from bucketfront.server.telemetry.sizing import Sizing

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

_PREDICTED_READS = gauge(
    "predicted_origin_reads",
    "Reads of S3 that a cache of that size would have sent since the start. Only with `cache.mode` observe or shadow.",
    "factor",
)
_PREDICTED_BYTES = gauge(
    "predicted_origin_bytes", "The bytes that S3 would have sent for these. Only with the same modes.", "factor"
)
_PREDICTED_MONEY = gauge(
    "predicted_money_saved",
    "What such a cache would have saved since the start, by `pricing`. Only with the same modes and prices.",
    "factor",
    "currency",
)
_COMPARED = counter(
    "shadow_comparisons",
    "Responses of S3 that were compared with the cache in the mode shadow, by verdict: see docs/modes.md.",
    "verdict",
)
_MODE = gauge("cache_mode", "1 for the present `cache.mode`: see docs/modes.md.", "mode")

FAMILIES = (
    _SPENT, _SAVED, _PREDICTED, _SAMPLED, _PREDICTED_READS, _PREDICTED_BYTES, _PREDICTED_MONEY, _COMPARED, _MODE,
)  # fmt: skip


class SummaryCollector(Collector):
    def __init__(self, registry: CollectorRegistry, summary: Summary) -> None:
        self._summary = summary
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        amounts, currency = self._summary.money(), self._summary.currency
        yield _SPENT.values(((mount, currency), amount.spent) for mount, amount in amounts.items())
        yield _SAVED.values(((mount, currency), amount.saved) for mount, amount in amounts.items())
        sizing, forecast = self._summary.sizing(), self._summary.forecast()
        yield _PREDICTED.values(_sizing_ratios(sizing) if forecast is None else _forecast_ratios(forecast))
        sampled = 0 if sizing is None else sizing.objects
        yield _SAMPLED.value(sampled if forecast is None else forecast.objects)
        sizes = [] if forecast is None else [(f"{one.factor:g}", one) for one in forecast.sizes]
        yield _PREDICTED_READS.values(((factor,), one.origin_reads) for factor, one in sizes)
        yield _PREDICTED_BYTES.values(((factor,), one.origin_bytes) for factor, one in sizes)
        yield _PREDICTED_MONEY.values(
            ((factor, currency), one.saved.money) for factor, one in sizes if one.saved.money is not None
        )
        yield _COMPARED.values(((verdict.value,), count) for verdict, count in self._summary.shadow_verdicts.items())
        yield _MODE.values(((each.value,), each is self._summary.mode) for each in CacheMode)


def _sizing_ratios(sizing: Sizing | None) -> Iterator[tuple[tuple[str, str], float]]:
    for factor, ratios in () if sizing is None else sizing.estimates:
        yield (f"{factor:g}", "requests"), ratios.requests
        yield (f"{factor:g}", "bytes"), ratios.bytes


def _forecast_ratios(forecast: ForecastFigures) -> Iterator[tuple[tuple[str, str], float]]:
    for one in forecast.sizes:
        for by, ratio in (("requests", one.hit_ratio.requests), ("bytes", one.hit_ratio.bytes)):
            if ratio is not None:
                yield (f"{one.factor:g}", by), ratio
