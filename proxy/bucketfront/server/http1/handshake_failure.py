"""Why handshakes of TLS fail, by the exceptions of `ssl` and `asyncio`."""

import ssl
from enum import Enum


class HandshakeFailure(Enum):
    """Why a handshake failed. The values are labels of a metric."""

    NO_TLS = "no-tls"  # plain HTTP, or no protocol at all
    OLD_VERSION = "old-version"
    NO_COMMON_CIPHER = "no-common-cipher"
    CLIENT_CERTIFICATE = "client-certificate"  # the client sent none, or one that is not accepted
    REFUSED_BY_CLIENT = "refused-by-client"  # it does not trust the certificate, or refuses for a reason of its own
    LEFT = "left"  # also a port scan, and a load balancer that only connects
    TIMEOUT = "timeout"
    OTHER = "other"


_BY_REASON = {
    "HTTP_REQUEST": HandshakeFailure.NO_TLS,
    "HTTPS_PROXY_REQUEST": HandshakeFailure.NO_TLS,
    "WRONG_VERSION_NUMBER": HandshakeFailure.NO_TLS,
    "PACKET_LENGTH_TOO_LONG": HandshakeFailure.NO_TLS,
    "BAD_RECORD_TYPE": HandshakeFailure.NO_TLS,
    "UNSUPPORTED_PROTOCOL": HandshakeFailure.OLD_VERSION,
    "VERSION_TOO_LOW": HandshakeFailure.OLD_VERSION,
    "NO_SHARED_CIPHER": HandshakeFailure.NO_COMMON_CIPHER,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": HandshakeFailure.CLIENT_CERTIFICATE,
    "CERTIFICATE_VERIFY_FAILED": HandshakeFailure.CLIENT_CERTIFICATE,
    "INVALID_CERTIFICATE": HandshakeFailure.CLIENT_CERTIFICATE,
}


def handshake_failure(error: BaseException) -> HandshakeFailure:
    """Return why a handshake failed with an exception."""
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        by_alert = HandshakeFailure.REFUSED_BY_CLIENT if "ALERT" in reason else HandshakeFailure.OTHER
        return _BY_REASON.get(reason, by_alert)
    if isinstance(error, ValueError):  # Python cannot decode a name in the client's certificate
        return HandshakeFailure.CLIENT_CERTIFICATE
    if isinstance(error, ConnectionAbortedError | TimeoutError):  # asyncio's deadline of the handshake
        return HandshakeFailure.TIMEOUT
    return HandshakeFailure.LEFT if isinstance(error, OSError) else HandshakeFailure.OTHER
