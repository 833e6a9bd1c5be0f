"""The metrics of the listeners with TLS."""

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from bucketfront.server.http1.handshake_failure import HandshakeFailure
from bucketfront.server.http1.server_tls import ServerTls
from bucketfront.server.telemetry.metric_family import counter, gauge

_NOT_AFTER = gauge(
    "tls_certificate_not_after_seconds", "When the certificate ends, in seconds since 1970.", "listener", "certificate"
)
_FAILED = counter("tls_handshakes_failed", "Handshakes that failed: see docs/tls.md.", "listener", "reason")

FAMILIES = (_NOT_AFTER, _FAILED)


class TlsCollector(Collector):
    def __init__(self, registry: CollectorRegistry, listeners: Sequence[ServerTls]) -> None:
        self._listeners = listeners
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        yield _NOT_AFTER.values(
            ((tls.name, str(certificate.path)), certificate.not_after)
            for tls in self._listeners
            for certificate in tls.loaded.certificates
        )
        yield _FAILED.values(
            ((tls.name, reason.value), tls.failures[reason]) for tls in self._listeners for reason in HandshakeFailure
        )
