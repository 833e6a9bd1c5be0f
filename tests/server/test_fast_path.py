"""The fast path beside the ordinary one: order, slow clients, changes of the cache, time, stops."""

import asyncio
import contextlib
import errno
import functools
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from proxy_under_test import BLOCK, S3, Proxy, StartProxy, WallClock, descriptors_open, pattern, until
from relay import Seen
from wire import Connection, fetch, message

from bucketfront.cache.storage import page_cache
from bucketfront.http.ranges import Span
from bucketfront.server.fast_path import fast_connection
from bucketfront.server.fast_path.fast_connection import MAX_HELD_BYTES, FastConnection
from bucketfront.server.http1 import connection as ordinary
from bucketfront.server.send import sendfile
from bucketfront.server.send.sendfile import SendfileBurst

pytestmark = pytest.mark.one_process(
    "watches the fast path of this process; test_fast_path_equal.py and test_front_ends.py have that of front ends"
)

SMALL = pattern(1000)
LARGE = pattern(100 * BLOCK)  # more than the kernel takes for a client that does not read
GET = message("GET", "/small")


def answered(proxy: Proxy) -> int:
    assert proxy.app.fast_path is not None
    return proxy.app.fast_path.served


def has_answered(proxy: Proxy, count: int) -> bool:
    return answered(proxy) == count


def connections(proxy: Proxy) -> list[FastConnection]:
    server = proxy.app.listener.server
    assert server is not None
    return [each for each in server.connections if isinstance(each, FastConnection)]


def sending(proxy: Proxy) -> list[FastConnection]:
    """The connections with a response of the fast path under way."""
    return [each for each in connections(proxy) if each._sending is not None]


@pytest.fixture
async def warm(start: StartProxy, s3: S3) -> Proxy:
    """A proxy with all bytes of `/small` and `/large` in the cache."""
    return await warmed(await start(origin={"part_size": len(LARGE)}), s3)  # one fetch each


async def warmed(proxy: Proxy, s3: S3) -> Proxy:
    s3.put("small", SMALL)
    s3.put("large", LARGE)
    for target in ("/small", "/large"):
        await proxy.get(target)
    await proxy.settled()
    return proxy


@asynccontextmanager
async def narrow(proxy: Proxy) -> AsyncIterator[Connection]:
    """A connection whose client's kernel buffers few bytes that the client does not read."""
    where = proxy.address.rpartition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(where[2])))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 14)
    client = Connection(reader, writer)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def unread(proxy: Proxy, target: str = "/large") -> AsyncIterator[Connection]:
    """A connection whose client has read only the head of a large response that is being sent."""
    async with narrow(proxy) as client:
        before = answered(proxy)
        await client.send(message("GET", target))
        await client.head()
        assert answered(proxy) == before + 1
        await until(lambda: sending(proxy))
        yield client


async def test_answers_without_the_origin(warm: Proxy) -> None:
    """The fast path serves whole, fresh objects: GET, HEAD, parts and 304.

    Small ones come from memory, large ones from the file.
    """
    tag = (await warm.get("/small")).headers["ETag"]
    before, asked = answered(warm), len(warm.relay.seen)
    async with warm.connection() as client:
        for target, body in (("/small", SMALL), ("/large", LARGE)):
            assert (await client.request("GET", target)).body == body
            assert (await client.request("GET", target, {"Range": "bytes=5-99"})).body == body[5:100]
            assert (await client.request("GET", target, {"Range": "bytes=-7"})).body == body[-7:]
            assert (await client.request("HEAD", target)).headers["Content-Length"] == str(len(body))
        assert (await client.request("GET", "/small", {"If-None-Match": tag})).status == 304
    assert (answered(warm) - before, len(warm.relay.seen) - asked) == (9, 0)


async def test_what_is_not_whole_and_fresh(start: StartProxy, s3: S3, clock: WallClock) -> None:
    """Unknown, partial, stale and uncacheable objects take the ordinary path."""
    proxy = await start(freshness={"default_ttl": "10s", "stale_while_revalidate": 0})
    s3.put("part", LARGE)
    s3.put("stale", SMALL)
    s3.put("never", SMALL, CacheControl="no-store")
    await proxy.get("/part", Range="bytes=0-9")
    await proxy.get("/stale")
    clock.advance(10)
    for target in ("/none", "/part", "/stale", "/never", "/never"):
        await proxy.get(target, Range="bytes=0-9")
    assert answered(proxy) == 0
    await proxy.get("/stale")
    assert answered(proxy) == 1


