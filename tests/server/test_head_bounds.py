"""Heads of requests at their documented bounds and beyond: 414 and 431, over TCP and TLS (I22, I24)."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from certificates import localhost_certificate
from proxy_under_test import S3, Proxy, StartProxy
from wire import connected

KIB = 1 << 10
TARGET = 16 * KIB
QUERY = 8 * KIB
FIELD = 8 * KIB
FIELDS = 128
HEAD = 64 * KIB


def head(*fields: str, target: str = "/x", method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: proxy.test", *fields, "", ""]).encode()


def padded(size: int) -> bytes:
    """Return a head of `size` bytes with fields of at most 7 KiB."""
    fields = [f"X{number}: " + "a" * 7 * KIB for number in range(size // (7 * KIB + 10))]
    missing = size - len(head(*fields, "X: "))
    return head(*fields, "X: " + "a" * missing)


AT_THE_BOUND = {
    "query": head(target="/x?" + "a" * QUERY),
    "value": head("X: " + "a" * FIELD),
    "name": head("X" * (FIELD - 100) + ": a"),  # aiohttp counts some bytes of its neighbours as well
    "fields": head(*(f"X{number}: a" for number in range(FIELDS - 1))),
    "head": padded(HEAD),
}
BEYOND = {
    "query": (414, head(target="/x?" + "a" * (QUERY + 1))),
    "target": (414, head(target="/x?" + "a" * (TARGET - 2))),
    "path": (414, head(target="/" + "a" * TARGET)),
    "absolute target": (414, head(target="http://proxy.test/" + "a" * TARGET)),
    "target alone": (414, b"GET /" + b"a" * 2 * TARGET),
    "long target": (414, head(target="/" + "a" * 300 * KIB)),
    "value": (431, head("X: " + "a" * (FIELD + 1))),
    "long value": (431, head("Cookie: " + "a" * 300 * KIB)),
    "name": (431, head("X" * (FIELD + 1) + ": a")),
    "fields": (431, head(*(f"X{number}: a" for number in range(FIELDS)))),
    "small fields": (431, head(*(f"X{number}: a" for number in range(20_000)))),
    "head": (431, padded(HEAD + 1)),
    "long head": (431, padded(4 * HEAD)),
    "method": (501, head(method="G" * 100)),
    "long method": (501, head(method="G" * 300 * KIB)),
    "method alone": (501, b"G" * 2 * TARGET),
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return localhost_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(is_tls: bool, certificate: tuple[Path, Path]) -> ssl.SSLContext | None:
    if not is_tls:
        return None
    context = ssl.create_default_context(cafile=str(certificate[0]))
    context.check_hostname = False  # the address is 127.0.0.1
    return context


@pytest.fixture
async def warm(
    start: StartProxy, s3: S3, tls: ssl.SSLContext | None, certificate: tuple[Path, Path], fast_path: bool
) -> Proxy:
    """A proxy that has `/x` in the cache."""
    server: dict[str, Any] = {"fast_path": fast_path}
    if tls is not None:
        server["tls"] = {"certificate": str(certificate[0]), "key": str(certificate[1])}
    proxy = await start(server=server)
    s3.put("x", b"data")
    async with connected(proxy.address, tls) as connection:
        assert (await connection.request("GET", "/x")).body == b"data"
    return proxy


on_all_paths = pytest.mark.parametrize(("is_tls", "fast_path"), [(False, True), (False, False), (True, True)])


@on_all_paths
async def test_heads_at_the_bound(warm: Proxy, tls: ssl.SSLContext | None) -> None:
    """A head of the documented size is taken, on one connection with those before it."""
    async with connected(warm.address, tls) as connection:
        for name, data in AT_THE_BOUND.items():
            await connection.send(data)
            response = await connection.response()
            assert (response.status, response.body) == (200, b"data"), name


@on_all_paths
async def test_heads_beyond_the_bound(warm: Proxy, tls: ssl.SSLContext | None) -> None:
    """A larger head gets its status in an HTTP/1.1 response with `Connection: close`, also behind another request.

    The origin gets nothing of it.
    """
    warm.relay.reset()
    for before in (b"", head()):
        for name, (status, data) in BEYOND.items():
            async with connected(warm.address, tls) as connection:
                connection.writer.write(before + data)  # not all of it may leave
                if before:
                    assert (await connection.response()).body == b"data"
                line = await connection.reader.readline()
                assert line.startswith(f"HTTP/1.1 {status} ".encode()), name
                fields = await connection.reader.readuntil(b"\r\n\r\n")
                assert b"\r\nConnection: close\r\n" in fields, name
                length = int(fields.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                assert (await connection.reader.readexactly(length)).startswith(b'{"error": '), name
    assert warm.relay.seen == []


@pytest.mark.parametrize(("is_tls", "fast_path"), [(False, True), (True, True)])
async def test_a_client_that_is_still_sending(warm: Proxy, tls: ssl.SSLContext | None) -> None:
    """A client that goes on sending after the refusal sees no reset before it has read the response."""
    async with connected(warm.address, tls) as connection:
        await connection.send(b"GET /" + b"a" * 2 * TARGET)
        assert (await connection.reader.readline()).startswith(b"HTTP/1.1 414 ")
        for _ in range(8):
            await connection.send(b"a" * 64 * KIB)
        await connection.reader.readuntil(b"\r\n\r\n")
