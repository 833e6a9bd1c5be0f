"""Why a request to the origin got no usable response, in words that an operator can act on.

The libraries below wrap the reason several times, in exceptions whose names do not show it (`SSLError`). `cause` finds
it. A text never has a part of a message of others, because such a message may quote a URL
(docs/invariants.md#secrets-stay-in).
"""

import errno
import socket
import ssl
from collections.abc import Iterator, Mapping
from enum import Enum

import aiohttp
from botocore.exceptions import ConnectTimeoutError, ProxyConnectionError, ReadTimeoutError


class Cause(Enum):
    """A reason, with the cure. The names may be labels of metrics."""

    UNKNOWN_AUTHORITY = "the certificate's authority is unknown: add its certificate to origin.ca_bundle"
    SELF_SIGNED = "the certificate is self-signed: add it to origin.ca_bundle, if it is the right one"
    NAME_MISMATCH = (
        "the certificate is for another host name: check origin.endpoint_url, and origin.addressing_style for buckets"
        " with dots in their names"
    )
    CERTIFICATE_EXPIRED = "the certificate has expired, or this machine's clock is wrong"
    CERTIFICATE_NOT_YET_VALID = "the certificate is not valid yet: check this machine's clock"
    CERTIFICATE_REVOKED = "the certificate was revoked"
    CERTIFICATE_INVALID = "the certificate does not verify"
    CLIENT_CERTIFICATE = "the origin wants a client certificate, which is not supported"
    NO_TLS = "the port does not speak TLS: check the port, or use http:// in origin.endpoint_url"
    TLS_ONLY = "the port speaks TLS: use https:// in origin.endpoint_url"
    TLS_VERSION = "there is no common TLS version or cipher"
    TLS_FAILED = "the TLS handshake failed"
    UNKNOWN_NAME = "the host name is not in the DNS: check origin.endpoint_url"
    DNS_UNREACHABLE = "the DNS did not respond: check the resolver of this machine"
    REFUSED = "the connection was refused: check the port of origin.endpoint_url, and whether the origin runs"
    UNREACHABLE = "there is no route to the host: check the network"
    FORBIDDEN = "a local rule forbids the connection: check this machine's firewall"
    CONNECT_TIMEOUT = "no connection in time: check the network, firewalls and the port, see origin.connect_timeout"
    RESPONSE_TIMEOUT = "no response in time, see origin.read_timeout"
    NO_RESPONSE = "the connection was closed without a response: check the origin, and whether its port speaks TLS"
    CLOSED = "the connection was closed before the response was complete"
    PROXY = "the HTTP proxy of the environment refused or failed: check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
    NO_DESCRIPTORS = "no descriptor is free: raise the limit of open files"
    NO_LOCAL_PORTS = "no local port is free"
    NO_HTTP = "the response is not HTTP: check origin.endpoint_url"


