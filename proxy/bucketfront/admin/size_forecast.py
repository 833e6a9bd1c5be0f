"""What each size of the cache would give if it served: hit ratios, requests to S3, bytes and money."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from bucketfront.admin import savings
from bucketfront.admin.ratios import HitRatios, Savings, ratio
from bucketfront.admin.savings import Money, Usage
from bucketfront.config.pricing_settings import Prices
from bucketfront.server.telemetry.forecast import Forecast, Predicted
from bucketfront.server.telemetry.sizing import FACTORS


class SizeForecast(BaseModel):
    """What a cache of so many bytes would have done with the reads since the start. `factor` is by `cache.max_size`.

    `origin_reads` and `origin_bytes` are what S3 would have served. `money_spent` is their price, and `saved` is
    against the same reads straight from S3. The money is that of mounts with prices.
    """

    model_config = ConfigDict(extra="forbid")

    factor: float
    bytes: int
    hit_ratio: HitRatios
    origin_reads: int
    origin_bytes: int
    saved: Savings
    money_spent: float | None


class ForecastFigures(BaseModel):
    """The forecast of a cache that does not serve: see docs/modes.md. `reads` and `bytes` are those of clients.

    `objects` are those in the sample.
    """

    model_config = ConfigDict(extra="forbid")

    reads: int
    bytes: int
    objects: int
    sample_rate: float
    sizes: list[SizeForecast]


def forecast_figures(forecast: Forecast, prices: Mapping[str, Prices]) -> ForecastFigures:
    """Return the figures of all mounts together. `prices` are those of each mount."""
    mounts = forecast.mounts
    return ForecastFigures(
        reads=sum(mount.reads for mount in mounts.values()),
        bytes=sum(mount.bytes for mount in mounts.values()),
        objects=forecast.objects,
        sample_rate=forecast.rate,
        sizes=[_size(forecast, number, prices) for number in range(len(FACTORS))],
    )


def _size(forecast: Forecast, number: int, prices: Mapping[str, Prices]) -> SizeForecast:
    total, usage = Predicted(), savings.NOTHING
    amount: Money | None = None
    for path, mount in forecast.mounts.items():
        predicted = mount.predicted(number)
        total.add(predicted)
        of_mount = Usage(mount.reads, mount.bytes, round(predicted.origin_reads), 0, round(predicted.origin_bytes))
        usage += of_mount
        money = savings.money(of_mount, prices[path])
        if money is not None:
            amount = money if amount is None else amount + money
    return SizeForecast(
        factor=FACTORS[number],
        bytes=forecast.sizes[number],
        hit_ratio=HitRatios(
            requests=ratio(total.hits, usage.client_reads), bytes=ratio(total.cached_bytes, usage.client_bytes)
        ),
        origin_reads=usage.origin_reads,
        origin_bytes=usage.origin_bytes,
        saved=Savings(
            requests=usage.saved_reads, bytes=usage.saved_bytes, money=None if amount is None else amount.saved
        ),
        money_spent=None if amount is None else amount.spent,
    )
