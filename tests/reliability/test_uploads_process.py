"""Uploads to a whole process: their cost in memory, and their remains after a kill."""

import asyncio
import contextlib
import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chaos_content import read
from chaos_uploads import Upload, UploadHandler
from evidence import Evidence
from origin_process import OriginProcess
from proxy_process import fork_server
from resource_process import Client, PeakMemory, serve
from runs import configuration
from wire import connected, message

MIB = 1 << 20
PART = 8 * MIB
UNIT = (bytes(range(1, 256)) * (MIB // 255 + 1))[:MIB]
GROWTH = 64 * MIB
SMOKE, SOAK = 256, 1024  # MiB
WHOLE = 5 << 10  # MiB
KILLS, SOAK_KILLS = 5, 100


@pytest.fixture
def sink() -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).with_name("upload_sink.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(child.stdout.readline())}"
        finally:
            child.kill()


Piece = Callable[[int], bytes]
"""A MiB of a body, by its number."""


def same(_: int) -> bytes:
    return UNIT


def generated(number: int) -> bytes:
    """Yield bytes that differ for each number and in each word."""
    return read("generated", 1, number * MIB, (number + 1) * MIB)


def put(url: str, target: str, count: int, piece: Piece = same, *, is_chunked: bool) -> str:
    """Upload `count` MiB as fast as the proxy accepts them. Returns the ETag."""
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {count * MIB}"
    with contextlib.closing(Client(url)) as client:
        client.socket.sendall(f"PUT {target} HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".encode())
        # a response before the end of the body explains more than this error
        with contextlib.suppress(ConnectionError):
            for number in range(count):
                data = piece(number)
                client.socket.sendall(b"%x\r\n%s\r\n" % (MIB, data) if is_chunked else data)
            if is_chunked:
                client.socket.sendall(b"0\r\n\r\n")
        status, headers, body = client.response()
    assert status == 201, body
    return headers["etag"]


def etag_of(count: int, piece: Piece = same) -> str:
    """Return S3's multipart ETag of so many MiB in parts of 8. If it matches, the sink got every byte right."""
    digests = []
    for start in range(0, count, PART // MIB):
        digest = hashlib.md5()
        for number in range(start, min(count, start + PART // MIB)):
            digest.update(piece(number))
        digests.append(digest.digest())
    return f'"{hashlib.md5(b"".join(digests)).hexdigest()}-{len(digests)}"'


@pytest.mark.parametrize(("max_size", "is_chunked"), [("4GiB", False), ("100MiB", True)])
def test_memory_of_an_upload(
    tmp_path: Path, sink: str, is_soak: bool, evidence: Evidence, max_size: str, is_chunked: bool
) -> None:
    """A large upload costs less than 64 MiB of memory, even if the cache has no room for all of it, and its cached
    bytes are served (I19).
    """
    count = SOAK if is_soak else SMOKE
    with serve(tmp_path / "served", sink, max_size=max_size, methods=", methods: [GET, HEAD, PUT]") as served:
        assert put(served.clients, "/small", 24, is_chunked=is_chunked) == etag_of(24)
        most, base = PeakMemory(served), served.resident
        most.start()
        began = time.monotonic()
        assert put(served.clients, "/large", count, is_chunked=is_chunked) == etag_of(count)
        took = time.monotonic() - began
        most.end()
        if max_size == "4GiB":
            client = Client(served.clients)
            client.send_get("/large")
            status, headers, body = client.response()
            client.close()
            assert status == 200
            assert headers["cache-status"].startswith("bucketfront; hit")
            assert body == UNIT * count
    kind = "kept" if max_size == "4GiB" else "larger than the cache"
    evidence.add(f"MiB uploaded, {kind}", count)
    evidence.add(f"MiB a second, {kind}", round(count / took))
    evidence.add(f"MiB of memory for an upload, {kind}", (most.bytes - base) // MIB)
    assert most.bytes - base < GROWTH, f"{(most.bytes - base) / MIB:.0f} MiB"


@pytest.mark.parametrize("is_chunked", [False, True])
def test_every_byte_of_5_gib(tmp_path: Path, sink: str, is_soak: bool, evidence: Evidence, is_chunked: bool) -> None:
    """5 GiB arrive byte for byte through a cache with room for a fifth of them, for less than 64 MiB of memory (I8,
    I19).
    """
    if not is_soak:
        pytest.skip("not run: 5 GiB are sent by make soak only")
    with serve(tmp_path / "served", sink, max_size="1GiB", methods=", methods: [GET, HEAD, PUT]") as served:
        put(served.clients, "/small", 24, is_chunked=is_chunked)
        most, base = PeakMemory(served), served.resident
        most.start()
        etag = put(served.clients, "/large", WHOLE, generated, is_chunked=is_chunked)
        most.end()
    assert etag == etag_of(WHOLE, generated)
    evidence.add("MiB uploaded, each byte compared", WHOLE)
    assert most.bytes - base < GROWTH, f"{(most.bytes - base) / MIB:.0f} MiB"


async def test_a_kill_leaves_no_parts(tmp_path: Path, is_soak: bool, evidence: Evidence) -> None:
    """After a `kill -9` during an upload, the next start aborts it at S3, removes its file and serves the old object
    (I8, I14).
    """
    kills = SOAK_KILLS if is_soak else KILLS
    with OriginProcess() as origin:
        version = origin.call("store", "x", 100_000)
        config = configuration(tmp_path, origin, cache={"max_size": "64MiB"})
        async with fork_server() as starter:
            for number in range(kills):
                await starter.begin(config)
                running = await starter.ready()
                async with connected(running.address) as client:
                    length = 3 * PART
                    body = read("x", 1000 + number, 0, 2 * PART + number * MIB // kills)
                    await client.send(message("PUT", "/x", {"Content-Length": str(length)}) + body)
                    await holds(lambda: any(upload.parts for upload in uploads(origin)))
                    await starter.kill()
                assert len(uploads(origin)) == 1
                await starter.begin(config)
                running = await starter.ready()
                await holds(lambda: not uploads(origin))
                await holds(lambda: not [*(tmp_path / "cache" / "objects").glob("*/*")])
                async with connected(running.address) as client:
                    response = await client.request("GET", "/x")
                    assert response.body == read("x", version, 0, 100_000)
                await starter.kill()
        assert not [line for line in starter.lines if "Traceback" in line], starter.lines
    evidence.add("kills within an upload", kills)


def uploads(origin: OriginProcess) -> list[Upload]:
    found: UploadHandler = origin.get("uploads")
    return list(found.running.values())


async def holds(what: Callable[[], object], within: float = 60.0) -> None:
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110 - another process has no event for it
            await asyncio.sleep(0.02)
