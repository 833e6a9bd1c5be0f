"""The fast path over TLS, where it enciphers pieces of a file in place of `sendfile`."""

import asyncio
import contextlib
import logging
import os
import random
import shutil
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from certificates import localhost_certificate
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, descriptors_open, pattern, until
from stopwatch import HANG_S
from test_fast_path import answered, connections, sending
from wire import Response, connected, fetch, message

from bucketfront.cache.storage import page_cache
from bucketfront.server.http1.tls_transport import TlsTransport
from bucketfront.server.send import enciphered

pytestmark = pytest.mark.one_process(
    "watches the fast path of this process; test_front_ends.py and test_front_end_clients.py have that of front ends"
)

HEAD_BYTES = 1024  # of a response, and what TLS adds, at most
LARGE = pattern(100 * BLOCK)  # more than the kernel takes for a client that does not read
MIB = 1 << 20
EDGES = tuple(
    edge + difference
    for edge in (page_cache.MAX_PEEK_BYTES, page_cache.MAX_COPY_BYTES, enciphered.MAX_PER_TURN_BYTES)
    for difference in (-1, 0, 1)
)
ROUNDS = 60


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return localhost_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificate[0]))
    context.check_hostname = False  # the address is 127.0.0.1
    return context


@pytest.fixture
async def warm(start: StartProxy, certificate: tuple[Path, Path], tls: ssl.SSLContext, s3: S3) -> Proxy:
    """A proxy with all bytes of `/small` and `/large` in the cache."""
    chain, key = certificate
    proxy = await start(server={"tls": {"certificate": str(chain), "key": str(key)}})
    s3.put("small", LARGE[:1000])
    s3.put("large", LARGE)
    async with connected(proxy.address, tls) as client:
        for target in ("/small", "/large"):
            await client.request("GET", target)
    await proxy.settled()
    return proxy


async def test_large_responses(warm: Proxy, tls: ssl.SSLContext) -> None:
    """Whole objects and ranges above a piece come from the fast path, byte for byte (I1)."""
    ranges = ((0, 1), (5, page_cache.MAX_PEEK_BYTES + 6), (BLOCK + 1, BLOCK + 2 * page_cache.MAX_COPY_BYTES))
    async with connected(warm.address, tls) as client:
        # aiohttp takes the first request, which comes with the end of the handshake.
        assert (await client.request("GET", "/small")).status == 200
        before = answered(warm)
        for start, stop in ranges:
            response = await client.request("GET", "/large", {"Range": f"bytes={start}-{stop - 1}"})
            assert response.body == LARGE[start:stop]
        assert (await client.request("GET", "/large")).body == LARGE
    assert answered(warm) == before + len(ranges) + 1


async def test_a_slow_reader(warm: Proxy, tls: ssl.SSLContext) -> None:
    """For a client that does not read, one piece waits. It gets all bytes later, then the next response (I3, I19)."""
    async with connected(warm.address, tls) as client:
        assert (await client.request("GET", "/small")).status == 200
        client.writer.transport.pause_reading()  # type: ignore[attr-defined] # the transport of a client reads
        await client.send(message("GET", "/large"))
        await until(lambda: sending(warm))
        (connection,) = sending(warm)
        assert isinstance(connection.transport, TlsTransport)
        await client.send(message("GET", "/small"))
        await until(lambda: connection._held)
        assert connection.transport.get_write_buffer_size() <= enciphered.MAX_PIECE_BYTES + HEAD_BYTES
        client.writer.transport.resume_reading()  # type: ignore[attr-defined] # as above
        assert (await client.response()).body == LARGE
        assert (await client.response()).body == LARGE[:1000]


