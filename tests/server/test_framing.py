"""Where a request begins and ends. Raw bytes, whole and byte by byte, and what must not follow from them (I24)."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from proxy_under_test import S3, Proxy, StartProxy
from relay import Seen
from stopwatch import HANG_S, assert_takes_less_than
from wire import Response, chunked, message

from bucketfront.server.http1 import connection as server_connection

KIB = 1 << 10
MIB = 1 << 20
LAST = message("GET", "/last", {"Connection": "close"})


@dataclass(frozen=True, slots=True)
class Row:
    """`data` gets responses with `statuses`.

    `is_open` is true if a request behind it, in the same segment, gets a response as well.
    """

    rfc: str  # a section of RFC 9112, or of the RFC that it names
    data: bytes
    statuses: tuple[int, ...]
    is_open: bool = False
    method: str = "GET"


def head(line: str | bytes, *fields: str | bytes, host: str | bytes = "Host: echo.localhost") -> bytes:
    lines = [part.encode("latin-1") if isinstance(part, str) else part for part in (line, host, *fields)]
    return b"\r\n".join([*(part for part in lines if part), b"", b""])


def get(*fields: str | bytes, host: str | bytes = "Host: echo.localhost") -> bytes:
    return head("GET /x HTTP/1.1", *fields, host=host)


def put(*fields: str | bytes, body: bytes = b"") -> bytes:
    return head("PUT /y HTTP/1.1", *fields) + body


def coded(body: bytes, coding: str = "chunked") -> bytes:
    return put(f"Transfer-Encoding: {coding}", body=body)


def bad(rfc: str, data: bytes, status: int = 400) -> Row:
    return Row(rfc, data, (status,))


def good(rfc: str, data: bytes, *statuses: int, is_open: bool = True, method: str = "GET") -> Row:
    return Row(rfc, data, statuses or (200,), is_open, method)


HELLO = b"5\r\nhello\r\n0\r\n\r\n"
HIDDEN = message("GET", "/hidden")

REFUSED = [
    # Line ends and white space
    bad("2.2", get().replace(b"\r\n", b"\n")),
    bad("2.2", b"GET /x HTTP/1.1\nHost: echo.localhost\r\n\r\n"),
    bad("2.2", b"GET /x HTTP/1.1\r\nHost: echo.localhost\r\n\n"),
    bad("2.2", get("X: a\nY: b")),
    bad("2.2", get("X: a\rY: b")),
    bad("2.2", get("X: a\r")),
    bad("2.2", b"GET /x HTTP/1.1\r\n Host: echo.localhost\r\n\r\n"),
    bad("2.2", get(host=" X: a\r\nHost: echo.localhost")),
    # Versions
    bad("2.3", head("GET /x")),
    bad("2.3", b"GET /x\r\n\r\n"),
    bad("2.3", head("GET /x HTTP/0.9")),
    bad("2.3", head("GET /x HTTP/1.10")),
    bad("2.3", head("GET /x HTTP/01.1")),
    bad("2.3", head("GET /x HTTP/1")),
    bad("2.3", head("GET /x HTTP/3")),
    bad("2.3", head("GET /x http/1.1")),
    bad("2.3", head("GET /x HTTP /1.1")),
    bad("2.3", head("GET /x HTTP/1.1x")),
    bad("2.3", head("GET /x ICE/1.0")),
    bad("2.3", head("GET /x HTTP/1.2"), 505),
    bad("2.3", head("GET /x HTTP/2.0"), 505),
    bad("2.3", head("PUT /y HTTP/2.0", "Content-Length: 5") + b"hello", 505),
    bad("2.3", head("GET /x HTTP/3.0"), 505),
    bad("2.3", head("GET /x HTTP/9.9"), 505),
    bad("9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    bad("8446 5.1", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),  # TLS to the plain port
    # Request lines
    bad("3", b"NONSENSE\r\n\r\n", 501),
    bad("9110 9.1", head("FOO /x HTTP/1.1"), 501),
    bad("3", head("GE(T /x HTTP/1.1")),
    bad("3", head("get /x HTTP/1.1"), 501),
    bad("3", head("G=T /x HTTP/1.1")),
    bad("3", head(" GET /x HTTP/1.1")),
    bad("3", head("GET\t/x HTTP/1.1")),
    bad("3", head("GET /x\tHTTP/1.1")),
    bad("3", head("GET /x HTTP/1.1 ")),
    bad("3", head("GET /x y HTTP/1.1")),
    bad("3", head("GET /" + "a" * 17 * KIB + " HTTP/1.1"), 414),
    bad("3", head("GET /" + "a" * 100 * KIB + " HTTP/1.1"), 414),
    # Targets and Host
    bad("3.2", get(host="")),
    bad("3.2", get("Host: other.test")),
    bad("3.2", get("Host: echo.localhost")),
    bad("3.2", head("GET /x HTTP/1.0", "Host: other.test")),
    bad("9110 7.2", get(host="Host: echo test")),
    bad("9110 7.2", get(host="Host: echo.localhost/x")),
    bad("9110 7.2", get(host="Host: echo.localhost, other.test")),
    bad("9110 7.2", get(host="Host: user@echo.localhost")),
    bad("9110 7.2", get(host="Host: echo.localhost:http")),
    bad("9110 7.2", get(host="Host: [::1")),
    bad("9110 7.2", get(host="Host: echo%2.test")),
    bad("9110 7.2", get(host=b"Host: echo\xff")),
    bad("9110 7.2", get(host=b"Host: echo\x01")),
    bad("3.2.2", head("GET http:///x HTTP/1.1")),
    bad("3.2.2", head("GET http:/x HTTP/1.1")),
    bad("3.2.2", head("GET http://echo.localhost:http/x HTTP/1.1")),
    bad("3.2.3", head("GET echo.localhost:80 HTTP/1.1")),
    bad("3.2.3", head("OPTIONS echo.localhost:80 HTTP/1.1")),
    bad("3.2.4", head("GET * HTTP/1.1")),
    bad("9110 9.3.6", head("CONNECT echo.localhost:443 HTTP/1.1", host="Host: echo.localhost:443"), 501),
    bad("9110 9.3.6", head("CONNECT echo.localhost:443 HTTP/1.0"), 501),
    bad("9110 9.3.6", head("CONNECT /x HTTP/1.1"), 501),
    bad("9110 9.3.6", head("CONNECT http://echo.localhost/x HTTP/1.1")),
    bad("9110 9.3.8", head("TRACE /x HTTP/1.1"), 501),
    bad("9110 9.3.8", head("TRACE /nowhere/x HTTP/1.1", "Max-Forwards: 0"), 501),
    # Fields
    bad("5", get("Xyz")),
    bad("5.1", get("X : a")),
    bad("5.1", get("Content-Length : 5") + b"hello"),
    bad("5.1", get(": a")),
    bad("5.1", get("X y: a")),
    bad("5.1", get("X(y): a")),
    bad("5.1", get("X/y: a")),
    bad("5.1", get(b"X\xff: a")),
    bad("5.1", get(b"X\0: a")),
    bad("5.2", get("X: a\r\n b")),
    bad("5.2", get("X: a\r\n\tb")),
    bad("5.2", put("Transfer-Encoding:\r\n chunked", body=HELLO)),
    bad("9110 5.5", get(b"X: a\0b")),
    bad("9110 5.5", get(b"X: a\x01b")),
    bad("9110 5.5", get(b"X: a\x7fb")),
    bad("9110 5.4", get("X: " + "a" * 9000), 431),
    bad("9110 5.4", get("X" * 9000 + ": a"), 431),
    bad("9110 5.4", get(*(f"X{number}: a" for number in range(1000))), 431),
    bad("9110 5.4", get(*(f"X{number}: " + "a" * 8000 for number in range(10))), 431),
    bad("9110 5.4", b"\r\n" * 40 * KIB, 431),
    bad("9110 5.3", get("Range: bytes=0-0", "Range: bytes=0-0")),
    bad("9110 5.3", get("Range: bytes=0-0", "Range: bytes=1-1")),
    bad("9110 5.3", get("If-Range: a", "If-Range: b")),
    # Upgrade and Expect
    bad("9110 7.8", get("Upgrade: websocket", "Connection: Upgrade")),
    bad("9110 7.8", get("Upgrade: websocket")),
    bad("9110 7.8", get("Upgrade: TLS/1.0", "Connection: Upgrade")),
    bad("9110 7.8", get("Upgrade: h2c, websocket", "Connection: Upgrade")),
    bad("9110 7.8", get("Upgrade: h2c", "Upgrade: websocket", "Connection: Upgrade")),
    bad("9110 7.8", put("Upgrade: websocket", "Connection: Upgrade", "Content-Length: 5", body=b"hello")),
    bad("9110 10.1.1", get("Expect: magic"), 417),
    bad("9110 10.1.1", get("Expect: 100-continue, magic"), 417),
    bad("9110 10.1.1", put("Expect: magic", "Content-Length: 5", body=b"hello"), 417),
    bad("9110 10.1.1", get("Expect: 100-continue", "Expect: 100-continue")),
    # Transfer codings
    bad("6.1", head("PUT /y HTTP/1.0", "Transfer-Encoding: chunked", "Connection: keep-alive") + HELLO),
    bad("6.1", put("Transfer-Encoding: chunked", "Content-Length: 5", body=HELLO)),
    bad("6.1", put("Content-Length: 5", "Transfer-Encoding: chunked", body=HELLO)),
    bad("6.1", put("Content-Length: 5", "Transfer-Encoding: identity", body=b"hello")),
    bad("6.1", put("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=HELLO)),
    bad("6.1", put("Transfer-Encoding: gzip", "Transfer-Encoding: chunked", body=HELLO)),
    bad("6.1", coded(HELLO, "chunked, chunked")),
    bad("6.1", coded(HELLO, "gzip, chunked"), 501),
    bad("6.1", coded(HELLO, "identity, chunked"), 501),
    bad("6.3", coded(HELLO, "chunked, gzip")),
    bad("6.3", coded(HELLO, "chunked, identity")),
    bad("6.3", coded(HELLO, "gzip")),
    bad("6.3", coded(HELLO, "identity")),
    bad("6.3", coded(HELLO, "xchunked")),
    bad("6.3", coded(HELLO, "x chunked")),
    bad("6.3", coded(HELLO, "\x0bchunked")),
    bad("6.3", coded(HELLO, '"chunked"')),
    bad("6.3", coded(HELLO, "chunked;a=b")),
    bad("6.3", coded(HELLO, "")),
    bad("6.3", get("Transfer-Encoding:")),
    bad("6.3", get("Transfer-Encoding: identity")),
    # Content-Length
    bad("6.3", put("Content-Length: 5", "Content-Length: 5", body=b"hello")),
    bad("6.3", put("Content-Length: 5", "Content-Length: 6", body=b"hello!")),
    bad("6.3", get("Content-Length: 0", "Content-Length: 0")),
    # The parser takes the last of these for the absence of the field.
    *(bad("6.3", get(f"Content-Length: {size}") + HIDDEN) for size in (1 << 63, (1 << 64) - 2, (1 << 64) - 1)),
    bad("6.3", put(f"Content-Length: {(1 << 64) - 1}") + HIDDEN),
    bad("6.3", get(f"Content-Length: 000{(1 << 64) - 1}") + HIDDEN),
    *(bad("6.3", make(f"Content-Length: {'0' * 5000}5") + b"hello") for make in (get, put)),
    *(
        bad("6.3", put(f"Content-Length: {value}", body=b"hello"))
        for value in ("5, 5", "5,6", "+5", "-5", "0x5", "5 5")
    ),
    *(bad("6.3", put(f"Content-Length: {value}", body=b"hello")) for value in ("", "5;", "1_0", "5.0", str(1 << 64))),
    # Chunks
    *(
        bad("7.1", coded(size + b"\r\nhello\r\n0\r\n\r\n"))
        for size in (b"0x5", b"+5", b"-1", b"", b"5 ", b"5 ;x", b"g")
    ),
    bad("7.1", coded(b"1" + b"0" * 16 + b"\r\nhello\r\n0\r\n\r\n")),
    bad("7.1", coded(b"5\r\nhello0\r\n\r\n")),
    bad("7.1", coded(b"5\r\nhello\r0\r\n\r\n")),
    bad("7.1", coded(b"4\r\nhello\r\n0\r\n\r\n")),
    bad("7.1", coded(b"5\nhello\n0\n\n")),
    bad("7.1", coded(b"5\r\nhello\n0\r\n\r\n")),
    bad("7.1", coded(b"5\rhello\r\n0\r\n\r\n")),
    bad("7.1.1", coded(b"5;" + b"a" * 9000 + b"\r\nhello\r\n0\r\n\r\n")),
    bad("7.1.1", coded(b"5;a=b\nhello\r\n0\r\n\r\n")),
    bad("7.1.1", coded(b"5;a\0b\r\nhello\r\n0\r\n\r\n")),
    bad("7.1.1", coded(b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n')),
    bad("7.1.2", coded(b"5\r\nhello\r\n0\r\nX T: 1\r\n\r\n")),
    bad("7.1.2", coded(b"5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n")),
    *(bad("7.1", coded(b"%x\r\nhello\r\n0\r\n\r\n" % size)) for size in (1 << 63, (1 << 64) - 1, 1 << 64)),
    bad("7.1.2", coded(b"0\r\n" + b"X: a\r\n" * 1000 + b"\r\n")),
    # Uploads that the head alone forbids: no 100, and their body is no request
    bad("9110 10.1.1", head("PUT /ro/y HTTP/1.1", "Content-Length: 5", "Expect: 100-continue"), 405),
    bad("9110 10.1.1", head("PUT /y HTTP/1.1", "Content-Length: 999999999", "Expect: 100-continue"), 413),
    bad("9110 15.5.12", put(), 411),
    bad("9110 15.5.12", head("PUT /y HTTP/1.0") + b"hello", 411),
    bad("9.3", head("PUT /ro/y HTTP/1.1", f"Content-Length: {len(HIDDEN)}") + HIDDEN, 405),
    bad("9.3", head("POST /ro/ HTTP/1.1", "Transfer-Encoding: chunked") + chunked(HIDDEN) + HIDDEN, 405),
    bad("9.3", head("PUT /ro/y HTTP/1.1", f"Content-Length: {MIB}") + HIDDEN * (MIB // len(HIDDEN)), 405),
]

SERVED = [
    # Line ends and white space
    good("2.2", b"\r\n" + get()),
    good("2.2", b"\r\n\r\n\r\n" + get()),
    good("2.2", put("Content-Length: 5", body=b"hello") + b"\r\n", 201),
    good("3", head("GET  /x  HTTP/1.1")),  # lenient, as section 3 allows
    # Targets and Host
    good("3.2", get(host="Host:")),
    good("3.2", b"GET /x HTTP/1.0\r\n\r\n", is_open=False),
    *(good("9110 7.2", get(host=f"Host: {host}")) for host in ("[::1]:80", "a_b:", "127.0.0.1:80", "%41~!", "a,b")),
    good("3.2.2", head("GET http://other.test/x HTTP/1.1")),
    good("3.2.2", head("GET HTTPS://u:p@other.test:1/x?y HTTP/1.1")),
    good("3.2.2", head("GET http://other.test HTTP/1.1"), 400),  # a mount, no object
    # Fields
    good("9110 5.5", get(b"X: a\xff\xfe", "Y:", "Z: \t a \t")),
    # Upgrade, Expect
    good("9110 7.8", get("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk")),
    good("9110 7.8", get("Upgrade:")),
    good(
        "9110 7.8", put("Upgrade: h2c", "Connection: Upgrade", "Content-Length: 5", body=b"hello"), 201, is_open=False
    ),
    good(
        "9110 7.8",
        put("Upgrade: h2c", "Connection: Upgrade", "Transfer-Encoding: chunked", body=HELLO),
        201,
        is_open=False,
    ),
    good("9110 7.8", head("GET /x HTTP/1.0", "Upgrade: websocket", "Connection: Upgrade, keep-alive"), is_open=False),
    good("9110 10.1.1", get("Expect: 100-continue")),
    good("9110 10.1.1", get("Expect: 100-Continue")),
    good("9110 10.1.1", head("GET /x HTTP/1.0", "Expect: magic"), is_open=False),
    # Bodies. Behind trailers the connection closes: the parser takes the last one for a field of the next request.
    good("6.3", put("Content-Length: 0"), 201),
    good("6.3", put("Content-Length: 000000000000000000005", body=b"hello"), 201),
    good("7", coded(HELLO, "ChunKed"), 201),
    good("7", coded(HELLO, "\t chunked"), 201),
    good("7.1", coded(b"05\r\nhello\r\n000\r\n\r\n"), 201),
    good("7.1", coded(b"A\r\nhellohello\r\na\r\nhellohello\r\n0\r\n\r\n"), 201),
    good("7.1.1", coded(b'5;a;b=c;d="e f"\r\nhello\r\n0;z\r\n\r\n'), 201),
    good("7.1.2", coded(b"5\r\nhello\r\n0\r\nX-Trailer: 1\r\nRange: bytes=0-0\r\n\r\n"), 201, is_open=False),
    good("7.1", coded(chunked(b"\r\n\r\n", HIDDEN, b"0\r\n\r\n")) + get(), 201, 200),
    good("7.1", coded(chunked()) * 20, *[201] * 20),
    good("7.1", coded(chunked(bytes(200 * KIB))) + get() + coded(chunked(bytes(1))), 201, 200, 201),
    good("7.1", coded(chunked(HIDDEN)) + get("Transfer-Encoding: chunked") + chunked(HIDDEN) + get(), 201, 200, 200),
    good("7.1.2", coded(HELLO) + coded(b"0\r\nRange: bytes=0-0\r\n\r\n") + get(), 201, 201, is_open=False),
    good("9110 9.3.1", get(f"Content-Length: {len(HIDDEN)}") + HIDDEN),
    good("9110 9.3.1", get("Transfer-Encoding: chunked") + chunked(HIDDEN, HIDDEN)),
    good("9110 9.3.2", head("HEAD /x HTTP/1.1", f"Content-Length: {len(HIDDEN)}") + HIDDEN, method="HEAD"),
    good("9110 9.3.5", head("DELETE /z HTTP/1.1", f"Content-Length: {len(HIDDEN)}") + HIDDEN, 204),
    # Connections
    good("9.3", get("Connection: close"), is_open=False),
    good("9.3", get("Connection: Close"), is_open=False),
    good("9.3", get("Connection: keep-alive, close"), is_open=False),
    good("9.3", get("Connection: keep-alive")),
    good("9.3", head("GET /x HTTP/1.0", "Connection: keep-alive")),
    good("9.3.2", get() * 20, *[200] * 20),
    good("9.3.2", get() * 100, *[200] * 100),
    good("9.3.2", get() + put("Content-Length: 5", body=b"hello") + get() + get("X: a"), 200, 201, 200, 200),
    # An error behind a good request does not prevent its response.
    good("9.3.2", get() + head("GET /x HTTP/1.2"), 200, 505, is_open=False),
    good("9.3.2", get() * 3 + get(": a"), 200, 200, 200, 400, is_open=False),
    good("9.3.2", put("Content-Length: 5", body=b"hello") + get() + get(": a"), 201, 200, 400, is_open=False),
    good("9.3.2", get() + coded(b"5\r\nhello") + b"\n0\r\n\r\n", 200, 400, is_open=False),
    good("9.3.2", coded(HELLO) + get() + get(": a"), 201, 200, 400, is_open=False),
    good("9.3.2", coded(HELLO) + coded(b"5\r\nhello") + b"\n0\r\n\r\n", 201, 400, is_open=False),
    good("9.3.2", get() * 50 + b"\r\n" * 40 * KIB, *[200] * 50, 431, is_open=False),
]


async def _answered(proxy: Proxy, row: Row, how: str) -> list[Response]:
    """Return all bytes until the proxy closes.

    `LAST` follows the row, in the same segment or after the row's responses. With `dripped` each byte has a turn of the
    loop, and long data comes in a few hundred pieces.
    """
    found: list[Response] = []
    async with proxy.connection() as connection:
        if how == "whole":
            await connection.send(row.data + LAST)
        elif how == "dripped":
            data = row.data + LAST
            step = max(1, len(data) // 400)
            for at in range(0, len(data), step):
                connection.writer.write(data[at : at + step])
                await asyncio.sleep(0)
        else:
            await connection.send(row.data)
            try:
                found += [await connection.response(row.method) for _ in row.statuses]
            except asyncio.IncompleteReadError:
                return found
            await connection.send(LAST)
        rest = await connection.rest()
    return found + list(_parsed(rest, "GET" if found else row.method))


def _own_key(data: bytes, number: int) -> bytes:
    """Give each row its own key, because moto responds with a 500 to some simultaneous writes of one key."""
    return data.replace(b"PUT /y ", b"PUT /y%d " % number)


def _parsed(data: bytes, method: str) -> Iterator[Response]:
    """Return the responses in `data`. The first one is to `method`."""
    while data:
        top, separator, data = data.partition(b"\r\n\r\n")
        line, *fields = top.decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        assert separator, top
        assert version in {"HTTP/1.0", "HTTP/1.1"}
        headers: CIMultiDict[str] = CIMultiDict()
        for field in fields:
            name, _, value = field.partition(":")
            headers.add(name, value.strip())
        length = 0 if method == "HEAD" or status in {"100", "204"} else int(headers["Content-Length"])
        yield Response(int(status), CIMultiDictProxy(headers), data[:length], len(data) >= length)
        data, method = data[length:], "GET"


@pytest.fixture
async def framed(start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    # A slow machine may take seconds to send hundreds of pieces; the tests of these timeouts set their own.
    monkeypatch.setattr(server_connection, "DRAIN_TIMEOUT_S", 60.0)
    monkeypatch.setattr(server_connection, "LINGER_TIMEOUT_S", 60.0)
    for key in ("x", "last", "hidden"):
        s3.put(key, key.encode())
    methods = ["GET", "HEAD", "PUT", "POST", "DELETE"]
    mounts = [{"path": "/", "bucket": s3.bucket, "methods": methods}, {"path": "/ro/", "bucket": s3.bucket}]
    return await start(mounts=mounts, uploads={"max_size": 4 * MIB})


@pytest.mark.parametrize("how", ["whole", "dripped", "apart"])
async def test_refused(framed: Proxy, how: str) -> None:
    """A malformed or ambiguous message, or one that is not HTTP/1, gets one 4xx or 5xx that repeats nothing of it.

    The connection closes, nothing behind it is read as a request, and the origin gets nothing (I24).
    """
    responses = await asyncio.gather(*(_answered(framed, row, how) for row in REFUSED))
    found = [
        (row.rfc, row.data[:200], *(response.status for response in got))
        for row, got in zip(REFUSED, responses, strict=True)
    ]
    assert found == [(row.rfc, row.data[:200], *row.statuses) for row in REFUSED]
    for (response,) in responses:
        assert list(response.json()) == ["error"]
        assert b"echo" not in response.body
        assert "echo" not in str(response.headers)
    assert framed.relay.seen == []


@pytest.mark.parametrize("how", ["whole", "dripped", "apart"])
async def test_served(framed: Proxy, how: str) -> None:
    """Each request has exactly one response, in order, however its bytes arrive.

    A body is never a request. The connection stays open exactly if HTTP requires it (I24).
    """
    rows = [replace(row, data=_own_key(row.data, number)) for number, row in enumerate(SERVED)]
    responses = await asyncio.gather(*(_answered(framed, row, how) for row in rows))
    found = [
        (row.rfc, row.data[:200], *(response.status for response in got))
        for row, got in zip(SERVED, responses, strict=True)
    ]
    assert found == [(row.rfc, row.data[:200], *row.statuses, *[200] * row.is_open) for row in SERVED]
    for row, got in zip(SERVED, responses, strict=True):
        assert (got[-1].body == b"last") == row.is_open, row
        assert all(response.is_complete for response in got), row
    assert [seen for seen in framed.relay.seen if seen.target.endswith("hidden")] == []


async def test_any_segments(framed: Proxy, s3: S3) -> None:
    """A message is a sequence of octets, wherever the segments end (RFC 9112 section 2.2)."""
    body = b"\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n" * 20
    data = get() + put(f"Content-Length: {len(body)}", body=body) + b"\r\n" + get("Content-Length: 4") + b"\r\n\r\n"
    data += head("GET /x HTTP/1.0", "Connection: keep-alive") + coded(chunked(body, body)) + LAST + head("BAD")
    dice = random.Random(24)

    async def answered(number: int, cuts: list[int]) -> list[int]:
        sent = _own_key(data, number)
        async with framed.connection() as connection:
            for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
                connection.writer.write(sent[begin:end])
                await asyncio.sleep(0)
            return [response.status for response in _parsed(await connection.rest(), "GET")]

    ways = [sorted(dice.sample(range(1, len(data)), dice.randrange(30))) for _ in range(100)]
    found = await asyncio.gather(*map(answered, range(len(ways)), ways))
    assert found == [[200, 201, 200, 200, 201, 200]] * len(ways)
    assert {s3.get(f"y{number}") for number in range(len(ways))} == {body * 2}
    assert [seen for seen in framed.relay.seen if seen.target.endswith("hidden")] == []


@pytest.mark.parametrize("unit", [b"\r\n\r\n", b"\r\n\r\n" + bytes(14)])
async def test_body_full_of_head_ends(framed: Proxy, s3: S3, unit: bytes) -> None:
    """The content of a body does not matter.

    It is stored as sent, delays no other request (I22), and the next request gets its response.
    """
    body = unit * (3 * MIB // len(unit))
    async with framed.connection() as connection, asyncio.timeout(HANG_S):
        await connection.send(put(f"Content-Length: {len(body)}", body=body) + get())
        assert (await connection.response("PUT")).status == 201
        assert (await connection.response()).body == b"x"
    assert s3.get("y") == body


@pytest.mark.parametrize("is_whole", [True, False])
async def test_get_with_a_broken_body(framed: Proxy, is_whole: bool) -> None:
    """There is one response, a 400 if the fault is known by then, and the connection closes (I24; RFC 9112 section
    7.1).
    """
    async with framed.connection() as connection:
        top, body = get("Transfer-Encoding: chunked"), b"+5\r\nhello\r\n0\r\n\r\n" + HIDDEN
        if is_whole:
            await connection.send(top + body)
            assert (await connection.response()).status == 400
        else:
            await connection.send(top)
            assert (await connection.response()).body == b"x"
            await connection.send(body)
        assert await connection.rest() == b""


UNNEEDED = [
    # method and target, fields, what is sent of the body
    ("GET /x", f"Content-Length: {1 << 40}", b""),
    ("GET /x", f"Content-Length: {1 << 40}", bytes(300 * KIB)),
    ("GET /x", "Transfer-Encoding: chunked", chunked(bytes(2 * MIB), end=False)),
    ("GET /x", "Content-Length: 5\r\nExpect: 100-continue", b""),  # may come or not: RFC 9110 section 10.1.1
    ("PUT /ro/y", "Content-Length: 5", b""),
    ("PUT /ro/y", f"Content-Length: {1 << 40}", bytes(300 * KIB)),
    ("PUT /ro/y", "Transfer-Encoding: chunked", chunked(bytes(300 * KIB), end=False)),
    ("PUT /y", f"Content-Length: {1 << 40}", bytes(300 * KIB)),
]


async def test_bodies_nobody_needs(framed: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large body that no handler reads, or that of a refused upload, closes the connection at once.

    The response arrives although the client still sends (I24; RFC 9112 section 9.6).
    """
    monkeypatch.setattr(server_connection, "DRAIN_TIMEOUT_S", 3.0)

    async def answered(line: str, field: str, body: bytes) -> int:
        async with framed.connection() as connection:
            await connection.send(head(f"{line} HTTP/1.1", field))
            connection.writer.write(body)
            response = await connection.response()
            assert await connection.rest() == b""
            return response.status

    async def refuse_all() -> None:
        found = await asyncio.gather(*(answered(*row) for row in UNNEEDED))
        assert found == [200, 200, 200, 200, 405, 405, 405, 413]

    await assert_takes_less_than(server_connection.DRAIN_TIMEOUT_S, refuse_all)


