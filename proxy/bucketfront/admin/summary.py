"""The figures that answer an operator's questions: hit ratios, S3's share, money, sizing, what is degraded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from bucketfront.admin import savings
from bucketfront.admin.bus_figures import BusFigures, bus_figures
from bucketfront.admin.health import Health
from bucketfront.admin.probes import LastingFailure
from bucketfront.admin.ratios import HitRatios, Savings, ratio
from bucketfront.admin.savings import NOTHING, Money, Usage
from bucketfront.admin.shadow_figures import ShadowFigures, shadow_figures
from bucketfront.admin.size_forecast import ForecastFigures, forecast_figures
from bucketfront.cache import Cache, CacheMode, Verdict, Waste
from bucketfront.config.mount_areas import NO_MOUNT
from bucketfront.config.settings import Settings
from bucketfront.fleet.fleet import Fleet
from bucketfront.s3.billing import PriceClass
from bucketfront.s3.client import S3Origin
from bucketfront.server.telemetry.client_reads import ClientReads
from bucketfront.server.telemetry.sizing import Sizing
from bucketfront.server.telemetry.telemetry import Telemetry


class MountFigures(BaseModel):
    """The figures of one mount, or of all of them. `reads` are GETs and HEADs that S3 would have served.

    `cached_bytes` are those of `bytes` that the cache had. `origin_reads` and `origin_writes` are requests that S3
    charges for, and `money_spent` is their price and that of the bytes. Of `origin_bytes`, `origin_wasted` were of no
    use, by cause: see docs/metrics.md.
    """

    model_config = ConfigDict(extra="forbid")

    mount: str
    reads: int
    hits: int
    bytes: int
    cached_bytes: int
    hit_ratio: HitRatios
    origin_reads: int
    origin_writes: int
    origin_bytes: int
    origin_wasted: dict[str, int]
    saved: Savings
    money_spent: float | None


class SizeEstimate(BaseModel):
    """The hit ratio that a cache of so many bytes would have. `factor` is its size by `cache.max_size`."""

    model_config = ConfigDict(extra="forbid")

    factor: float
    bytes: int
    hit_ratio: HitRatios


class SizingFigures(BaseModel):
    """Estimates of the hit ratio by the size of the cache: see docs/sizing.md. `objects` are those in the sample."""

    model_config = ConfigDict(extra="forbid")

    requests: int
    objects: int
    sample_rate: float
    sizes: list[SizeEstimate]


class SummaryFigures(BaseModel):
    """What the counters mean. `currency` is null without prices. `mode` is that of `cache.mode`.

    `forecast` is null in the mode `serve`, and `sizing` in the others. `shadow` is null except in that mode, and `bus`
    without a bus.
    """

    model_config = ConfigDict(extra="forbid")

    mode: str = Field(json_schema_extra={"enum": [*CacheMode]})
    seconds: float = Field(description="Seconds since the start, which all figures are of.")
    total: MountFigures
    mounts: list[MountFigures]
    currency: str | None
    sizing: SizingFigures | None
    forecast: ForecastFigures | None
    shadow: ShadowFigures | None
    bus: BusFigures | None
    removals: dict[str, int]
    refusals: dict[str, int]
    degraded: list[LastingFailure]


@dataclass(frozen=True, slots=True)
class _OfMount:
    mount: str
    reads: ClientReads
    usage: Usage
    money: Money | None
    wasted: Mapping[Waste, int]

    @property
    def is_shown(self) -> bool:
        """Return whether it is a mount, or requests belong to none."""
        return self.mount != NO_MOUNT or self.usage != NOTHING

    def figures(self) -> MountFigures:
        reads, usage, money = self.reads, self.usage, self.money
        return MountFigures(
            mount=self.mount,
            reads=reads.requests,
            hits=reads.hits,
            bytes=reads.bytes,
            cached_bytes=reads.cached_bytes,
            hit_ratio=HitRatios(
                requests=ratio(reads.hits, reads.requests), bytes=ratio(reads.cached_bytes, reads.bytes)
            ),
            origin_reads=usage.origin_reads,
            origin_writes=usage.origin_writes,
            origin_bytes=usage.origin_bytes,
            origin_wasted={waste.value: self.wasted.get(waste, 0) for waste in Waste},
            saved=Savings(
                requests=usage.saved_reads, bytes=usage.saved_bytes, money=None if money is None else money.saved
            ),
            money_spent=None if money is None else money.spent,
        )


class Summary:
    """Puts the figures together. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        settings: Settings,
        cache: Cache,
        origin: S3Origin,
        telemetry: Telemetry,
        health: Health,
        clock: Callable[[], float],
        fleet: Fleet | None = None,
    ) -> None:
        self._cache = cache
        self._fleet = fleet
        self._origin = origin
        self._telemetry = telemetry
        self._health = health
        self._clock = clock
        self._started = clock()
        self.adopt(settings)

    def adopt(self, settings: Settings) -> None:
        """Use the prices of these settings from now on, also for what was counted before."""
        self._pricing = settings.pricing
        self._prices = {mount.path: mount.pricing or settings.pricing for mount in settings.mounts}

    @property
    def currency(self) -> str:
        return self._pricing.currency

    @property
    def mode(self) -> CacheMode:
        return self._cache.mode

    def money(self) -> Mapping[str, Money]:
        """Return the amounts of the mounts whose prices are known."""
        return {one.mount: one.money for one in self._by_mount() if one.money is not None and one.is_shown}

    def sizing(self) -> Sizing | None:
        """Return the estimates of hit ratios by the size of the cache. Returns None before the first request."""
        return self._telemetry.sizing()

    @property
    def shadow_verdicts(self) -> Mapping[Verdict, int]:
        """Return the comparisons with S3 by their verdict. They are empty in other modes."""
        return {} if self._cache.shadow is None else self._cache.shadow.counts

    def forecast(self) -> ForecastFigures | None:
        """Return what each size of the cache would give if it served. Returns None if it serves."""
        found = self._telemetry.forecast()
        if found is None:
            return None
        return forecast_figures(found, {path: self._prices.get(path, self._pricing) for path in found.mounts})

    def figures(self) -> SummaryFigures:
        """Return the figures of now."""
        by_mount = self._by_mount()
        total = _total(by_mount)
        health = self._health
        return SummaryFigures(
            mode=self._cache.mode.value,
            seconds=self._clock() - self._started,
            total=total.figures(),
            mounts=[one.figures() for one in by_mount if one.is_shown],
            currency=None if total.money is None else self.currency,
            sizing=_sizing_figures(self.sizing()),
            forecast=self.forecast(),
            shadow=None if self._cache.shadow is None else shadow_figures(self._cache.shadow),
            bus=None if self._fleet is None else bus_figures(self._fleet),
            removals={one.reason.value: one.count for one in self._cache.removals()},
            refusals={reason.value: count for reason, count in self._cache.storage_refusals()},
            degraded=[
                LastingFailure(
                    reason=trouble.kind.reason.value, name=trouble.kind.name, seconds=round(health.lasted(trouble))
                )
                for trouble in health.troubles
            ],
        )

    def _by_mount(self) -> list[_OfMount]:
        reads, counts, traffic = self._telemetry.reads, self._origin.billing.counts, self._cache.traffic
        found = []
        for mount in dict.fromkeys((*self._prices, *reads, *traffic, *(mount for mount, _ in counts), NO_MOUNT)):
            of_clients = reads.get(mount, ClientReads())
            account = traffic.get(mount)
            usage = Usage(
                of_clients.requests,
                of_clients.bytes,
                counts.get((mount, PriceClass.READ), 0),
                counts.get((mount, PriceClass.WRITE), 0),
                0 if account is None else sum(account.received.values()),
            )
            prices = self._prices.get(mount, self._pricing)
            wasted = {} if account is None else account.wasted
            found.append(_OfMount(mount, of_clients, usage, savings.money(usage, prices), wasted))
        return found


def _total(by_mount: list[_OfMount]) -> _OfMount:
    """Return the sum of all mounts. Its money is that of the mounts whose prices are known."""
    reads, usage, amount, wasted = ClientReads(), NOTHING, None, dict.fromkeys(Waste, 0)
    for one in by_mount:
        reads.requests += one.reads.requests
        reads.bytes += one.reads.bytes
        reads.hits += one.reads.hits
        reads.cached_bytes += one.reads.cached_bytes
        usage += one.usage
        for waste, count in one.wasted.items():
            wasted[waste] += count
        if one.money is not None:
            amount = one.money if amount is None else amount + one.money
    return _OfMount("", reads, usage, amount, wasted)


def _sizing_figures(found: Sizing | None) -> SizingFigures | None:
    if found is None:
        return None
    return SizingFigures(
        requests=round(found.requests),
        objects=found.objects,
        sample_rate=found.rate,
        sizes=[
            SizeEstimate(
                factor=factor,
                bytes=ratios.size,
                hit_ratio=HitRatios(requests=ratios.requests, bytes=ratios.bytes),
            )
            for factor, ratios in found.estimates
        ],
    )
