"""The same responses over TLS, where there is no sendfile (I26)."""

import asyncio
import gc
import logging
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import localhost_certificate
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, pattern, until
from wire import Connection, connected, fetch, message

MIB = 1 << 20
CLIENT_HELLO_BEGUN = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return localhost_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificate[0]))
    context.check_hostname = False  # the address is 127.0.0.1
    return context


@pytest.fixture
async def tls_proxy(start: StartProxy, certificate: tuple[Path, Path]) -> Proxy:
    chain, key = certificate
    return await start(server={"tls": {"certificate": str(chain), "key": str(key)}})


async def test_get_over_tls(tls_proxy: Proxy, s3: S3, tls: ssl.SSLContext) -> None:
    """Whole objects of every size arrive byte for byte, cold and warm (I1, I26)."""
    assert tls_proxy.address.startswith("https://")
    for size in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7, 2 * MIB + 1):
        body = pattern(size)
        etag = s3.put(f"x{size}", body)
        for _ in range(2):
            response = await fetch(tls_proxy.address, f"/x{size}", tls=tls)
            assert (response.status, response.is_complete, response.headers["ETag"]) == (200, True, etag)
            assert response.body == body
        assert response.cache_status.startswith("hit")


async def test_ranges_over_tls(tls_proxy: Proxy, s3: S3, tls: ssl.SSLContext) -> None:
    """Ranges, 416, 304 and HEAD follow each other on one connection."""
    body = pattern(MIB)
    etag = s3.put("x", body)
    async with connected(tls_proxy.address, tls) as connection:
        for header, status, span in (
            (f"bytes={BLOCK - 1}-{BLOCK}", 206, slice(BLOCK - 1, BLOCK + 1)),
            ("bytes=0-", 206, slice(None)),
            ("bytes=-100", 206, slice(-100, None)),
            (f"bytes={MIB // 2}-", 206, slice(MIB // 2, None)),
            (f"bytes={MIB}-", 416, None),
        ):
            response = await connection.request("GET", "/x", {"Range": header})
            assert response.status == status
            if span is not None:
                assert response.body == body[span]
        assert (await connection.request("GET", "/x", {"If-None-Match": etag})).status == 304
        assert (await connection.request("HEAD", "/x")).headers["Content-Length"] == str(MIB)
        assert (await connection.request("PUT", "/y", body=b"data")).status == 201
        assert (await connection.request("GET", "/y")).body == b"data"


async def test_origin_fails_over_tls(tls_proxy: Proxy, s3: S3, tls: ssl.SSLContext) -> None:
    """Unavailable bytes cut the connection over TLS as well (I3)."""
    body = pattern(6 * BLOCK)
    s3.put("x", body)
    await fetch(tls_proxy.address, "/x", headers={"Range": "bytes=0-0"}, tls=tls)
    await tls_proxy.settled()
    await tls_proxy.relay.stop()
    response = await fetch(tls_proxy.address, "/x", tls=tls)
    assert (response.status, response.is_complete) == (200, False)
    assert body.startswith(response.body)


def _close(client: Connection) -> None:
    client.writer.transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def _notify(client: Connection) -> None:
    client.writer.close()


def _half_close(client: Connection) -> None:
    client.writer.transport.get_extra_info("socket").shutdown(socket.SHUT_WR)


def _tamper(client: Connection) -> None:
    os.write(client.socket.fileno(), b"GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("end", [Connection.abort, _close, _notify, _half_close, _tamper])
async def test_the_end_of_a_client_is_not_logged(
    tls_proxy: Proxy,
    s3: S3,
    tls: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
    end: Callable[[Connection], None],
    version: ssl.TLSVersion,
) -> None:
    """However a client ends, before, within or after a response or a request, nothing is logged as a warning (I12)."""
    tls.minimum_version = tls.maximum_version = version
    s3.put("x", pattern(2 * MIB))
    await fetch(tls_proxy.address, "/x", tls=tls)
    await tls_proxy.settled()
    get = message("GET", "/x")
    for sent in (
        b"",
        get[:20],
        get,
        message("GET", "/x", {"Connection": "close"}),
        message("GET", "/x", {"Cookie": "aiohttp=1", "Range": "bytes=0-9,2000000-2000009"}),
        get * 3,
        message("GET", "/x", {"Cache-Control": "no-cache", "X": "y"}) * 150,  # more than the queue has room for
        message("GET", "/none"),
        message("PUT", "/y", {"Content-Length": "1000"}) + b"data",
        message("PUT", "/y?acl", {"Content-Length": "100000"}) + bytes(20_000),
        b"GET  / HTTP/1.1\r\n\r\n",
    ):
        for reads in (False, True):
            async with connected(tls_proxy.address, tls) as client:
                await client.send(sent)
                if reads and sent.endswith(b"\r\n\r\n"):
                    await client.head()
                end(client)
            await until(lambda: not tls_proxy.app.connection_limit.open)
    gc.collect()
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n", CLIENT_HELLO_BEGUN, bytes(500)])
@pytest.mark.parametrize("end", [Connection.abort, _close, _notify, _half_close])
async def test_the_end_within_a_handshake_is_not_logged(
    tls_proxy: Proxy, caplog: pytest.LogCaptureFixture, end: Callable[[Connection], None], sent: bytes
) -> None:
    """A client that speaks no TLS, or leaves within the handshake, is closed, and nothing is logged as a warning."""
    async with connected(tls_proxy.address) as client:
        await client.send(sent)
        end(client)
    await until(lambda: not tls_proxy.app.connection_limit.open)
    gc.collect()
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_client_that_closes_leaves_no_error(
    tls_proxy: Proxy, s3: S3, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that closes its connection, before or after a response, is no error in the log (I12)."""
    s3.put("x", b"data")
    for requests in range(3):
        async with connected(tls_proxy.address, tls) as connection:
            for _ in range(requests):
                assert (await connection.request("GET", "/x")).body == b"data"
    async with connected(tls_proxy.address, tls) as connection:
        connection.abort()
    await until(lambda: not tls_proxy.app.connection_limit.open)
    gc.collect()
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