async def test_small_body_that_comes_late(framed: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy waits a bounded time for a small body after the response (I20, I24)."""
    small = get(f"Content-Length: {len(HIDDEN)}")
    async with framed.connection() as connection:
        await connection.send(small)
        assert (await connection.response()).body == b"x"
        await connection.send(HIDDEN + LAST)
        assert (await connection.response()).body == b"last"
        assert await connection.rest() == b""
    monkeypatch.setattr(server_connection, "DRAIN_TIMEOUT_S", 0.05)
    async with framed.connection() as connection:
        await connection.send(small)
        assert (await connection.response()).body == b"x"
        assert await connection.rest() == b""


async def test_client_that_stays(framed: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last response a client that neither closes nor stops sending is cut off (I20; RFC 9112 section 9.6)."""
    monkeypatch.setattr(server_connection, "LINGER_TIMEOUT_S", 0.05)
    async with framed.connection() as connection:
        await connection.send(get("Connection: close"))
        assert (await connection.response()).body == b"x"
        with pytest.raises(ConnectionError):  # noqa: PT012 - the reset comes when it comes
            async with asyncio.timeout(HANG_S):
                while True:
                    await connection.send(bytes(KIB))
                    await asyncio.sleep(0)


async def test_stop_while_a_response_leaves(framed: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is closed after its response began ends after that response, and waits for no other request."""
    genuine = server_connection.Connection.drain

    async def drain(self: server_connection.Connection) -> None:
        await genuine(self)
        self.close()

    monkeypatch.setattr(server_connection.Connection, "drain", drain)
    async with framed.connection() as connection:
        await connection.send(get("X: no plain request", "Cache-Control: no-cache"))
        assert (await connection.response()).body == b"x"
        async with asyncio.timeout(HANG_S):
            assert await connection.rest() == b""


async def test_continue_in_its_turn(framed: Proxy) -> None:
    """The 100 comes after the responses to earlier requests, and only once the proxy wants the body (RFC 9110
    section 10.1.1).
    """
    turn = asyncio.Event()

    async def hold(seen: Seen) -> bytes | None:
        if seen.method == "GET":
            await turn.wait()
        return None

    framed.relay.on_request = hold
    async with framed.connection() as connection:
        await connection.send(get() + put("Content-Length: 5", "Expect: 100-continue"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connection.reader.read(1)
        turn.set()
        assert (await connection.response()).body == b"x"
        assert (await connection.head()).status == 100
        await connection.send(b"hello" + LAST)
        assert (await connection.response("PUT")).status == 201
        assert (await connection.response()).body == b"last"


async def test_options_asterisk(framed: Proxy) -> None:
    """`*` names no object (RFC 9112 section 3.2.4)."""
    async with framed.connection() as connection:
        await connection.send(head("OPTIONS * HTTP/1.1", "Connection: close"))
        assert len(list(_parsed(await connection.rest(), "GET"))) == 1
    assert framed.relay.seen == []


async def test_no_100_to_http_1_0(framed: Proxy) -> None:
    """An HTTP/1.0 client that sends Expect gets its response, and no 100 before it (RFC 9110 section 10.1.1)."""
    async with framed.connection() as connection:
        await connection.send(head("PUT /old HTTP/1.0", "Expect: 100-continue", "Content-Length: 5") + b"hello")
        assert (await connection.response()).status == 201
