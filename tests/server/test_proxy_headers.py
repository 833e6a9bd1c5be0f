"""Connections that begin with a PROXY header: the client that it names is the client of every layer (I34)."""

import asyncio
import logging
import math
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from certificates import localhost_certificate
from proxy_under_test import S3, Proxy, StartProxy, until
from stopwatch import HANG_S
from test_proxy_protocol import MALFORMED, PROXY, TCP4, V4, binary
from wire import Connection, connected, message

from bucketfront.server.http1 import connection, connection_limit, proxy_headers

FRONT, DIRECT = "127.0.0.2", "127.0.0.3"
TEXT = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n"
BINARY = binary(PROXY, TCP4, V4)
OWN = binary(0x20, 0)  # of the front itself
CLIENT = "192.0.2.7"


@pytest.fixture(params=[True, False])
async def behind(start: StartProxy, s3: S3, request: pytest.FixtureRequest) -> Proxy:
    """A proxy whose front is 127.0.0.2, with and without the fast path. It has `/x`."""
    server = {"proxy_protocol": True, "trusted_proxies": [FRONT, "10.0.0.0/8"], "fast_path": request.param}
    proxy = await start(server=server)
    s3.put("x", b"data")
    async with connected(proxy.address, local=FRONT) as client:
        await client.send(OWN)
        assert (await client.request("GET", "/x")).body == b"data"
    return proxy


@asynccontextmanager
async def front(proxy: Proxy, header: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Connection]:
    """Connect as the front does, and send the header."""
    async with connected(proxy.address, local=FRONT) as client:
        await client.send(header)
        if tls is not None:
            await client.writer.start_tls(tls, server_hostname="localhost")
        yield client


def clients(proxy: Proxy) -> list[str]:
    return [line["client"] for line in proxy.log]


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (TEXT, CLIENT),
        (BINARY, CLIENT),
        (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n", "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", CLIENT),
        (binary(PROXY, TCP4, V4 + bytes(3000)), CLIENT),
        (OWN, FRONT),
        (b"PROXY UNKNOWN\r\n", "-"),
        (binary(PROXY, 0), "-"),
        (binary(PROXY, 0x31, bytes(216)), "-"),
    ],
)
async def test_the_client_of_the_header(behind: Proxy, header: bytes, client: str) -> None:
    """All requests of a connection have the client that its header names, on both paths, for the log."""
    async with front(behind, header) as connection:
        for target in ("/x", "/none", "/x"):
            await connection.request("GET", target)
        await connection.send(b"no request\r\n\r\n")
        assert (await connection.response()).status in (400, 501)
    assert clients(behind) == [FRONT, *[client] * 4]


@pytest.mark.parametrize("header", [TEXT, BINARY])
async def test_what_follows_a_header_stays(header: bytes) -> None:
    """Bytes that come together with a header are left for the connection (I24)."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.sendall(header + b"GET")
        theirs.shutdown(socket.SHUT_WR)
        await proxy_headers._read(ours)
        assert ours.recv(10) == b"GET"


@pytest.mark.one_process("reads the log at once, which front ends write in batches")
@pytest.mark.parametrize("header", [TEXT, BINARY])
async def test_bytes_one_at_a_time(behind: Proxy, header: bytes) -> None:
    """A header that comes in pieces is whole once its last byte is there, and takes no byte of the request."""
    async with front(behind, header + message("GET", "/x") + message("GET", "/x")) as client:
        await until(lambda: clients(behind) == [FRONT, CLIENT, CLIENT])
        for _ in range(2):
            assert (await client.response()).body == b"data"
    async with connected(behind.address, local=FRONT) as client:
        for number in range(len(header)):
            await client.send(header[number : number + 1])
            await asyncio.sleep(0)
        assert (await client.request("GET", "/x")).body == b"data"
    assert clients(behind) == [FRONT, CLIENT, CLIENT, CLIENT]


@pytest.mark.one_process("reads the warnings of this process")
@pytest.mark.parametrize("data", [*MALFORMED[:4], MALFORMED[-1], message("GET", "/x"), TEXT[:-2]])
async def test_no_valid_header(behind: Proxy, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A front without a valid header is closed, counted and logged once a minute, and gets no response (I24)."""
    with caplog.at_level(logging.WARNING):
        for number in range(1, 3):
            async with front(behind, data) as client:
                client.writer.write_eof()
                assert await client.rest() == b""
            metrics = (await behind.admin("GET", "/metrics")).body.decode()
            assert f"bucketfront_proxy_headers_refused_total {number}.0" in metrics
    assert caplog.text.count("without a valid PROXY header") == 1
    assert f"the last one from {FRONT}" in caplog.text
    assert clients(behind) == [FRONT]
    await until(lambda: not behind.app.connection_limit.open)


