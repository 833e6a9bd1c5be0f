"""The rule of client certificates."""

from collections.abc import Iterable

from bucketfront.config.access_settings import ClientCertificateSettings
from bucketfront.http.glob import Glob
from bucketfront.server.access.client_certificate import ClientCertificate
from bucketfront.server.access.rule import AccessRequest, Denial, Grant, RuleVerdict, Scope


class CertificateRule:
    """Holds for requests on connections whose client certificate has the names of the settings."""

    scope = Scope.MOUNT
    challenge = None

    def __init__(self, settings: ClientCertificateSettings) -> None:
        self._common_names = _globs(settings.common_names or ())
        self._dns_names = _globs(name.lower() for name in settings.dns_names or ())
        self._uris = _globs(settings.uris or ())
        self._fingerprints = frozenset(settings.fingerprints or ())

    async def examine(self, request: AccessRequest) -> RuleVerdict:
        certificate = request.certificate
        if certificate is None:
            return Denial()
        # A connection, and a session that is resumed, may last longer than the certificate.
        if not certificate.not_before <= request.now <= certificate.not_after:
            return Denial("the client certificate has expired")
        if not self._has_names(certificate):
            return Denial("the client certificate is not permitted")
        return Grant(holder=certificate.name)

    async def close(self) -> None:
        pass

    def _has_names(self, certificate: ClientCertificate) -> bool:
        common_names = () if certificate.common_name is None else (certificate.common_name,)
        return (
            _fits(self._common_names, common_names)
            and _fits(self._dns_names, certificate.dns_names)
            and _fits(self._uris, certificate.uris)
            and (not self._fingerprints or certificate.fingerprint in self._fingerprints)
        )


def _globs(patterns: Iterable[str]) -> tuple[Glob, ...]:
    # Without the slash, a pattern would match behind any slash of a name as well.
    return tuple(Glob(f"/{pattern}") for pattern in patterns)


def _fits(patterns: tuple[Glob, ...], names: tuple[str, ...]) -> bool:
    """Return whether one of the names fits one of the patterns. Without patterns all names do."""
    return not patterns or any(pattern.matches(f"/{name}") for pattern in patterns for name in names)
