"""The metrics of the listener for clients."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bucketfront.fair_share import FairShares
from bucketfront.server.fast_path.fast_path import FastPath
from bucketfront.server.http1.connection_limit import ConnectionLimit
from bucketfront.server.http1.proxy_headers import ProxyHeaders
from bucketfront.server.telemetry.metric_family import counter, gauge

_CONNECTIONS = gauge("connections", "Connections of clients.")
_LIMIT = gauge("connections_limit", "Connections of clients that there may be.")
_REFUSED = counter("connections_refused", "Connections beyond the limit, which got 503.")
_MADE_WAY = counter("connections_made_way", "Idle connections that were closed to make room for others.")
_SHARE_REFUSED = counter(
    "share_refused",
    "Requests of clients that got none of a resource: their share is used up (share), or the whole (whole).",
    "resource",
    "reason",
)
_HEADERS_REFUSED = counter(
    "proxy_headers_refused", "Connections of fronts that were closed, because they began with no valid PROXY header."
)
_FAST_PATH = counter("fast_path_answers", "Hits that the fast path served.")

FAMILIES = (_CONNECTIONS, _LIMIT, _REFUSED, _MADE_WAY, _SHARE_REFUSED, _HEADERS_REFUSED, _FAST_PATH)


class ServerCollector(Collector):
    def __init__(
        self,
        registry: CollectorRegistry,
        connections: ConnectionLimit,
        fast_path: FastPath,
        shares: FairShares,
        headers: ProxyHeaders,
    ) -> None:
        self._connections = connections
        self._fast_path = fast_path
        self._shares = shares
        self._headers = headers
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        connections = self._connections
        yield _CONNECTIONS.value(connections.total)
        yield _LIMIT.value(connections.limit)
        yield _REFUSED.value(connections.refused)
        yield _MADE_WAY.value(connections.made_way)
        yield _SHARE_REFUSED.values(
            ((resource.value, reason.value), count) for (resource, reason), count in self._shares.refused.items()
        )
        yield _HEADERS_REFUSED.value(self._headers.refused)
        yield _FAST_PATH.value(self._fast_path.served)