@pytest.mark.parametrize("data", [b"", TEXT[:9], BINARY[:20]])
async def test_a_header_has_its_time(behind: Proxy, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A front that does not complete its header is closed (I20)."""
    monkeypatch.setattr(proxy_headers, "HEADER_TIMEOUT_S", 0.05)
    async with front(behind, data) as client:
        assert await client.rest() == b""
    await until(lambda: not behind.app.connection_limit.open)


async def test_a_front_that_only_looks(behind: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    """A front that closes before its first byte, as a health check does, is no error."""
    async with connected(behind.address, local=FRONT):
        pass
    await until(lambda: not behind.app.connection_limit.open)
    assert "PROXY" not in caplog.text
    assert "bucketfront_proxy_headers_refused_total 0.0" in (await behind.admin("GET", "/metrics")).body.decode()


@pytest.mark.parametrize("header", [TEXT, BINARY])
async def test_a_stranger_names_nobody(behind: Proxy, header: bytes) -> None:
    """The header of a client that is no front is no request."""
    async with connected(behind.address, local=DIRECT) as client:
        await client.send(header + message("GET", "/x"))
        assert (await client.response()).status in (400, 501)
        assert await client.rest() == b""
    assert clients(behind) == [FRONT, DIRECT]


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (TEXT, CLIENT),
        (b"PROXY TCP4 10.0.0.9 10.0.0.1 1 2\r\n", "198.51.100.9"),
        (b"PROXY UNKNOWN\r\n", "-"),
        (binary(PROXY, 0), "-"),
        (OWN, "198.51.100.9"),
    ],
)
async def test_x_forwarded_for_behind_a_header(behind: Proxy, header: bytes, client: str) -> None:
    """X-Forwarded-For counts only if the address of the header is that of a front as well."""
    async with front(behind, header) as connection:
        for target in ("/x", "/none"):
            await connection.request("GET", target, {"X-Forwarded-For": "198.51.100.9"})
    assert clients(behind) == [FRONT, client, client]


async def test_rules_see_the_client(start: StartProxy, s3: S3) -> None:
    """A rule of networks decides on the client of the header, not on the front."""
    s3.put("x", b"data")
    proxy = await start(
        server={"proxy_protocol": True, "trusted_proxies": [FRONT]},
        access={"lan": {"networks": ["192.0.2.0/24"]}},
        mounts=[{"path": "/", "bucket": s3.bucket, "read": ["lan"]}],
    )
    for header, status in (
        (TEXT, 200),
        (b"PROXY TCP4 198.51.100.9 10.0.0.1 1 2\r\n", 403),
        (b"PROXY UNKNOWN\r\n", 403),
        (OWN, 403),
        (binary(PROXY, 0x31, bytes(216)), 403),
    ):
        async with front(proxy, header) as client:
            assert (await client.request("GET", "/x")).status == status


@pytest.mark.one_process("sets the limit of this process")
async def test_the_header_precedes_tls(start: StartProxy, tmp_path: Path) -> None:
    """With TLS the header comes before the handshake, and a client beyond the limit gets its 503 behind both."""
    chain, key = localhost_certificate(tmp_path)
    tls = ssl.create_default_context(cafile=str(chain))
    proxy = await start(
        server={
            "proxy_protocol": True,
            "trusted_proxies": [FRONT],
            "tls": {"certificate": str(chain), "key": str(key)},
        }
    )
    async with front(proxy, BINARY, tls) as first:
        assert (await first.request("GET", "/none")).status == 404
        proxy.app.connection_limit.limit = 1
        async with front(proxy, BINARY, tls) as second:
            assert (await second.request("GET", "/none")).status == 503
    assert clients(proxy) == [CLIENT]


@pytest.mark.one_process("sets the limit of this process")
async def test_each_client_has_its_share(behind: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections of one front count for the clients that its headers name (I34)."""
    monkeypatch.setattr(connection_limit, "MIN_IDLE_S", math.inf)
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", HANG_S)
    limit = behind.app.connection_limit
    await until(lambda: not limit.open)
    limit.limit, limit.share_of_one = 8, 0.25
    async with front(behind, TEXT) as first, front(behind, TEXT) as second:
        for client in (first, second):
            assert (await client.request("GET", "/x")).status == 200
        await until(lambda: limit.most_connections() == (CLIENT, 2))
        async with front(behind, b"PROXY TCP4 192.0.2.8 10.0.0.1 1 2\r\n") as other:
            assert (await other.request("GET", "/x")).status == 200
            assert (limit.open, limit.most_connections()) == (3, (CLIENT, 2))
            limit.limit = 3
            async with front(behind, TEXT) as third:
                assert (await third.request("GET", "/x")).status == 503
                assert limit.open == 3
        await until(lambda: limit.open == 2)
    await until(lambda: not limit.open and not limit.leaving)


@pytest.mark.one_process("waits for a connection of this process")
async def test_a_stop_does_not_wait_for_headers(behind: Proxy) -> None:
    """A stop closes connections whose header is due."""
    async with front(behind, TEXT[:5]) as client:
        await until(lambda: behind.app.connection_limit.open)
        await asyncio.wait_for(behind.stop(), HANG_S)
        assert await client.rest() == b""
    assert not behind.app.connection_limit.open


@pytest.mark.one_process("sets the limit of this process")
async def test_a_silent_front_makes_way(behind: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections without their header are the first to make way for others (I21)."""
    monkeypatch.setattr(connection_limit, "MIN_IDLE_S", 0.0)
    await until(lambda: not behind.app.connection_limit.open)
    async with front(behind, b"") as silent:
        await until(lambda: behind.app.connection_limit.open)
        behind.app.connection_limit.limit = 1
        async with front(behind, TEXT) as client:
            assert (await client.request("GET", "/x")).body == b"data"
        assert await silent.rest() == b""
