"""The PROXY header as a pure function of bytes."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import each_row

from bucketfront.server.http1.proxy_protocol import (
    MAX_BINARY_BYTES,
    MAX_TEXT_BYTES,
    SIGNATURE,
    BadProxyHeader,
    NoClient,
    parse,
)

PROXY, LOCAL = 0x21, 0x20
TCP4, TCP6, UNIX = 0x11, 0x21, 0x31
BEHIND = b"GET / HTTP/1.1\r\n\r\n"

ports = st.integers(0, 0xFFFF)


def text(protocol: str, source: object, destination: object, *of: int) -> bytes:
    return f"PROXY {protocol} {source} {destination} {of[0]} {of[1]}\r\n".encode()


def binary(command: int, family: int, rest: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


def ends(source: bytes, destination: bytes) -> bytes:
    return source + destination + struct.pack("!HH", 1, 2)


V4, V6 = ends(b"\xc0\x00\x02\x07", b"\x0a\x00\x00\x01"), ends(bytes(15) + b"\x07", bytes(15) + b"\x01")

WHOLE = [
    (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n", "192.0.2.7"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP6 2001:db8::7 ::1 0 0\r\n", "2001:db8::7"),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", "::ffff:192.0.2.7"),
    (b"PROXY UNKNOWN\r\n", NoClient.UNKNOWN),
    (b"PROXY UNKNOWN ffff::ffff anything at all 65535 x\r\n", NoClient.UNKNOWN),
    (b"PROXY UNKNOWN " + b"x" * (MAX_TEXT_BYTES - 16) + b"\r\n", NoClient.UNKNOWN),
    (binary(PROXY, TCP4, V4), "192.0.2.7"),
    (binary(PROXY, 0x12, V4), "192.0.2.7"),
    (binary(PROXY, TCP6, V6), "::7"),
    (binary(PROXY, TCP4, V4 + b"\x03\x00\x04crc_" + bytes(500)), "192.0.2.7"),
    (binary(PROXY, TCP4, V4 + bytes(MAX_BINARY_BYTES - 16 - len(V4))), "192.0.2.7"),
    (binary(PROXY, UNIX, b"/run/x".ljust(108, b"\0") * 2), NoClient.UNKNOWN),
    (binary(PROXY, 0x00), NoClient.UNKNOWN),
    (binary(PROXY, 0x00, b"\x04\x00\x01x"), NoClient.UNKNOWN),
    (binary(PROXY, 0x10, V4), NoClient.UNKNOWN),
    (binary(LOCAL, 0x00), NoClient.FRONT),
    (binary(LOCAL, TCP4, V4), NoClient.FRONT),
    (binary(LOCAL, TCP6, b"short"), NoClient.FRONT),
]

MALFORMED = [
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\x00",
    b"\r\nPROXY TCP4",
    b"proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
    b"PROXY\r\n",
    b"PROXY  TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 \r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
    b"PROXY TCP4 192.0.2.7\t10.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 -1 2\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 \xb2 2\r\n",
    b"PROXY TCP4 192.0.2 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.007 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 ::7 10.0.0.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 ::1 1 2\r\n",
    b"PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP6 [::7] ::1 1 2\r\n",
    b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY UNKNOWN a\nb\r\n",
    b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n\r\n",
    b"PROXY UNKNOWN " + b"x" * MAX_TEXT_BYTES + b"\r\n",
    SIGNATURE[:-1] + b"X",
    binary(0x11, TCP4, V4),
    binary(0x31, TCP4, V4),
    binary(0x22, TCP4, V4),
    binary(PROXY, 0x41, V4),
    binary(PROXY, 0x13, V4),
    binary(PROXY, TCP4, V4[:-1]),
    binary(PROXY, TCP6, V4),
    binary(PROXY, UNIX, V6),
    binary(PROXY, TCP4, V4 + bytes(MAX_BINARY_BYTES - 15 - len(V4))),
]


def client_of(data: bytes) -> tuple[int, object] | None:
    header = parse(data)
    return None if header is None else (header.length, header.client)


@each_row(("data", "client"), WHOLE)
def test_a_header_in_every_split(data: bytes, client: str | NoClient) -> None:
    """Each beginning of a header needs more bytes, the whole names its client, and what follows is not looked at."""
    named = client if isinstance(client, NoClient) else ipaddress.ip_address(client)
    for end in range(len(data)):
        assert client_of(data[:end]) is None
    for behind in (b"", BEHIND, data, b"\0" * 5000):
        assert client_of(data + behind) == (len(data), named)


@each_row("data", MALFORMED)
def test_what_is_no_header(data: bytes) -> None:
    """Other bytes are refused, at their first wrong byte or later, and never become a header."""
    with pytest.raises(BadProxyHeader):
        parse(data)
    for end in range(len(data)):
        try:
            assert parse(data[:end]) is None
        except BadProxyHeader:
            return


@given(st.ip_addresses(), ports, ports, st.binary(max_size=200), st.booleans())
def test_round_trip(
    client: ipaddress.IPv4Address | ipaddress.IPv6Address, mine: int, yours: int, rest: bytes, is_text: bool
) -> None:
    """The client of a header is the one that its front wrote, in both versions."""
    front = type(client)(1)
    if is_text:
        header, behind = text(f"TCP{client.version}", client, front, mine, yours), rest
    else:
        family = TCP4 if client.version == 4 else TCP6
        addresses = client.packed + front.packed + struct.pack("!HH", mine, yours)
        header, behind = binary(PROXY, family, addresses + rest), b""
    assert client_of(header + behind) == (len(header), client)


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda rest: SIGNATURE + rest)))
def test_any_bytes(data: bytes) -> None:
    """Whatever arrives, the parser returns or refuses, and waits for no more than its bound."""
    try:
        header = parse(data)
    except BadProxyHeader:
        return
    assert header is None or 0 < header.length <= min(len(data), MAX_BINARY_BYTES)


@given(st.sampled_from([data for data, _ in WHOLE]), st.integers(0, 600), st.integers(0, 255))
def test_one_byte_changed(data: bytes, position: int, byte: int) -> None:
    """A header with another byte is a header of the same length, needs more bytes, or is refused."""
    changed = bytearray(data)
    changed[position % len(data)] = byte
    try:
        header = parse(bytes(changed))
    except BadProxyHeader:
        return
    assert header is None or header.length <= len(data)
