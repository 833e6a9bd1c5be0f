"""The metrics of requests to S3."""

import math
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bucketfront.s3.client import S3Origin
from bucketfront.server.telemetry.metric_family import counter, gauge

_REQUESTS = counter(
    "origin_requests",
    "Requests to S3. `outcome` is ok, S3's code, else the status or the cause. A body that breaks off counts again.",
    "operation",
    "outcome",
)
_RESTING = gauge("origin_resting", "1 while the circuit breaker is open.")
_OUTAGES = counter("origin_outages", "How often the circuit breaker opened.")
_REFUSED = counter("origin_refused", "Reads that failed at once because the circuit breaker was open.")
_FIELDS = counter("origin_fields_dropped", "Fields of objects that were dropped because of control characters in them.")
_DRIPS = counter("origin_drips", "Bodies that were ended because they came too slowly.")
_CREDENTIALS = counter("origin_credentials_replaced", "Loads that brought other credentials.")
_SKEW = gauge(
    "origin_clock_skew_seconds",
    "How far signatures are ahead of this machine's clock, because the origin refused its time.",
)
_PACE = gauge("origin_pace_limit", "Requests a second that may be sent to the bucket, +Inf without a limit.", "bucket")
_THROTTLED = counter("origin_throttled", "Requests after which S3 requested a slower pace.", "bucket")

FAMILIES = (
    _REQUESTS, _RESTING, _OUTAGES, _REFUSED, _FIELDS, _DRIPS, _CREDENTIALS, _SKEW, _PACE, _THROTTLED,
)  # fmt: skip


class OriginCollector(Collector):
    def __init__(self, registry: CollectorRegistry, origin: S3Origin) -> None:
        self._origin = origin
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        origin = self._origin
        yield _REQUESTS.values(sorted(origin.calls.failures.counts.items()))
        yield _RESTING.value(origin.breaker.is_open)
        yield _OUTAGES.value(origin.breaker.opened)
        yield _REFUSED.value(origin.breaker.refused)
        yield _FIELDS.value(origin.dropped_fields)
        yield _DRIPS.value(origin.slow_bodies)
        yield _CREDENTIALS.value(origin.credentials.replacements)
        yield _SKEW.value(origin.signing_clock.skew)
        paces = sorted(origin.calls.paces.items())
        yield _PACE.values(((bucket,), math.inf if pace.limit is None else pace.limit) for bucket, pace in paces)
        yield _THROTTLED.values(((bucket,), pace.throttled_count) for bucket, pace in paces)