async def test_bytes_that_left_the_memory(warm: Proxy, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response whose next bytes are on disk goes on in a task, and is whole (I3)."""
    peek, calls = page_cache.peek, list[int]()

    def at_first(fd: int, offset: int, length: int) -> memoryview | None:
        calls.append(length)
        return peek(fd, offset, length) if len(calls) == 1 else None

    async with connected(warm.address, tls) as client:
        assert (await client.request("GET", "/small")).status == 200
        before = answered(warm)
        monkeypatch.setattr(page_cache, "peek", at_first)
        part = {"Range": f"bytes=0-{3 * BLOCK - 1}"}
        assert (await client.request("GET", "/large", part)).body == LARGE[: 3 * BLOCK]
        assert answered(warm) == before + 1
        monkeypatch.setattr(page_cache, "peek", lambda *_: None)
        assert (await client.request("GET", "/large", part)).body == LARGE[: 3 * BLOCK]
        assert answered(warm) == before + 1


async def test_a_request_in_pieces_and_two_in_one(warm: Proxy, tls: ssl.SSLContext) -> None:
    """Records that have a part of a request, or several requests, have their responses in order."""
    request = message("GET", "/small")
    async with connected(warm.address, tls) as client:
        for piece in (request[:9], request[9:], request * 2, request + request[:20], request[20:]):
            await client.send(piece)
            await asyncio.sleep(0)
        for _ in range(5):
            assert (await client.response()).body == LARGE[:1000]


async def test_a_client_that_leaves(warm: Proxy, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture) -> None:
    """A client that leaves amid a large response costs no descriptor and no traceback (I12)."""
    before = descriptors_open()
    with caplog.at_level(logging.WARNING):
        async with connected(warm.address, tls) as client:
            assert (await client.request("GET", "/small")).status == 200
            client.writer.transport.pause_reading()  # type: ignore[attr-defined] # the transport of a client reads
            await client.send(message("GET", "/large"))
            await until(lambda: sending(warm))
            client.writer.transport.abort()
        await until(lambda: not connections(warm) and descriptors_open() <= before)
    assert not caplog.records


async def test_garbage_amid_tls(warm: Proxy, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are no record end the connection without a traceback."""
    with caplog.at_level(logging.WARNING):
        async with connected(warm.address, tls) as client:
            assert (await client.request("GET", "/small")).status == 200
            socket = client.writer.get_extra_info("socket")
            socket._sock.send(b"GET / HTTP/1.1\r\n\r\n")
            assert await client.reader.read() == b""
    assert not caplog.records


async def test_equal_to_plain_http(
    start: StartProxy, certificate: tuple[Path, Path], tls: ssl.SSLContext, s3: S3
) -> None:
    """Over TLS, objects and ranges of any size have the bytes and fields that they have without it (I1, I26)."""
    chain, key = certificate
    listeners = [{"host": "127.0.0.1", "port": 0, "plain": True}]  # beside that of TLS
    server = {"tls": {"certificate": str(chain), "key": str(key)}, "listeners": listeners}
    proxy = await start(server=server, cache={"memory": 0})
    secret, plain = proxy.app.listener.descriptions
    dice = random.Random(18)
    bodies = {
        f"/{size}": pattern(size, seed=size) for size in (1, *EDGES, *(dice.randrange(2 * MIB) for _ in range(6)))
    }
    for target, body in bodies.items():
        s3.put(target[1:], body)
        await fetch(plain, target)
    await proxy.settled()
    async with connected(plain) as one, connected(secret, tls) as other:
        for client in (one, other):
            assert (await client.request("HEAD", "/1")).status == 200
        await until(lambda: all(each.is_at_rest() for each in connections(proxy)))
        before = answered(proxy)
        for _ in range(ROUNDS):
            target, body = dice.choice(list(bodies.items()))
            start_at, length = dice.randrange(len(body)), dice.choice((1, *EDGES, MIB))
            parts = (f"bytes={start_at}-{start_at + length - 1}", f"bytes=-{length}")
            method = dice.choice(("GET", "GET", "GET", "HEAD"))
            fields = dice.choice(({}, *({"Range": part} for part in parts))) if method == "GET" else {}
            found = [await client.request(method, target, fields) for client in (one, other)]
            assert found[0].body == found[1].body
            assert found[0].is_complete
            assert _lasting(found[0]) == _lasting(found[1])
        assert answered(proxy) == before + 2 * ROUNDS


def _lasting(response: Response) -> tuple[int, list[tuple[str, str]]]:
    """Return the status and the fields that do not change with time."""
    changing = ("date", "age", "cache-status")
    return response.status, [(name, value) for name, value in response.headers.items() if name.lower() not in changing]


async def test_records_as_they_come(warm: Proxy, tls: ssl.SSLContext) -> None:
    """Several records in one segment, and one record in two, have their responses in order."""
    async with deciphered(warm.address, tls) as client:
        small, large = message("GET", "/small"), message("GET", "/large")
        assert await client.body_of(client.records(small)) == LARGE[:1000]
        before = answered(warm)
        record = client.records(small)
        client.send(record[:11])
        await asyncio.sleep(0)
        assert await client.body_of(record[11:]) == LARGE[:1000]
        assert answered(warm) == before + 1
        assert await client.body_of(client.records(large, small, small[:7])) == LARGE
        assert await client.body_of() == LARGE[:1000]
        assert await client.body_of(client.records(small[7:])) == LARGE[:1000]


@pytest.mark.parametrize("target", ["/small", "/large"])
async def test_the_end_of_tls_behind_a_request(
    warm: Proxy, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    """A client that ends TLS in the segment of its request gets what the kernel takes, and the end (I3, I12)."""
    before = descriptors_open()
    with caplog.at_level(logging.WARNING):
        async with deciphered(warm.address, tls) as client:
            assert await client.body_of(client.records(message("GET", "/small"))) == LARGE[:1000]
            client.send(client.records(message("GET", target)) + client.end_of_tls())
            rest = await client.rest()
        await until(lambda: not connections(warm) and descriptors_open() <= before)
    head, _, body = rest.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert LARGE.startswith(body)
    assert target == "/large" or body == LARGE[:1000]
    assert not caplog.records


@pytest.mark.skipif(shutil.which("openssl") is None, reason="not run: openssl is not installed")
async def test_keys_that_change(warm: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    """Hits go on after the client has new keys, and has the proxy use new ones."""
    with caplog.at_level(logging.WARNING):
        async with openssl_client(warm, "-tls1_3") as (send, seen):
            await send(message("GET", "/small"))
            await seen(LARGE[:1000])
            for command in (b"k\n", b"K\n", b"K\n"):
                before = answered(warm)
                await send(command)
                await seen(b"KEYUPDATE")
                await send(message("GET", "/small"))
                await seen(LARGE[:1000])
                assert answered(warm) == before + 1
    assert not caplog.records


@pytest.mark.skipif(shutil.which("openssl") is None, reason="not run: openssl is not installed")
async def test_renegotiation(warm: Proxy, tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture) -> None:
    """A client of TLS 1.2 that wants to negotiate anew is refused, and others notice nothing."""
    with caplog.at_level(logging.WARNING):
        async with openssl_client(warm, "-tls1_2") as (send, seen):
            await send(message("GET", "/small"))
            await seen(LARGE[:1000])
            await send(b"R\n")
            await seen(b"no renegotiation")
        async with connected(warm.address, tls) as client:
            assert (await client.request("GET", "/large")).body == LARGE
        await until(lambda: not connections(warm))
    assert not caplog.records


class DecipheredConnection:
    """A client of TLS that decides which records are in a segment."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> None:
        self._reader, self._writer = reader, writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._plain = b""

    async def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.send(self._outgoing.read())
                self._incoming.write(await self._reader.read(1 << 16))
            else:
                self.send(self._outgoing.read())
                return

    def records(self, *pieces: bytes) -> bytes:
        """Return one record for each piece."""
        for piece in pieces:
            self._tls.write(piece)
        return self._outgoing.read()

    def end_of_tls(self) -> bytes:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        return self._outgoing.read()

    def send(self, segment: bytes) -> None:
        self._writer.write(segment)

    async def body_of(self, segment: bytes = b"") -> bytes:
        """Send a segment, and return the body of the next response."""
        self.send(segment)
        while b"\r\n\r\n" not in self._plain:
            self._plain += await self._next()
        head, _, self._plain = self._plain.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(self._plain) < length:
            self._plain += await self._next()
        body, self._plain = self._plain[:length], self._plain[length:]
        return body

    async def rest(self) -> bytes:
        """Return all bytes until the proxy closes."""
        with contextlib.suppress(ConnectionError):
            while data := await self._next():
                self._plain += data
        return self._plain

    async def _next(self) -> bytes:
        """Return the next bytes of the proxy, or none at the end."""
        async with asyncio.timeout(HANG_S):
            while True:
                try:
                    return self._tls.read(1 << 20)
                except ssl.SSLWantReadError:
                    data = await self._reader.read(1 << 18)
                    if not data:
                        return b""
                    self._incoming.write(data)
                except ssl.SSLZeroReturnError:
                    return b""


@contextlib.asynccontextmanager
async def deciphered(address: str, context: ssl.SSLContext) -> AsyncIterator[DecipheredConnection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
    client = DecipheredConnection(reader, writer, context)
    try:
        async with asyncio.timeout(HANG_S):
            await client.handshake()
        yield client
    finally:
        writer.transport.abort()


Send = Callable[[bytes], Awaitable[None]]


@contextlib.asynccontextmanager
async def openssl_client(proxy: Proxy, version: str) -> AsyncIterator[tuple[Send, Send]]:
    """Run openssl's client. The first function writes to it, the second waits until it has printed some bytes."""
    address = proxy.address.rpartition("//")[2]
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", address, version,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout, printed = process.stdin, process.stdout, b""

    async def send(data: bytes) -> None:
        stdin.write(data)
        await stdin.drain()

    async def seen(data: bytes) -> None:
        nonlocal printed
        async with asyncio.timeout(HANG_S):
            while data not in printed:
                more = await stdout.read(1 << 16)
                assert more, printed
                printed += more
        printed = printed.partition(data)[2]

    try:
        async with asyncio.timeout(HANG_S):
            await seen(b"Verify return code")
        yield send, seen
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)  # `kill` would reap a process that has ended, and asyncio would warn
        await process.wait()
