"""The number of clients at a time is bounded, and the others get a 503 (I21)."""

import asyncio
import errno
import logging
import math
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from certificates import localhost_certificate
from proxy_under_test import S3, Proxy, StartProxy, descriptors_open, until
from rows import each_row
from stopwatch import HANG_S
from wire import Connection, connected, message

from bucketfront.errors import ConfigError
from bucketfront.server import client_listener, client_progress
from bucketfront.server.http1 import connection, connection_limit, descriptors, listener, refused_connection
from bucketfront.server.http1.aiohttp_private import AiohttpConnection

pytestmark = pytest.mark.one_process(
    "sets the limit and the times of this process; test_front_ends.py has those of all"
)

LIMIT = 3


@asynccontextmanager
async def crowd(
    proxy: Proxy, count: int, tls: ssl.SSLContext | None = None, local: str | None = None
) -> AsyncIterator[list[Connection]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(proxy.address, tls, local)) for _ in range(count)]


@pytest.fixture(params=[True, False])
async def bounded(start: StartProxy, s3: S3, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """A proxy with a low limit, with and without the fast path, that has `/x`. No connection counts as idle."""
    monkeypatch.setattr(connection_limit, "MIN_IDLE_S", math.inf)
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", HANG_S)
    proxy = await start(server={"fast_path": request.param})
    s3.put("x", b"data")
    await proxy.get("/x")
    await until(lambda: not proxy.app.connection_limit.open)
    proxy.app.connection_limit.limit = LIMIT
    return proxy


async def test_beyond_the_bound(bounded: Proxy) -> None:
    """Clients within the limit get their responses.

    Those beyond it get a 503 and their connection closes. A client that leaves makes room.
    """
    async with crowd(bounded, LIMIT + 2) as clients:
        for client in clients[:LIMIT]:
            assert (await client.request("GET", "/x")).body == b"data"
        for client in clients[LIMIT:]:
            response = await client.request("GET", "/x")
            assert response.status == 503
            assert response.json() == {"error": "too many connections"}
            assert (response.headers["Retry-After"], response.headers["Connection"]) == ("1", "close")
            assert response.headers["Cache-Control"] == "no-store"
            assert response.cache_status == 'fwd=bypass; detail="refused"'
            assert await client.rest() == b""
        for client in clients[:LIMIT]:
            assert (await client.request("GET", "/x")).body == b"data"
        assert (await bounded.admin("GET", "/healthz")).body == b"ok\n"
        metrics = (await bounded.admin("GET", "/metrics")).body.decode()
        assert f"bucketfront_connections {LIMIT}.0" in metrics
        assert "bucketfront_connections_refused_total 2.0" in metrics
        await clients[0].close()
        await until(lambda: bounded.app.connection_limit.open == LIMIT - 1)
        assert (await bounded.get("/x")).body == b"data"
    await until(lambda: not bounded.app.connection_limit.open and not bounded.app.connection_limit.leaving)


async def test_head_beyond_the_bound(bounded: Proxy) -> None:
    """A refused HEAD gets no body either."""
    async with crowd(bounded, LIMIT), bounded.connection() as client:
        await client.send(message("HEAD", "/x"))
        head = await client.head()
        assert (head.status, await client.rest()) == (503, b"")


async def test_a_crowd_that_stays(bounded: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused clients that neither send nor leave take few descriptors, and not for long."""
    monkeypatch.setattr(refused_connection, "LINGER_TIMEOUT_S", 0.2)
    async with crowd(bounded, LIMIT) as inside:
        assert (await inside[-1].request("GET", "/x")).status == 200
        before = descriptors_open()
        async with crowd(bounded, 2 * listener.MAX_REJECTED_OPEN) as silent:
            await until(lambda: bounded.app.connection_limit.refused == len(silent))
            assert descriptors_open() - before - len(silent) <= listener.MAX_REJECTED_OPEN
            for client in silent:
                assert (await client.head()).status == 503
            await until(lambda: not bounded.app.connection_limit.leaving)
            assert descriptors_open() == before + len(silent)


async def test_refused_over_tls(start: StartProxy, tmp_path: Path) -> None:
    """Under TLS the refusal is encrypted.

    A client that never completes its handshake is closed and makes room (I20).
    """
    chain, key = localhost_certificate(tmp_path)
    proxy = await start(server={"tls": {"certificate": str(chain), "key": str(key)}})
    proxy.app.connection_limit.limit = 1
    tls = ssl.create_default_context(cafile=str(chain))
    tls.check_hostname = False  # the address is 127.0.0.1
    async with connected(proxy.address, tls) as first:
        assert (await first.request("GET", "/none")).status == 404
        async with connected(proxy.address, tls) as second:
            assert (await second.request("GET", "/none")).status == 503
            assert await second.rest() == b""
    await until(lambda: not proxy.app.connection_limit.open and not proxy.app.connection_limit.leaving)


async def test_a_handshake_has_its_time(start: StartProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that connects and sends nothing under TLS is closed (I20)."""
    monkeypatch.setattr(listener, "HANDSHAKE_TIMEOUT_S", 0.2)
    chain, key = localhost_certificate(tmp_path)
    proxy = await start(server={"tls": {"certificate": str(chain), "key": str(key)}})
    async with crowd(proxy, 1) as (silent,):
        await until(lambda: proxy.app.connection_limit.open)
        assert await silent.rest() == b""
    await until(lambda: not proxy.app.connection_limit.open)


def all_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a connection without a request count as idle at once."""
    monkeypatch.setattr(connection_limit, "MIN_IDLE_S", 0.0)


async def test_idle_connections_make_way(
    bounded: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the limit the longest idle connection closes for a new one, which is counted and logged (I21)."""
    all_idle(monkeypatch)
    async with crowd(bounded, LIMIT) as clients:
        for client in (clients[1], clients[2], clients[0]):
            assert (await client.request("GET", "/x")).body == b"data"
        with caplog.at_level(logging.WARNING):
            for first in (clients[1], clients[2]):
                assert (await bounded.get("/x")).body == b"data"
                assert await first.rest() == b""
                await until(lambda: bounded.app.connection_limit.open == LIMIT - 1)
                bounded.app.connection_limit.limit -= 1
        assert (await clients[0].request("GET", "/x")).body == b"data"
    assert "127.0.0.1 has 3 of them; 1 idle ones made way for others, and 0 new ones were refused" in caplog.text
    assert caplog.text.count("run short") == 1
    metrics = (await bounded.admin("GET", "/metrics")).body.decode()
    assert "bucketfront_connections_made_way_total 2.0" in metrics
    assert "bucketfront_connections_refused_total 0.0" in metrics
    assert [line["status"] for line in bounded.log] == [200] * len(bounded.log)
    await until(lambda: not bounded.app.connection_limit.open)


@pytest.mark.parametrize("sent", [b"GET /x HTTP/1.1\r\nHost:", message("PUT", "/y", {"Content-Length": "9"}) + b"1234"])
async def test_busy_connections_stay(bounded: Proxy, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """A connection within a request does not make way, and the new client gets a 503."""
    async with crowd(bounded, LIMIT) as clients:
        for client in clients:
            await client.send(sent)
        await until(lambda: all(each.idle_since() is None for each in _protocols(bounded)))
        all_idle(monkeypatch)
        assert (await bounded.get("/x")).status == 503
        for client in clients:
            await client.send(b" a\r\n\r\n" if b"GET" in sent else b"56789")
            assert (await client.response()).status in (200, 201)


async def test_a_request_that_was_not_read_yet(bounded: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose next request is in the kernel is not idle, so no request is lost."""
    all_idle(monkeypatch)
    async with crowd(bounded, LIMIT) as clients:
        for client in clients:
            assert (await client.request("GET", "/x")).body == b"data"
        limit, now = bounded.app.connection_limit, asyncio.get_running_loop().time()
        for client in clients:
            os.write(client.socket.fileno(), message("GET", "/x"))
        assert not limit.make_room(now)  # in the turn of the loop in which the requests were sent
        for client in clients:
            assert (await client.response()).body == b"data"
        assert limit.make_room(now + HANG_S)
        assert await clients[0].rest() == b""


async def test_one_client_and_the_others(bounded: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """One client that takes all it can, idle or busy, leaves places, and others get no 503 because of it (I34)."""
    limit = bounded.app.connection_limit
    limit.limit, limit.share_of_one, limit.has_share = 16, 0.25, bool
    async with crowd(bounded, 24, local="127.0.0.9") as crowded:
        for client in crowded[14:]:
            assert (await client.request("GET", "/x")).status == 503
        for client in crowded[:14]:
            await client.send(b"GET /x HTTP/1.1\r\n")
        assert (limit.open, limit.refused) == (14, 10)
        for _ in range(5):
            assert (await bounded.get("/x")).body == b"data"
            await until(lambda: limit.open == 14)
        for client in crowded[:14]:
            await client.send(b"Host: a\r\n\r\n")
            assert (await client.response()).body == b"data"
        all_idle(monkeypatch)
        async with crowd(bounded, 4) as others:
            for client in others:
                assert (await client.request("GET", "/x")).body == b"data"
        assert (limit.refused, limit.made_way) == (10, 2)
        for client in crowded[:2]:
            assert await client.rest() == b""
    await until(lambda: not limit.open)
    assert limit.most_connections() == ("", 0)


@pytest.mark.parametrize("is_silent", [True, False])
async def test_idle_connections_make_way_under_tls(
    start: StartProxy, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_silent: bool
) -> None:
    """Under TLS an idle connection closes at once, also one whose handshake never began."""
    all_idle(monkeypatch)
    chain, key = localhost_certificate(tmp_path)
    proxy = await start(server={"tls": {"certificate": str(chain), "key": str(key)}})
    s3.put("x", b"data")
    limit = proxy.app.connection_limit
    limit.limit = LIMIT
    tls = ssl.create_default_context(cafile=str(chain))
    tls.check_hostname = False  # the address is 127.0.0.1
    async with crowd(proxy, LIMIT, None if is_silent else tls) as clients:
        await until(lambda: limit.open == LIMIT)
        for client in () if is_silent else clients:
            assert (await client.request("GET", "/x")).body == b"data"
        async with connected(proxy.address, tls) as newcomer:
            assert (await newcomer.request("GET", "/x")).body == b"data"
            assert await clients[0].rest() == b""
            assert (limit.open, limit.made_way, limit.refused) == (LIMIT, 1, 0)
    await until(lambda: not limit.open)


async def test_descriptors_of_idle_connections(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no descriptor is left for a new client, an idle connection makes way."""
    all_idle(monkeypatch)
    s3.put("x", b"data")
    async with crowd(proxy, 2) as clients:
        for client in clients:
            assert (await client.request("GET", "/x")).body == b"data"
        genuine = socket.socket.accept

        def accept(listener: socket.socket) -> tuple[socket.socket, object]:
            if not proxy.app.connection_limit.made_way:
                raise OSError(errno.EMFILE, "Too many open files")
            return genuine(listener)

        monkeypatch.setattr(socket.socket, "accept", accept)
        assert (await proxy.get("/x")).body == b"data"
        assert await clients[0].rest() == b""
        assert (await clients[1].request("GET", "/x")).body == b"data"
    assert proxy.app.connection_limit.made_way == 1


async def test_no_descriptor_left(proxy: Proxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accepting goes on a moment after it failed, and the clients that waited get their responses."""
    s3.put("x", b"data")
    failures = 3

    def accept(listener: socket.socket) -> tuple[socket.socket, object]:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return genuine(listener)

    genuine = socket.socket.accept
    monkeypatch.setattr(socket.socket, "accept", accept)
    assert (await proxy.get("/x")).body == b"data"
    assert failures == 0


async def test_a_client_that_never_takes_the_rest(start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that closes does not wait for ever for its client to take the rest (I20)."""
    monkeypatch.setattr(client_progress, "PATIENCE_S", 0.5)
    proxy = await start()
    s3.put("x", bytes(16000))
    await proxy.get("/x")
    async with proxy.connection() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.writer.write(message("GET", "/x") * 2000)
        await until(lambda: any(_unsent(connection) for connection in _connections(proxy)))
        await until(lambda: not proxy.app.connection_limit.open)
        client.abort()


@pytest.mark.parametrize("target", ["/x", "/none"])
async def test_small_answers_that_nobody_takes(
    start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """A client that sends many requests and reads no response gets few of them made, and is cut off (I19, I20)."""
    monkeypatch.setattr(client_progress, "PATIENCE_S", 0.3)
    proxy = await start()
    s3.put("x", bytes(16000))
    await proxy.get("/x")
    async with proxy.connection() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.writer.write(message("GET", target) * 20_000)
        await until(lambda: proxy.app.connection_limit.open)
        (transport,) = _connections(proxy)
        most = 0
        async with asyncio.timeout(HANG_S):
            while proxy.app.connection_limit.open:
                most = max(most, _unsent(transport))
                await asyncio.sleep(0)
        client.abort()
    assert most < 128 << 10


async def test_the_end_of_a_connection_that_holds_something(
    start: StartProxy, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is idle for too long closes, even with a response that its client never took (I20)."""
    monkeypatch.setattr(client_progress, "PATIENCE_S", 0.3)
    monkeypatch.setattr(client_listener, "KEEP_ALIVE_TIMEOUT_S", 0.3)
    proxy = await start()
    s3.put("x", bytes(16000))
    await proxy.get("/x")
    async with proxy.connection() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        while not any(_unsent(each) for each in _connections(proxy)):
            client.writer.write(message("GET", "/x"))
            await asyncio.sleep(0.001)
        await until(lambda: not proxy.app.connection_limit.open)
        client.abort()


def _protocols(proxy: Proxy) -> list[AiohttpConnection]:
    server = proxy.app.listener.server
    assert server is not None
    return [each for each in server.connections if isinstance(each, AiohttpConnection)]


def _connections(proxy: Proxy) -> "list[asyncio.Transport]":
    server = proxy.app.listener.server
    assert server is not None
    return [each.transport for each in server.connections if each.transport is not None]


def _unsent(transport: asyncio.Transport) -> int:
    return transport.get_write_buffer_size()


@each_row("limit", [256, 1024, 4096, 65536, 1 << 20, 1 << 30])
@each_row("origin_connections", [1, 64])
def test_shares(limit: int, origin_connections: int) -> None:
    """All listeners and connections together need at most four fifths of the descriptors (I21)."""
    found = descriptors.shares(limit, origin_connections)
    files = max(found.hot * 5 // 4, found.connections)
    assert 2 * found.connections + files + origin_connections + descriptors.RESERVED_DESCRIPTORS <= 0.8 * limit
    assert found.connections >= limit // 16


def test_too_few_for_anybody() -> None:
    """A limit that leaves no room ends the start with a message that names both remedies (I30)."""
    with pytest.raises(ConfigError, match=r"128 open files .* origin.max_connections = 64: raise it \(ulimit -n"):
        descriptors.shares(128, 64)