# X509_V_ERR_* of OpenSSL, see openssl-verification-options(1).
_BY_VERIFY_CODE: Mapping[int, Cause] = {
    9: Cause.CERTIFICATE_NOT_YET_VALID,
    10: Cause.CERTIFICATE_EXPIRED,
    18: Cause.SELF_SIGNED,
    19: Cause.UNKNOWN_AUTHORITY,  # a root that came with the chain
    20: Cause.UNKNOWN_AUTHORITY,
    21: Cause.UNKNOWN_AUTHORITY,
    23: Cause.CERTIFICATE_REVOKED,
    62: Cause.NAME_MISMATCH,
    64: Cause.NAME_MISMATCH,  # of an IP address
}
# Reasons of OpenSSL: of responses without TLS to a TLS handshake, and of alerts.
_BY_TLS_REASON: Mapping[str, Cause] = {
    "WRONG_VERSION_NUMBER": Cause.NO_TLS,
    "PACKET_LENGTH_TOO_LONG": Cause.NO_TLS,
    "RECORD_LAYER_FAILURE": Cause.NO_TLS,
    "HTTP_REQUEST": Cause.NO_TLS,
    "UNKNOWN_PROTOCOL": Cause.NO_TLS,
    "UNSUPPORTED_PROTOCOL": Cause.TLS_VERSION,
    "TLSV1_ALERT_PROTOCOL_VERSION": Cause.TLS_VERSION,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": Cause.TLS_VERSION,
    "NO_PROTOCOLS_AVAILABLE": Cause.TLS_VERSION,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": Cause.CLIENT_CERTIFICATE,
}
_BY_ERRNO: Mapping[int, Cause] = {
    errno.ECONNREFUSED: Cause.REFUSED,
    errno.EHOSTUNREACH: Cause.UNREACHABLE,
    errno.ENETUNREACH: Cause.UNREACHABLE,
    errno.EHOSTDOWN: Cause.UNREACHABLE,
    errno.EACCES: Cause.FORBIDDEN,
    errno.EPERM: Cause.FORBIDDEN,
    errno.ETIMEDOUT: Cause.CONNECT_TIMEOUT,
    errno.ECONNRESET: Cause.CLOSED,
    errno.ECONNABORTED: Cause.CLOSED,
    errno.EPIPE: Cause.CLOSED,
    errno.EMFILE: Cause.NO_DESCRIPTORS,
    errno.ENFILE: Cause.NO_DESCRIPTORS,
    errno.EADDRNOTAVAIL: Cause.NO_LOCAL_PORTS,
}
_BY_GAI_ERROR: Mapping[int, Cause] = {socket.EAI_AGAIN: Cause.DNS_UNREACHABLE, socket.EAI_FAIL: Cause.DNS_UNREACHABLE}
_ALERT = r"b'\x15\x03"  # a TLS record of an alert (RFC 8446 section 5.1), as aiohttp quotes it
MAX_DEPTH = 8  # of causes; four occur


def cause(error: BaseException) -> Cause | None:
    """Return why a request failed, or None if the exception does not show it."""
    found = [each for each in map(_cause_of_one, _chain(error)) if each is not None]
    if found:
        return found[-1]  # the innermost one
    return Cause.RESPONSE_TIMEOUT if isinstance(error, TimeoutError) else None  # our own deadline


def described(error: BaseException) -> str:
    """Return the cause of an exception as text, or else the name of its class."""
    found = cause(error)
    return type(error).__name__ if found is None else found.value


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Return an exception, what it wraps, and so on."""
    current: BaseException | None = error
    for _ in range(MAX_DEPTH):
        if current is None:
            return
        yield current
        wrapped = getattr(current, "kwargs", {}).get("error")  # botocore's
        current = wrapped if isinstance(wrapped, BaseException) else current.__cause__


def _cause_of_one(error: BaseException) -> Cause | None:  # noqa: C901, PLR0911 - a table
    match error:
        case ssl.SSLCertVerificationError():
            return _BY_VERIFY_CODE.get(getattr(error, "verify_code", -1), Cause.CERTIFICATE_INVALID)
        case ssl.SSLError():
            return _BY_TLS_REASON.get(getattr(error, "reason", ""), Cause.TLS_FAILED)
        case socket.gaierror():
            return _BY_GAI_ERROR.get(error.errno or 0, Cause.UNKNOWN_NAME)
        case aiohttp.ClientConnectorDNSError():
            return Cause.UNKNOWN_NAME
        case ProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return Cause.PROXY
        case ConnectTimeoutError() | aiohttp.ConnectionTimeoutError():
            return Cause.CONNECT_TIMEOUT
        case ReadTimeoutError() | aiohttp.SocketTimeoutError():
            return Cause.RESPONSE_TIMEOUT
        case aiohttp.ServerDisconnectedError():
            return Cause.NO_RESPONSE if isinstance(error.message, str) else Cause.CLOSED
        case aiohttp.ClientPayloadError():
            return Cause.CLOSED
        case aiohttp.ClientResponseError():
            return Cause.TLS_ONLY if _ALERT in error.message else Cause.NO_HTTP
        case OSError():
            return _BY_ERRNO.get(error.errno or 0)
    return None