@pytest.mark.parametrize("server", [{"fast_path": False}, {"timing": True}])
async def test_off(start: StartProxy, s3: S3, server: dict[str, bool]) -> None:
    """The fast path can be turned off, and is off if responses have Server-Timing."""
    proxy = await warmed(await start(server=server), s3)
    assert not proxy.app.fast_path.is_on
    assert (await proxy.get("/small")).body == SMALL


async def test_without_memory(start: StartProxy, s3: S3) -> None:
    """With `cache.memory: 0` small objects come from their files, also on the fast path."""
    proxy = await warmed(await start(cache={"memory": 0}), s3)
    before = answered(proxy)
    assert (await proxy.get("/small")).body == SMALL
    assert (await proxy.get("/small", Range="bytes=1-")).body == SMALL[1:]
    assert answered(proxy) == before + 2


# --- order -----------------------------------------------------------------------------------------------------


async def test_pipelined(warm: Proxy) -> None:
    """Requests in one segment get their responses in order, whichever path each takes."""
    others = (message("GET", "/none"), message("GET", "/small", {"Range": "bytes=0-1,5-6"}), message("HEAD", "/large"))
    async with warm.connection() as client:
        await client.send(GET + others[0] + GET + others[1] + GET + others[2] + GET)
        statuses = [(await client.response("HEAD" if n == 5 else "GET")).status for n in range(7)]
    assert statuses == [200, 404, 200, 206, 200, 200, 200]


async def test_behind_a_miss(warm: Proxy, s3: S3) -> None:
    """A hit behind a request on the ordinary path gets its response after that one's."""
    s3.put("cold", LARGE[:BLOCK])
    reached, gate = asyncio.Event(), asyncio.Event()

    async def wait(_: Seen) -> None:
        reached.set()
        await gate.wait()

    warm.relay.on_request = wait
    async with warm.connection() as client:
        await client.send(message("GET", "/cold"))
        await reached.wait()
        await client.send(GET)
        gate.set()
        assert (await client.response()).body == LARGE[:BLOCK]
        assert (await client.response()).body == SMALL


async def test_split_anywhere(warm: Proxy) -> None:
    """A head in two segments, cut at any byte, gets one response. Then the fast path goes on."""
    async with warm.connection() as client:
        for cut in range(1, len(GET)):
            await client.send(GET[:cut])
            await asyncio.sleep(0)
            await client.send(GET[cut:])
            assert (await client.response()).body == SMALL
        before = answered(warm)
        assert (await client.request("GET", "/small")).body == SMALL
        assert answered(warm) == before + 1


async def test_taking_turns(warm: Proxy) -> None:
    """Both paths serve one connection in turn, also with uploads in between."""
    async with warm.connection() as client:
        for number in range(3):
            body = b"new %d" % number
            assert (await client.request("PUT", f"/new-{number}", body=body)).status == 201
            assert (await client.request("GET", "/small")).body == SMALL
            assert (await client.request("GET", f"/new-{number}")).body == body
            assert (await client.request("GET", "/large")).body == LARGE


async def test_held_behind_a_long_answer(warm: Proxy) -> None:
    """A request behind a response that is still being sent waits for its end, and none is lost."""
    async with unread(warm) as client:
        await client.send(GET + message("GET", "/none"))
        assert await client.reader.readexactly(len(LARGE)) == LARGE
        assert (await client.response()).body == SMALL
        assert (await client.response()).status == 404


async def test_held_requests_are_bounded(warm: Proxy) -> None:
    """The proxy soon stops to read from a client that sends without reading (I19). It gets all its responses later."""
    async with unread(warm) as client:
        (connection,) = sending(warm)
        request = message("GET", "/small", {"X-Padding": "x" * 2000})
        count = 20 * MAX_HELD_BYTES // len(request)
        client.writer.write(request * count)  # more than the kernel holds as well
        await until(lambda: connection.transport is not None and not connection.transport.is_reading())
        assert len(connection._held) < 2 * MAX_HELD_BYTES + (1 << 18)
        assert await client.reader.readexactly(len(LARGE)) == LARGE
        for _ in range(count):
            assert (await client.response()).body == SMALL


