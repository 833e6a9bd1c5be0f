"""The header of the PROXY protocol, by which a front names the client of a connection.

It precedes all other bytes, those of TLS included. Version 1 is a line of text, version 2 is binary. HAProxy's document
"The PROXY protocol, versions 1 & 2" describes both. This parser never guesses: bytes that begin no header are an error.
"""

import ipaddress
import re
import struct
from dataclasses import dataclass
from enum import Enum, IntEnum

from bucketfront.server.access.rule import Address

MAX_TEXT_BYTES = 107  # section 2.1, with the line end
MAX_BINARY_BYTES = 4096  # addresses take 232, and the rest are extensions, such as the names in a client's certificate
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"

_TEXT_START, _LINE_END = b"PROXY ", b"\r\n"
_PORT = r"(0|[1-9][0-9]{0,4})"
_TEXT = re.compile(rf"PROXY (TCP4|TCP6) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) {_PORT} {_PORT}")
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?")
_BINARY = struct.Struct("!12sBBH")  # signature, version and command, family and transport, length of the rest
_VERSION = 2


class BadProxyHeader(ValueError):
    """The bytes are not the header of a front."""


class _Command(IntEnum):
    LOCAL = 0
    PROXY = 1


class _Family(IntEnum):
    UNSPECIFIED = 0
    IPV4 = 1
    IPV6 = 2
    UNIX = 3


_TRANSPORTS = range(3)  # unspecified, stream, datagram
_ADDRESS_BYTES = {_Family.IPV4: 12, _Family.IPV6: 36, _Family.UNIX: 216}  # both ends, with their ports


class NoClient(Enum):
    """Why a header names no client by its address."""

    FRONT = "the front itself is the client, as in a health check"
    UNKNOWN = "the front does not name it, or the client has no address of the internet"


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A whole header: its length in bytes, and the client that it names."""

    length: int
    client: Address | NoClient


def parse(data: bytes) -> ProxyHeader | None:
    """Return the header at the start of `data`. Returns None if more bytes are needed. Raises BadProxyHeader."""
    if _begins(data, SIGNATURE):
        return _parse_binary(data)
    if _begins(data, _TEXT_START):
        return _parse_text(data)
    raise BadProxyHeader("the connection does not begin with a PROXY header")


def _begins(data: bytes, start: bytes) -> bool:
    """Return whether `data` begins with `start`, or is a beginning of it."""
    return data.startswith(start[: len(data)])


def _parse_text(data: bytes) -> ProxyHeader | None:
    line, end, _ = data[:MAX_TEXT_BYTES].partition(_LINE_END)
    if not end:
        if len(data) >= MAX_TEXT_BYTES:
            raise BadProxyHeader(f"the line is longer than {MAX_TEXT_BYTES} bytes")
        return None
    length = len(line) + len(end)
    if _UNKNOWN.fullmatch(line):
        return ProxyHeader(length, NoClient.UNKNOWN)
    found = _TEXT.fullmatch(line.decode("latin-1"))
    if found is None or max(int(found[4]), int(found[5])) > 0xFFFF:
        raise BadProxyHeader("the line is malformed")
    try:
        source, destination = (ipaddress.ip_address(found[number]) for number in (2, 3))
    except ValueError as error:
        raise BadProxyHeader("the line has no address") from error
    if {source.version, destination.version} != {int(found[1][-1])}:
        raise BadProxyHeader("the addresses are of another protocol than the line has")
    return ProxyHeader(length, source)


def _parse_binary(data: bytes) -> ProxyHeader | None:
    if len(data) < _BINARY.size:
        return None
    _, version_and_command, family_and_transport, rest = _BINARY.unpack_from(data)
    length = _BINARY.size + rest
    if version_and_command >> 4 != _VERSION:
        raise BadProxyHeader("the version is unknown")
    if length > MAX_BINARY_BYTES:
        raise BadProxyHeader(f"the header is longer than {MAX_BINARY_BYTES} bytes")
    try:
        command = _Command(version_and_command & 0xF)
        family = _Family(family_and_transport >> 4)
    except ValueError as error:
        raise BadProxyHeader("the command or the family is unknown") from error
    if (transport := family_and_transport & 0xF) not in _TRANSPORTS:
        raise BadProxyHeader("the transport is unknown")
    has_addresses = command is _Command.PROXY and family is not _Family.UNSPECIFIED and transport != 0
    if has_addresses and rest < _ADDRESS_BYTES[family]:
        raise BadProxyHeader("the header is too short for its addresses")
    if len(data) < length:
        return None
    if not has_addresses:
        return ProxyHeader(length, NoClient.FRONT if command is _Command.LOCAL else NoClient.UNKNOWN)
    return ProxyHeader(length, _source(family, data[_BINARY.size :]))


def _source(family: _Family, addresses: bytes) -> Address | NoClient:
    match family:
        case _Family.IPV4:
            return ipaddress.IPv4Address(addresses[:4])
        case _Family.IPV6:
            return ipaddress.IPv6Address(addresses[:16])
        case _:
            return NoClient.UNKNOWN
