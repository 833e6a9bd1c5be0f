"""The metrics of the bus."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bucketfront.fleet.fleet import Fleet
from bucketfront.server.telemetry.metric_family import counter, gauge

_CONNECTED = gauge(
    "bus_connected", "1 if the last calls of the bus have succeeded, else 0. Without `bus` there is no series."
)
_LAG = gauge(
    "bus_lag_seconds",
    "Seconds since the last time at which all changes on other proxies were known and applied. Beyond"
    " `bus.ttl_when_lost`, objects count as stale that S3 was not asked about since.",
)
_QUEUE = gauge("bus_queue", "Notices of this proxy that are not on the bus yet.")
_SENT = counter("bus_sent", "Notices of this proxy that are on the bus.")
_OVERFLOWS = counter(
    "bus_overflows",
    "Times that too many notices waited for the bus. One notice that all is stale takes their place.",
)
_RECEIVED = counter(
    "bus_received",
    "Notices of other proxies: `applied`, `unreadable` because of another release or a damage, `foreign` entries of"
    " other programs.",
    "outcome",
)
_GAPS = counter(
    "bus_gaps", "Times that notices were missed, so that all that was cached counts as stale: see docs/fleet.md."
)

FAMILIES = (_CONNECTED, _LAG, _QUEUE, _SENT, _OVERFLOWS, _RECEIVED, _GAPS)


class FleetCollector(Collector):
    def __init__(self, registry: CollectorRegistry, fleet: Fleet | None) -> None:
        self._fleet = fleet
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        if self._fleet is None:
            for family in FAMILIES:
                yield family.values(())
            return
        figures = self._fleet.figures
        follower = figures.follower
        yield _CONNECTED.value(figures.is_connected)
        yield _LAG.value(figures.lag)
        yield _QUEUE.value(figures.queued)
        yield _SENT.value(figures.sent)
        yield _OVERFLOWS.value(figures.overflows)
        yield _RECEIVED.values(
            ((outcome,), getattr(follower, outcome)) for outcome in ("applied", "unreadable", "foreign")
        )
        yield _GAPS.value(follower.gaps)