async def test_unread_answers_are_bounded(warm: Proxy, s3: S3) -> None:
    """A client that sends requests and never reads costs one connection's buffer and one response (I19)."""
    body = pattern(60_000)
    s3.put("medium", body)
    await warm.get("/medium")
    await warm.settled()
    request = message("GET", "/medium")
    async with narrow(warm) as client:
        before, sent, most = answered(warm), 0, 0
        while answered(warm) == before + sent:
            assert sent < 200
            sent += 1
            await client.send(request)
            with contextlib.suppress(AssertionError):
                await until(functools.partial(has_answered, warm, before + sent), within=0.2)
            (connection,) = connections(warm)
            assert connection.transport is not None
            most = max(most, connection.transport.get_write_buffer_size())
        assert most < 2 * len(body) + 2000, "one answer of each path"
        for _ in range(sent):
            assert (await client.response()).body == body


async def test_slow_client(warm: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow client's response continues in a task at the next byte, and has one line in the log."""
    monkeypatch.setattr(sendfile, "MAX_BURST_S", 0.05)
    async with unread(warm) as client:
        (connection,) = sending(warm)
        assert isinstance(connection._sending, SendfileBurst)
        await until(lambda: isinstance(connection._sending, asyncio.Task))
        assert await client.reader.readexactly(len(LARGE)) == LARGE
        assert (await client.request("GET", "/small")).body == SMALL
    lines = [line for line in warm.log if line["path"] == "/large"]
    assert [(line["status"], line["sent"]) for line in lines[1:]] == [(200, len(LARGE))]


async def test_cold_in_the_middle(warm: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are not in memory are read by a thread, at any point of a response that began on the fast path."""
    cold = {3 << 19, 9 << 19}
    brought: list[int] = []
    real = page_cache.read_in

    def read_in(fd: int, span: Span) -> None:
        brought.append(span.start)
        cold.difference_update([at for at in cold if span.start <= at < span.stop])
        real(fd, span)

    def is_resident(_: int, span: Span) -> bool:
        return not any(span.start <= at < span.stop for at in cold)

    monkeypatch.setattr(page_cache, "read_in", read_in)
    monkeypatch.setattr(page_cache, "is_resident", is_resident)
    before = answered(warm)
    assert (await warm.get("/large")).body == LARGE
    assert answered(warm) == before + 1
    assert not cold
    assert len(brought) >= 2


async def test_residency_is_asked_again(warm: Proxy, s3: S3, clock: WallClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is asked about a whole object once in a while, not for each hit.

    The interval goes by a monotonic clock.
    """
    loop = asyncio.get_running_loop()
    real, shift = loop.time, 0.0
    asked: list[int] = []
    monkeypatch.setattr(loop, "time", lambda: real() + shift)

    def is_resident(fd: int, _: Span) -> bool:
        asked.append(fd)
        return True

    monkeypatch.setattr(page_cache, "is_resident", is_resident)
    monkeypatch.setattr(fast_connection, "RESIDENT_S", 600.0)  # a busy machine takes longer than 0.1 s
    size = 3 * BLOCK  # within one turn
    s3.put("medium", LARGE[:size])
    await warm.get("/medium")
    await warm.settled()
    asked.clear()
    async with warm.connection() as client:
        for advance, wall, found in ((0.0, 0.0, 1), (0.0, 0.0, 1), (600.0, -3600.0, 2), (0.0, 0.0, 2)):
            shift += advance
            clock.jump(wall)
            assert (await client.request("GET", "/medium")).body == LARGE[:size]
            assert len(asked) == found


@pytest.mark.parametrize("server", [{}, {"fast_path": False}])
async def test_no_descriptor_is_left(
    start: StartProxy, s3: S3, server: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a free descriptor a file's response is not cut, and nothing leaks (I1, I12)."""
    proxy = await warmed(await start(server=server), s3)

    def no_dup(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "dup", no_dup)
        async with narrow(proxy) as client:
            await client.send(message("GET", "/large"))
            await client.head()
            assert await client.reader.readexactly(len(LARGE)) == LARGE
            assert (await client.request("GET", "/small")).body == SMALL
    assert (await proxy.get("/large")).body == LARGE
    await until(lambda: repr(proxy.app.cache_assembly.entries).endswith("0 pinned>"))


# --- clients that leave ----------------------------------------------------------------------------------------


async def test_client_leaves(warm: Proxy) -> None:
    """If a client leaves a long response, the log has the bytes sent to it, and nothing leaks (I12)."""
    tasks, descriptors = len(asyncio.all_tasks()), descriptors_open()
    async with unread(warm) as client:
        client.abort()
        await until(lambda: not connections(warm))
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    await until(lambda: descriptors_open() <= descriptors)
    line = warm.log[-1]
    assert (line["status"], line["path"]) == (499, "/large")
    assert 0 < line["sent"] < len(LARGE)
    assert repr(warm.app.cache_assembly.entries).endswith("0 pinned>")


async def test_truncated_file(warm: Proxy) -> None:
    """A cached file that ends early during a response cuts it, and the response never ends cleanly short (I3)."""
    large = max(warm.files, key=lambda file: file.stat().st_size)
    async with unread(warm) as client:
        os.truncate(large, 90 * BLOCK)
        body = await client.rest()
        assert len(body) < len(LARGE)
        assert body == LARGE[: len(body)]
    await until(lambda: warm.log[-1]["path"] == "/large")
    assert "early" in warm.log[-1]["fault"]


# --- the cache changes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["put", "delete", "purge", "soft"])
async def test_read_your_writes(warm: Proxy, s3: S3, how: str) -> None:
    """After the response to a write or purge, no older version is sent (I5, I6)."""
    async with warm.connection() as client:
        assert (await client.request("GET", "/small")).body == SMALL
        match how:
            case "put":
                await client.request("PUT", "/small", body=b"new")
            case "delete":
                await client.request("DELETE", "/small")
            case "purge":
                s3.put("small", b"new")
                await warm.admin("POST", "/api/v1/purge", b'{"paths": ["/small"]}')
            case _:
                s3.put("small", b"new")
                await warm.admin("POST", "/api/v1/purge", b'{"prefix": "/", "soft": true}')
        found = await client.request("GET", "/small")
    assert (found.status, found.body) == (404, found.body) if how == "delete" else (found.body == b"new")


async def test_absence_ends_with_an_upload(start: StartProxy, s3: S3) -> None:
    """A site's first candidate, absent so far, is served as soon as it is stored, although the second is a hit (I5)."""
    site = {"try_extensions": [".html"]}
    mounts = [{"path": "/", "bucket": s3.bucket, "methods": ["GET", "PUT"], "site": site}]
    proxy = await start(mounts=mounts)
    s3.put("about.html", b"second")
    for _ in range(3):
        assert (await proxy.get("/about")).body == b"second"
    assert answered(proxy) > 0
    await proxy.request("PUT", "/about", body=b"first")
    assert (await proxy.get("/about")).body == b"first"


async def test_purged_under_a_long_answer(warm: Proxy, s3: S3) -> None:
    """A response ends with the version that it began with (I1, I18), and the next one has the new version."""
    async with unread(warm) as client:
        s3.put("large", b"new")
        assert (await warm.admin("POST", "/api/v1/purge", b'{"paths": ["/large"]}')).json() == {"purged": 1}
        assert (await warm.get("/large")).body == b"new"
        assert await client.reader.readexactly(len(LARGE)) == LARGE
        assert (await client.request("GET", "/large")).body == b"new"
    await until(lambda: len(warm.files) == 2)


async def test_cold_file_is_read_by_a_thread(warm: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are not in memory are read by a thread before they are sent, so that the loop does not wait for a
    disk.
    """
    brought: list[str] = []
    real = page_cache.read_in

    def read_in(fd: int, span: object) -> None:
        brought.append(threading.current_thread().name)
        cold.discard(span)
        real(fd, span)  # type: ignore[arg-type]

    cold: set[object] = set()

    def is_resident(_: int, span: object) -> bool:
        if not brought:
            cold.add(span)
        return span not in cold

    monkeypatch.setattr(page_cache, "read_in", read_in)
    monkeypatch.setattr(page_cache, "is_resident", is_resident)
    before = answered(warm)
    assert (await warm.get("/large")).body == LARGE
    assert answered(warm) == before, "the fast path does not wait"
    assert brought
    assert all(name.startswith("disk-read") for name in brought)


# --- time ------------------------------------------------------------------------------------------------------


async def test_time_goes_on(start: StartProxy, s3: S3, clock: WallClock) -> None:
    """Age and ttl advance with time, even if the wall clock is set back.

    At the end of its lifetime an object is revalidated.
    """
    proxy = await start(freshness={"default_ttl": "100s", "stale_while_revalidate": "50s"})
    s3.put("x", SMALL)
    await proxy.get("/x")
    await proxy.settled()

    async def told() -> tuple[str, str]:
        found = await proxy.get("/x")
        return found.headers["Age"], found.cache_status

    assert await told() == ("0", "hit; ttl=100")
    clock.advance(0.5)
    assert await told() == ("0", "hit; ttl=99")
    clock.advance(41)
    assert await told() == ("41", "hit; ttl=58")
    clock.jump(-30)
    assert await told() == ("41", "hit; ttl=58")
    clock.advance(30)
    assert await told() == ("71", "hit; ttl=28")
    before = answered(proxy)
    clock.advance(28.5)
    assert await told() == ("100", 'hit; ttl=0; detail="stale-while-revalidate"')
    assert answered(proxy) == before


async def test_idle_timer(start: StartProxy, s3: S3, clock: WallClock) -> None:
    """Each hit restarts the idle timer."""
    proxy = await start(cache={"idle_timeout": "60s"}, freshness={"default_ttl": "1d"})
    s3.put("x", SMALL)
    await proxy.get("/x")
    for _ in range(4):
        clock.advance(50)
        assert (await proxy.get("/x")).cache_status.startswith("hit")
        await proxy.step()
    assert answered(proxy) == 4
    clock.advance(61)
    await proxy.step()
    assert proxy.files == []
    assert (await proxy.get("/x")).cache_status.startswith("fwd=miss")


def keep_alive_timer(connection: FastConnection) -> None:
    """Let aiohttp's timer of the connection fire."""
    connection._process_keepalive()


async def test_keep_alive(warm: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keep-alive timer closes an idle connection, but none with a response under way or a recent request."""
    loop = asyncio.get_running_loop()
    real, shift = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + shift)
    async with unread(warm) as client:
        (connection,) = sending(warm)
        shift = 100.0
        keep_alive_timer(connection)
        assert await client.reader.readexactly(len(LARGE)) == LARGE
        assert (await client.request("GET", "/small")).body == SMALL
        keep_alive_timer(connection)
        assert (await client.request("GET", "/small")).body == SMALL
        shift = 200.0
        keep_alive_timer(connection)
        assert await client.rest() == b""


async def test_head_deadline(warm: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hit ends the deadline of its own head, and the next head has a new one (I20)."""
    monkeypatch.setattr(ordinary, "HEAD_TIMEOUT_S", 0.3)
    async with warm.connection() as client:
        assert (await client.request("GET", "/small")).body == SMALL
        (connection,) = connections(warm)
        assert connection._head_timer is None
        await client.send(GET[:20])
        assert await client.rest() == b""


async def test_stop_waits(proxy: Proxy, s3: S3) -> None:
    """A stop lets a long response end. A further request on its connection gets a response that says it is the last."""
    await warmed(proxy, s3)
    async with unread(proxy) as client:
        stopping = asyncio.create_task(proxy.stop())
        await until(lambda: proxy.app.connection_limit.is_draining)
        await client.send(GET)
        assert await client.reader.readexactly(len(LARGE)) == LARGE
        last = await client.response()
        assert (last.body, last.headers["Connection"]) == (SMALL, "close")
        assert await client.rest() == b""
        await stopping


async def test_file_in_memory_survives_its_file(warm: Proxy) -> None:
    """A small hot object is sent from memory, whatever happens to its file."""
    assert (await fetch(warm.address, "/small")).body == SMALL
    small = min(warm.files, key=lambda file: file.stat().st_size)
    os.truncate(small, 0)
    assert (await fetch(warm.address, "/small")).body == SMALL
