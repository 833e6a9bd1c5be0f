"""The certificate of a client, as the handshake of TLS has verified it."""

import functools
import hashlib
import math
import ssl
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

MAX_REMEMBERED = 256  # certificates whose facts are kept, because devices connect again and again


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The facts of a certificate that was verified in the handshake.

    `fingerprint` is the SHA-256 of its DER, in hex. The times are in seconds since the epoch, and no time lies between
    them if they cannot be read.
    """

    fingerprint: str
    common_name: str | None
    dns_names: tuple[str, ...]
    uris: tuple[str, ...]
    not_before: float
    not_after: float

    @property
    def name(self) -> str:
        """Return the name for the log: what the authority calls the client, else the fingerprint."""
        return self.common_name or next(iter((*self.uris, *self.dns_names)), f"sha256:{self.fingerprint}")


def client_certificate(connection: ssl.SSLObject | ssl.SSLSocket) -> ClientCertificate | None:
    """Return the certificate of the other side of a connection, once its handshake is done. Returns None without one.

    A connection that resumed a session has the certificate of that session.
    """
    if connection.context.verify_mode is ssl.CERT_NONE:
        return None
    der = connection.getpeercert(binary_form=True)
    return None if der is None else facts_of(der)


@functools.lru_cache(maxsize=MAX_REMEMBERED)
def facts_of(der: bytes) -> ClientCertificate:
    """Return the facts of a certificate in DER. A name that cannot be read is absent."""
    fingerprint = hashlib.sha256(der).hexdigest()
    try:
        certificate = x509.load_der_x509_certificate(der)
    except ValueError:  # OpenSSL is less strict
        return ClientCertificate(fingerprint, None, (), (), math.inf, -math.inf)
    return ClientCertificate(
        fingerprint=fingerprint,
        common_name=_common_name(certificate),
        dns_names=tuple(name.lower() for name in _alternative_names(certificate, x509.DNSName)),
        uris=_alternative_names(certificate, x509.UniformResourceIdentifier),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def _common_name(certificate: x509.Certificate) -> str | None:
    """Return the one common name. With several, it would depend on the reader which of them counts."""
    try:
        found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        return None
    value = found[0].value if len(found) == 1 else None
    return value if isinstance(value, str) else None


def _alternative_names(
    certificate: x509.Certificate, kind: type[x509.DNSName] | type[x509.UniformResourceIdentifier]
) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return ()
    return tuple(extension.value.get_values_for_type(kind))
